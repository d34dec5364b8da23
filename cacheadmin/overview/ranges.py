"""The ranges of time that pages offer, and which buckets of the roll-ups they read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ..stats.history import Numbers
from ..stats.layout import DAY, HOUR, MINUTE, TEN_MINUTES, starts

K = TypeVar("K")

RECENT: Final = 5 * MINUTE
"""What a page calls now: the last five whole minutes."""


@dataclass(frozen=True, slots=True)
class Range:
    """A span of time up to now."""

    name: str
    seconds: int
    step: int
    """Seconds between two points of a chart over everything."""
    tenant_step: int
    """The same of a chart over some tenants."""
    coarse: int
    """Seconds of the buckets that tables of tenants and groups read."""
    both: int
    """The same for the groups of one tenant."""


RANGES: Final = {
    each.name: each
    for each in (
        Range("15m", 15 * MINUTE, MINUTE, MINUTE, MINUTE, TEN_MINUTES),
        Range("1h", HOUR, MINUTE, MINUTE, TEN_MINUTES, TEN_MINUTES),
        Range("3h", 3 * HOUR, MINUTE, MINUTE, TEN_MINUTES, TEN_MINUTES),
        Range("24h", DAY, MINUTE, TEN_MINUTES, HOUR, HOUR),
        Range("7d", 7 * DAY, HOUR, HOUR, HOUR, HOUR),
    )
}

DEFAULT_RANGE: Final = "3h"


@dataclass(frozen=True, slots=True)
class Now(Generic[K]):
    """What was counted lately."""

    buckets: list[Mapping[K, Numbers]]
    since: int
    minutes: float
    """How many of them the site has counted in."""
    before: float
    """What was read until then is what now is held against; never, if the site has not counted for so long."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range that ends at a certain moment."""

    within: Range
    now: float
    """Seconds since 1970."""

    @property
    def since(self) -> float:
        """The beginning."""
        return self.now - self.within.seconds

    @property
    def minute(self) -> int:
        """The minute that is not over yet."""
        return int(self.now) // MINUTE * MINUTE

    @property
    def recent(self) -> range:
        """The last five whole minutes, and the one that is not over."""
        return range(self.minute - RECENT, self.minute + 1, MINUTE)

    @property
    def coarse(self) -> range:
        """The buckets of tables of tenants and groups."""
        return starts(self.within.coarse, self.since, self.now)

    @property
    def both(self) -> range:
        """The buckets of a table of one tenant's groups; these are kept for 24 hours only."""
        return starts(self.within.both, max(self.since, self.now - DAY), self.now)

    @property
    def times(self) -> range:
        """The buckets that say how long reads took."""
        return starts(self.within.both, self.since, self.now)

    def minutes(self, since: float, until: float, born: float) -> float:
        """Return how many minutes of a time the site has counted in; at least ten seconds."""
        return max(until - max(since, min(born, until)), 10.0) / MINUTE

    def now_of(self, found: Mapping[int, Mapping[K, Numbers]], born: float) -> Now[K]:
        """Choose from the buckets of `recent` those that are now: the whole minutes, else the one that is not over."""
        whole = [bucket for start, bucket in found.items() if start < self.minute]
        if any(whole):
            since = self.minute - RECENT
            return Now(whole, since, self.minutes(since, self.minute, born), self.before(since, born))
        minutes = self.minutes(self.minute, self.now, born)
        return Now([found.get(self.minute, {})], self.minute, minutes, self.before(self.minute, born))

    def before(self, since: float, born: float) -> float:
        """Return until when reads must have begun for now, which begins at `since`, to be held against them."""
        latest = since - RECENT
        return latest if (born or self.now) <= latest else float("-inf")
