"""Activity: who dropped it, and did it work?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.forms import DateField
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, QueryDict
from django.urls import NoReverseMatch
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin.admin import formats, ids, lines, naming, paging
from cacheadmin.admin.access import Access
from cacheadmin.admin.pages import Crumb, Note, Page
from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule
from cacheadmin.functions import registry
from cacheadmin.models import Activity
from cacheadmin.rules import all_rules
from cacheadmin.targets import Target
from cacheadmin.tenancy import Everyone, tenancy

SHOWN: Final = 50

KINDS: Final[dict[str, str | Promise]] = {
    **dict(Activity.Kind.choices),
    "deploy": gettext_lazy("release"),
    "server": gettext_lazy("server"),
    "away": gettext_lazy("server"),
    "back": gettext_lazy("server"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line as the table shows it."""

    line: lines.Line
    parts: Sequence[tuple[str, str]]
    """What it was about: pairs of text and URL."""
    by: str
    by_url: str
    whose: str
    whose_url: str
    url: str
    """Its own page."""

    @property
    def took(self) -> float | None:
        """Seconds."""
        return None if self.line.took_ms is None else self.line.took_ms / 1000


def rows_of(page: Page, found: Sequence[lines.Line]) -> list[Row]:
    """Return lines with the links and names that a table needs. Cost: what `Tenancy.labels` costs, once."""
    labels = lines.labels_of(found)
    return [_row(page, line, labels) for line in found]


def _row(page: Page, line: lines.Line, labels: dict[str | None, str]) -> Row:
    whose, whose_url = _("all tenants") if tenancy().has_tenants else formats.UNKNOWN, ""
    if not isinstance(line.tenants, Everyone):
        whose = formats.UNKNOWN
        if len(line.tenants) == 1:
            [tenant] = line.tenants
            whose, whose_url = labels[tenant], page.url("cacheadmin_tenant_detail", ids.tenant_id(tenant))
        elif line.tenants:
            count = len(line.tenants)
            whose = ngettext("%(n)s tenant", "%(n)s tenants", count) % {"n": formats.number(count)}
    return Row(
        line=line,
        parts=parts_of(page, line),
        by=by_of(line),
        by_url=_rule_url(page, line),
        whose=whose,
        whose_url=whose_url,
        url=page.url("cacheadmin_activity_detail", line.pk) if line.pk is not None else "",
    )


def parts_of(page: Page, line: lines.Line) -> list[tuple[str, str]]:
    """Return what a line was about; each thing one can look at is a link."""
    linked = [(naming.thing([target]), url) for target in line.targets[:3] if (url := target_url(page, target))]
    if line.pk is None and len(linked) == len(line.targets) > 0:
        return linked
    return [
        (line.what or str(KINDS.get(line.kind, line.kind)), linked[0][1] if len(line.targets) == 1 and linked else "")
    ]


def target_url(page: Page, target: Target) -> str:
    """Return the page of a target: the group's entries or the tenant's groups; empty where there is none."""
    if not (target.tenant is None or isinstance(target.tenant, str)) or not page.access.sees(target.tenant):
        return ""
    whose = ids.tenant_id(target.tenant)
    if target.kind == "tenant":
        return page.url("cacheadmin_tenant_detail", whose)
    if target.kind != "group":
        return ""
    alias = target.alias or next((f.alias for f in registry.values() if f.group == target.name), config().aliases[0])
    return page.url("cacheadmin_entry_list", whose, ids.group_id(alias, target.name))


def by_of(line: lines.Line) -> str:
    """Return who did it, in words. Of very many rules together only a digest was kept, and of many two are named."""
    names = line.who.split(", ") if line.source in ("rule", "relay") else [line.who]
    who = line.who
    if len(names) > 3:
        who = _("%(some)s and %(n)s more") % {"some": ", ".join(names[:2]), "n": len(names) - 2}
    if who.startswith("~") and line.source in ("rule", "relay"):
        return _("several rules") if line.source == "rule" else _("relay")
    words = {
        "rule": _("rule %(who)s"),
        "relay": _("relay %(who)s"),
        "command": _("command %(who)s"),
        "code": _("code %(who)s"),
    }
    return (words.get(line.source, "%(who)s") % {"who": who}).strip() or formats.UNKNOWN


def _rule_url(page: Page, line: lines.Line) -> str:
    if line.source not in ("rule", "relay") or not line.who or line.who.startswith("~"):
        return ""
    try:
        url = page.url("cacheadmin_invalidationrule_changelist")
    except NoReverseMatch:  # a site that registered the console without the rules
        return ""
    query = QueryDict(mutable=True)
    query["q"] = line.who.split(", ")[0]
    return f"{url}?{query.urlencode()}"


# --- what is asked for ----------------------------------------------------------------------------------------------


def wish_of(query: QueryDict, access: Access) -> lines.Wish:
    """Read the filters from a query string; what is unknown is no filter."""
    return lines.Wish(
        access=access,
        tenant=_tenant(query, access),
        rules=_rules(query),
        who=query.get("who", "").strip()[: paging.SEARCH_LENGTH],
        source=_among(query, "source", Activity.Source.values),
        state=_among(query, "state", Activity.State.values),
        day=_day(query),
        before=_before(query.get("before", "")),
    )


def _among(query: QueryDict, name: str, allowed: Iterable[str]) -> str:
    value = query.get(name, "")
    return value if value in allowed else ""


