"""From counts to figures: ratios, rates, medians, percentiles. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from ..stats import INDEX, LATENCY_BOUNDS_US, MISS_REASONS
from ..stats.history import Numbers
from ..stats.layout import added

_HIT, _STALE, _MISS = INDEX["hit"], INDEX["stale"], INDEX["miss"]
_BYPASSED, _ERROR = INDEX["bypassed"], INDEX["error"]
_COMPUTED, _COMPUTE_US, _INVALIDATED = INDEX["computed"], INDEX["compute_us"], INDEX["invalidated"]

RESULT_EVENTS: Final = (_HIT, _STALE, _MISS, _BYPASSED, _ERROR)


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted for something over some time; None where nothing is known. Rates are a minute."""

    hit_ratio: float | None = None
    """Hits, stale ones too, of all reads that the cache answered; None without such reads."""
    change: float | None = None
    """The newest hit ratio less the range's median: 0.02 is two points up."""
    requests: float | None = None
    misses: float | None = None
    cost: float | None = None
    """Seconds a minute spent on computing."""
    invalidations: float | None = None
    mean_compute: float | None = None
    """Seconds that one computation takes."""
    mean_read: float | None = None
    """Seconds that one read of the cache takes; None where no read was timed, or where it is not asked for."""
    saved: float | None = None
    """Seconds a minute that hits spared: hits x mean compute time."""
    reads: int = 0
    """All reads of the time, a number."""
    reasons: Mapping[str, float] = field(default_factory=dict)
    """Why reads missed -> misses a minute."""

    @property
    def is_worse(self) -> bool:
        """Whether the hit ratio fell by ten points or more."""
        return self.change is not None and self.change <= -FELL


FELL: Final = 0.10
"""Fall of a hit ratio below the range's median that is worth a note."""

READS_TO_JUDGE: Final = 100
"""Reads in 5 minutes below which no hit ratio is judged."""


def hit_ratio(numbers: Numbers | None) -> float | None:
    """Return the hit ratio of some counts; None without reads that the cache answered: a gap, not 0 or 100%."""
    if numbers is None:
        return None
    hits = numbers[_HIT] + numbers[_STALE]
    answered = hits + numbers[_MISS]
    return hits / answered if answered else None


def reads(numbers: Numbers) -> int:
    """Return all reads of some counts."""
    return sum(numbers[event] for event in RESULT_EVENTS)


def figures(
    numbers: Numbers | None,
    minutes: float,
    *,
    change: float | None = None,
    invalidations: float | None = None,
    mean_read: float | None = None,
) -> Figures:
    """Return the figures of counts that took `minutes`; `invalidations` a minute where the counts do not know them."""
    if numbers is None:
        return Figures(change=change, invalidations=invalidations, mean_read=mean_read)
    computed = numbers[_COMPUTED]
    mean = numbers[_COMPUTE_US] / computed / 1_000_000 if computed else None
    hits = numbers[_HIT] + numbers[_STALE]
    return Figures(
        hit_ratio=hit_ratio(numbers),
        change=change,
        requests=reads(numbers) / minutes,
        misses=numbers[_MISS] / minutes,
        cost=numbers[_COMPUTE_US] / 1_000_000 / minutes,
        invalidations=numbers[_INVALIDATED] / minutes if invalidations is None else invalidations,
        mean_compute=mean,
        mean_read=mean_read,
        saved=None if mean is None else hits * mean / minutes,
        reads=reads(numbers),
        reasons={r: count / minutes for r in MISS_REASONS if (count := numbers[INDEX[f"missed_{r}"]])},
    )


def mean_seconds(times: Numbers | None) -> float | None:
    """Return the mean of what was timed, in the order of TIMES; None without any."""
    return times[1] / times[0] / 1_000_000 if times and times[0] else None


def total(some: Iterable[Numbers]) -> Numbers | None:
    """Add counts up; None if there are none."""
    found: Numbers | None = None
    for numbers in some:
        found = numbers if found is None else added(found, numbers)
    return found


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return median(known) if known else None


def percentile_ms(buckets: Numbers | None, share: float) -> float | None:
    """Return the latency below which `share` of the reads stay, linear within its bucket; None without reads."""
    whole = sum(buckets) if buckets else 0
    if not buckets or not whole:
        return None
    below, wanted, lower = 0, share * whole, 0
    for count, upper in zip(buckets, (*LATENCY_BOUNDS_US, LATENCY_BOUNDS_US[-1]), strict=True):
        if count and below + count >= wanted:
            return (lower + (upper - lower) * (wanted - below) / count) / 1000
        below, lower = below + count, upper
    return LATENCY_BOUNDS_US[-1] / 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the strip: now (the last 5 whole minutes) against the median of the range."""

    value: float | None = None
    median: float | None = None
    is_worse: bool = False
    """Whether it is clearly worse than the median."""

    @property
    def change(self) -> float | None:
        """Now less the median."""
        return None if self.value is None or self.median is None else self.value - self.median


def figure(value: float | None, values: Sequence[float | None], *, times: float = 0.0, least: float = 0.0) -> Figure:
    """Return a figure that is worse above `times` its median if it is also `least` above it; never for times 0."""
    middle = median_of(values)
    is_worse = bool(times) and value is not None and middle is not None
    if is_worse and value is not None and middle is not None:
        is_worse = value > times * middle and value - middle > least
    return Figure(value, middle, is_worse)
