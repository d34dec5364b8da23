"""The counters as the lists show them: per tenant and per group, for the alias and range that a page was asked for."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin import overview
from cacheadmin.exceptions import CacheAway
from cacheadmin.overview import Allowed, group_rows, tenant_rows
from cacheadmin.overview import Figures as Figures
from cacheadmin.overview.figures import figures
from cacheadmin.overview.ranges import Span as TimeSpan
from cacheadmin.overview.rows import Group, ask_groups, changes, dropped_a_minute, fold, summed
from cacheadmin.stats.history import Command, DroppedLine, Reader
from cacheadmin.stats.layout import DAY, MINUTE, TEN_MINUTES, starts
from cacheadmin.targets import All
from cacheadmin.tenancy import EVERYONE

from . import formats
from .access import Access
from .pages import Figure

RANGES: Final[dict[str, tuple[int, str | Promise]]] = {
    "15m": (15 * 60, gettext_lazy("Last 15 minutes")),
    "1h": (3600, gettext_lazy("Last hour")),
    "3h": (3 * 3600, gettext_lazy("Last 3 hours")),
    "24h": (24 * 3600, gettext_lazy("Last 24 hours")),
    "7d": (7 * 24 * 3600, gettext_lazy("Last 7 days")),
}
"""Value of the parameter `range` -> seconds, label."""

DEFAULT_RANGE: Final = "3h"


@dataclass(frozen=True, slots=True)
class Span:
    """The alias and the range of time that a page shows."""

    alias: str | None
    """None for all."""
    range: str
    access: Access

    @classmethod
    def of(cls, query: QueryDict, access: Access) -> Span:
        """
        Read them from a query string; what is unknown means all aliases and the last 3 hours.

        Somebody who may see some aliases only sees one at a time: the first, unless he chose another.
        """
        alias, span = query.get("alias"), query.get("range", "")
        default = next(iter(access.aliases), None) if access.is_restricted else None
        return cls(alias if alias in access.aliases else default, span if span in RANGES else DEFAULT_RANGE, access)

    @property
    def seconds(self) -> int:
        return RANGES[self.range][0]

    @property
    def label(self) -> str:
        return str(RANGES[self.range][1])

    @property
    def aliases(self) -> list[tuple[str, str, bool]]:
        """The choices for the alias: value, label, whether it is chosen."""
        every = [] if self.access.is_restricted else [("", _("All aliases"))]
        names = [*every, *((alias, alias) for alias in self.access.aliases)]
        return [(value, label, value == (self.alias or "")) for value, label in names]

    @property
    def ranges(self) -> list[tuple[str, str, bool]]:
        """The choices for the range: value, label, whether it is chosen."""
        return [(value, str(label), value == self.range) for value, (_seconds, label) in RANGES.items()]


NOTHING: Final = Figures()


def sort_key(numbers: Figures, field: str) -> float:
    """Return the number to sort a table by; the unknown comes where nothing is."""
    value = {
        "ratio": numbers.hit_ratio,
        "requests": numbers.requests,
        "misses": numbers.misses,
        "cost": numbers.cost,
        "invalidated": numbers.invalidations,
    }.get(field)
    return value if value is not None else (2.0 if field == "ratio" else -1.0)


def by_tenant(span: Span) -> dict[str | None, Figures]:
    """Return what was counted for each tenant the user may see. Cost: 1 round trip."""
    try:
        return tenant_rows(overview.RANGES[span.range], alias=span.alias, tenants=span.access.tenants)
    except CacheAway:
        return {}


def by_group(span: Span, tenants: str | All | Collection[str | None] | None) -> dict[Group, Figures]:
    """Return what was counted for each (alias, group) of a tenant, of some, or over all. Cost: 1 round trip."""
    wanted: Allowed
    if isinstance(tenants, All):
        wanted = EVERYONE
    else:
        wanted = (tenants,) if tenants is None or isinstance(tenants, str) else tenants
    try:
        return group_rows(overview.RANGES[span.range], alias=span.alias, tenants=wanted)
    except CacheAway:
        return {}


def by_group_and_dropped(
    span: Span, tenants: str | All | None, along: Iterable[Command] = ()
) -> tuple[dict[Group, Figures], list[DroppedLine] | None, list[Any] | None]:
    """
    Return what `by_group` does, what was invalidated in 24 hours, and replies to commands for the counters' database.

    Cost:    1 round trip. What is not known is None.
    """
    now, reader = time.time(), Reader()
    answer = ask_groups(
        reader,
        TimeSpan(overview.RANGES[span.range], now),
        span.alias,
        EVERYONE if isinstance(tenants, All) else (tenants,),
    )
    dropped, others = reader.dropped(now - DAY, now), reader.also(along)
    try:
        reader.run()
    except CacheAway:
        return {}, None, None
    return answer().figures(), dropped.value, others.value


@dataclass(frozen=True, slots=True)
class PlaceFigures:
    """What was counted for one tenant, read at once."""

    whole: Figures = NOTHING
    groups: Mapping[Group, Figures] = field(default_factory=dict)
    dropped: Sequence[DroppedLine] = ()
    """What was invalidated in the last 24 hours and may concern the tenant, newest first."""


def of_place(span: Span, tenant: str | None) -> PlaceFigures:
    """Return what was counted for a tenant and its groups, and what was invalidated. Cost: 1 round trip."""
    within, now = overview.RANGES[span.range], time.time()
    time_span = TimeSpan(within, now)
    reader = Reader()
    born, only = reader.born(), [tenant]
    day = max(time_span.since, now - DAY)
    lines = reader.dropped(now - DAY, now)
    coarse = reader.tenants(time_span.coarse, within.coarse, only)
    recent = reader.tenants(time_span.recent, MINUTE, only)
    groups = reader.groups_of(only, time_span.both, within.both)
    latest = reader.groups_of(only, starts(TEN_MINUTES, now - TEN_MINUTES, now), TEN_MINUTES)
    try:
        reader.run()
    except CacheAway:
        return PlaceFigures()

    def is_asked(alias: str) -> bool:
        return span.alias in (None, alias)

    whole = fold(coarse.value, lambda name: tenant_key(name[1]) if is_asked(name[0]) else None)
    now_whole = fold(recent.value, lambda name: tenant_key(name[1]) if is_asked(name[0]) else None)
    by_time = fold(groups.value, lambda name: name if is_asked(name[0]) else None)
    newest = fold(latest.value, lambda name: name if is_asked(name[0]) else None)
    key, sums = tenant_key(tenant), summed(by_time.values())
    now_of_whole = time_span.now_of(now_whole, born.value)
    moved_whole = changes(whole, summed(now_of_whole.buckets), now_of_whole.before)
    moved = changes(by_time, summed(newest.values()), time_span.before(min(newest, default=now), born.value))
    minutes = time_span.minutes(time_span.coarse[0], now, born.value)
    group_minutes = time_span.minutes(time_span.both[0], now, born.value)
    dropped = dropped_a_minute(lines.value, sums, only, day, time_span.minutes(day, now, born.value))
    return PlaceFigures(
        whole=figures(summed(whole.values()).get(key), minutes, change=moved_whole.get(key)),
        groups={
            name: figures(numbers, group_minutes, change=moved.get(name), invalidations=dropped.get(name, 0.0))
            for name, numbers in sums.items()
        },
        dropped=lines.value,
    )


def tenant_key(tenant: str | None) -> tuple[str | None]:
    """Return a tenant as a name that is never None, for counts in which None means "leave out"."""
    return (tenant,)


# --- in words -------------------------------------------------------------------------------------------------------


def about(size_bytes: int | None) -> str:
    """Return a size that was estimated."""
    return "" if not size_bytes else formats.size_estimate(size_bytes)


def ago_parts(when: dt.datetime | float | None) -> tuple[str, str]:
    """Return "12" and "min ago" for a strip."""
    return formats.parted(formats.ago(when, time.time()))


def strip_of(numbers: Figures) -> list[Figure]:
    """Return the figures that the pages of a tenant, a group and its entries share."""
    change = numbers.change
    level: Literal["", "bad"] = "bad" if numbers.is_worse else ""
    sign = "" if change is None or abs(change) < 0.0005 else "▲ " if change > 0 else "▼ "
    note = "" if change is None else _("%(sign)s%(points)s points") % {"sign": sign, "points": formats.points(change)}
    misses, per = formats.rate(numbers.misses).partition("/")[::2]
    why = ", ".join(f"{formats.rate(n)} {reason_word(reason)}" for reason, n in worst_reasons(numbers))
    cost = "" if numbers.cost is None else _("%(time)s a minute") % {"time": formats.duration(numbers.cost)}
    compute, unit = formats.parted(formats.duration(numbers.mean_compute))
    return [
        Figure(_("Hit ratio"), formats.percent(numbers.hit_ratio, 1), note=note, level=level),
        Figure(_("Misses"), misses, f"/{per}" if per else "", note=why),
        Figure(_("Mean compute"), compute, unit, note=cost),
    ]


def worst_reasons(numbers: Figures) -> list[tuple[str, float]]:
    """Return the two most frequent reasons of misses, with their rates a minute."""
    return sorted(numbers.reasons.items(), key=lambda pair: -pair[1])[:2]


def reason_word(reason: str) -> str:
    """Return the word for a reason of misses."""
    words = {
        "absent": _("absent"),
        "invalidated": _("invalidated"),
        "expired": _("expired"),
        "cold": _("never stored"),
        "evicted": _("evicted"),
        "undecodable": _("unreadable"),
        "foreign": _("foreign"),
    }
    return words.get(reason, reason)
