"""Activity: who dropped it, and did it work?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.forms import DateField, TimeField
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, QueryDict
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser, outbox, progress
from cacheadmin.admin import (
    activity_rows,
    acts,
    formats,
    history,
    lines,
    log,
    naming,
    paging,
    timeline,
    told,
    tries,
    troubles,
)
from cacheadmin.admin.access import Access
from cacheadmin.admin.pages import Act, Crumb, Note, Page
from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import Activity
from cacheadmin.rules import all_rules
from cacheadmin.targets import All
from cacheadmin.tenancy import Everyone, tenancy

SHOWN: Final = 50

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
        before=_before(query.get("before", "")) or _up_to(query),
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


def _up_to(query: QueryDict) -> tuple[float, str] | None:
    """Return the end of the minute asked for: of the day asked for, else the last time it was so late."""
    try:
        asked = TimeField(required=False, input_formats=["%H:%M"]).clean(query.get("time", ""))
    except ValidationError:
        return None
    if asked is None:
        return None
    now, day = timezone.localtime(), _day(query)
    moment = timezone.make_aware(dt.datetime.combine(day or now.date(), asked))
    if day is None and moment > now:
        moment = timezone.make_aware(dt.datetime.combine(now.date() - dt.timedelta(days=1), asked))
    return moment.timestamp() + 60, "a"


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
        found, has_more = timeline.newest(wish, SHOWN)
        is_first = wish.before is None
        held = lines.waiting(wish) if is_first and not wish.state else []
        last = found[-1].place if found else None
        filters = {"tenant", "rule", "model", "who", "source", "state", "day", "time"}
        return self.render(
            _("Activity"),
            crumbs=[Crumb(_("Activity"))],
            notes=self._notes() if is_first else [],
            rows=activity_rows.rows_of(self, [*held, *found]),
            is_away=not found and bool(browser.away()),
            query=request.GET,
            choices=_choices(),
            is_filtered=bool(filters.intersection(name for name in request.GET if request.GET[name])),
            next_link=asked.link(before=f"{last[0]!r}~{last[1]}") if has_more and last else "",
            first_link="" if is_first else asked.link(before=None, time=None),
            newest=repr(max((line.at for line in found), default=0.0)),
            data_url=self.url("cacheadmin_data_activity") if is_first else "",
            may_retry=is_first and self._dead > 0 and self.access.may("invalidate"),
        )

    @cached_property
    def _dead(self) -> int:
        """How many invalidations were given up; 0 for those whom only some tenants or aliases concern."""
        return 0 if self.access.is_bound or self.access.is_restricted else outbox.dead()

    def _notes(self) -> list[Note]:
        if self.access.is_bound:
            return []
        return [*self._given_up(), *self._waiting()]

    def _given_up(self) -> list[Note]:
        if not self._dead:
            return []
        text = ngettext("%(n)s invalidation was given up.", "%(n)s invalidations were given up.", self._dead)
        why = _("They name a cache alias that is not managed any more. If it is used elsewhere, it is stale there.")
        return [Note(why, title=text % {"n": formats.number(self._dead)}, level="bad")]

    def _waiting(self) -> list[Note]:
        count, since = lines.count_waiting()
        if not count:
            return []
        text = ngettext(
            "%(n)s invalidation waits for Redis since %(time)s.",
            "%(n)s invalidations wait for Redis since %(time)s.",
            count,
        ) % {"n": formats.number(count) if count <= 1000 else f"> {formats.number(1000)}", "time": formats.clock(since)}
        return [Note(text, level="warn", links=[(_("What waits"), "?state=waiting")])]


def _choices() -> dict[str, Sequence[Any]]:
    """Return what one can filter by: names of the rules and models that exist, values and labels of the rest."""
    try:
        rules = all_rules()
    except InvalidRule:
        rules = ()
    return {
        "rules": sorted(rule.name for rule in rules),
        "models": sorted({rule.model for rule in rules}),
        "sources": Activity.Source.choices,
        "states": Activity.State.choices,
    }


class ActivityRetry(Act):
    """Take invalidations that were given up, up again."""

    tab = "activity"
    needs = ("view_keys", "invalidate")

    def post(self, request: HttpRequest) -> HttpResponse:
        """Have them delivered, and say how many there were."""
        if self.access.is_bound or self.access.is_restricted:
            raise Http404
        count = outbox.retry_dead()
        text = ngettext("%(n)s invalidation is tried again.", "%(n)s invalidations are tried again.", count)
        acts.inform(request, text % {"n": formats.number(count)})
        if count:
            log.write(request, "retried", f"waiting:{count}")
        return HttpResponseRedirect(self.url("cacheadmin_activity_list"))


class ActivityData(Page):
    """How many lines are newer than the page's first, for its script."""

    tab = "activity"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Count them, up to a page's worth."""
        try:
            since = float(request.GET.get("newest", ""))
        except ValueError:
            since = 0.0
        found, _more = timeline.newest(replace(wish_of(request.GET, self.access), before=None), SHOWN)
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
        if self.access.is_restricted:
            rows = rows.filter(alias__in=["", *self.access.aliases])
        row = rows.filter(pk=pk).first() if pk < 2**63 else None
        if row is None:
            raise Http404
        line = lines.line_of(row, self.access)
        [shown] = activity_rows.rows_of(self, [line])
        labels = naming.tenant_labels(t.tenant for t in line.targets if not isinstance(t.tenant, All))
        targets = [
            (
                naming.thing([target]),
                activity_rows.target_url(self, target),
                _("all tenants") if isinstance(target.tenant, All) else labels[target.tenant],
                target.alias or _("all aliases"),
            )
            for target in line.targets
        ]
        is_whole = not self.access.is_bound or ("*" not in row.tenants and all(map(self.access.sees, row.tenants)))
        title = capfirst(line.words(labels) or str(row.get_kind_display()))
        return self.render(
            title,
            crumbs=[Crumb(_("Activity"), self.url("cacheadmin_activity_list")), Crumb(title)],
            row=row,
            shown=shown,
            trouble=troubles.trouble(row.error) if row.error else None,
            targets=targets,
            reason=told.reason_of(row),
            is_whole=is_whole,
            tries=tries.tries_of(row) if is_whole and not self.access.is_restricted else ("", ""),
            run_url=self.url("cacheadmin_run_detail", pk) if is_whole and progress.progress_of(row) is not None else "",
            hidden=len(history.targets_of(row)) - len(line.targets),
        )
