"""From what a transaction changed to one delivery: an intent row before its COMMIT, Redis right after it."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from cacheadmin.outbox import rows
from cacheadmin.outbox.rows import Delivery
from cacheadmin.rules import Change, Event, FiredRule
from cacheadmin.stats import Mark, recorder
from cacheadmin.targets import ALL, Target
from cacheadmin.transactions import Pending, is_alone, own_sql

logger = logging.getLogger("cacheadmin")

AGAIN_AFTER: Final = dt.timedelta(seconds=2)
"""When the targets of an edited rule are dropped once more: until then others may have written under the old rules."""

LONGEST_NAME: Final = 200

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


# --- gathering ------------------------------------------------------------------------------------------------------


def gather(pending: Pending, connection: BaseDatabaseWrapper | None = None) -> Delivery | None:
    """
    Return all that a transaction asks for as one delivery; None if it asks for nothing.

    Raises:  DatabaseError; what else goes wrong, in a field's or a tenancy's code, drops everything.
    """
    try:
        if not pending.explicit and len(pending.changes) == 1:
            [(change, found)] = pending.changes.items()
            if isinstance(change, tuple) and found is not None and len(found) == 1:
                [row] = found.values()
                return _of_one_row(change, row)
        return _gather(pending, connection)
    except DatabaseError:
        raise
    except Exception:
        logger.exception("What a transaction has to invalidate is not known; everything is dropped.")
        return Delivery((Target("tenant", tenant=ALL),), source="rule")


MOST_KNOWN: Final = 4096

_PLAIN: Final = frozenset({int, str, uuid.UUID, type(None)})
"""Types of which equal values are the same value, written the same way."""


def _of_one_row(change: tuple[str, Event, frozenset[str] | None], row: Mapping[str, Any]) -> Delivery | None:
    """Return what one row's write asks for: remembered as long as the rules are, for it is the same each time."""
    snapshot = rules.for_writes()
    if not _PLAIN.issuperset(map(type, row.values())):
        return _by_rules(rules.targets_for((Change(*change, (row,)),), snapshot))
    known: dict[Any, Delivery | None] = snapshot.memo.setdefault(("deliveries",), {})
    key = (change, *row.items())
    try:
        return known[key]
    except KeyError:
        if len(known) >= MOST_KNOWN:
            known.clear()
        found = known[key] = _by_rules(rules.targets_for((Change(*change, (row,)),), snapshot))
        return found


def _by_rules(fired: Sequence[FiredRule]) -> Delivery | None:
    if not fired:
        return None
    targets = dict.fromkeys(target for rule in fired for target in rule.targets)
    names = tuple(dict.fromkeys(rule.name for rule in fired))
    return Delivery(tuple(targets), names, "rule", _text(names), tuple(rule.name for rule in fired if rule.warm))


def _text(names: Iterable[str]) -> str:
    text = ", ".join(dict.fromkeys(filter(None, names)))
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _gather(pending: Pending, connection: BaseDatabaseWrapper | None) -> Delivery | None:
    targets: dict[Target, None] = {}
    fired = _fired(pending)
    for rule in fired:
        targets.update(dict.fromkeys(rule.targets))
    names, source = [rule.name for rule in fired], "rule" if fired else ""
    edited = _edited(pending, connection)
    if edited:
        targets.update(dict.fromkeys(edited.targets))
        names, source = [*names, *edited.rules], "rule"
    for (who, name), asked in pending.explicit.items():
        targets.update(asked)
        names.append(name)
        # Rules trust the list of tenants and look for no plain keys; who invalidates by hand must get no less for that.
        if not source or any(target.kind != "key" for target in asked):
            source = who
    if not targets:
        return None
    rule_names = tuple(dict.fromkeys([*(r.name for r in fired), *(edited.rules if edited else ())]))
    return Delivery(tuple(targets), rule_names, source, _text(names), tuple(r.name for r in fired if r.warm))


def _fired(pending: Pending) -> tuple[FiredRule, ...]:
    changes = [
        Change(key[0], key[1], key[2], None if found is None else tuple(found.values()))
        for key, found in pending.changes.items()
        if isinstance(key, tuple)
    ]
    return rules.targets_for(changes, rules.for_writes()) if changes else ()


def _edited(pending: Pending, connection: BaseDatabaseWrapper | None) -> Delivery | None:
    """What rules that are new or changed can drop: writes may have been missed before they were known."""
    if rules.EDITED not in pending.changes:
        return None
    found = rules.edited(pending.changes[rules.EDITED], connection)
    if not found:
        return None
    return Delivery(tuple(rules.targets_of_rules(found, ALL)), tuple(c.rule.name for c in found), "rule")


# --- at the end of a transaction ------------------------------------------------------------------------------------


def reconsider(pending: Pending) -> None:
    """Add what was written while other rules were in force than now: those of now may want to know of it."""
    now = rules.for_writes()
    tables = [table for table, then in pending.tables.items() if then is not now and then.rules != now.rules]
    if tables:
        touched = now.touched_by(None if "" in tables else tables)
        pending.changes.update({(label, event, None): None for label, event in touched})


def before_commit(connection: BaseDatabaseWrapper, pending: Pending) -> Receipt:
    """
    Write what has to be invalidated beside the data, in the same transaction.

    Raises:  DatabaseError, like any statement before a COMMIT; the transaction is rolled back then.
    """
    delivery = gather(pending, connection)
    if delivery is None or EMPTIED in pending.changes:
        return Receipt(delivery)
    if rules.EDITED in pending.changes and rows.keeps_rows(connection, ("durable", "on_failure")):
        edited = _edited(pending, connection)
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
    delivery = gather(pending) if receipt is None or receipt.is_held else receipt.delivery
    if rules.EDITED in pending.changes:
        wake(AGAIN_AFTER.total_seconds())
    if delivery is None:
        return
    result = deliver(delivery)
    is_done = result is not None and result.is_done
    if receipt is not None and receipt.row and is_done:
        delivered(receipt.alias, receipt.row, result.identities if result is not None else {})
    elif not is_done:
        if receipt is None or not receipt.row or receipt.delivery != delivery:
            remember(delivery)  # of what a held row has foreseen the rules may have changed meanwhile
        if receipt is not None and receipt.is_held:
            rows.change(connections[receipt.alias], [receipt.row], {"due": timezone.now()})
        wake()


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
        wake()
        return True
    with _lock:
        for target in delivery.targets:
            _remembered.setdefault(target, time.monotonic())
        if len(_remembered) > MOST_REMEMBERED:
            oldest = min(_remembered.values())
            _remembered.clear()
            _remembered[Target("tenant", tenant=ALL)] = oldest
    wake()
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


# --- to the relay, which stands below -------------------------------------------------------------------------------

_wake: Callable[[float], None] | None = None
_delivered: Callable[[str, int, dict[str, str]], None] | None = None


def set_relay(wake: Callable[[float], None], delivered: Callable[[str, int, dict[str, str]], None]) -> None:
    """Set who is woken when something waits, and who marks rows done."""
    global _wake, _delivered
    _wake, _delivered = wake, delivered


def wake(in_seconds: float = 0.0) -> None:
    """Let the relay look after what waits."""
    if _wake is not None:
        _wake(in_seconds)


def delivered(alias: str, row: int, identities: dict[str, str]) -> None:
    """Note that a row was delivered."""
    if _delivered is not None:
        _delivered(alias, row, identities)
