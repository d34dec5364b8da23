"""Figures by name: each tenant's, each group's, over a range. For the pages Tenants, Groups and Cached functions."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from ..stats import EVERY_TENANT, OTHER
from ..stats.history import Buckets, DroppedLine, Later, Numbers, Reader
from ..stats.history import Group as Group
from ..stats.layout import DAY, MINUTE, TEN_MINUTES, added, starts
from ..tenancy import Everyone
from .figures import Figures, figures, hit_ratio, mean_seconds, median_of, total
from .ranges import DEFAULT_RANGE, RANGES, Range, Span

K = TypeVar("K", bound=Hashable)
N = TypeVar("N", bound=Hashable)

Allowed: TypeAlias = Collection[str | None] | Everyone
"""The tenants to count, None being shared data; EVERYONE for all."""


def fold(buckets: Mapping[int, Mapping[K, Numbers]], key: Callable[[K], N | None]) -> Buckets[N]:
    """Add counts up under other names; `key` returns None for what is left out."""
    found: Buckets[N] = {}
    for start, names in buckets.items():
        into = found[start] = {}
        for name, numbers in names.items():
            new = key(name)
            if new is not None:
                known = into.get(new)
                into[new] = numbers if known is None else added(known, numbers)
    return found


def changes(
    coarse: Mapping[int, Mapping[K, Numbers]], now: Mapping[K, Numbers], before: float
) -> dict[K, float | None]:
    """
    Return each name's hit ratio of now less the median of its buckets; None where it has no reads now.

    Neither has one whose reads did not begin until `before`: what was filled first misses, and there is nothing to
    compare with.
    """
    ratios: dict[K, list[float | None]] = defaultdict(list)
    known: set[K] = set()
    for start, names in coarse.items():
        for name, numbers in names.items():
            ratios[name].append(hit_ratio(numbers))
            if start <= before:
                known.add(name)
    found: dict[K, float | None] = {}
    for name, numbers in now.items():
        ratio, middle = hit_ratio(numbers), median_of(ratios.get(name, ()))
        found[name] = None if ratio is None or middle is None or name not in known else ratio - middle
    return found


def summed(buckets: Iterable[Mapping[K, Numbers]]) -> dict[K, Numbers]:
    """Add buckets up, name by name."""
    by_name: dict[K, list[Numbers]] = defaultdict(list)
    for names in buckets:
        for name, numbers in names.items():
            by_name[name].append(numbers)
    return {name: total(some) or [] for name, some in by_name.items()}


def dropped_a_minute(
    lines: Iterable[DroppedLine], groups: Collection[Group], allowed: Allowed, since: float, minutes: float
) -> dict[Group, float]:
    """
    Return how often each group was invalidated, a minute: by its name or by a prefix of it, of these tenants or of all.

    A whole tenant's invalidations are not counted here: they are the tenant's.
    """
    found: dict[Group, float] = defaultdict(float)
    for line in lines:
        if line.at + MINUTE <= since or not _concerns(line, allowed):
            continue
        kind, _, name = line.what.partition(" ")
        if kind == "group":
            found[line.alias, name] += line.count / minutes
        elif kind == "prefix":
            for alias, group in groups:
                if alias == line.alias and group.startswith(name):
                    found[alias, group] += line.count / minutes
    return found


def _concerns(line: DroppedLine, allowed: Allowed) -> bool:
    return isinstance(allowed, Everyone) or line.tenant == EVERY_TENANT or line.tenant in allowed


def tenant_rows(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    now: float | None = None,
) -> dict[str | None, Figures]:
    """
    Return the figures of each tenant with reads or invalidations in the range; None is shared data.

    Rates are over the range, `change` is the last five minutes against the range's median.
    Cost:    one round trip; grows with the tenants that were active, up to 4,000 a bucket and alias set; the rest is
             left out. For at most 100 tenants it grows with these only.
    Raises:  CacheAway.
    """
    span = Span(within, time.time() if now is None else now)
    only = None if isinstance(tenants, Everyone) else tenants
    reader = Reader()
    born = reader.born()
    recent = reader.tenants(span.recent, MINUTE, only)
    coarse = reader.tenants(span.coarse, within.coarse, only)
    times = reader.tenant_times(span.times, within.both, only)
    reader.run()

    def whose(name: tuple[str, str | None]) -> tuple[str | None] | None:
        return None if name[1] in (EVERY_TENANT, OTHER) or alias not in (None, name[0]) else (name[1],)

    by_time = fold(coarse.value, whose)
    newest = span.now_of(fold(recent.value, whose), born.value)
    moved = changes(by_time, summed(newest.buckets), newest.before)
    minutes = span.minutes(span.coarse[0], span.now, born.value)
    timed = summed(fold(times.value, whose).values())
    return {
        name[0]: figures(numbers, minutes, change=moved.get(name), mean_read=mean_seconds(timed.get(name)))
        for name, numbers in summed(by_time.values()).items()
    }


@dataclass(frozen=True, slots=True)
class GroupCounts:
    """What was counted for groups over a range."""

    sums: Mapping[Group, Numbers]
    changes: Mapping[Group, float | None]
    """Hit ratio of now less the range's median."""
    minutes: float
    """Of counting, behind `sums`."""
    lines: list[DroppedLine]
    day: float
    """Minutes of counting behind `lines`."""
    dropped: Mapping[Group, float]
    """Invalidations a minute."""
    timed: Mapping[Group, Numbers]
    """Reads that were timed, and for how long; empty for some tenants: of a tenant's groups it is not kept."""

    def figures(self) -> dict[Group, Figures]:
        """Return the figures of each group."""
        return {
            name: figures(
                numbers,
                self.minutes,
                change=self.changes.get(name),
                invalidations=self.dropped.get(name, 0.0),
                mean_read=mean_seconds(self.timed.get(name)),
            )
            for name, numbers in self.sums.items()
        }


