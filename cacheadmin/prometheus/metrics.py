"""The metrics themselves: names with base units, labels from bounded sets. `docs/metrics.md` lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Sample

BUCKETS_US: Final = (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000)
"""Upper bounds of the exported buckets, each one of LATENCY_BOUNDS_US."""


def _without_created(samples: Iterable[Sample]) -> list[Sample]:
    """Leave out the time at which a series began: it would double their number, and workers do not share one."""
    return [sample for sample in samples if sample.name != "_created"]


class PlainCounter(Counter):
    """A counter of one series a set of labels."""

    def _child_samples(self) -> Iterable[Sample]:
        return _without_created(super()._child_samples())


class CountedHistogram(Histogram):
    """A histogram that takes observations which were already counted by bucket."""

    def observe_many(self, amount: float, count: int) -> None:
        """Observe `amount` so many times, at the cost of once."""
        self._sum.inc(amount * count)
        for upper, bucket in zip(self._upper_bounds, self._buckets, strict=True):
            if amount <= upper:
                bucket.inc(count)
                return

    def _child_samples(self) -> Iterable[Sample]:
        return _without_created(super()._child_samples())


READS: Final = PlainCounter(
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
GROUP_READ_SECONDS: Final = PlainCounter(
    "cacheadmin_group_read_seconds", "Time spent on reading the cache, by group.", ["alias", "group"]
)
MISSES: Final = PlainCounter(
    "cacheadmin_misses",
    "Misses by reason: cold, expired, evicted, absent (one of these three), invalidated, undecodable, foreign.",
    ["alias", "reason"],
)
COMPUTATIONS: Final = PlainCounter("cacheadmin_computations", "Values computed.", ["alias", "group"])
COMPUTE_SECONDS: Final = PlainCounter(
    "cacheadmin_compute_seconds", "Time spent on computing values.", ["alias", "group"]
)
FILLS: Final = PlainCounter("cacheadmin_fills", "Values stored.", ["alias"])
FILLED_BYTES: Final = PlainCounter("cacheadmin_filled_bytes", "Size of the values stored.", ["alias"])
REFUSED_FILLS: Final = PlainCounter(
    "cacheadmin_refused_fills",
    "Values not stored, by reason: epoch, full, size, transaction, condition.",
    ["alias", "reason"],
)
LEASE_WAITS: Final = PlainCounter("cacheadmin_lease_waits", "Waits for another caller's computation.", ["alias"])
INVALIDATIONS: Final = PlainCounter(
    "cacheadmin_invalidations",
    "Invalidations by source: rule, user, command, code, relay.",
    ["alias", "source"],
)
DROPPED_ENTRIES: Final = PlainCounter(
    "cacheadmin_dropped_entries",
    "Entries removed by invalidations: at once, or later when found unreadable.",
    ["alias"],
)
TENANT_READS: Final = PlainCounter(
    "cacheadmin_tenant_reads",
    "Reads by tenant and result; the busiest tenants, `other` for the rest, `-` for shared data. METRICS_TENANTS.",
    ["tenant", "result"],
)
TENANT_COMPUTE_SECONDS: Final = PlainCounter(
    "cacheadmin_tenant_compute_seconds", "Time spent on computing values, by tenant. METRICS_TENANTS.", ["tenant"]
)

# Of the site, exported by one of its processes: the one that spoke last, and nobody for one that has ended.
SERVER_UP: Final = Gauge(
    "cacheadmin_server_up", "1 if the server answers, else 0.", ["server"], multiprocess_mode="livemostrecent"
)
SERVER_MEMORY: Final = Gauge(
    "cacheadmin_server_memory_bytes", "Memory used by the server.", ["server"], multiprocess_mode="livemostrecent"
)
SERVER_MEMORY_LIMIT: Final = Gauge(
    "cacheadmin_server_memory_limit_bytes",
    "Its maxmemory; 0 for no limit.",
    ["server"],
    multiprocess_mode="livemostrecent",
)
SERVER_CLIENTS: Final = Gauge(
    "cacheadmin_server_clients", "Its connections, whoever's.", ["server"], multiprocess_mode="livemostrecent"
)
SERVER_EVICTED: Final = PlainCounter(
    "cacheadmin_server_evicted_keys", "Keys the server removed because it was full.", ["server"]
)
DATABASE_KEYS: Final = Gauge(
    "cacheadmin_database_keys",
    "Keys in a database of a managed alias, whoever's.",
    ["server", "database"],
    multiprocess_mode="livemostrecent",
)
OUTBOX_WAITING: Final = Gauge(
    "cacheadmin_outbox_waiting",
    "Invalidations that wait to be delivered, by Django's alias of the database that keeps them.",
    ["database"],
    multiprocess_mode="livemostrecent",
)
RELAY_LAG: Final = Gauge(
    "cacheadmin_relay_lag_seconds",
    "Age of the oldest invalidation that waits; 0 if none does.",
    ["database"],
    multiprocess_mode="livemostrecent",
)

# Of each process, added up.
BREAKERS_OPEN: Final = Gauge(
    "cacheadmin_breakers_open",
    "Processes that do not use the cache now, because its server did not answer them.",
    ["alias"],
    multiprocess_mode="livesum",
)

MEMORY_LAG: Final = Gauge(
    "cacheadmin_memory_lag_seconds",
    "Age of the oldest invalidation that waits in a process' memory, where no row was written; 0 if none does.",
    multiprocess_mode="livemax",
)

OF_THE_SITE: Final = (
    *(SERVER_UP, SERVER_MEMORY, SERVER_MEMORY_LIMIT, SERVER_CLIENTS, DATABASE_KEYS),
    *(OUTBOX_WAITING, RELAY_LAG),
)
"""Gauges that one process of the site exports."""
