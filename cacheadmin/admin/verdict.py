"""What the overview says before it shows charts: the notes, the strip of numbers, the aliases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlencode

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import overview
from cacheadmin.admin import formats, ids, naming
from cacheadmin.admin.pages import Figure, Note, Page
from cacheadmin.functions import registry

MOST: Final = 3
"""Notes above the figures; the rest is a number."""


# --- notes ----------------------------------------------------------------------------------------------------------


def notes(page: Page, found: overview.Overview) -> list[Note]:
    """Put into words who misses more than usual; that a server is away is said by every page's frame."""
    labels = naming.tenant_labels(note.tenant for note in found.notes if note.kind == "tenant")
    made = []
    for note in found.notes:
        if note.kind == "tenant":
            links = [
                (
                    _("Its activity"),
                    f"{page.url('cacheadmin_activity_list')}?{urlencode({'tenant': note.tenant or ''})}",
                ),
                (
                    _("Open %(name)s") % {"name": labels[note.tenant]},
                    page.url("cacheadmin_tenant_detail", ids.tenant_id(note.tenant)),
                ),
            ]
            made.append(_note(page, note, labels[note.tenant], links))
        elif note.kind == "group":
            links = [(_("Open %(name)s") % {"name": note.group}, _group_url(page, note))]
            made.append(_note(page, note, note.group, links))
    if found.charts_error:
        text = _("The charts show what the site's own counters have kept instead.")
        made.append(Note(format_html("{} {}", found.charts_error, text), _("No charts from Prometheus."), "info"))
    return made


def _group_url(page: Page, note: overview.Note) -> str:
    for function in registry.values():
        if function.group == note.group and function.alias in note.aliases:
            return page.url("cacheadmin_function_detail", function.name)
    return page.url("cacheadmin_group_list")


def _note(page: Page, note: overview.Note, name: str, links: list[tuple[str, str]]) -> Note:
    ratio, before = formats.percent(note.hit_ratio), formats.percent(note.before)
    if note.since:
        parts = [
            format_html(_("Hit ratio {}, it was {} until {}."), ratio, before, formats.clock(note.since)[:5]),
        ]
    else:
        parts = [format_html(_("Hit ratio {}, it was {}."), ratio, before)]
    if note.cause:
        parts.append(_cause(page, note.cause))
    if note.deploy:
        parts.append(format_html(_("Release {} began then."), note.deploy))
    text = format_html_join(" ", "{}", ((part,) for part in parts))
    return Note(text, _("%(name)s misses more than usual.") % {"name": name}, "warn", links)


def _cause(page: Page, cause: overview.Cause) -> SafeString:
    kind, _space, name = cause.what.partition(" ")
    what = format_html("<code>{}</code>", name) if name and kind != "tenant" else format_html("{}", _("Everything"))
    if cause.source != "rule":
        by = cause.name or cause.source
        return format_html(_("{} is invalidated {} by {}."), what, _often(cause.a_minute), by)
    url = page.rules_url(cause.name)
    if not url:
        return format_html(_("{} is invalidated {} by the rule {}."), what, _often(cause.a_minute), cause.name)
    rule = format_html('<a href="{}">{}</a>', url, cause.name)
    return format_html(_("{} is invalidated {} by the rule {}."), what, _often(cause.a_minute), rule)


def _often(a_minute: float) -> str:
    if a_minute >= 1:
        count = round(a_minute)
        return ngettext("%(n)s time a minute", "%(n)s times a minute", count) % {"n": formats.number(count)}
    count = max(1, round(a_minute * 60))
    return ngettext("%(n)s time an hour", "%(n)s times an hour", count) % {"n": formats.number(count)}


# --- numbers --------------------------------------------------------------------------------------------------------


