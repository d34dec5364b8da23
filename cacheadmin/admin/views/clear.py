"""Clear an alias: every key under its own prefix, asked about first."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from cacheadmin.admin import acts, log, runs, told
from cacheadmin.admin.asking import ConfirmForm
from cacheadmin.admin.pages import Crumb, Note
from cacheadmin.admin.views.scopes import Invalidate
from cacheadmin.models import Activity
from cacheadmin.targets import ALL, Target


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class Clear(Invalidate):
    """Ask before an alias is cleared; then do it in a run."""

    tab = "overview"
    needs = ("view_keys", "clear_alias")
    url_name = "cacheadmin_clear"
    offers_warming = False

    def targets(self, token: str) -> tuple[Target, ...]:
        """Return everything of an alias. Raises: Http404 for one that is not managed, or for a bound user."""
        if token not in self.access.aliases or self.access.is_bound:
            raise Http404
        return (Target("tenant", "", ALL, token),)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin the run if the name was typed."""
        alias = request.POST.get("on", "")
        targets = self.targets(alias)
        form = ConfirmForm(request.POST, typed=alias)
        if not form.is_valid():
            return self.question(targets, alias, form)
        if self.is_away(alias):
            acts.warn(request, _("Redis is away. Nothing was cleared; try again when it is back."))
            return HttpResponseRedirect(self.back_url(targets))
        reason = form.cleaned_data["reason"]
        said = told.cleared(alias)
        work = runs.clear(alias, request.user.get_username(), reason)
        row = runs.start(
            request,
            work,
            kind=Activity.Kind.CLEAR,
            what=told.text(said),
            tenants="*",
            alias=alias,
            reason=reason,
            said=said,
        )
        log.write(request, "invalidated", log.notation_of(row), reason)
        return HttpResponseRedirect(self.url("cacheadmin_run_detail", row.pk))

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the question."""
        alias = request.GET.get("on", "")
        return self.question(self.targets(alias), alias)

    # --- its own words ----------------------------------------------------------------------------------------------

    def heading(self, targets: Sequence[Target]) -> str:
        return _("Clear the alias %(alias)s?") % {"alias": targets[0].alias}

    def typed(self, targets: Sequence[Target], entries: int | None, *, is_away: bool) -> str:
        return str(targets[0].alias)

    def button(self, count: str, entries: int | None) -> str:
        return _("Clear %(alias)s") % {"alias": self.request.GET.get("on") or self.request.POST.get("on", "")}

    def happens(self, targets: Sequence[Target]) -> list[str]:
        return [
            _("Every worker stops serving entries of this alias at once, of every tenant."),
            _("Every key under the alias’ own prefix is deleted, plain ones and locks too."),
            _("Other aliases, and other keys on the same server, are not touched."),
            _("Your name and reason go to Activity."),
        ]

    def when_away(self, targets: Sequence[Target]) -> Note:
        return Note(_("Nothing can be cleared while Redis is away."))

    def crumbs(self, targets: Sequence[Target]) -> list[Crumb]:
        return [Crumb(pgettext("an alias", "Clear"))]

    def back_url(self, targets: Sequence[Target]) -> str:
        return self.url("cacheadmin_console_changelist")
