"""Filters and tags of the console's own templates, `{% load cacheadmin_admin %}`: numbers, times, states."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import ngettext

from cacheadmin.preview.values import visible

from . import formats, words
from .shown_values import fitting

register = template.Library()

register.filter("cacheadmin_number", formats.number)
register.filter("cacheadmin_estimate", formats.estimate)
register.filter("cacheadmin_compact", formats.compact)
register.filter("cacheadmin_percent", formats.percent)
register.filter("cacheadmin_points", formats.points)
register.filter("cacheadmin_duration", formats.duration)
register.filter("cacheadmin_took", formats.took)
register.filter("cacheadmin_size", formats.size)
register.filter("cacheadmin_size_estimate", formats.size_estimate)
register.filter("cacheadmin_rate", formats.rate)
register.filter("cacheadmin_clock", formats.clock)
register.filter("cacheadmin_epoch", formats.epoch)
register.filter("cacheadmin_stored", words.stored_as)


@register.filter
def cacheadmin_fitting(text: str) -> str:
    """Return as much of a value as may stand on a page, and say how much was left out."""
    shown, more = fitting(text)
    if not more:
        return shown
    said = ngettext("… %(n)s more character", "… %(n)s more characters", more) % {"n": formats.number(more)}
    return f"{shown}\n{said}"


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
    return mark_safe(render_to_string("cacheadmin/includes/sign.html", {"state": state}).strip())  # noqa: S308 - ours


@register.inclusion_tag("cacheadmin/includes/state.html")
def cacheadmin_state(state: str, chip: bool = False) -> dict[str, Any]:
    """Render a state as sign and word; with `chip=True` framed, as beside an h1."""
    return {"state": state, "word": words.state_word(state), "meaning": words.state_meaning(state), "chip": chip}


@register.filter
def cacheadmin_change(delta: float | None) -> str:
    """Return a change of a ratio: `▲ 0.2`, `▼ 33`, `0`, or a dash."""
    if delta is None:
        return formats.UNKNOWN
    if abs(delta) < 0.0005:
        return "0"
    return f"{'▲' if delta > 0 else '▼'} {formats.points(delta)}"


@register.filter
def cacheadmin_plain(value: float | None) -> str:
    """Return a number as HTML attributes want it, whatever the locale."""
    return f"{value or 0:.6g}"


@register.filter
def cacheadmin_count(value: float | None) -> str:
    """Return a count a minute for a cell: whole numbers, one decimal below ten."""
    if value is None or value == 0 or value >= 9.95 or float(value).is_integer():
        return formats.number(value)
    return formats.number(value, 1) if value >= 0.05 else f"< {formats.number(0.1, 1)}"


@register.filter
def cacheadmin_visible(text: str) -> str:
    """Return a text from the cache with everything that does not print (controls, bidi overrides) as escapes."""
    return visible(str(text))


@register.filter
def cacheadmin_breakable(text: str) -> SafeString:
    """Return a name as `cacheadmin_visible` does, with places where a line may break rather than within a word."""
    return mark_safe(_JOINTS.sub(r"\1<wbr>", escape(visible(str(text)))))  # noqa: S308 - escaped


_JOINTS = re.compile(r"([_/](?=\w)|[.:](?=[^\W\d])|(?<=\w)=(?=\w))")  # numbers and times stay whole


@register.simple_tag
def cacheadmin_difference(differences: Mapping[str, Any], path: str) -> Any:
    """Return what a recomputation found at a path of the tree, None if nothing."""
    return differences.get(path) if path and differences else None


@register.filter
def cacheadmin_kind(type_name: str) -> str:
    """Return how a scalar is coloured: `text`, `number` or `other`."""
    if type_name in ("str", "text", "SafeString"):
        return "text"
    return "number" if type_name in ("int", "float", "Decimal", "bool", "NoneType", "complex") else "other"
