"""What an outage may cost those who read, and how long what waits may take: the outage measures, this judges."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from faults import Outcome

ENOUGH_OUTAGES: Final = 20
"""Outages from which percentiles mean something: a run of fewer, as CI's, is held to `MOST_LAG_MS` at each."""
ENOUGH_READS: Final = 500
"""Reads whose median is judged: fewer than these may all fall into one moment in which the machine had other work."""
TIMEOUT_MS: Final = 100
MOST_ADDED_MS: Final = 1.0
MOST_LAG_MS: Final = 5_000
"""At any outage."""
MOST_LAG_P99_MS: Final = 1_000
"""Of all that waited, in a run of `ENOUGH_OUTAGES`. In a shorter one a single late moment would be its p99."""


@dataclass(frozen=True, slots=True)
class Read:
    """One read while the server was away."""

    added_ms: float
    """What it took besides its query."""
    timeouts: int
    """How often it waited for an answer in vain."""
    begun: float = 0.0
    ended: float = 0.0
    """On the clock of `time.monotonic`."""


class Sleeper:
    """
    A thread that only sleeps, and notes when it is woken late: for so long nobody in this process could run.

    A read that was kept waiting by the machine at that moment was not kept waiting by Redis.
    """

    NAP_SECONDS: Final = 0.002
    LATE_SECONDS: Final = 0.003

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._late: list[tuple[float, float]] = []

    def _run(self, woken: float) -> None:
        # From one waking to the next: what comes between two naps is as late as what comes within one.
        while not self._is_over.is_set():
            due = woken + self.NAP_SECONDS
            time.sleep(self.NAP_SECONDS)
            woken = time.monotonic()
            if woken - due > self.LATE_SECONDS:
                self._late.append((due, woken))

    def longest_ms(self) -> float:
        """Return the longest while in which nobody could run."""
        return 1000 * max((until - since for since, until in self._late), default=0.0)

    def late_ms(self, begun: float, ended: float) -> float:
        """Return how long of a while nobody could run."""
        return 1000 * sum(max(0.0, min(until, ended) - max(since, begun)) for since, until in self._late)

    def __enter__(self) -> Sleeper:
        self._thread = threading.Thread(target=self._run, args=(time.monotonic(),))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()


def judge_lag(outcome: Outcome, lags_ms: Sequence[float], outages: int) -> None:
    """Print how long what waited still had to once the server answered, and judge it if there were enough outages."""
    p99 = _percentiles(outcome, "relay_lag", lags_ms)
    if outages >= ENOUGH_OUTAGES and p99 > MOST_LAG_P99_MS:
        outcome.violate("late", f"one in a hundred was delivered {p99:,.0f} ms after the server was back, or later")


def judge_reads(outcome: Outcome, mode: str, reads: Sequence[Read], outages: int, sleeper: Sleeper) -> None:
    """
    Judge what reads took more because the server was `mode`: half of them hardly anything, none more than one timeout.

    How often each waited is counted. By the clock the worst is only judged where the server hung, over enough outages,
    without the time in which nobody could run: less than two timeouts, since a connection has to be begun and ended.
    """
    if not reads:
        return
    added = [read.added_ms for read in reads]
    outcome.figures[f"{mode}_reads"] = len(reads)
    outcome.figures[f"{mode}_added_p50_ms"] = p50 = round(statistics.median(added), 3)
    outcome.figures[f"{mode}_added_worst_ms"] = round(max(added), 1)
    slow = [read for read in reads if read.added_ms >= TIMEOUT_MS]
    worst = round(max((read.added_ms - sleeper.late_ms(read.begun, read.ended) for read in slow), default=0.0), 1)
    outcome.figures[f"{mode}_worst_but_for_stalls_ms"] = worst
    outcome.figures[f"{mode}_timeouts_a_read"] = most = max(read.timeouts for read in reads)
    if len(reads) >= ENOUGH_READS and p50 > MOST_ADDED_MS:
        outcome.violate("too_slow", f"{mode}: half of all reads take {p50} ms more")
    if most > 1:
        outcome.violate("too_slow", f"{mode}: one read waited {most} times for an answer in vain")
    if mode == "hung" and outages >= ENOUGH_OUTAGES and worst >= 2 * TIMEOUT_MS:
        outcome.violate("too_slow", f"{mode}: one read took {worst} ms more, as long as two timeouts")


def _percentiles(outcome: Outcome, name: str, of: Sequence[float]) -> float:
    if len(of) < 2:
        return 0.0
    p99 = statistics.quantiles(of, n=100, method="inclusive")[98]
    outcome.figures[f"{name}_p50_ms"] = round(statistics.median(of))
    outcome.figures[f"{name}_p99_ms"] = round(p99)
    return p99


def note_done(outcome: Outcome, marked_ms: Sequence[float]) -> None:
    """Print when the rows of what waited were marked done, which nobody waits for."""
    _percentiles(outcome, "rows_done", marked_ms)
