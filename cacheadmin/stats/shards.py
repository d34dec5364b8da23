"""What one thread counts, and the difference to what a flush saw last. No lock, no I/O."""

from __future__ import annotations

import weakref
from typing import TypeVar

from .counts import EVENTS, Cell, Delta, Dropped

_K = TypeVar("_K")


class Shard:
    """The counts of one thread, which alone writes to them. They only grow; who flushes remembers what it has seen."""

    __slots__ = (
        *("born", "counts", "dropped", "freed", "owner", "seen", "seen_dropped", "seen_freed", "seen_sources"),
        "sources",
    )

    def __init__(self, born: int, owner: object) -> None:
        self.born = born
        self.owner = weakref.ref(owner)
        self.counts: dict[Cell | str, list[int]] = {}
        self.seen: dict[Cell | str, list[int]] = {}
        self.dropped: dict[Dropped, int] = {}
        self.seen_dropped: dict[Dropped, int] = {}
        self.sources: dict[tuple[str, str], int] = {}
        self.seen_sources: dict[tuple[str, str], int] = {}
        self.freed: dict[str, int] = {}
        self.seen_freed: dict[str, int] = {}


class Owner:
    """Held by nothing but its thread's local storage, so that its death says that the thread has ended."""


def take_counts(shard: Shard, delta: Delta) -> None:
    """Add to a delta what a thread has counted since the last time, though it goes on counting meanwhile."""
    # dict.copy() is one step under the GIL, and list(dict.items()) is not: it makes pairs, hence room for the garbage
    # collector, whose finalizers let the owner go on adding cells.
    for cell, numbers in shard.counts.copy().items():
        now = numbers.copy()
        before = shard.seen.get(cell)
        if now == before or (before is None and not any(now)):
            continue
        shard.seen[cell] = now
        added = now if before is None else [a - b for a, b in zip(now, before, strict=True)]
        if isinstance(cell, str):
            _add(delta.latency, cell, added)
        else:
            _add(delta.counts, cell, added[: len(EVENTS)])
            if any(added[len(EVENTS) :]):
                _add(delta.times, cell, added[len(EVENTS) :])
    _take_numbers(shard.dropped, shard.seen_dropped, delta.dropped)
    _take_numbers(shard.sources, shard.seen_sources, delta.sources)
    _take_numbers(shard.freed, shard.seen_freed, delta.freed)


def _take_numbers(counted: dict[_K, int], seen: dict[_K, int], into: dict[_K, int]) -> None:
    for kind, count in counted.copy().items():
        if added := count - seen.get(kind, 0):
            seen[kind] = count
            into[kind] = into.get(kind, 0) + added


def _add(into: dict[_K, list[int]], key: _K, numbers: list[int]) -> None:
    known = into.get(key)
    into[key] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
