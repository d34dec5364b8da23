"""A run: how far, how fast, can I stop it? A long deed is a line of Activity that is still running."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from cacheadmin.admin import acts, formats, history, log, naming, runs, told, troubles
from cacheadmin.admin.access import Access, Permission
from cacheadmin.admin.pages import Act, Crumb, Note, Page
from cacheadmin.admin.words import paces_for, state_word
from cacheadmin.models import Activity
from cacheadmin.progress import Progress, progress_of, state_of
from cacheadmin.targets import All


def find_run(access: Access, pk: int) -> Activity:
    """Return a line of Activity. Raises: Http404 if there is none, or it concerns tenants the user may not see."""
    row = Activity.objects.filter(pk=pk).first()
    if row is None or (access.is_bound and not _is_within(row, access)):
        raise Http404
    if access.is_restricted and not access.sees_alias(row.alias) and row.user_id != access.user.pk:
        raise Http404  # of an alias he may not see, or of several
    return row


def _is_within(row: Activity, access: Access) -> bool:
    return "*" not in row.tenants and all(access.sees(tenant) for tenant in row.tenants or [None])


def said(row: Activity) -> dict[str, Any]:
    """Return a run in words and numbers, for the page and for its script."""
    progress = progress_of(row) or Progress(done=row.entries or 0)
    state = state_of(row, progress)
    seconds = (row.took_ms or 0) / 1000
    pace = (progress.done - 1) / seconds if seconds >= 1 and progress.done > 1 else None  # the first begins at once
    parts = [formats.number(progress.done)]
    if progress.found is not None:
        total = formats.estimate(progress.total, is_exact=state == "done")
        parts = [_("%(done)s of %(total)s keys passed, each in two passes") % {"done": parts[0], "total": total}]
    elif progress.total is not None:
        parts = [_("%(done)s of %(total)s") % {"done": parts[0], "total": formats.number(progress.total)}]
    if pace is not None and state == "running":
        parts.append(_("%(n)s/s") % {"n": formats.number(pace, 1 if pace < 9.95 else 0)})
        left = ((progress.total or 0) - progress.done) / pace
        if left >= 1:
            parts.append(_("about %(time)s left") % {"time": formats.duration(left)})
    results = [] if progress.found is None else [_found(progress.found)]
    results += [_result(name, count) for name, count in progress.results.items() if count]
    whose = row.tenants[0] if isinstance(row.tenants, list) and len(row.tenants) == 1 else None
    return {
        "state": state,
        "word": state_word(state),
        "done": progress.done,
        "total": progress.total,
        "text": " · ".join(parts),
        "results": ", ".join(results),
        "steps": [troubles.step_in_words(step, whose) for step in progress.steps],
        "failures": [
            [troubles.step_in_words(step, whose), str(troubles.trouble(error))] for step, error in progress.failures
        ],
    }


def _found(count: int) -> str:
    return ngettext("%(n)s found and deleted", "%(n)s found and deleted", count) % {"n": formats.number(count)}


def _result(name: str, count: int) -> str:
    words = {
        "warmed": ngettext("%(n)s computed and kept", "%(n)s computed and kept", count),
        "fresh": ngettext("%(n)s was cached already", "%(n)s were cached already", count),
        "refused": ngettext("%(n)s computed but not kept", "%(n)s computed but not kept", count),
        "failed": ngettext("%(n)s failed", "%(n)s failed", count),
    }
    return words.get(name, "%(n)s " + name) % {"n": formats.number(count)}


def _permission(row: Activity) -> Permission:
    permissions: dict[str, Permission] = {Activity.Kind.CLEAR: "clear_alias", Activity.Kind.INVALIDATE: "invalidate"}
    return permissions.get(row.kind, "warm")


def _is_partial(row: Activity, state: str) -> bool:
    """Say whether a run that ended early left something undone that readers may notice: a sweep."""
    return row.kind == Activity.Kind.INVALIDATE and state in (Activity.State.CANCELLED, Activity.State.FAILED)


def run_to_change(access: Access, pk: int) -> Activity:
    """
    Return a run that the user may stop or slow down: whoever may begin such a run may.

    Raises:  Http404 as `find_run`; NotAllowed.
    """
    if not access.may("clear_alias") and not access.may("invalidate"):
        access.require("warm")
    row = find_run(access, pk)
    access.require(_permission(row))
    return row


class RunDetail(Page):
    """Progress of a long deed."""

    tab = "activity"
    template_name = "cacheadmin/run.html"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show it; its script asks for the rest while it runs."""
        row = find_run(self.access, pk)
        shown = said(row)
        named = [target.tenant for target in history.targets_of(row) if not isinstance(target.tenant, All)]
        return self.render(
            capfirst(acts.one_line(told.what_of(row, naming.tenant_labels(named)) or str(row))),
            crumbs=[Crumb(_("Activity"), self.url("cacheadmin_activity_list")), Crumb(pgettext("a long deed", "Run"))],
            run=row,
            shown=shown,
            notes=self._notes(row, shown["state"]),
            may_change=shown["state"] == "running" and self.access.may(_permission(row)),
            paces=[(pace, words, pace == (row.pace or "fast")) for pace, words in paces_for(row.kind)],
            data_url=self.url("cacheadmin_data_run", pk) if shown["state"] == "running" else "",
        )

    def _notes(self, row: Activity, state: str) -> list[Note]:
        failed = [Note(found.advice, found.what, "bad")] if (found := _trouble_of(row, state)) else []
        if not _is_partial(row, state):
            return failed
        patterns = [target for target in history.targets_of(row) if target.kind == "pattern"]
        links = []
        if self.access.may_sweep:
            query = [urlencode({"pattern": target.name, "alias": target.alias or ""}) for target in patterns[:1]]
            links = [(_("Look again"), f"{self.url('cacheadmin_pattern')}?{text}") for text in query]
        text = _("What was found is deleted; what it did not come to may still be served.")
        return [*failed, Note(text, _("Not complete."), "warn", links)]


def _trouble_of(row: Activity, state: str) -> troubles.Trouble | None:
    """Return why a run ended early; None where it did not, or where its failures say it."""
    if row.error:
        return troubles.trouble(row.error)
    progress = progress_of(row)
    is_told = state != Activity.State.FAILED or progress is None or progress.failures
    return None if is_told else troubles.silent()


class RunCancel(Act):
    """Stop a run; what it has done is kept."""

    tab = "activity"

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask it to stop."""
        row = run_to_change(self.access, pk)
        if runs.cancel(row):
            text = _("Cancelled. What is done is kept.")
            if _is_partial(row, Activity.State.CANCELLED):
                text = _("Cancelled. It is not complete: what it did not come to may still be served.")
            acts.inform(request, text)
            log.write(request, "cancelled", log.notation_of(row))
        return HttpResponseRedirect(self.url("cacheadmin_run_detail", pk))


class RunPace(Act):
    """Have a run go on faster or slower."""

    tab = "activity"

    def post(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Ask it to keep another pace."""
        row, pace = run_to_change(self.access, pk), request.POST.get("pace", "")
        if runs.change_pace(row, pace):
            words = dict(paces_for(row.kind))
            acts.inform(request, _("From now on: %(pace)s.") % {"pace": words[pace]})
            log.write(request, "paced", f"{log.notation_of(row)}: {pace}")
        return HttpResponseRedirect(self.url("cacheadmin_run_detail", pk))


class RunData(Page):
    """The same as JSON, for the page's script."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Return how far it is."""
        return JsonResponse(said(find_run(self.access, pk)))
