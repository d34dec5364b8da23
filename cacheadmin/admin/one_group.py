"""What was counted for one group: its charts, and the tenants that its misses cost most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

from cacheadmin.admin.charts import Chart, Line, Sheet
from cacheadmin.admin.marks import named
from cacheadmin.admin.series import begun, percents, results
from cacheadmin.overview import Advised, Range
from cacheadmin.overview.advised import ask_facts
from cacheadmin.overview.drops import with_drops
from cacheadmin.overview.figures import figures, total
from cacheadmin.overview.ranges import Span
from cacheadmin.overview.rows import Allowed
from cacheadmin.overview.series import series
from cacheadmin.stats.counts import EVERY_TENANT, OTHER
from cacheadmin.stats.history import Later, Numbers, Reader
from cacheadmin.stats.layout import DAY, HOUR, TEN_MINUTES, starts
from cacheadmin.tenancy import Everyone

TENANTS: Final = 20
"""Tenants that are looked at: those whose misses cost most over all groups."""

Group = tuple[str, str]
Buckets = dict[int, dict[Group, Numbers]]


@dataclass(frozen=True, slots=True)
class OneGroup:
    """The charts of a group, and its tenants by cost."""

    sheet: Sheet
    tenants: list[Advised]


def look(group: Group, within: Range, allowed: Allowed) -> OneGroup:
    """
    Return what was counted for an (alias, group), over all tenants or over those allowed.

    Cost:    two round trips, of as many commands as the range has buckets, times the tenants looked at.
    Raises:  CacheAway.
    """
    span = Span(within, time.time())
    step = _step(within, is_all=isinstance(allowed, Everyone))
    times = starts(step, max(span.since, span.now - DAY) if not isinstance(allowed, Everyone) else span.since, span.now)
    reader = Reader()
    born, marks = reader.born(), reader.marks(span.since, span.now)
    lines, ask = reader.dropped(max(span.since, span.now - DAY), span.now), ask_facts(reader, span)
    active = reader.tenants(span.coarse, within.coarse, None if isinstance(allowed, Everyone) else allowed)
    asked: Later[Buckets] = (
        reader.groups(times, step) if isinstance(allowed, Everyone) else reader.groups_of(allowed, times, step)
    )
    reader.run()
    busiest = _busiest(active.value, group[0])
    second = Reader()
    by_tenant = [(tenant, second.groups_of([tenant], span.both, within.both)) for tenant in busiest]
    second.run()
    minutes = span.minutes(span.both[0], span.now, born.value)
    found = [(tenant, total(n[group] for n in later.value.values() if group in n)) for tenant, later in by_tenant]
    facts = ask(lines.value, minutes)
    rows = [facts.advised(group, tenant, numbers, minutes) for tenant, numbers in found if numbers is not None]
    rows.sort(key=lambda row: -(row.figures.cost or 0.0))
    counts = {start: names[group] for start, names in asked.value.items() if group in names}
    points = begun(series(list(times), step, counts, {}, born=born.value or span.now, now=span.now))
    ratio = Chart(
        "ratio",
        _("Hit ratio"),
        points.times,
        [Line(_("all"), percents(points.hit_ratio), "hit")],
        "%",
        1,
        100,
        is_named=True,
    )
    shown = [mark for mark in marks.value if isinstance(allowed, Everyone) or mark.tenant in (EVERY_TENANT, *allowed)]
    whose = [line for line in lines.value if isinstance(allowed, Everyone) or line.tenant in (EVERY_TENANT, *allowed)]
    shown = with_drops(shown, whose, span.since, span.now, alias=group[0])
    return OneGroup(Sheet(points.times, [ratio, results(points)], *named(shown, span.now, step)), rows)


def _step(within: Range, *, is_all: bool) -> int:
    """Return the seconds between two points: of some tenants' groups only tens of minutes and hours are kept."""
    if within.seconds > DAY:
        return HOUR
    if is_all:
        return within.step if within.seconds <= 3 * HOUR else TEN_MINUTES
    return within.both


def _busiest(active: dict[int, dict[tuple[str, str | None], Numbers]], alias: str) -> list[str | None]:
    sums: dict[str | None, list[Numbers]] = {}
    for names in active.values():
        for (of, tenant), numbers in names.items():
            if of == alias and tenant not in (EVERY_TENANT, OTHER):
                sums.setdefault(tenant, []).append(numbers)
    costs = {tenant: figures(total(some), 1).cost or 0.0 for tenant, some in sums.items()}
    return sorted(costs, key=lambda tenant: -costs[tenant])[:TENANTS]
