"""Everything that the console's first page shows, put together from the roll-ups and from INFO."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, TypeVar

from ..conf import config
from ..exceptions import CacheAway
from ..stats import EVERY_TENANT, OTHER, Mark
from ..stats.history import Command, DroppedLine, Group, Numbers, Reader
from ..stats.layout import MINUTE, starts
from ..tenancy import Everyone
from .drops import with_drops
from .fetching import FetchFailed
from .figures import Figure, figure, figures, hit_ratio, percentile_ms, total
from .health import AliasRow, Server, alias_rows, look
from .notes import Note, away, cause_of, deploy_at, fell_at
from .promql import redrawn
from .ranges import DEFAULT_RANGE, RANGES, Now, Range, Span
from .ranking import Order, Ranking, Row, fallen_of, rank, worst_of
from .rows import Allowed, dropped_a_minute, fold, summed
from .series import Series, by_step, series
from .sources import Sources, read

K = TypeVar("K")

Lines: TypeAlias = dict[K, dict[int, float | None]]
"""Name -> beginning of a bucket -> hit ratio."""

UNKNOWN: Final = Figure()

Along: TypeAlias = Callable[[Sequence[str | None]], Iterable[Command]]
"""From the tenants of the table to commands that are sent along with the second round trip to the roll-ups."""


@dataclass(frozen=True, slots=True)
class Strip:
    """The strip of numbers."""

    hit_ratio: Figure = UNKNOWN
    requests: Figure = UNKNOWN
    """A second."""
    p50_ms: Figure = UNKNOWN
    p95_ms: Figure = UNKNOWN
    cost: Figure = UNKNOWN
    """Seconds of computing a minute."""
    invalidations: Figure = UNKNOWN
    """A minute."""
    waiting: int | None = None
    lag_seconds: float | None = None
    waited_most: int | None = None
    """The most that waited at a time in the range, as far as anybody looked; so is `lag_most_seconds`."""
    lag_most_seconds: float | None = None
    used_bytes: int | None = None
    limit_bytes: int | None = None
    """None if a server has no limit."""
    evicted: int | None = None
    """Keys evicted in the range."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The first page."""

    range: Range
    alias: str | None
    now: float
    notes: tuple[Note, ...]
    """Worst first; empty when all is well."""
    strip: Strip
    series: Series
    worst: Row[str | None] | None
    """The worst of the busiest tenants, whose line the chart shows."""
    marks: tuple[Mark, ...]
    tenants: Ranking[str | None]
    groups: Ranking[Group]
    aliases: tuple[AliasRow, ...]
    """Empty for a user who is bound to some tenants."""
    is_known: bool
    """Whether the counters could be read."""
    lines: tuple[DroppedLine, ...] = ()
    """What was invalidated in the range, newest first, as far as the user may see it."""
    along: tuple[Any, ...] | None = None
    """The replies to what was sent along; None if nothing was."""
    charts_from: Literal["rollups", "prometheus"] = "rollups"
    charts_error: str = ""
    """Why the charts are not drawn from Prometheus, though it is named; for anybody to read."""


def overview(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    order: Order = "cost",
    waiting: int | None = None,
    lag_seconds: float | None = None,
    now: float | None = None,
    along: Along | None = None,
) -> Overview:
    """
    Return what the first page shows.

    `tenants` are those the user may see: figures are then theirs alone, without shared data, memory and servers.
    Cost:    two round trips to the server of the roll-ups, one to each other server. Grows with the buckets of the
             range, with the tenants and groups that were active; never with the number of entries.
             One HTTP request where PROMETHEUS_URL is set, for users who may see everything: it knows no tenants.
    Raises:  nothing for a server that is away: it is a note.
    """
    span = Span(within, time.time() if now is None else now)
    try:
        found = read(span, tenants)
        page = _Page(span, alias, tenants, order, found).built(look(found.info), waiting, lag_seconds, along)
        return _redrawn(page) if config().prometheus_url and isinstance(tenants, Everyone) else page
    except CacheAway:
        servers = look()
        empty = series(starts(within.step, span.since, span.now), within.step, {}, {}, now=span.now)
        return Overview(
            range=within,
            alias=alias,
            now=span.now,
            notes=tuple(away(servers)),
            strip=Strip(waiting=waiting, lag_seconds=lag_seconds),
            series=empty,
            worst=None,
            marks=(),
            tenants=Ranking(),
            groups=Ranking(),
            aliases=alias_rows(servers, {}) if isinstance(tenants, Everyone) else (),
            is_known=False,
        )


def _redrawn(page: Overview) -> Overview:
    """Draw the charts from Prometheus; if that fails they stay as they are, and why is noted."""
    try:
        return replace(page, series=redrawn(page.series, page.alias, page.now), charts_from="prometheus")
    except FetchFailed as error:
        return replace(page, charts_error=str(error))


