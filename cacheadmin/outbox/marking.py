"""Rows that this process has delivered, marked done in batches; and rows that have been done for long, deleted."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Final

from django.db import connections

from cacheadmin.outbox import rows, waking

logger = logging.getLogger("cacheadmin")

PRUNE_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 1.0
"""When to look again after rows that could not be marked."""

_lock = threading.Lock()
_done: dict[tuple[str, str], list[int]] = {}
"""(database alias, identities as sorted text) -> ids of rows that are delivered and not marked yet."""
_identities: dict[str, dict[str, str]] = {}
_pruned_at = float("-inf")


def _forked() -> None:
    """Leave to the parent what it delivered, and its lock to whoever holds it there."""
    global _lock
    _lock = threading.Lock()
    _done.clear()


os.register_at_fork(after_in_child=_forked)


def delivered(alias: str, row: int, identities: dict[str, str]) -> None:
    """Note that a row was delivered; it is marked with the others of this moment."""
    text = repr(sorted(identities.items()))
    with _lock:
        _identities[text] = identities
        _done.setdefault((alias, text), []).append(row)
    if waking.has_thread(connections[alias]):
        waking.wake(0.0)
    else:
        flush(alias)


def flush(only: str | None = None) -> None:
    """Mark what this process has delivered. Cost: one UPDATE a database, uncounted; once a minute a DELETE."""
    global _pruned_at
    with _lock:
        taken = {key: ids for key, ids in _done.items() if only is None or key[0] == only}
        for key in taken:
            del _done[key]
    for (alias, text), ids in taken.items():
        connection = connections[alias]
        try:
            rows.mark_done(connection, ids, _identities[text])
            if time.monotonic() - _pruned_at > PRUNE_SECONDS:
                _pruned_at = time.monotonic()
                rows.prune(connection)
        except Exception as error:  # noqa: BLE001 - a row that stays pending is delivered once more, which is harmless
            logger.info("Delivered intents could not be marked done: %s", error)
            waking.wake(AGAIN_SECONDS)


def forget() -> None:
    """Leave to relays what was delivered and is not marked yet (tests)."""
    with _lock:
        _done.clear()
