"""Each flush of the recorder, added to the metrics. A sink: called in the flushing thread, one call at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter

from ..conf import config
from ..stats import EVENTS, INDEX, LATENCY_BOUNDS_US, MISS_REASONS, REFUSE_REASONS, RESULTS, SOURCES, Delta
from ..stats.counts import Cell
from . import metrics
from .names import NOBODY, groups, tenants


def count(delta: Delta) -> None:
    """
    Add what was counted since the last flush.

    Cost:    one round trip if a group is met for the first time in this process, while there is room for it.
    """
    groups.learn({(alias, group) for alias, group, _ in delta.counts})
    by_group: dict[tuple[str, str], list[int]] = {}
    by_alias: dict[str, list[int]] = {alias: [0] * len(EVENTS) for alias in config().aliases}
    by_tenant: dict[str, list[int]] = {}
    has_tenants = config().metrics_tenants > 0
    for (alias, group, tenant), numbers in delta.counts.items():
        _add(by_group, (alias, groups.label(alias, group)), numbers)
        _add(by_alias, alias, numbers)
        if has_tenants:
            _add(by_tenant, tenants.label(tenant), numbers)
    for (alias, group), numbers in by_group.items():
        _count_group(alias, group, numbers)
    for alias, numbers in by_alias.items():
        _count_alias(alias, numbers)
    for tenant, numbers in by_tenant.items():
        for result in RESULTS:
            _inc(metrics.TENANT_READS, numbers[INDEX[result]], tenant, result)
        _inc(metrics.TENANT_COMPUTE_SECONDS, numbers[INDEX["compute_us"]] / 1_000_000, tenant)
    _count_times(delta.times)
    for alias in config().aliases:
        for source in SOURCES:
            _inc(metrics.INVALIDATIONS, delta.sources.get((alias, source), 0), alias, source)
    for alias, latencies in delta.latency.items():
        _observe(alias, latencies)


def _count_group(alias: str, group: str, numbers: list[int]) -> None:
    for result in RESULTS:
        _inc(metrics.READS, numbers[INDEX[result]], alias, group, result)
    if group == NOBODY and not numbers[INDEX["computed"]]:
        return  # series that stay at 0 would count towards the bound
    _inc(metrics.COMPUTATIONS, numbers[INDEX["computed"]], alias, group)
    _inc(metrics.COMPUTE_SECONDS, numbers[INDEX["compute_us"]] / 1_000_000, alias, group)


def _count_times(times: Mapping[Cell, list[int]]) -> None:
    by_group: dict[tuple[str, str], int] = {}
    for (alias, group, _tenant), (_timed, read_us) in times.items():
        of = (alias, groups.label(alias, group))
        by_group[of] = by_group.get(of, 0) + read_us
    for (alias, label), read_us in by_group.items():
        if label != NOBODY:
            _inc(metrics.GROUP_READ_SECONDS, read_us / 1_000_000, alias, label)


def _count_alias(alias: str, numbers: list[int]) -> None:
    for reason in MISS_REASONS:
        _inc(metrics.MISSES, numbers[INDEX[f"missed_{reason}"]], alias, reason)
    for reason in REFUSE_REASONS:
        _inc(metrics.REFUSED_FILLS, numbers[INDEX[f"refused_{reason}"]], alias, reason)
    _inc(metrics.FILLS, numbers[INDEX["filled"]], alias)
    _inc(metrics.FILLED_BYTES, numbers[INDEX["filled_bytes"]], alias)
    _inc(metrics.LEASE_WAITS, numbers[INDEX["waited"]], alias)
    _inc(metrics.DROPPED_ENTRIES, numbers[INDEX["dropped"]], alias)


def _add(into: dict[Any, list[int]], key: Any, numbers: list[int]) -> None:
    known = into.get(key)
    into[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


_begun: set[tuple[Counter, tuple[str, ...]]] = set()
"""Series of this process; bounded as the labels are."""


def _inc(counter: Counter, amount: float, *labels: str) -> None:
    """Add to a series, which begins at 0: else Prometheus would not see what happened first as an increase."""
    if amount or (counter, labels) not in _begun:
        _begun.add((counter, labels))
        counter.labels(*labels).inc(amount)


def _observe(alias: str, latencies: list[int]) -> None:
    histogram = metrics.READ_SECONDS.labels(alias)
    bounds = (0, *LATENCY_BOUNDS_US, 2 * LATENCY_BOUNDS_US[-1])
    for at, times in enumerate(latencies):
        if times:
            histogram.observe_many((bounds[at] + bounds[at + 1]) / 2 / 1_000_000, times)
