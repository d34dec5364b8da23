"""Warm: what would be computed ahead of its readers? GET asks, POST begins a run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser
from cacheadmin.admin import acts, formats, log, naming, runs
from cacheadmin.admin.asking import back_to, crumbs_of, open_scope
from cacheadmin.admin.pages import Figure, Page
from cacheadmin.admin.warmable import steps_for
from cacheadmin.admin.words import paces_for
from cacheadmin.models import Activity


@dataclass(frozen=True, slots=True)
class Line:
    """One function and how many of its calls would be warmed."""

    function: str
    group: str
    alias: str
    calls: int


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class Warm(Page):
    """Ask, then begin a run."""

    tab = "tenants"
    template_name = "cacheadmin/warm.html"
    needs = ("view_keys", "warm")
    http_method_names = ["get", "head", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show what would be computed. Changes nothing."""
        token = request.GET.get("on", "")
        targets = open_scope(self, token)
        steps = list(islice(steps_for(targets), runs.STEPS_COUNTED + 1))
        lines: dict[str, Line] = {}
        for step in steps[: runs.STEPS_COUNTED]:
            name = step.function.name
            calls = lines[name].calls if name in lines else 0
            lines[name] = Line(name, step.function.group, step.function.alias, calls + 1)
        more = len(steps) > runs.STEPS_COUNTED
        count = f"{formats.number(runs.STEPS_COUNTED)}+" if more else formats.number(len(steps))
        return self.render(
            _("Warm %(phrase)s?") % {"phrase": naming.phrase(targets)},
            crumbs=crumbs_of(self, targets, _("Warm")),
            lines=list(lines.values()),
            strip=[
                Figure(_("Functions"), formats.number(len(lines))),
                Figure(_("Calls"), count, note=_("with the arguments of warm_with")),
            ],
            token=token,
            button=ngettext("Warm %(n)s entry", "Warm %(n)s entries", len(steps)) % {"n": count},
            back=back_to(self, targets),
            is_away=bool(browser.away()),
            paces=paces_for(Activity.Kind.WARM),
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin the run and go to it."""
        targets = open_scope(self, request.POST.get("on", ""))
        if browser.away():
            acts.warn(request, _("Redis is away. Nothing was warmed; try again when it is back."))
            return HttpResponseRedirect(back_to(self, targets))
        row = runs.start_warming(request, targets, request.POST.get("pace", ""))
        log.write(request, "warmed", log.notation(targets))
        return HttpResponseRedirect(self.url("cacheadmin_run_detail", row.pk))
