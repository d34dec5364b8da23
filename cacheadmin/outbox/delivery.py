"""What is done at the end of a transaction: an intent row before its COMMIT, Redis right after it."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db import DatabaseError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from cacheadmin import invalidation, rules
from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule
from cacheadmin.invalidation import Invalidation
from cacheadmin.models import Intent
from cacheadmin.outbox import gathering, marking, rows, waking
from cacheadmin.outbox.rows import Delivery
from cacheadmin.stats import Mark, recorder
from cacheadmin.targets import ALL, Target
from cacheadmin.transactions import Pending, is_alone, own_sql

logger = logging.getLogger("cacheadmin")

AGAIN_AFTER: Final = dt.timedelta(seconds=2)
"""When the targets of an edited rule are dropped once more: until then others may have written under the old rules."""

EMPTIED: Final = "outbox"
"""Key among the changes of a transaction that has written our own table by raw SQL: after `flush` it stays empty."""

Listener = Callable[[Delivery, Invalidation], None]
_listeners: list[Listener] = []


def on_delivered(listener: Listener) -> Listener:
    """Call `listener(delivery, invalidation)` after each delivery that followed a commit. Usable as a decorator."""
    _listeners.append(listener)
    return listener


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was found out and written before a COMMIT."""

    delivery: Delivery | None
    alias: str = ""
    """Database of the row; empty if there is none."""
    row: int = 0
    is_held: bool = False
    """Whether the row was written before the statement, and only foresees what it does."""


def before_commit(connection: BaseDatabaseWrapper, pending: Pending) -> Receipt:
    """
    Write what has to be invalidated beside the data, in the same transaction.

    Raises:  DatabaseError, like any statement before a COMMIT; the transaction is rolled back then.
    """
    delivery = gathering.gather(pending, connection)
    if delivery is None or EMPTIED in pending.changes:
        return Receipt(delivery)
    if rules.EDITED in pending.changes and rows.keeps_rows(connection, ("durable", "on_failure")):
        edited = gathering.edited(pending, connection)
        if edited is not None:
            rows.insert(connection, edited, AGAIN_AFTER)
    if not rows.keeps_rows(connection):
        return Receipt(delivery)
    if not pending.has_written:
        return _with_savepoint(connection, delivery)
    return Receipt(delivery, connection.alias, rows.insert(connection, delivery))


def _with_savepoint(connection: BaseDatabaseWrapper, delivery: Delivery) -> Receipt:
    """Try to write a row in a transaction that wrote nothing itself: it may be one that cannot write."""
    if not connection.features.uses_savepoints:
        return Receipt(delivery)
    try:
        with own_sql.savepoint(connection):
            return Receipt(delivery, connection.alias, rows.insert(connection, delivery))
    except DatabaseError as error:
        logger.info("An invalidation in a transaction that reads only is not kept in the database: %s", error)
        return Receipt(delivery)


def after_commit(pending: Pending, receipt: Receipt | None) -> None:
    """Deliver what is committed. What cannot be delivered waits, in its row or in memory."""
    if rules.EDITED in pending.changes:
        rules.forget()
        _mark(pending.changes[rules.EDITED])
    delivery = gathering.gather(pending) if receipt is None or receipt.is_held else receipt.delivery
    if rules.EDITED in pending.changes:
        waking.wake(AGAIN_AFTER.total_seconds())
    if delivery is None:
        return
    result = deliver(delivery)
    is_done = result is not None and result.is_done
    if receipt is not None and receipt.row and is_done:
        marking.delivered(receipt.alias, receipt.row, result.identities if result is not None else {})
    elif not is_done:
        if receipt is None or not receipt.row or receipt.delivery != delivery:
            remember(delivery)  # of what a held row has foreseen the rules may have changed meanwhile
        if receipt is not None and receipt.is_held:
            rows.change(connections[receipt.alias], [receipt.row], {"due": timezone.now()})
        waking.wake()


