"""What is counted, in which order, and the shape of it between a thread and a sink. No I/O, no state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

RESULTS: Final = ("hit", "stale", "miss", "bypassed", "error")
"""How a read ended. `bypassed`: the cache was not asked (away, draining); `error`: it was asked and failed."""

MISS_REASONS: Final = ("cold", "expired", "evicted", "absent", "invalidated", "undecodable", "foreign")
"""Why a read missed. `cold` never stored, or deleted by its name · `expired` by its timeout · `evicted` by the server ·
`absent` one of these three, and it could not be told which · `invalidated` a scope of it is gone · `foreign` of another
key · `undecodable` not to be read."""

REFUSE_REASONS: Final = ("epoch", "full", "size", "transaction", "condition")
SOURCES: Final = ("rule", "user", "command", "code", "relay")

EVENTS: Final = (
    *("hit", "miss", "stale", "computed", "compute_us", "filled", "filled_bytes", "invalidated"),
    *("missed_cold", "missed_expired", "missed_invalidated", "missed_evicted", "dropped", "missed_absent", "waited"),
    *("bypassed", "error", "missed_undecodable", "missed_foreign", *(f"refused_{reason}" for reason in REFUSE_REASONS)),
)
"""
What a cell counts, in the order of its numbers. Only append: roll-ups of 30 days are in this order.

What is common comes first: zeros at the end are not kept, and above 64 bytes Redis takes three times the memory.
"""

INDEX: Final = {event: i for i, event in enumerate(EVENTS)}

TIMES: Final = ("timed", "read_us")
"""What a cell counts besides: reads that were timed, and how long they took together."""

LATENCY_BOUNDS_US: Final = (
    *(50, 100, 150, 200, 250, 300, 400, 500, 700, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 7000, 10_000, 15_000),
    *(25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000),
)
"""Upper bounds of the buckets of read latency, inclusive; one more bucket holds what is above. Never change them."""

EVERY_TENANT: Final = "*"
"""The tenant of an invalidation that reached all of them."""

OTHER: Final = "\0other"
"""Group and tenant of what is counted beyond the bound on names. No group or tenant of a site has this name."""

Cell: TypeAlias = tuple[str, str, str | None]
"""What counts belong to: (alias, group, tenant). Group "" is a whole tenant's; tenant None is shared data."""

Dropped: TypeAlias = tuple[str, str | None, str, str, str]
"""One kind of invalidation: (alias, tenant, what, source, name)."""

MarkKind: TypeAlias = Literal["deploy", "clear", "drop", "rule", "server", "away", "back"]
"""`deploy` a new release · `clear` a whole tenant or alias was invalidated by a person · `drop` the same by a rule or
by code · `rule` the map was edited · `server` another server, or the same one restarted, answers · `away`, `back` it
stopped answering, and answers again."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to name on the charts."""

    kind: MarkKind
    text: str
    """Release, rule or alias; for `clear` the alias, for `drop` aliases and who did it."""
    at: float
    """Seconds since 1970."""
    tenant: str | None = EVERY_TENANT
    """Whom it concerns."""


@dataclass(slots=True)
class Delta:
    """What was counted since the last flush."""

    counts: dict[Cell, list[int]] = field(default_factory=dict)
    """A cell's numbers in the order of EVENTS."""
    times: dict[Cell, list[int]] = field(default_factory=dict)
    """A cell's numbers in the order of TIMES, of those in `counts` with reads that were timed."""
    latency: dict[str, list[int]] = field(default_factory=dict)
    """Alias -> the counts of its latency buckets."""
    dropped: dict[Dropped, int] = field(default_factory=dict)
    """Everything that was invalidated; one invalidation may drop several things."""
    sources: dict[tuple[str, str], int] = field(default_factory=dict)
    """(alias, source) -> invalidations, as many as the cells' `invalidated` add up to."""
    freed: dict[str, int] = field(default_factory=dict)
    """Name of a rule, or of several that fired together -> entries whose memory was given back for it."""
    marks: list[Mark] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.counts or self.latency or self.dropped or self.sources or self.freed or self.marks)


Sink: TypeAlias = Callable[[Delta], None]
"""Takes each flush's delta exactly once, in the flushing thread; what it raises is logged."""
