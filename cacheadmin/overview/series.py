"""Points for the charts: one list a line, all of the same length. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..stats import INDEX
from ..stats.history import Numbers, Sample, WaitingSample
from ..stats.layout import MINUTE
from .figures import hit_ratio, percentile_ms, total

PARTIAL_SECONDS = 15
"""Age from which a bucket that is not over is drawn, its rates scaled to its age."""


@dataclass(frozen=True, slots=True)
class Series:
    """What the charts draw. None is a gap: a ratio without reads, or a time before the site began to count."""

    step: int
    """Seconds between two points."""
    times: list[int] = field(default_factory=list)
    """Beginnings of the buckets, seconds since 1970."""
    hit_ratio: list[float | None] = field(default_factory=list)
    worst: list[float | None] = field(default_factory=list)
    """Hit ratio of the worst of the busiest 20 tenants."""
    hit: list[float | None] = field(default_factory=list)
    """Reads a second that hit; so are `stale`, `miss`, `bypassed`, `error`."""
    stale: list[float | None] = field(default_factory=list)
    miss: list[float | None] = field(default_factory=list)
    bypassed: list[float | None] = field(default_factory=list)
    error: list[float | None] = field(default_factory=list)
    p50_ms: list[float | None] = field(default_factory=list)
    p95_ms: list[float | None] = field(default_factory=list)
    cost: list[float | None] = field(default_factory=list)
    """Seconds of computing a minute."""
    invalidations: list[float | None] = field(default_factory=list)
    """A minute."""
    used_bytes: list[int | None] = field(default_factory=list)
    """Memory of all servers together."""
    limit_bytes: int | None = None
    evicted: list[int | None] = field(default_factory=list)
    """Keys evicted since the point before."""
    waiting: list[int | None] = field(default_factory=list)
    """The most invalidations that waited at a time, in all outboxes together; None where nobody looked."""
    lag_seconds: list[float | None] = field(default_factory=list)
    """For how long the oldest of them had waited, at most."""

    @property
    def requests(self) -> list[float | None]:
        """Reads a second."""
        parts = zip(self.hit, self.stale, self.miss, self.bypassed, self.error, strict=True)
        return [None if part[0] is None else sum(number or 0.0 for number in part) for part in parts]


def by_step(found: Mapping[int, Mapping[str, Numbers]], step: int, alias: str | None) -> dict[int, Numbers]:
    """Add up what aliases counted, in buckets of `step` seconds."""
    parts: dict[int, list[Numbers]] = defaultdict(list)
    for start, names in found.items():
        parts[start // step * step] += [numbers for name, numbers in names.items() if alias in (None, name)]
    return {start: numbers for start, some in parts.items() if (numbers := total(some)) is not None}


def series(
    times: Sequence[int],
    step: int,
    counts: Mapping[int, Numbers],
    latency: Mapping[int, Numbers],
    *,
    samples: Sequence[Sample] = (),
    waited: Sequence[WaitingSample] = (),
    worst: Mapping[int, float | None] | None = None,
    born: float = 0.0,
    now: float,
) -> Series:
    """Return the points at `times`, of which the last bucket may not be over yet; `born` is when counting began."""
    shown = [start for start in times if start + step <= now or now - start >= min(PARTIAL_SECONDS, step)]
    filled = [(counts.get(start), min(step, now - start)) for start in shown]

    def rate(event: str, scale: float = 1.0) -> list[float | None]:
        rates: list[float | None] = []
        for start, (numbers, seconds) in zip(shown, filled, strict=True):
            nothing = 0.0 if start + step > born else None
            rates.append(numbers[INDEX[event]] * scale / seconds if numbers else nothing)
        return rates

    used, evicted, limit = _memory(shown, step, samples)
    waiting, lag = _waiting(shown, step, waited)
    return Series(
        step=step,
        times=shown,
        hit_ratio=[hit_ratio(numbers) for numbers, _ in filled],
        worst=[None if worst is None else worst.get(start) for start in shown],
        hit=rate("hit"),
        stale=rate("stale"),
        miss=rate("miss"),
        bypassed=rate("bypassed"),
        error=rate("error"),
        p50_ms=[percentile_ms(latency.get(start), 0.50) for start in shown],
        p95_ms=[percentile_ms(latency.get(start), 0.95) for start in shown],
        cost=rate("compute_us", MINUTE / 1_000_000),
        invalidations=rate("invalidated", MINUTE),
        used_bytes=used,
        limit_bytes=limit,
        evicted=evicted,
        waiting=waiting,
        lag_seconds=lag,
    )


def _waiting(
    times: Sequence[int], step: int, samples: Sequence[WaitingSample]
) -> tuple[list[int | None], list[float | None]]:
    """Return the most that waited within each bucket, all databases of a minute added up, and the longest lag."""
    by_minute: dict[int, int] = defaultdict(int)
    lag: dict[int, float] = defaultdict(float)
    for sample in samples:
        by_minute[sample.at] += sample.count
        start = sample.at // step * step
        lag[start] = max(lag[start], sample.oldest_seconds)
    most: dict[int, int] = defaultdict(int)
    for at, count in by_minute.items():
        most[at // step * step] = max(most[at // step * step], count)
    return [most.get(start) for start in times], [lag.get(start) for start in times]


def _memory(
    times: Sequence[int], step: int, samples: Sequence[Sample]
) -> tuple[list[int | None], list[int | None], int | None]:
    """Return memory and evictions at each time, and the newest limit; all servers added up."""
    used: dict[int, dict[str, int]] = defaultdict(dict)
    gone: dict[int, int] = defaultdict(int)
    limits: dict[str, int] = {}
    before: dict[str, int] = {}
    for sample in samples:
        start = sample.at // step * step
        used[start][sample.alias] = sample.used_bytes
        limits[sample.alias] = sample.limit_bytes
        # A count that fell began again with a restart of the server.
        last = before.get(sample.alias, sample.evicted)
        gone[start] += sample.evicted - last if sample.evicted >= last else sample.evicted
        before[sample.alias] = sample.evicted
    memory = [sum(used[start].values()) if start in used else None for start in times]
    limit = sum(limits.values()) if limits and all(limits.values()) else None
    return memory, [gone.get(start) for start in times], limit
