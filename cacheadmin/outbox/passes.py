"""One pass over what waits: rows are taken, delivered, and marked done, left waiting, or given up as dead.

Called by whoever looks after what waits: the process' thread, `manage.py cache_relay`, tests. When to look is none of
its business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from cacheadmin.conf import config
from cacheadmin.models import Intent
from cacheadmin.outbox import delivery, marking, rows, waking
from cacheadmin.outbox.rows import Delivery, Waiting
from cacheadmin.targets import Target
from cacheadmin.transactions import own_sql

logger = logging.getLogger("cacheadmin")

MOST_ATTEMPTS: Final = 20
"""Failures that nobody foresaw, of one row by itself, after which it is dead: some five minutes."""

_Row = tuple[int, int, Delivery, list[Target]]
"""Id (0 if the row is settled already), attempts so far, what it tells, and the targets that can be delivered."""


@dataclass(frozen=True, slots=True)
class RelayReport:
    """What one pass of the relay did, in rows (what waits in memory counts as one)."""

    delivered: int = 0
    waiting: int = 0
    dead: int = 0


def relay_once(limit: int = 500) -> RelayReport:
    """
    Deliver what waits in any database, and what this process remembers. Safe to run anywhere, at any time, twice.

    Cost:    a database: one query; with rows one delivery for each set of aliases they name, and one UPDATE.
    """
    with own_sql.quiet():
        marking.flush()
        return relay(list(connections), limit)


def relay(aliases: list[str], limit: int = 500) -> RelayReport:
    """Do the same in some databases, and mark nothing that was delivered before."""
    done, waiting, dead = _relay_memory()
    for alias in aliases:
        try:
            for mine in rows.databases([alias]):
                found = _relay_database(connections[mine], limit)
                done, waiting, dead = done + found.delivered, waiting + found.waiting, dead + found.dead
        except Exception:
            logger.exception("The outbox of database %r cannot be relayed now.", alias)
            waiting += 1
    return RelayReport(done, waiting, dead)


def _relay_memory() -> tuple[int, int, int]:
    targets = delivery.remembered()
    if not targets:
        return 0, 0, 0
    known, unknown = _by_configuration(targets)
    delivery.forget_remembered(tuple(unknown))
    result = delivery.deliver(Delivery(tuple(known), source="relay")) if known else None
    if known and (result is None or not result.is_done):
        return 0, 1, int(bool(unknown))
    delivery.forget_remembered(tuple(known))
    return int(bool(known)), 0, int(bool(unknown))


def _by_configuration(targets: tuple[Target, ...]) -> tuple[list[Target], list[Target]]:
    aliases = config().aliases
    known = [t for t in targets if t.alias is None or t.alias in aliases]
    return known, [t for t in targets if t not in known]


@contextmanager
def _locking(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """A transaction that keeps taken rows from other relays, where the database can leave out locked ones."""
    if connection.features.has_select_for_update_skip_locked:
        with own_sql.quiet(), transaction.atomic(using=connection.alias):
            yield
    else:
        yield


def _relay_database(connection: BaseDatabaseWrapper, limit: int) -> RelayReport:
    with _locking(connection):
        groups: dict[frozenset[str | None], list[_Row]] = {}
        done = waiting = dead = 0
        for pk, attempts, payload in rows.take(connection, limit):
            told = rows.read(payload)
            known, unknown = _by_configuration(told.targets)
            if unknown:
                aliases = ", ".join(sorted({str(t.alias) for t in unknown}))
                error = f"The cache alias {aliases} is not configured any more."
                rows.change(connection, [pk], {"state": Intent.State.DEAD, "error": error})
                dead += 1
            if known or not unknown:
                key = frozenset(t.alias for t in known)
                groups.setdefault(key, []).append((pk if not unknown else 0, attempts, told, known))
        # A server that is away holds up only the rows that name its alias.
        for group in groups.values():
            reports = [_deliver_rows(connection, group)]
            if reports == [None]:  # one row holds up no others
                reports = [_deliver_rows(connection, [row], is_last=True) for row in group]
            for report in filter(None, reports):
                done, waiting, dead = done + report.delivered, waiting + report.waiting, dead + report.dead
    return RelayReport(done, waiting, dead)


def _deliver_rows(connection: BaseDatabaseWrapper, group: list[_Row], *, is_last: bool = False) -> RelayReport | None:
    """
    Deliver rows at once and note in them what became of it.

    Returns: None if nobody foresaw how it failed, and it is not the last try of this pass.
    """
    ids = [pk for pk, *_ in group if pk]
    targets = tuple(dict.fromkeys(target for *_, known in group for target in known))
    told = group[0][2]
    names = told.name if len(group) == 1 else ""
    warm = tuple(dict.fromkeys(rule for _, _, d, _ in group for rule in d.warm))
    deliver = delivery.deliver_or_widen if is_last else delivery.deliver
    result = None
    if targets:
        # What is asked on the way, as the list of tenants is, may fail and must not take our transaction along.
        with own_sql.savepoint(connection) if connection.in_atomic_block else nullcontext():
            result = deliver(Delivery(targets, told.rules, "relay", names, warm))
    if not targets or (result is not None and result.is_done):
        rows.mark_done(connection, ids, result.identities if result else {})
        return RelayReport(delivered=len(ids))
    if result is None and not is_last:
        return None
    error = result.error if result is not None else "The delivery failed; see the log."
    attempts = max(attempts for _, attempts, *_ in group) + 1
    noted = {"attempts": attempts, "error": error[:2000]}
    if result is None and attempts >= MOST_ATTEMPTS:
        rows.change(connection, ids, noted | {"state": Intent.State.DEAD})
        return RelayReport(dead=len(ids))
    rows.change(connection, ids, noted)
    return RelayReport(waiting=len(ids))


def pending() -> Waiting:
    """Return what waits, in all databases and in memory. Cost: one query a database, uncounted."""
    found = [rows.overdue(connections[alias]) for alias in rows.databases()]
    memory = len(delivery.remembered())
    oldest = max([delivery.remembered_since(), *(w.oldest_seconds for w in found)])
    return Waiting(memory + sum(w.count for w in found), oldest)


def dead() -> int:
    """Return how many rows were given up, in all databases: their alias is not configured. Cost: as `pending`."""
    return sum(rows.dead(connections[alias]) for alias in rows.databases())


def retry_dead() -> int:
    """
    Let rows that were given up be delivered after all, for example once their alias is configured again.

    Those whose alias is still missing are given up again by the next pass.
    Cost:    one statement a database, uncounted; the relay is woken.
    Returns: how many there were.
    """
    revived = sum(rows.revive(connections[alias]) for alias in rows.databases())
    if revived:
        waking.wake(at_once=True)
    return revived


def reset() -> None:
    """Forget what is remembered in this process (tests)."""
    marking.forget()
    delivery.forget_remembered()
