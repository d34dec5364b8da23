"""The thread that looks after what waits: one a process, started when there is first something to do.

While tests run, and for SQLite in memory, there is none: rows are marked at once and `relay_once` is called by hand.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from typing import Any, Final

from django.db import connections

from cacheadmin import transactions
from cacheadmin.outbox import held, marking, passes, rows, waking
from cacheadmin.outbox.passes import RelayReport

logger = logging.getLogger("cacheadmin")

GATHER_SECONDS: Final = 0.1
"""How long done rows are gathered before they are marked: well within the 500 ms after which relays take them."""
RELAY_SECONDS: Final = 1.0
OWN_SECONDS: Final = rows.DUE_AFTER.total_seconds() + 0.05
PATIENCE_SECONDS: Final = 0.3
LONGEST_PAUSE_SECONDS: Final = 15.0


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
    if connection.vendor != "sqlite" or not waking.has_thread(connection):
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

    def wake(self, in_seconds: float | None, *, at_once: bool = False) -> None:
        """
        Look after what waits, now or in some seconds; `at_once` also if it has just been looked after.

        None: once what was written now is no longer its writer's.
        """
        in_seconds = OWN_SECONDS if in_seconds is None else in_seconds
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
                marking.flush()
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
        """Return which databases this thread can see."""
        return [alias for alias in connections if waking.has_thread(connections[alias])]

    @classmethod
    def _relay(cls) -> RelayReport:
        return passes.relay(cls._seen())

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


def leave() -> None:
    """Mark what this process has delivered, before it ends: else others would deliver it once more."""
    _thread.stop(PATIENCE_SECONDS)
    marking.flush()


os.register_at_fork(after_in_child=_thread.forked)
waking.set_thread(_thread)
atexit.register(leave)
