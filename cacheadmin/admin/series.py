"""The charts of the overview, from its series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.admin import formats, naming
from cacheadmin.admin.charts import Chart, Line, Sheet
from cacheadmin.admin.marks import named
from cacheadmin.overview import Overview, Series

SMALL: Final = ("latency", "memory", "invalidations")
"""Charts that stand below the table."""

_SCALES: Final = (1 << 30, 1 << 20, 1 << 10)


LEAST_POINTS: Final = 16


def begun(found: Series) -> Series:
    """Return a series without the time before anything was counted, so that a young site's charts can be read."""
    first = next((i for i, value in enumerate(found.hit) if value is not None), 0)
    cut = max(0, min(first, len(found.times) - LEAST_POINTS))
    lists: dict[str, Any] = {f.name: getattr(found, f.name)[cut:] for f in fields(found) if f.default_factory is list}
    return replace(found, **lists)


def sheet_of(found: Overview) -> Sheet:
    """Return the charts of the overview; memory's only where the servers may be seen."""
    found = replace(found, series=begun(found.series))
    made = [ratio(found), results(found.series), latency(found.series)]
    if found.aliases:
        made.append(memory(found.series))
    made.append(invalidations(found.series))
    marks, gaps = named(found.marks, found.now, found.series.step)
    return Sheet(found.series.times, made, marks, gaps)


def ratio(found: Overview) -> Chart:
    """Hit ratio of all and of the worst tenant, and a low histogram of invalidations along its floor."""
    series = found.series
    lines = [
        Line(_("all"), percents(series.hit_ratio), "hit"),
        Line(_("invalidations"), series.invalidations, "waiting", "bars", has_value=False),
    ]
    if found.worst is not None:
        label = _("worst: %(tenant)s") % {"tenant": naming.tenant_label(found.worst.name)}
        lines.insert(1, Line(label, percents(series.worst), "miss", "dash"))
    return Chart("ratio", _("Hit ratio"), series.times, lines, "%", 1, top=100, is_named=True)


def results(series: Series) -> Chart:
    """Reads a second by result, trouble on the baseline."""
    parts = [
        Line(_("error"), series.error, "error", "stack", has_value=False),
        Line(_("miss"), series.miss, "miss", "stack", has_value=False),
        Line(_("bypassed"), series.bypassed, "bypassed", "stack", has_value=False),
        Line(_("stale"), series.stale, "stale", "stack", has_value=False),
        Line(_("hit"), series.hit, "hit", "stack", has_value=False),
    ]
    return Chart("results", _("Requests a second, by result"), series.times, parts, digits=1)


def latency(series: Series) -> Chart:
    """How long a read took: half of them, and all but one in twenty."""
    lines = [Line("p50", series.p50_ms, "hit"), Line("p95", series.p95_ms, "p95", "dash")]
    return Chart("latency", _("Read latency, ms"), series.times, lines, digits=2, least=0.5)


def memory(series: Series) -> Chart:
    """Memory of all servers, from zero to their limit."""
    known = [used for used in series.used_bytes if used is not None]
    scale = next((scale for scale in _SCALES if scale <= (series.limit_bytes or max(known, default=0))), _SCALES[-1])
    unit = formats.size(scale).partition("\xa0")[2]
    title = _("Memory, %(unit)s") % {"unit": unit}
    if series.limit_bytes:
        limit = formats.number(round(series.limit_bytes / scale, 1), 0 if series.limit_bytes % scale == 0 else 1)
        title = _("Memory, %(unit)s of %(limit)s") % {"unit": unit, "limit": limit}
    gone = sum(count for count in series.evicted if count)
    remark = ngettext("%(n)s eviction", "%(n)s evictions", gone) % {"n": formats.number(gone)}
    used = Line(_("used"), [None if value is None else value / scale for value in series.used_bytes], "hit", "area")
    top = series.limit_bytes / scale if series.limit_bytes else None
    return Chart("memory", title, series.times, [used], digits=2, top=top, remark=remark)


def invalidations(series: Series) -> Chart:
    """How often something was invalidated, what waited in the outbox, and for how long the oldest of it had."""
    lines = [Line(_("invalidations"), series.invalidations, "waiting")]
    if any(value is not None for value in series.waiting):
        lines.append(Line(_("waiting"), series.waiting, "bypassed", "dash"))
        lines.append(Line(_("lag, s"), series.lag_seconds, "miss", "bars"))
    return Chart("invalidations", _("Invalidations a minute"), series.times, lines, digits=1, least=4)


def percents(ratios: Sequence[float | None]) -> list[float | None]:
    """Return ratios as percent; gaps stay gaps."""
    return [None if ratio is None else ratio * 100 for ratio in ratios]