def strip(found: overview.Overview, *, has_server: bool) -> list[Figure]:
    """Return the strip of numbers; what is the server's own only where it may be seen."""
    now = found.strip
    cost, invalidations = now.cost.value, now.invalidations.value
    made = [
        Figure(
            _("Hit ratio"),
            formats.percent(now.hit_ratio.value, 1),
            note=_moved(now.hit_ratio, lambda by: _("%(n)s points") % {"n": formats.points(by)}, 0.0005),
            level=_level(now.hit_ratio),
        ),
        Figure(
            _("Requests"),
            _plain(now.requests.value),
            _unit(now.requests.value, _("/s")),
            _moved_share(now.requests),
            title=formats.number(now.requests.value, 2),
        ),
        Figure(
            _("Read p95"),
            _ms(now.p95_ms.value),
            _unit(now.p95_ms.value, _("ms")),
            _half_of_reads(now),
            _level(now.p95_ms),
        ),
        Figure(
            _("Cost of misses"),
            _plain(cost),
            _unit(cost, _("s/min")),
            _moved(now.cost, lambda by: _("%(n)s s/min") % {"n": _plain(abs(by))}, 0.05),
            _level(now.cost),
        ),
        Figure(
            _("Invalidations"),
            _plain(invalidations),
            _unit(invalidations, _("/min")),
            _moved(now.invalidations, lambda by: _("%(n)s /min") % {"n": _plain(abs(by))}, 0.05),
            _level(now.invalidations),
        ),
    ]
    if not has_server:
        return made
    lag = _("lag %(time)s") % {"time": formats.duration(now.lag_seconds)} if now.lag_seconds else ""
    before = _("lag up to %(time)s") % {"time": formats.duration(now.lag_most_seconds)} if now.waited_most else ""
    note = lag or before or _("none waits")
    made.append(Figure(_("Waiting"), formats.number(now.waiting), note=note, level="bad" if now.waiting else ""))
    value, _space, unit = formats.size(now.used_bytes).replace("\xa0", " ").partition(" ")
    evicted = "" if now.evicted is None else _("%(n)s evicted") % {"n": formats.compact(now.evicted)}
    notes_on_memory = [evicted.replace(" ", "\xa0")] if evicted else []
    if now.limit_bytes and now.used_bytes is not None:
        share = formats.percent(now.used_bytes / now.limit_bytes)
        limit = formats.size(now.limit_bytes)
        notes_on_memory.insert(0, _("%(share)s of %(limit)s") % {"share": share, "limit": limit})
    made.append(Figure(_("Memory"), value, unit, ", ".join(notes_on_memory), "bad" if now.evicted else ""))
    return made


def _level(figure: overview.Figure) -> Literal["", "bad"]:
    return "bad" if figure.is_worse else ""


def _half_of_reads(now: overview.Strip) -> str:
    """Return how fast the faster half is, or, where the slowest became slower, by how much: that is what is red."""
    if now.p95_ms.is_worse:
        return _moved(now.p95_ms, lambda by: _("%(n)s ms") % {"n": _ms(abs(by))}, 0.0)
    return _("p50 %(n)s ms") % {"n": _ms(now.p50_ms.value)} if now.p50_ms.value is not None else ""


def _moved(figure: overview.Figure, say: Callable[[float], str], least: float) -> str:
    change = figure.change
    if change is None or abs(change) < least:
        return "" if change is None else _("as usual")
    return f"{'▲' if change > 0 else '▼'} {say(change)}"


def _moved_share(figure: overview.Figure) -> str:
    if not figure.median or figure.change is None:
        return ""
    share = figure.change / figure.median
    if abs(share) < 0.01:
        return _("as usual")
    return f"{'▲' if share > 0 else '▼'} {formats.with_sign(formats.number(round(abs(share) * 100)))}"


def _plain(value: float | None) -> str:
    """Return a number of a strip: one decimal below ten, none from there."""
    if value is None or value >= 9.95 or value == 0:
        return formats.compact(None if value is None else round(value))
    return formats.number(value, 1) if value >= 0.05 else f"< {formats.number(0.1, 1)}"


def _unit(value: float | None, unit: str) -> str:
    return "" if value is None else unit


def _ms(value: float | None) -> str:
    if value is None:
        return formats.UNKNOWN
    return formats.number(value, 2 if value < 0.95 else 1 if value < 9.95 else 0)


# --- aliases --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AliasLine:
    """One alias as the table shows it."""

    alias: str
    url: str
    backend: str
    sign: str
    state: str
    hit_ratio: float | None
    keys: str
    memory: str
    policy: str
    clear_url: str
    """Empty while its server is away: nothing could be cleared."""


def alias_lines(page: Page, found: overview.Overview) -> list[AliasLine]:
    """Return the table of aliases; empty for those who may not see the servers."""
    return [
        AliasLine(
            alias=row.alias,
            url="?" + urlencode({"alias": row.alias, "range": found.range.name}),
            backend=row.backend,
            sign={"up": "live", "away": "failed"}.get(row.state, "info"),
            state=_state(row),
            hit_ratio=row.hit_ratio,
            keys=formats.number(row.keys),
            memory=_memory(row),
            policy=row.policy,
            clear_url="" if row.state == "away" else f"{page.url('cacheadmin_clear')}?{urlencode({'on': row.alias})}",
        )
        for row in found.aliases
        if page.access.sees_alias(row.alias)
    ]


def _state(row: overview.AliasRow) -> str:
    if row.state == "away":
        return _("away since %(time)s") % {"time": formats.clock(row.away_since)} if row.away_since else _("away")
    return _("answers") if row.state == "up" else _("not Redis")


def _memory(row: overview.AliasRow) -> str:
    if row.limit_bytes is None or row.used_bytes is None:
        return formats.size(row.used_bytes)
    return _("%(used)s of %(limit)s") % {"used": formats.size(row.used_bytes), "limit": formats.size(row.limit_bytes)}
