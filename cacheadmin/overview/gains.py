"""What caching something gains and what it costs: seconds an hour, and the memory it holds meanwhile. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..stats import INDEX
from ..stats.history import Numbers

MISS_READS: Final = 3
"""What a miss costs beside computing, in reads: look, open, fill. A round trip each, and so is a hit's only one."""

_HIT, _STALE, _MISS = INDEX["hit"], INDEX["stale"], INDEX["miss"]
_COMPUTED, _COMPUTE_US = INDEX["computed"], INDEX["compute_us"]
_FILLED, _FILLED_BYTES, _REFUSED_SIZE = INDEX["filled"], INDEX["filled_bytes"], INDEX["refused_size"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about something cached besides its counts."""

    timeout_seconds: float | None = None
    """`math.inf` for ever, None if it is not known."""
    read_seconds: float | None = None
    """The median read of its alias; None if none was timed."""
    drops_per_hour: float = 0.0
    """How often all that one tenant has of it is invalidated."""
    tenants: int = 1
    """Tenants that it was counted over, shared data being one."""
    is_ruled: bool = False
    """Whether some rule drops it, so that its timeout is not all that keeps it fresh."""
    rule: str = ""
    """The rule that drops it most, all of a tenant's at once; empty if none does."""
    rule_drops: str = ""
    """What that rule drops: "prefix inventory"."""
    rule_per_hour: float = 0.0
    """How often it does, for one tenant."""


@dataclass(frozen=True, slots=True)
class Gains:
    """The figures of something cached; None where nothing is known. Estimates say what they assume."""

    hours: float = 0.0
    """Of counting."""
    reads: int = 0
    """That the cache answered."""
    hits: int = 0
    misses: int = 0
    computed: int = 0
    filled: int = 0
    refused_size: int = 0
    """Values that were too big to be stored."""
    mean_compute_seconds: float | None = None
    mean_bytes: float | None = None
    read_seconds: float | None = None
    overhead_seconds_per_hour: float = 0.0
    """What reading took: one read a hit, MISS_READS a miss."""
    saved_seconds_per_hour: float | None = None
    """Hits x mean compute time, less the overhead: below 0 the site would be faster without."""
    residence_seconds: float | None = None
    """For how long an entry can be read on average: until its timeout, or until it is dropped."""
    held_bytes: float | None = None
    """Values that are held at a time: stored bytes a second x residence."""
    held_entries: float | None = None
    """The same as a number of entries, of one tenant."""

    @property
    def hit_ratio(self) -> float | None:
        """Return hits of all reads; None without reads."""
        return self.hits / self.reads if self.reads else None

    @property
    def saved_per_megabyte(self) -> float | None:
        """Return seconds an hour that a megabyte held saves: what to give up first when memory is short."""
        if self.saved_seconds_per_hour is None or not self.held_bytes:
            return None
        return self.saved_seconds_per_hour / (self.held_bytes / 1_000_000)


def residence(timeout_seconds: float, drops_per_hour: float) -> float:
    """Return how long an entry lives on average, seconds, if drops fall at random (Poisson); inf if nothing ends it."""
    rate = drops_per_hour / 3600
    if not rate:
        return timeout_seconds
    return -math.expm1(-rate * timeout_seconds) / rate


def gains(numbers: Numbers, minutes: float, known: Known) -> Gains:
    """Return what counts of `minutes` amount to."""
    hits, misses = numbers[_HIT] + numbers[_STALE], numbers[_MISS]
    computed, filled = numbers[_COMPUTED], numbers[_FILLED]
    hours, read = minutes / 60, known.read_seconds
    overhead = (hits + MISS_READS * misses) * (read or 0.0) / hours
    compute = numbers[_COMPUTE_US] / computed / 1_000_000 if computed else None
    lives = None if known.timeout_seconds is None else residence(known.timeout_seconds, known.drops_per_hour)
    if lives is not None and math.isinf(lives):
        lives = None
    per_second = 1 / (minutes * 60)
    return Gains(
        hours=hours,
        reads=hits + misses,
        hits=hits,
        misses=misses,
        computed=computed,
        filled=filled,
        refused_size=numbers[_REFUSED_SIZE],
        mean_compute_seconds=compute,
        mean_bytes=numbers[_FILLED_BYTES] / filled if filled else None,
        read_seconds=read,
        overhead_seconds_per_hour=overhead,
        saved_seconds_per_hour=None if compute is None else hits * compute / hours - overhead,
        residence_seconds=lives,
        held_bytes=None if lives is None else numbers[_FILLED_BYTES] * per_second * lives,
        held_entries=None if lives is None else filled * per_second * lives / max(known.tenants, 1),
    )
