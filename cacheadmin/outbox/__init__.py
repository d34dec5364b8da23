"""Invalidations that outlive a crash and an outage: written with the data, delivered after it, retried until done."""

from cacheadmin.outbox.delivery import (
    EMPTIED,
    after_commit,
    before_commit,
    keep,
    on_delivered,
    remembered_since,
)
from cacheadmin.outbox.gathering import reconsider
from cacheadmin.outbox.held import holding
from cacheadmin.outbox.passes import RelayReport, dead, pending, relay_once, reset, retry_dead
from cacheadmin.outbox.relay import leave
from cacheadmin.outbox.reopening import drain
from cacheadmin.outbox.rows import Delivery, Waiting, databases, keeps_rows
from cacheadmin.outbox.waking import wake

__all__ = [
    "EMPTIED",
    "Delivery",
    "RelayReport",
    "Waiting",
    "after_commit",
    "before_commit",
    "databases",
    "dead",
    "drain",
    "holding",
    "keep",
    "keeps_rows",
    "leave",
    "on_delivered",
    "pending",
    "reconsider",
    "relay_once",
    "remembered_since",
    "reset",
    "retry_dead",
    "wake",
]
