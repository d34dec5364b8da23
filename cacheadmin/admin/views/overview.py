"""Overview: is the cache healthy, and for whom not?"""

from __future__ import annotations

import time
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import overview
from cacheadmin.admin import activity_rows, figures, formats, lines, paging, timeline, verdict
from cacheadmin.admin.misses import commands_along, misses
from cacheadmin.admin.pages import Crumb, Page, standing_notes
from cacheadmin.admin.series import SMALL, sheet_of
from cacheadmin.admin.views import health
from cacheadmin.overview import RANGES
from cacheadmin.tenancy import Everyone

CHANGED = 6
"""Lines of *What changed last*."""


def context_of(page: Page) -> dict[str, Any]:
    """Return what the overview shows below its head. Cost: five queries, at most three round trips a database."""
    request, access = page.request, page.access
    span = figures.Span.of(request.GET, access)
    wish = paging.asked(request.GET, orders=("-cost", "-misses", "-churn"))
    held, since = (0, None) if access.is_bound else lines.count_waiting()
    found = overview.overview(
        RANGES[span.range],
        alias=span.alias,
        tenants=access.tenants,
        order=cast("overview.Order", wish.order.removeprefix("-")),
        waiting=None if access.is_bound else held,
        lag_seconds=max(0.0, time.time() - since.timestamp()) if since else 0.0,
        along=lambda tenants: commands_along(page, wish, span.alias, tenants),
    )
    said = health.notes(page)
    notes = [*said, *verdict.notes(page, found)]
    more = max(0, len(notes) - verdict.MOST) + len(health.open_problems()) - len(said)
    text = ngettext("%(n)s finding in Health", "%(n)s findings in Health", more)
    if notes:
        text = ngettext("%(n)s more in Health", "%(n)s more in Health", more)
    is_empty = any(note.kind == "empty" for note in found.notes)
    sheet = sheet_of(found) if found.is_known and not is_empty else None
    changed = timeline.latest(access, found.now - span.seconds, CHANGED, (found.lines, found.marks))
    return {
        "access": access,
        "span": span,
        "verdicts": notes[: verdict.MOST],
        "more": text % {"n": formats.number(more)} if more else "",
        "is_fine": not notes and not more and found.is_known and health.is_known(),
        "is_known": found.is_known,
        "is_empty": is_empty,
        "checked": found.now,
        "strip": verdict.strip(found, has_server=isinstance(access.tenants, Everyone)),
        "sheet": sheet,
        "sheet_json": sheet.to_json() if sheet else None,
        "small_charts": [chart for chart in sheet.charts if chart.name in SMALL] if sheet else [],
        "misses": misses(page, found, wish, span.alias) if found.is_known else None,
        "changed": activity_rows.rows_of(page, changed),
        "aliases": verdict.alias_lines(page, found),
        "functions_url": page.url("cacheadmin_function_list"),
        "health_url": page.url("cacheadmin_health"),
        "activity_url": page.url("cacheadmin_activity_list"),
    }


class Overview(Page):
    """Verdict, figures, charts, who misses, what changed last."""

    tab = "overview"
    template_name = "cacheadmin/overview.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show it."""
        found = context_of(self)
        kept = [(name, request.GET[name]) for name in ("who", "o") if name in request.GET]
        data_url = self.url("cacheadmin_data_overview")
        return self.render(_("Overview"), crumbs=[Crumb(_("Overview"))], data_url=data_url, kept=kept, **found)


class OverviewData(Page):
    """The same as the page shows now, for its script: `{"html": its parts, the charts' JSON among them}`."""

    tab = "overview"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Render the parts anew: what they say is written once, in their templates."""
        found = context_of(self) | {"standing_notes": standing_notes(self.access), "is_poll": True}
        return JsonResponse({"html": render_to_string("cacheadmin/includes/overview_body.html", found, request)})
