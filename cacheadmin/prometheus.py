"""The counters as Prometheus metrics: plain ones at module level, so that multi-process mode adds all workers up.

Nothing is counted here: each flush of the recorder is added, so these numbers and the roll-ups agree. Labels come from
bounded sets; a key or a tenant is never one. django-prometheus' own counters are fed by the backend.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

from prometheus_client import Counter, Histogram

from .stats import INDEX, LATENCY_BOUNDS_US, MISS_REASONS, OTHER, REFUSE_REASONS, RESULTS, Delta, recorder

GROUPS: Final = 30
"""(alias, group) pairs that have series of their own in a process, the first ones met; later ones are group `other`."""

BUCKETS_US: Final = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)
"""Upper bounds of the exported buckets, each one of LATENCY_BOUNDS_US."""


class CountedHistogram(Histogram):
    """A histogram that takes observations which were already counted by bucket."""

    def observe_many(self, amount: float, count: int) -> None:
        """Observe `amount` so many times, at the cost of once."""
        self._sum.inc(amount * count)
        for upper, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            if amount <= upper:
                bucket.inc(count)
                return


READS: Final = Counter(
    "cacheadmin_reads",
    "Reads by result: hit, stale, miss, bypassed (cache not asked), error.",
    ["alias", "group", "result"],
)
READ_SECONDS: Final = CountedHistogram(
    "cacheadmin_read_seconds",
    "Latency of reads; the sum is made of the middles of the buckets.",
    ["alias"],
    buckets=[bound / 1_000_000 for bound in BUCKETS_US],
)
MISSES: Final = Counter(
    "cacheadmin_misses",
    "Misses by reason: absent, invalidated, expired, undecodable, foreign.",
    ["alias", "reason"],
)
COMPUTATIONS: Final = Counter("cacheadmin_computations", "Values computed.", ["alias", "group"])
COMPUTE_SECONDS: Final = Counter("cacheadmin_compute_seconds", "Time spent on computing values.", ["alias", "group"])
FILLS: Final = Counter("cacheadmin_fills", "Values stored.", ["alias"])
FILLED_BYTES: Final = Counter("cacheadmin_filled_bytes", "Size of the values stored.", ["alias"])
REFUSED_FILLS: Final = Counter(
    "cacheadmin_refused_fills",
    "Values not stored, by reason: epoch, full, size, transaction, condition.",
    ["alias", "reason"],
)
LEASE_WAITS: Final = Counter("cacheadmin_lease_waits", "Waits for another caller's computation.", ["alias"])
INVALIDATIONS: Final = Counter(
    "cacheadmin_invalidations",
    "Invalidations by source: rule, user, command, code, relay.",
    ["alias", "source"],
)

_known: set[tuple[str, str]] = set()


def label(alias: str, group: str) -> str:
    """Return the label of a group: its name, `-` for what has none, `other` beyond GROUPS pairs in this process."""
    if not group:
        return "-"
    if (alias, group) in _known:
        return group
    if group == OTHER or len(_known) >= GROUPS:
        return "other"
    _known.add((alias, group))
    return group


def count(delta: Delta) -> None:
    """Add what was counted since the last flush. A sink of the recorder."""
    by_group: dict[tuple[str, str], list[int]] = {}
    by_alias: dict[str, list[int]] = {}
    for (alias, group, _tenant), numbers in delta.counts.items():
        _add(by_group, (alias, label(alias, group)), numbers)
        _add(by_alias, alias, numbers)
    for (alias, group), numbers in by_group.items():
        for result in RESULTS:
            _inc(READS, numbers[INDEX[result]], alias, group, result)
        _inc(COMPUTATIONS, numbers[INDEX["computed"]], alias, group)
        _inc(COMPUTE_SECONDS, numbers[INDEX["compute_us"]] / 1_000_000, alias, group)
    for alias, numbers in by_alias.items():
        for reason in MISS_REASONS:
            _inc(MISSES, numbers[INDEX[f"missed_{reason}"]], alias, reason)
        for reason in REFUSE_REASONS:
            _inc(REFUSED_FILLS, numbers[INDEX[f"refused_{reason}"]], alias, reason)
        _inc(FILLS, numbers[INDEX["filled"]], alias)
        _inc(FILLED_BYTES, numbers[INDEX["filled_bytes"]], alias)
        _inc(LEASE_WAITS, numbers[INDEX["waited"]], alias)
    by_source: dict[tuple[str, str], int] = defaultdict(int)
    for (alias, _tenant, _what, source, _name), times in delta.dropped.items():
        by_source[alias, source] += times
    for (alias, source), times in by_source.items():
        _inc(INVALIDATIONS, times, alias, source)
    for alias, latencies in delta.latency.items():
        _observe(alias, latencies)


def _add(into: dict[Any, list[int]], key: Any, numbers: list[int]) -> None:
    known = into.get(key)
    into[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


def _inc(counter: Counter, amount: float, *labels: str) -> None:
    if amount:
        counter.labels(*labels).inc(amount)


def _observe(alias: str, latencies: list[int]) -> None:
    histogram = READ_SECONDS.labels(alias)
    bounds = (0, *LATENCY_BOUNDS_US, 2 * LATENCY_BOUNDS_US[-1])
    for at, times in enumerate(latencies):
        if times:
            histogram.observe_many((bounds[at] + bounds[at + 1]) / 2 / 1_000_000, times)


def install() -> None:
    """Let the recorder's flushes be added from now on. Called when Django starts; again is harmless."""
    if count not in recorder.sinks:
        recorder.sinks.append(count)