def ask_groups(reader: Reader, span: Span, alias: str | None, tenants: Allowed) -> Callable[[], GroupCounts]:
    """Ask what each group counted; the answer is there once the reader has run."""
    born = reader.born()
    lines = reader.dropped(max(span.since, span.now - DAY), span.now)
    recent: Later[Buckets[Group]]
    coarse: Later[Buckets[Group]]
    times: Later[Buckets[Group]] | None = None
    if isinstance(tenants, Everyone):
        times = reader.group_times(span.times, span.within.both)
        recent, coarse = reader.groups(span.recent, MINUTE), reader.groups(span.coarse, span.within.coarse)
        since = span.coarse[0]
    else:
        latest = starts(TEN_MINUTES, span.now - TEN_MINUTES, span.now)
        recent = reader.groups_of(tenants, latest, TEN_MINUTES)
        coarse = reader.groups_of(tenants, span.both, span.within.both)
        since = span.both[0]

    def of_alias(name: Group) -> Group | None:
        return name if name[1] != OTHER and alias in (None, name[0]) else None

    def answer() -> GroupCounts:
        by_time, newest = fold(coarse.value, of_alias), fold(recent.value, of_alias)
        now: list[Mapping[Group, Numbers]] = [*newest.values()]
        before = span.before(min(newest, default=span.minute), born.value)
        if isinstance(tenants, Everyone):
            chosen = span.now_of(newest, born.value)
            now, before = chosen.buckets, chosen.before
        sums, day = summed(by_time.values()), max(span.since, span.now - DAY)
        minutes = span.minutes(day, span.now, born.value)
        return GroupCounts(
            sums,
            changes(by_time, summed(now), before),
            span.minutes(since, span.now, born.value),
            lines.value,
            minutes,
            dropped_a_minute(lines.value, sums, tenants, day, minutes),
            summed(fold(times.value, of_alias).values()) if times is not None else {},
        )

    return answer


def group_rows(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    now: float | None = None,
) -> dict[Group, Figures]:
    """
    Return the figures of each (alias, group) with reads or fills in the range, over all tenants or over some.

    Rates are over the range; those of some tenants, and all invalidations, over its last 24 hours. `change` is the last
    five minutes (of some tenants: ten to twenty) against the range's median.
    Cost:    one round trip; grows with the groups that were active, or with the tenants asked for.
    Raises:  CacheAway.
    """
    reader = Reader()
    answer = ask_groups(reader, Span(within, time.time() if now is None else now), alias, tenants)
    reader.run()
    return answer().figures()