def is_other_tenant(name: tuple[str | None]) -> bool:
    """Say whether this stands for tenants that were not counted apart."""
    return name == (OTHER,)


def is_other_group(name: Group) -> bool:
    """Say whether this stands for groups that were not counted apart."""
    return name[1] == OTHER


class _Page:
    """The figures of one view of the page, from what was read for it."""

    def __init__(self, span: Span, alias: str | None, allowed: Allowed, order: Order, found: Sources) -> None:
        self.span, self.alias, self.allowed, self.order, self.read = span, alias, allowed, order, found
        self.step = span.within.step if isinstance(allowed, Everyone) else span.within.tenant_step
        self.times = starts(self.step, span.since, span.now)
        self.recent = span.now_of(found.recent, found.born)

    def built(
        self, servers: tuple[Server, ...], waiting: int | None, lag_seconds: float | None, along: Along | None
    ) -> Overview:
        """Put the page together. Cost: one round trip, for the lines of the tenants that miss most."""
        coarse, newest = fold(self.read.tenants, self._whose), self._recent_tenants()
        tenants = rank(coarse, newest, self.order, is_other=is_other_tenant)
        worst, fallen = worst_of(newest, is_other=is_other_tenant), fallen_of(coarse, newest, is_other=is_other_tenant)
        groups = fallen_of(fold(self.read.groups, self._of_alias), self._recent_groups(), is_other=is_other_group)
        names = {row.name[0] for row in fallen} | ({worst.name[0]} if worst else set())
        besides = [*along([row.name[0] for row in tenants.rows])] if along is not None else []
        lines, group_lines, replies = self._lines(names, [row.name for row in groups], besides)
        points = self._series(lines.get(worst.name[0]) if worst else None)
        is_all = isinstance(self.allowed, Everyone)
        shown = [s for s in servers if self.alias is None or self.alias in s.aliases]
        return Overview(
            range=self.span.within,
            alias=self.alias,
            now=self.span.now,
            notes=(
                *away(servers),
                *(self._tenant_note(row, lines.get(row.name[0], {})) for row in fallen),
                *(self._group_note(row, group_lines[row.name]) for row in groups),
                *([Note("empty")] if self.read.is_empty else ()),
            ),
            strip=self._strip(points, shown if is_all else [], waiting, lag_seconds),
            series=points,
            worst=Row(worst.name[0], worst.figures) if worst else None,
            marks=tuple(with_drops(self.read.marks, self.read.lines, self.span.since, self.span.now, alias=self.alias)),
            tenants=Ranking(
                tuple(Row(row.name[0], row.figures) for row in tenants.rows), tenants.others, tenants.others_count
            ),
            groups=self._groups(),
            aliases=alias_rows(servers, self._ratios()) if is_all else (),
            is_known=True,
            lines=tuple(self.read.lines),
            along=replies,
        )

    # --- strip and charts -------------------------------------------------------------------------------------------

    def _now(self) -> Numbers | None:
        return total(n for names in self.recent.buckets for alias, n in names.items() if self.alias in (None, alias))

    def _ratios(self) -> dict[str, float | None]:
        return {alias: hit_ratio(numbers) for alias, numbers in summed(self.recent.buckets).items()}

    def _series(self, worst: Mapping[int, float | None] | None) -> Series:
        return series(
            self.times,
            self.step,
            by_step(self.read.counts, self.step, self.alias),
            by_step(self.read.latency, self.step, self.alias),
            samples=self.read.samples,
            waited=self.read.waited,
            worst=worst,
            born=self.read.born or self.span.now,
            now=self.span.now,
        )

    def _strip(self, points: Series, servers: list[Server], waiting: int | None, lag_seconds: float | None) -> Strip:
        now = figures(self._now(), self.recent.minutes)
        newest = self.span.now_of(self.read.recent_latency, self.read.born)
        latency = total(n for names in newest.buckets for alias, n in names.items() if self.alias in (None, alias))
        ratio = self._held(now.hit_ratio, points.hit_ratio)
        known = [server.info for server in servers if server.info is not None]
        return Strip(
            hit_ratio=Figure(ratio.value, ratio.median, ratio.change is not None and ratio.change <= -0.02),
            requests=self._held(None if now.requests is None else now.requests / MINUTE, points.requests),
            p50_ms=self._held(percentile_ms(latency, 0.50), points.p50_ms, times=1.5, least=1.0),
            p95_ms=self._held(percentile_ms(latency, 0.95), points.p95_ms, times=1.5, least=1.0),
            cost=self._held(now.cost, points.cost, times=1.5, least=1.0),
            invalidations=self._held(now.invalidations, points.invalidations, times=2.0, least=5.0),
            waiting=waiting,
            lag_seconds=lag_seconds,
            waited_most=max((count for count in points.waiting if count is not None), default=None),
            lag_most_seconds=max((lag for lag in points.lag_seconds if lag is not None), default=None),
            used_bytes=sum(info.used_bytes for info in known) if known else None,
            limit_bytes=sum(i.limit_bytes for i in known) if known and all(i.limit_bytes for i in known) else None,
            evicted=sum(gone for gone in points.evicted if gone) if self.read.samples else None,
        )

    def _held(
        self, value: float | None, values: Sequence[float | None], *, times: float = 0.0, least: float = 0.0
    ) -> Figure:
        """Hold a figure of now against the range, if the site has counted for long enough to have a before."""
        is_young = self.recent.before < 0
        return figure(value, [] if is_young else values, times=times, least=least)

    # --- who misses -------------------------------------------------------------------------------------------------

    def _whose(self, name: tuple[str, str | None]) -> tuple[str | None] | None:
        """Take the alias off a tenant's name. In a tuple, because None is a name: shared data."""
        return (name[1],) if self.alias in (None, name[0]) and name[1] != EVERY_TENANT else None

    def _recent_tenants(self) -> Now[tuple[str | None]]:
        return self.span.now_of(fold(self.read.recent_tenants, self._whose), self.read.born)

    def _of_alias(self, name: Group) -> Group | None:
        return name if self.alias in (None, name[0]) else None

    def _recent_groups(self) -> Now[Group]:
        recent = fold(self.read.recent_groups, self._of_alias)
        if isinstance(self.allowed, Everyone):
            return self.span.now_of(recent, self.read.born)
        since = min(recent, default=self.span.minute)  # counts of one tenant's groups are kept by ten minutes only
        minutes, before = (
            self.span.minutes(since, self.span.now, self.read.born),
            self.span.before(since, self.read.born),
        )
        return Now(list(recent.values()), since, minutes, before)

    def _groups(self) -> Ranking[Group]:
        newest = self._recent_groups()
        names = list(summed(newest.buckets))
        dropped = dropped_a_minute(self.read.lines, names, self.allowed, newest.since, newest.minutes)
        coarse = fold(self.read.groups, self._of_alias)
        return rank(coarse, newest, self.order, is_other=is_other_group, dropped=dropped)

    def _lines(
        self, tenants: set[str | None], groups: list[Group], besides: list[Command]
    ) -> tuple[Lines[str | None], Lines[Group], tuple[Any, ...] | None]:
        """
        Return the hit ratios of some tenants and groups, point by point, and the replies to other commands.

        Cost: at most one round trip.
        """
        of_tenants: Lines[str | None] = {tenant: {} for tenant in tenants}
        of_groups: Lines[Group] = {group: {} for group in groups}
        reader, step = Reader(), self.span.within.tenant_step
        times = starts(step, self.span.since, self.span.now)
        asked = reader.tenants(times, step, tenants)
        is_all = isinstance(self.allowed, Everyone)
        asked_groups = reader.groups(times, step, groups if is_all else [])
        others = reader.also(besides)
        if tenants or besides or (groups and is_all):
            reader.run()
            for start, names in fold(asked.value, self._whose).items():
                for (tenant,), numbers in names.items():
                    for point in range(start, start + step, self.step):
                        of_tenants[tenant][point] = hit_ratio(numbers)
        # Counts of one tenant's groups are kept by ten minutes only.
        fine = asked_groups.value if groups and is_all else self.read.groups
        for start, by_group in fine.items():
            for group in groups:
                of_groups[group][start] = hit_ratio(by_group.get(group))
        return of_tenants, of_groups, tuple(others.value) if besides else None

    # --- notes ------------------------------------------------------------------------------------------------------

    def _tenant_note(self, row: Row[tuple[str | None]], ratios: Mapping[int, float | None]) -> Note:
        tenant, before = row.name[0], (row.figures.hit_ratio or 0.0) - (row.figures.change or 0.0)
        since = fell_at(ratios, before)
        return Note(
            "tenant",
            tenant=tenant,
            hit_ratio=row.figures.hit_ratio,
            before=before,
            since=since,
            cause=cause_of(self.read.lines, since, self.span.now, tenant=tenant) if since else None,
            deploy=deploy_at(self.read.marks, since),
        )

    def _group_note(self, row: Row[Group], ratios: Mapping[int, float | None]) -> Note:
        (alias, group), before = row.name, (row.figures.hit_ratio or 0.0) - (row.figures.change or 0.0)
        since = fell_at(ratios, before)
        return Note(
            "group",
            aliases=(alias,),
            group=group,
            hit_ratio=row.figures.hit_ratio,
            before=before,
            since=since,
            cause=cause_of(self.read.lines, since, self.span.now, group=group) if since else None,
            deploy=deploy_at(self.read.marks, since),
        )
