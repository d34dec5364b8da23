"""What happens to rows later: marked done in batches, delivered again while they wait, deleted when they are old.

A thread does it, started when there is first something to do, one a process. While tests run, and for SQLite in memory,
there is no thread: rows are marked at once and `relay_once` is called by hand.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from cacheadmin import transactions
from cacheadmin.conf import config, in_tests
from cacheadmin.models import Intent
from cacheadmin.outbox import delivery, held, rows
from cacheadmin.outbox.rows import Delivery, Waiting
from cacheadmin.targets import Target
from cacheadmin.transactions import own_sql

logger = logging.getLogger("cacheadmin")

GATHER_SECONDS: Final = 0.1
"""How long done rows are gathered before they are marked: well within the 500 ms after which relays take them."""
RELAY_SECONDS: Final = 1.0
OWN_SECONDS: Final = rows.DUE_AFTER.total_seconds() + 0.05
PATIENCE_SECONDS: Final = 0.3
LONGEST_PAUSE_SECONDS: Final = 15.0
PRUNE_SECONDS: Final = 60.0
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


# --- one pass -------------------------------------------------------------------------------------------------------


def relay_once(limit: int = 500) -> RelayReport:
    """
    Deliver what waits in any database, and what this process remembers. Safe to run anywhere, at any time, twice.

    Cost:    a database: one query; with rows one delivery for each set of aliases they name, and one UPDATE.
    """
    with own_sql.quiet():
        flush()
        return _relay(list(connections), limit)


def _relay(aliases: list[str], limit: int = 500) -> RelayReport:
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
    result = deliver(Delivery(targets, told.rules, "relay", names, warm)) if targets else None
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
        wake(at_once=True)
    return revived


# --- marking done ---------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_done: dict[tuple[str, str], list[int]] = {}
"""(database alias, identities as sorted text) -> ids of rows that are delivered and not marked yet."""
_identities: dict[str, dict[str, str]] = {}
_pruned_at = float("-inf")


def delivered(alias: str, row: int, identities: dict[str, str]) -> None:
    """Note that a row was delivered; it is marked with the others of this moment."""
    text = repr(sorted(identities.items()))
    with _lock:
        _identities[text] = identities
        _done.setdefault((alias, text), []).append(row)
    if _has_thread(connections[alias]):
        _thread.wake(0.0)
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
            wake(RELAY_SECONDS)


# --- the thread -----------------------------------------------------------------------------------------------------


def _has_thread(connection: Any) -> bool:
    if in_tests():
        return False
    return not (connection.vendor == "sqlite" and connection.is_in_memory_db())


def _let_others_finish() -> None:
    """
    Where SQLite's transactions begin without a lock, wait until this process has none open, 300 ms at most.

    One that has read and then writes is refused if anybody has written since, as marking rows would.
    """
    if not any(_is_deferred(connections[alias]) for alias in connections):
        return
    deadline = time.monotonic() + PATIENCE_SECONDS
    while transactions.any_begun() and time.monotonic() < deadline:
        time.sleep(0.002)


def _is_deferred(connection: Any) -> bool:
    if connection.vendor != "sqlite" or not _has_thread(connection):
        return False
    mode = connection.settings_dict.get("OPTIONS", {}).get("transaction_mode")
    return str(mode or "DEFERRED").upper() == "DEFERRED"


class Relay:
    """The thread of this process, started when first woken."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._at = float("inf")
        """When to look again (time.monotonic) without being woken."""
        self._until = float("-inf")
        """The latest moment soon at which somebody wants it to look."""
        self._later: set[float] = set()
        """Moments that are not soon: what is due before them does not wait for them."""
        self._at_once = False

    def wake(self, in_seconds: float, *, at_once: bool = False) -> None:
        """Look after what waits, now or in some seconds; `at_once` also if it has just been looked after."""
        with self._starting:
            if self._pid != os.getpid() or self._thread is None or not self._thread.is_alive():
                self._pid, self._event = os.getpid(), threading.Event()
                self._at, self._later = float("inf"), set()
                self._thread = threading.Thread(target=self._run, name="cacheadmin-relay", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:  # the process ends, or may have no more; the next wake tries again
                    logger.warning("What waits is left to other processes' relays: %s", error)
            at = time.monotonic() + in_seconds
            if in_seconds > OWN_SECONDS:
                self._later.add(math.ceil(at / OWN_SECONDS) * OWN_SECONDS)  # so that there are never many
            elif in_seconds:
                self._at, self._until = min(self._at, at), max(self._until, at)
            self._at_once |= at_once
        self._event.set()

    def forked(self) -> None:
        """Leave the lock to the parent: whoever holds it is not in this process. `wake` notices the rest."""
        self._starting = threading.Lock()

    def stop(self, patience: float | None = None) -> None:
        """End the thread after what it does now, waiting so many seconds at most; the next `wake` starts another."""
        with self._starting:
            thread, self._thread = self._thread, None
        self._event.set()
        if thread is not None:
            thread.join(patience)

    def _run(self) -> None:
        pause, relayed_at = RELAY_SECONDS, float("-inf")
        while True:
            is_due = self._wait()
            if self._thread is not threading.current_thread():
                return
            try:
                _let_others_finish()
                flush()
                if held.renew(self._seen()):
                    self._later.add(time.monotonic() + held.RENEW_SECONDS)
                at_once, self._at_once = self._at_once or is_due, False
                if not at_once and time.monotonic() - relayed_at < RELAY_SECONDS:
                    self._at = min(self._at, relayed_at + RELAY_SECONDS)
                    continue
                relayed_at = time.monotonic()
                report = self._relay()
                if self._until > relayed_at:
                    self._at = min(self._at, self._until)  # what was written since is not due yet
            except Exception:
                logger.exception("The outbox cannot be relayed now.")
                connections.close_all()
                report = RelayReport(waiting=1)
            if report.waiting:
                self._at = min(self._at, time.monotonic() + pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                pause = RELAY_SECONDS

    @staticmethod
    def _seen() -> list[str]:
        """Return which databases this thread can see: one in memory is another one in each thread."""
        return [alias for alias in connections if _has_thread(connections[alias])]

    @classmethod
    def _relay(cls) -> RelayReport:
        return _relay(cls._seen())

    def _left(self) -> float:
        """Return how many seconds are left until something is due."""
        return min(self._at, *tuple(self._later)) - time.monotonic() if self._later else self._at - time.monotonic()

    def _wait(self) -> bool:
        """Sleep until woken or until something is due, and say whether it is; an idle thread holds no connection."""
        left = self._left()
        if left > 0 and not self._event.wait(min(left, RELAY_SECONDS)):
            left = self._left()
            if left > 0:
                connections.close_all()
                self._event.wait(None if left == float("inf") else left)
        is_due = self._left() <= 0
        if is_due:
            now = time.monotonic()
            self._at = float("inf") if now >= self._at else self._at
            self._later.difference_update([at for at in tuple(self._later) if now >= at])
        self._event.clear()
        time.sleep(GATHER_SECONDS)
        return is_due


_thread = Relay()


def wake(in_seconds: float = 0.0, *, at_once: bool = False) -> None:
    """Let this process' relay look after what waits, unless tests run."""
    if not in_tests():
        # Rows are left to their writer at first: those of this moment are looked after a little later.
        _thread.wake(in_seconds or OWN_SECONDS, at_once=at_once)


def leave() -> None:
    """Mark what this process has delivered, before it ends: else others would deliver it once more."""
    _thread.stop(PATIENCE_SECONDS)
    flush()


def reset() -> None:
    """Forget what is remembered in this process (tests)."""
    with _lock:
        _done.clear()
    delivery.forget_remembered()


def _forked() -> None:
    """Leave to the parent what it delivered, and its locks to whoever holds them there."""
    global _lock
    _lock = threading.Lock()
    _done.clear()
    _thread.forked()


os.register_at_fork(after_in_child=_forked)
delivery.set_relay(wake, delivered)
atexit.register(leave)
