"""Filters and tags of the console's own templates: numbers, times, states. `{% load cacheadmin %}` is for sites."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django import template
from django.template.loader import render_to_string
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..admin import formats

register = template.Library()

STATES: Final[dict[str, tuple[str | Promise, str | Promise]]] = {
    "live": (_("Live"), _("The next read is a hit.")),
    "stale": (_("Stale"), _("Served while one worker recomputes it.")),
    "orphan": (_("Orphan"), _("Never served again. Its memory is reclaimed soon.")),
    "expired": (_("Expired"), _("Gone since this list was read.")),
    "waiting": (_("Waiting"), _("Not served until its invalidation is done.")),
    "done": (_("Done"), ""),
    "running": (_("Running"), ""),
    "failed": (_("Failed"), ""),
    "cancelled": (_("Cancelled"), ""),
}
"""The word and the meaning of each state of an entry, an invalidation or a run."""

register.filter("cacheadmin_number", formats.number)
register.filter("cacheadmin_estimate", formats.estimate)
register.filter("cacheadmin_compact", formats.compact)
register.filter("cacheadmin_percent", formats.percent)
register.filter("cacheadmin_points", formats.points)
register.filter("cacheadmin_duration", formats.duration)
register.filter("cacheadmin_size", formats.size)
register.filter("cacheadmin_rate", formats.rate)
register.filter("cacheadmin_clock", formats.clock)
register.filter("cacheadmin_epoch", formats.epoch)


@register.simple_tag
def cacheadmin_when(when: dt.datetime | float | None) -> str | SafeString:
    """Return "12 min ago" in a `<time>` whose title is the exact time; a dash for None."""
    local = formats.moment(when)
    if local is None:
        return formats.UNKNOWN
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', local.isoformat(), formats.exactly(local), formats.ago(local)
    )


@register.simple_tag
def cacheadmin_sign(state: str) -> SafeString:
    """Return the sign of a state or of a note's level."""
    return render_to_string("cacheadmin/includes/sign.html", {"state": state}).strip()  # type: ignore[return-value]


@register.inclusion_tag("cacheadmin/includes/state.html")
def cacheadmin_state(state: str, chip: bool = False) -> dict[str, Any]:
    """Render a state as sign and word; with `chip=True` framed, as beside an h1."""
    word, meaning = STATES.get(state, (state, ""))
    return {"state": state, "word": word, "meaning": meaning, "chip": chip}


@register.filter
def cacheadmin_change(delta: float | None) -> str:
    """Return a change of a ratio: `▲ 0.2`, `▼ 33`, `0`, or a dash."""
    if delta is None:
        return formats.UNKNOWN
    if abs(delta) < 0.0005:
        return "0"
    return f"{'▲' if delta > 0 else '▼'} {formats.points(delta)}"
