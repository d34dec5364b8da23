"""Warm: what would be computed ahead of its readers? GET asks, POST begins a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser, warming
from cacheadmin.admin import acts, formats, ids, naming, runs
from cacheadmin.admin.pages import Figure, Page
from cacheadmin.admin.views.scopes import back_to, check, crumbs_of
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.functions import CachedFunction
from cacheadmin.models import Activity
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import tenancy

COUNTED: Final = 1000
"""Calls that the question counts; beyond that it says so."""


@dataclass(frozen=True, slots=True)
class Line:
    """One function and how many of its calls would be warmed."""

    function: str
    group: str
    alias: str
    calls: int


def functions_for(targets: Sequence[Target]) -> list[CachedFunction[Any, Any]]:
    """Return the functions with something to warm that fill what some targets name."""
    return [
        function
        for function in warming.warmable()
        if any(
            browser.covers(Target(t.kind, t.name, alias=t.alias), function.alias, None, function.group)
            for t in targets
            if t.kind in ("tenant", "group", "prefix")
        )
    ]


def steps_for(targets: Sequence[Target]) -> Iterable[warming.Step]:
    """Yield the calls that warm what some targets name."""
    whose = {target.tenant for target in targets}
    is_all = any(isinstance(tenant, All) for tenant in whose)
    tenants = [tenant.id for tenant in tenancy().list()] if is_all else sorted(t for t in whose if isinstance(t, str))
    return warming.plan(functions_for(targets), tenants, shared=is_all or None in whose)


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class Warm(Page):
    """Ask, then begin a run."""

    tab = "tenants"
    template_name = "cacheadmin/warm.html"
    needs = ("view_keys", "warm")
    http_method_names = ["get", "head", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show what would be computed. Changes nothing."""
        targets = self._targets(request.GET.get("on", ""))
        steps = list(islice(steps_for(targets), COUNTED + 1))
        lines: dict[str, Line] = {}
        for step in steps[:COUNTED]:
            name = step.function.name
            calls = lines[name].calls if name in lines else 0
            lines[name] = Line(name, step.function.group, step.function.alias, calls + 1)
        more = len(steps) > COUNTED
        count = f"{formats.number(COUNTED)}+" if more else formats.number(len(steps))
        return self.render(
            _("Warm %(phrase)s?") % {"phrase": naming.phrase(targets)},
            crumbs=crumbs_of(self, targets, _("Warm")),
            lines=list(lines.values()),
            strip=[
                Figure(_("Functions"), formats.number(len(lines))),
                Figure(_("Calls"), count, note=_("with the arguments of warm_with")),
            ],
            token=ids.scope_id(targets),
            button=ngettext("Warm %(n)s entry", "Warm %(n)s entries", len(steps)) % {"n": count},
            back=back_to(self, targets),
            is_away=bool(browser.away()),
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin the run and go to it."""
        targets = self._targets(request.POST.get("on", ""))
        if browser.away():
            acts.warn(request, _("Redis is away. Nothing was warmed; try again when it is back."))
            return HttpResponseRedirect(back_to(self, targets))
        what = f"warm {naming.phrase(targets)}"
        steps = list(islice(steps_for(targets), COUNTED + 1))
        total = len(steps) if len(steps) <= COUNTED else None
        work = runs.warm(steps if total is not None else steps_for(targets), total)
        row = runs.start(request, work, kind=Activity.Kind.WARM, what=what, tenants=acts.tenants_of(targets))
        acts.log(request, what)
        return HttpResponseRedirect(self.url("cacheadmin_run_detail", row.pk))

    def _targets(self, token: str) -> tuple[Target, ...]:
        try:
            targets = ids.open_scope(token)
        except CacheAdminError as error:
            raise Http404 from error
        check(self, targets)
        return targets