def _tenant(query: QueryDict, access: Access) -> str:
    """Return the id of the tenant whose id or name was given; one that nobody has matches nothing."""
    text = query.get("tenant", "").strip()[: paging.SEARCH_LENGTH]
    if not text:
        return ""
    found = [tenant.id for tenant in tenancy().find(text) if access.sees(tenant.id)]
    return text if text in found or not found else found[0]


def _rules(query: QueryDict) -> frozenset[str] | None:
    rule, model = query.get("rule", ""), query.get("model", "")
    if not (rule or model):
        return None
    try:
        named = frozenset(known.name for known in all_rules() if not model or known.model == model)
    except InvalidRule:
        named = frozenset()
    return frozenset({rule}) & named if rule and model else frozenset({rule}) if rule else named


def _day(query: QueryDict) -> dt.date | None:
    try:
        return DateField(required=False, input_formats=["%Y-%m-%d"]).clean(query.get("day", ""))
    except ValidationError:
        return None


def _before(text: str) -> tuple[float, str] | None:
    at, _tilde, key = text.partition("~")
    try:
        moment = float(at)
        dt.datetime.fromtimestamp(moment, dt.UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return (
        (moment, key) if key[:1] in ("a", "m") or (key[:1] == "r" and key[1:].isdecimal() and len(key) == 21) else None
    )


# --- pages ----------------------------------------------------------------------------------------------------------


class ActivityList(Page):
    """What was done to the cache, newest first; paged by the last line of the page before."""

    tab = "activity"
    template_name = "cacheadmin/activity.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """List it; what waits comes first."""
        wish = wish_of(request.GET, self.access)
        asked = paging.asked(request.GET)
        found, has_more = lines.newest(wish, SHOWN)
        is_first = wish.before is None
        held = lines.waiting(wish) if is_first and not wish.state else []
        last = found[-1].place if found else None
        filters = {"tenant", "rule", "model", "who", "source", "state", "day"}
        return self.render(
            _("Activity"),
            crumbs=[Crumb(_("Activity"))],
            notes=self._notes() if is_first else [],
            rows=rows_of(self, [*held, *found]),
            query=request.GET,
            choices=_choices(),
            is_filtered=bool(filters.intersection(name for name in request.GET if request.GET[name])),
            next_link=asked.link(before=f"{last[0]!r}~{last[1]}") if has_more and last else "",
            first_link="" if is_first else asked.link(before=None),
            newest=repr(max((line.at for line in found), default=0.0)),
            data_url=self.url("cacheadmin_data_activity") if is_first else "",
        )

    def _notes(self) -> list[Note]:
        if self.access.is_bound:
            return []
        count, since = lines.count_waiting()
        if not count:
            return []
        text = ngettext(
            "%(n)s invalidation waits for Redis since %(time)s.",
            "%(n)s invalidations wait for Redis since %(time)s.",
            count,
        ) % {"n": formats.number(count) if count <= 1000 else f"> {formats.number(1000)}", "time": formats.clock(since)}
        return [Note(text, level="warn", links=[(_("What waits"), "?state=waiting")])]


def _choices() -> dict[str, list[str]]:
    """Return what one can filter by, from the rules that exist."""
    try:
        rules = all_rules()
    except InvalidRule:
        rules = ()
    return {
        "rules": sorted(rule.name for rule in rules),
        "models": sorted({rule.model for rule in rules}),
        "sources": list(map(str, Activity.Source.values)),
        "states": list(map(str, Activity.State.values)),
    }


class ActivityData(Page):
    """How many lines are newer than the page's first, for its script."""

    tab = "activity"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Count them, up to a page's worth."""
        try:
            since = float(request.GET.get("newest", ""))
        except ValueError:
            since = 0.0
        found, _more = lines.newest(replace(wish_of(request.GET, self.access), before=None), SHOWN)
        count = sum(line.at > since for line in found)
        text = ngettext("%(n)s new.", "%(n)s new.", count) % {"n": formats.number(count)} if count else ""
        return JsonResponse({"new": count, "text": text})


class ActivityDetail(Page):
    """One line of it: targets, reason, what became of it."""

    tab = "activity"
    template_name = "cacheadmin/activity_detail.html"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show it, without what belongs to tenants that the user may not see."""
        rows: Any = Activity.objects.all()
        if not isinstance(self.access.tenants, Everyone):
            rows = rows.for_tenants(self.access.tenants)
        row = rows.filter(pk=pk).first() if pk < 2**63 else None
        if row is None:
            raise Http404
        line = lines.line_of(row, self.access)
        [shown] = rows_of(self, [line])
        labels = naming.tenant_labels(t.tenant for t in line.targets if isinstance(t.tenant, str))
        targets = [
            (
                naming.thing([target]),
                target_url(self, target),
                labels[target.tenant] if target.tenant is None or isinstance(target.tenant, str) else _("all tenants"),
                target.alias or _("all aliases"),
            )
            for target in line.targets
        ]
        is_whole = not self.access.is_bound or not isinstance(line.tenants, Everyone)
        title = row.what or str(row)
        return self.render(
            title,
            crumbs=[Crumb(_("Activity"), self.url("cacheadmin_activity_list")), Crumb(title)],
            row=row,
            shown=shown,
            targets=targets,
            is_whole=is_whole,
            hidden=len(row.targets) - len(line.targets),
        )
