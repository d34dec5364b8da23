"""Who misses: the first of some names, and all others together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from ..stats.history import Buckets
from .figures import READS_TO_JUDGE, Figures, figures
from .ranges import Now
from .rows import changes, fold, summed

K = TypeVar("K", bound=Hashable)

Order: TypeAlias = Literal["cost", "misses", "churn"]

RANKED: Final = 6

BUSIEST: Final = 20
"""Names among which the worst is looked for."""

READS_TO_DRAW: Final = 20
"""Reads in five minutes from which one can be the worst."""


@dataclass(frozen=True, slots=True)
class Row(Generic[K]):
    """One line of *Who misses*."""

    name: K
    """A tenant's id (None is shared data), or (alias, group)."""
    figures: Figures


@dataclass(frozen=True, slots=True)
class Ranking(Generic[K]):
    """The first of some names, and all others together, so that columns add up."""

    rows: tuple[Row[K], ...] = ()
    others: Figures | None = None
    others_count: int = 0


def rank(
    coarse: Buckets[K],
    newest: Now[K],
    order: Order,
    *,
    is_other: Callable[[K], bool],
    dropped: Mapping[K, float] | None = None,
) -> Ranking[K]:
    """
    Rank names by what they cost in `newest`; `coarse` are the range's buckets, for the change.

    Names that are other by themselves, and all after the first six, are the others. `dropped` are invalidations a
    minute where the counts do not know them.
    """
    now, minutes = summed(newest.buckets), newest.minutes

    def churn(name: K) -> float | None:
        return None if dropped is None else dropped.get(name, 0.0)

    def weight(name: K) -> tuple[float, float]:
        found = figures(now[name], minutes, invalidations=churn(name))
        values = {"cost": found.cost, "misses": found.misses, "churn": found.invalidations}
        return values[order] or 0.0, found.requests or 0.0

    names = sorted((name for name in now if not is_other(name)), key=weight, reverse=True)[:RANKED]
    first: dict[K, tuple[K, ...]] = {name: (name,) for name in names}
    rest: tuple[K, ...] = ()
    by_time = fold(coarse, lambda name: first.get(name, rest))
    sums = summed(fold(dict(enumerate(newest.buckets)), lambda name: first.get(name, rest)).values())
    moved = changes(by_time, sums, newest.before)
    rows = tuple(
        Row(name, figures(sums[key], minutes, change=moved.get(key), invalidations=churn(name)))
        for name, key in first.items()
    )
    if rest not in sums:
        return Ranking(rows)
    others = None if dropped is None else sum(count for name, count in dropped.items() if name not in first)
    found = figures(sums[rest], minutes, change=moved.get(rest), invalidations=others)
    return Ranking(rows, found, len(now) - len(first))


def worst_of(newest: Now[K], *, is_other: Callable[[K], bool]) -> Row[K] | None:
    """Return the one with the lowest hit ratio among the busiest; None if there are not two to compare."""
    found = [Row(name, figures(numbers, newest.minutes)) for name, numbers in summed(newest.buckets).items()]
    found = [row for row in found if not is_other(row.name)]
    busiest = sorted(found, key=lambda row: -row.figures.reads)[:BUSIEST]
    able = [row for row in busiest if row.figures.hit_ratio is not None and row.figures.reads >= READS_TO_DRAW]
    return min(able, key=lambda row: row.figures.hit_ratio or 0.0) if len(able) > 1 else None


def fallen_of(coarse: Buckets[K], newest: Now[K], *, is_other: Callable[[K], bool]) -> list[Row[K]]:
    """Return those whose hit ratio fell far below the range's median, with reads enough to judge; dearest first."""
    now = summed(newest.buckets)
    moved = changes(coarse, now, newest.before)
    found = [
        Row(name, figures(n, newest.minutes, change=moved.get(name))) for name, n in now.items() if not is_other(name)
    ]
    fallen = [row for row in found if row.figures.is_worse and row.figures.reads >= READS_TO_JUDGE]
    return sorted(fallen, key=lambda row: -(row.figures.cost or 0.0))