def _mark(before: rules.Snapshot) -> None:
    """Name the moment on the charts, if what is in force has changed."""
    try:
        names = rules.differences(before)
    except (DatabaseError, InvalidRule) as error:
        logger.info("Which rules were edited is not known: %s", error)
        return
    if names:
        recorder.mark(Mark("rule", ", ".join(names), time.time()))


def deliver(delivery: Delivery) -> Invalidation | None:
    """
    Invalidate now; what a rule names in an alias that is not configured holds nothing else up.

    Returns: what became of it, "failed" where such an alias is among it; None if nobody foresaw how it failed (logged).
    """
    known, aliases = delivery.targets, config().aliases
    unknown = [target for target in known if target.alias is not None and target.alias not in aliases]
    if unknown:
        known = tuple(target for target in known if target not in unknown)
    try:
        result = invalidation.deliver(known, source=delivery.source, name=delivery.name, quietly=True)
    except Exception:
        logger.exception("An invalidation failed: %s", ", ".join(map(str, known[:5])))
        return None
    if unknown and result.is_done:
        named = ", ".join(sorted({str(target.alias) for target in unknown}))
        logger.error("What a rule names in %s was not invalidated: no such cache alias is configured.", named)
        error = f"The cache alias {named} is not configured."
        return replace(result, state="failed", pending=tuple(unknown), error=error)
    if result.is_done:
        _tell(delivery, result)
    return result


def deliver_or_widen(delivery: Delivery) -> Invalidation | None:
    """Deliver or, if that fails in a way that nobody foresaw, all that the targets' tenants have. Returns: as there."""
    result = deliver(delivery)
    if result is not None:
        return result
    whole = tuple(dict.fromkeys(Target("tenant", "", target.tenant, target.alias) for target in delivery.targets))
    return deliver(replace(delivery, targets=whole))


def _tell(delivery: Delivery, result: Invalidation) -> None:
    for listener in _listeners:
        try:
            listener(delivery, result)
        except Exception:
            logger.exception("A listener failed after an invalidation.")


# --- what waits without a row ---------------------------------------------------------------------------------------

MOST_REMEMBERED: Final = 10_000

_lock = threading.Lock()
_remembered: dict[Target, float] = {}


def _forked() -> None:
    """Leave the lock to the parent. What waits is delivered by both: twice is harmless."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def remember(delivery: Delivery) -> bool:
    """
    Keep what could not be delivered: in a row where the settings and the database allow, else in memory.

    Returns: True; nothing is dropped while the process lives.
    """
    if config().outbox != "off" and _kept_in_a_row(delivery):
        waking.wake()
        return True
    with _lock:
        for target in delivery.targets:
            _remembered.setdefault(target, time.monotonic())
        if len(_remembered) > MOST_REMEMBERED:
            oldest = min(_remembered.values())
            _remembered.clear()
            _remembered[Target("tenant", tenant=ALL)] = oldest
    waking.wake()
    return True


def keep(result: Invalidation) -> bool:
    """Keep an explicit invalidation that could not be delivered."""
    return remember(Delivery(result.targets, (), result.source, result.name))


def _kept_in_a_row(delivery: Delivery) -> bool:
    try:
        connection: Any = connections[router.db_for_write(Intent)]
        if not is_alone(connection):
            return False  # it would be rolled back with the block; for real ones the row is written before the COMMIT
        if not rows.keeps_rows(connection, ("durable", "on_failure")):
            return False
        rows.insert(connection, delivery)
    except Exception as error:  # noqa: BLE001 - no database, or none allowed here: memory it is
        logger.warning("An invalidation that waits cannot be kept in the database: %s", error)
        return False
    return True


def remembered() -> tuple[Target, ...]:
    """Return what waits in memory."""
    with _lock:
        return tuple(_remembered)


def remembered_since() -> float:
    """Return how many seconds the oldest of it waits, 0.0 if there is nothing."""
    with _lock:
        return max(0.0, time.monotonic() - min(_remembered.values())) if _remembered else 0.0


def forget_remembered(targets: tuple[Target, ...] | None = None) -> None:
    """Drop what was delivered meanwhile, or everything."""
    with _lock:
        for target in tuple(_remembered) if targets is None else targets:
            _remembered.pop(target, None)
