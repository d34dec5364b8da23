"""Invalidate by pattern: a scope at once, anything else in a run that looks for it; asked about first."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _

from cacheadmin import browser
from cacheadmin.admin import acts, formats, ids, log, runs
from cacheadmin.admin.asking import ConfirmForm, check, open_scope
from cacheadmin.admin.pages import Crumb, Figure, Note
from cacheadmin.admin.patterns import Unusable, is_search, pattern_form, targets_of
from cacheadmin.admin.views.scopes import Invalidate, Line
from cacheadmin.browser import Blast
from cacheadmin.conf import managed
from cacheadmin.exceptions import CacheAway
from cacheadmin.preview.values import escaped
from cacheadmin.targets import Target


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class Pattern(Invalidate):
    """Ask for a pattern, say what it means, then look for it in a run."""

    url_name = "cacheadmin_pattern"
    offers_warming = False

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the form, or the question about the pattern in it. Changes nothing."""
        self._require_everything()
        text, alias = request.GET.get("pattern", ""), request.GET.get("alias", "")
        if alias and alias not in self.access.aliases:
            return self._form(text, "", _("Choose one of the aliases."))
        if "pattern" not in request.GET:
            return self._form("", alias)
        try:
            targets = self.access.within(targets_of(text, alias))
        except Unusable as error:
            return self._form(text, alias, str(error))
        check(self, targets)
        return self.question(targets, ids.scope_id(targets), notes=self._meaning(targets, text))

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin the run if the pattern was typed again."""
        self._require_everything()
        token = request.POST.get("on", "")
        targets = open_scope(self, token)
        if not targets or any(target.kind != "pattern" for target in targets):
            raise Http404
        form = ConfirmForm(request.POST, typed=self.typed(targets, None, is_away=False))
        if not form.is_valid():
            return self.question(targets, token, form)
        try:
            row = runs.start_sweeping(request, targets, form.cleaned_data["reason"])
        except CacheAway:
            acts.warn(request, _("Redis is away. Nothing was looked for; try again when it is back."))
            return HttpResponseRedirect(self.back_url(targets))
        log.write(request, "invalidated", log.notation(targets), form.cleaned_data["reason"])
        return HttpResponseRedirect(self.url("cacheadmin_run_detail", row.pk))

    def _require_everything(self) -> None:
        """Raise Http404 for a user of some tenants: a pattern may reach any."""
        if self.access.is_bound:
            raise Http404

    def _form(self, text: str, alias: str, error: str = "") -> HttpResponse:
        title = _("Invalidate by pattern")
        template, shown = "cacheadmin/pattern.html", pattern_form(self, text, alias, error)
        return self.render(title, crumbs=[Crumb(title)], template=template, **shown)

    def _meaning(self, targets: Sequence[Target], text: str) -> list[Note]:
        if is_search(targets):
            return [self.when_away(targets)] if browser.away() else []
        said = _("“%(pattern)s” is a scope, or one key: it is done at once, and nothing has to be looked for.")
        return [Note(said % {"pattern": escaped(text)}, level="info")]

    # --- its own words ----------------------------------------------------------------------------------------------

    def action_url(self, targets: Sequence[Target]) -> str:
        return super().action_url(targets) if is_search(targets) else self.url("cacheadmin_invalidate")

    def heading(self, targets: Sequence[Target]) -> str:
        if not is_search(targets):
            return super().heading(targets)
        return _("Invalidate what matches %(pattern)s?") % {"pattern": escaped(targets[0].name)}

    def typed(self, targets: Sequence[Target], entries: int | None, *, is_away: bool) -> str:
        return escaped(targets[0].name) if is_search(targets) else super().typed(targets, entries, is_away=is_away)

    def button(self, count: str, entries: int | None) -> str:
        return super().button(count, entries) if entries is not None else _("Look for it and invalidate")

    def happens(self, targets: Sequence[Target]) -> list[str]:
        if not is_search(targets):
            return super().happens(targets)
        return [
            _("A key matches as it stands, and behind tenant:<id>: too, whoever’s it is."),
            _("Each key is passed twice: first what is being computed is refused, then what matches is deleted."),
            _("What matches is served until its turn comes."),
            _("It can be slowed down, and cancelled; then it is not complete."),
            _("Your name and reason go to Activity."),
        ]

    def when_away(self, targets: Sequence[Target]) -> Note:
        return (
            Note(_("Nothing can be looked for while Redis is away."))
            if is_search(targets)
            else super().when_away(targets)
        )

    def crumbs(self, targets: Sequence[Target]) -> list[Crumb]:
        return [Crumb(_("Invalidate by pattern"))]

    def _strip(self, targets: Sequence[Target], blast: Blast | None, lines: Sequence[Line]) -> list[Figure]:
        if not is_search(targets):
            return super()._strip(targets, blast, lines)
        aliases = [alias for target in targets for alias in managed(target.alias)]
        keys = self.ask(lambda: sum(map(browser.keys_of, aliases)))
        return [
            Figure(_("Keys to pass"), formats.estimate(keys), note=_("twice each")),
            Figure(_("Aliases"), formats.number(len(aliases)), note=", ".join(aliases)),
        ]
