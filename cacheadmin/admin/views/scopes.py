"""Confirm pages: what would an act hit, and what happens then? GET asks, POST acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser
from cacheadmin.admin import acts, figures, formats, ids, naming, runs
from cacheadmin.admin.access import Permission
from cacheadmin.admin.asking import ConfirmForm, back_to, check, crumbs_of, must_type, open_scope
from cacheadmin.admin.pages import Crumb, Figure, Note, Page
from cacheadmin.admin.warmable import can_warm
from cacheadmin.browser import Blast, GroupCount
from cacheadmin.targets import ALL, All, Target
from cacheadmin.tenancy import tenancy

TOP = 7
"""Groups that a confirm page names; the rest is one line."""

GROWN = 1.2
"""Growth between asking and doing above which the page asks again."""


@dataclass(frozen=True, slots=True)
class Line:
    """One group that would be hit."""

    group: str
    alias: str
    tenant: str
    url: str
    entries: int
    size_bytes: int | None
    is_weighed_whole: bool
    recompute: float | None
    reads: float | None


@dataclass(frozen=True, slots=True)
class Step:
    """A narrower scope that one may rather hit."""

    label: str
    url: str
    entries: int


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class Invalidate(Page):
    """Ask before an invalidation, with its blast radius; then do it."""

    tab = "tenants"
    template_name = "cacheadmin/confirm.html"
    needs: ClassVar[tuple[Permission, ...]] = ("view_keys", "invalidate")
    http_method_names = ["get", "head", "post"]
    url_name = "cacheadmin_invalidate"
    offers_warming = True

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show the question. Changes nothing."""
        token = request.GET.get("on", "")
        return self.question(self.targets(token), token)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Act if the question was answered; a selection from a list is asked about first."""
        if "confirmed" not in request.POST:
            chosen = [target for token in request.POST.getlist("chosen") for target in ids.open_scope(token)]
            if not chosen:
                return self.nothing_chosen()
            targets = tuple(dict.fromkeys(chosen))[: ids.SCOPE_TARGETS]
            check(self, targets)
            return self.question(self.access.within(targets), ids.scope_id(targets))
        token = request.POST.get("on", "")
        targets = self.targets(token)
        blast = self.ask(lambda: browser.blast(targets))
        entries = blast.entries if blast else None
        form = ConfirmForm(request.POST, typed=self.typed(targets, entries, is_away=blast is None))
        if not form.is_valid():
            return self.question(targets, token, form, blast)
        counted = form.cleaned_data.get("counted")
        if entries is not None and counted is not None and entries > max(counted * GROWN, counted + 1):
            text = _("It grew from %(before)s to %(now)s entries. Please look again.")
            note = Note(text % {"before": formats.number(counted), "now": formats.number(entries)})
            return self.question(targets, token, None, blast, [note])
        if entries == 0 and all(target.kind == "key" for target in targets):
            acts.inform(request, _("Nothing to do: it was already gone."))
            return HttpResponseRedirect(self.back_url(targets))
        deed = acts.invalidate(
            request,
            targets,
            what=self.what(targets),
            reason=form.cleaned_data["reason"],
            entries=entries,
            size_bytes=blast.size_bytes if blast else None,
        )
        acts.tell(request, self.site, deed, naming.phrase(targets))
        if form.cleaned_data.get("warm") and deed.result.is_done and can_warm(self.access, targets):
            run = runs.start_warming(request, targets)
            acts.tell_run(request, self.site, run)
        return HttpResponseRedirect(self.back_url(targets))

    # --- what is asked ----------------------------------------------------------------------------------------------

    def targets(self, token: str) -> tuple[Target, ...]:
        """Return the targets of an id. Raises: Http404 for what is no id, or not for this user."""
        targets = open_scope(self, token)
        if any(target.kind == "pattern" for target in targets):
            raise Http404  # looked for in a run, and begun on a page of its own
        return targets

    def typed(self, targets: Sequence[Target], entries: int | None, *, is_away: bool) -> str:
        """Return the name to type, empty if none is asked for. While Redis is away only the width counts."""
        if is_away and not must_type(targets, 0):
            return ""
        if not must_type(targets, entries):
            return ""
        return naming.name_to_type(targets)

    def what(self, targets: Sequence[Target]) -> str:
        """Return the act for Activity."""
        return ", ".join(str(target) for target in targets[:3]) + (" …" if len(targets) > 3 else "")

    def action_url(self, targets: Sequence[Target]) -> str:
        """Return where the answer goes."""
        return self.url(self.url_name)

    def back_url(self, targets: Sequence[Target]) -> str:
        """Return where the act was begun."""
        return back_to(self, targets)

    def is_away(self, alias: str) -> bool:
        """Say whether the server of an alias does not answer now. Cost: 1 round trip."""
        return bool(browser.away([alias]))

    def nothing_chosen(self) -> HttpResponse:
        """Say that no row was selected."""
        title = _("Nothing was selected")
        text = _("Tick the rows that you mean, then choose the action again.")
        return self.render(title, crumbs=[Crumb(title)], template="cacheadmin/message.html", text=text)

    def question(
        self,
        targets: Sequence[Target],
        token: str,
        form: ConfirmForm | None = None,
        blast: Blast | None = None,
        notes: Sequence[Note] = (),
    ) -> HttpResponse:
        """Show what would be hit."""
        if blast is None:
            blast = self.ask(lambda: browser.blast(targets))
        entries = blast.entries if blast else None
        typed = self.typed(targets, entries, is_away=blast is None)
        if form is None:
            form = ConfirmForm(typed=typed, initial={"counted": entries})
        lines = self._lines(blast)
        found = [*notes]
        if blast is None:
            found.append(self.when_away(targets))
        return self.render(
            self.heading(targets),
            crumbs=self.crumbs(targets),
            notes=found + self._busy(targets, lines),
            form=form,
            typed=typed,
            token=token,
            strip=self._strip(targets, blast, lines),
            is_counted=blast is not None,
            lines=lines[:TOP],
            rest=_rest(lines[TOP:]),
            shows_tenants=len({line.tenant for line in lines}) > 1,
            shows_reads=any(line.reads is not None for line in lines),
            steps=self._steps(targets, blast, lines),
            button=self.button(formats.estimate(entries, not blast or blast.is_exact), entries),
            happens=self.happens(targets),
            offers_warming=self.offers_warming and blast is not None and can_warm(self.access, targets),
            action_url=self.action_url(targets),
            back=self.back_url(targets),
            is_pattern=any(target.kind == "pattern" for target in targets),
        )

    def when_away(self, targets: Sequence[Target]) -> Note:
        """Say what becomes of it while Redis is away."""
        return Note(_("Will be recorded now and done as soon as Redis answers."), level="info")

    def crumbs(self, targets: Sequence[Target]) -> list[Crumb]:
        """Return the breadcrumbs."""
        return crumbs_of(self, targets, _("Invalidate"))

    def heading(self, targets: Sequence[Target]) -> str:
        """Return the question."""
        return naming.question(targets)

    def happens(self, targets: Sequence[Target]) -> list[str]:
        """Return what the act does, line by line."""
        is_wide = any(isinstance(target.tenant, All) for target in targets)
        untouched = _("Sessions, locks and other keys without a group are not touched.")
        if not is_wide and tenancy().has_tenants:
            untouched = _("Other tenants, sessions and locks are not touched.")
        return [
            _("Every worker stops serving these entries at once."),
            _("The next read of each computes it again."),
            _("The memory comes back in the background."),
            untouched,
            _("Your name and reason go to Activity."),
        ]

    def button(self, count: str, entries: int | None) -> str:
        """Return what the button says: it repeats the number."""
        if entries is None:
            return _("Invalidate")
        return ngettext("Invalidate %(n)s entry", "Invalidate %(n)s entries", entries) % {"n": count}

    def _lines(self, blast: Blast | None) -> list[Line]:
        if blast is None:
            return []
        labels = naming.tenant_labels(row.tenant for row in blast.rows)
        span = figures.Span.of(self.request.GET, self.access)
        tenants = {row.tenant for row in blast.rows}
        # Of several tenants only what computing a group takes is told: reads are not kept apart by tenant and group.
        numbers = figures.by_group(span, tenants if len(tenants) == 1 else ALL) if tenants else {}
        lines = []
        for row in blast.rows:
            counted = numbers.get((row.alias, row.group), figures.NOTHING)
            mean = counted.mean_compute
            url = self.url("cacheadmin_entry_list", ids.tenant_id(row.tenant), ids.group_id(row.alias, row.group))
            lines.append(
                Line(
                    group=row.group,
                    alias=row.alias,
                    tenant=labels[row.tenant],
                    url=url,
                    entries=row.entries,
                    size_bytes=row.size_bytes,
                    is_weighed_whole=row.is_weighed_whole,
                    recompute=None if mean is None else mean * row.entries,
                    reads=counted.requests if len(tenants) == 1 else None,
                )
            )
        return lines

    def _strip(self, targets: Sequence[Target], blast: Blast | None, lines: Sequence[Line]) -> list[Figure]:
        tenants, total = (blast.tenants, blast.tenants_total) if blast else (None, None)
        aliases = len({line.alias for line in lines})
        in_aliases = ngettext("in %(n)s alias", "in %(n)s aliases", aliases) % {"n": aliases} if lines else ""
        entries = blast.entries if blast else None
        weighed = formats.size_estimate(blast.size_bytes, blast.is_weighed_whole) if blast else formats.UNKNOWN
        size, _space, unit = weighed.partition("\xa0")
        known = [line.recompute for line in lines if line.recompute is not None]
        amount, _space, of_time = formats.duration(sum(known) if known else None).partition(" ")
        found = [
            Figure(
                ngettext("Tenant", "Tenants", tenants or 1),
                formats.number(tenants),
                _("of %(n)s") % {"n": formats.number(total)} if total else "",
            ),
            Figure(ngettext("Group", "Groups", len(lines)), formats.number(len(lines) if blast else None), in_aliases),
            Figure(ngettext("Entry", "Entries", entries or 0), formats.estimate(entries, not blast or blast.is_exact)),
            Figure(_("Memory"), size, unit),
            Figure(_("Work to recompute"), amount, of_time),
        ]
        return found if tenancy().has_tenants and (tenants or blast is None) else found[1:]

    def _busy(self, targets: Sequence[Target], lines: Sequence[Line]) -> list[Note]:
        reads = sum(line.reads or 0 for line in lines)
        if reads < 100:
            return []
        text = _("%(n)s reads a minute use these entries. Each entry is computed anew by one worker only.")
        title = _("Busy now: %(whose)s.") % {"whose": naming.whose(targets)}
        return [Note(text % {"n": formats.number(reads)}, title)]

    def _steps(self, targets: Sequence[Target], blast: Blast | None, lines: Sequence[Line]) -> list[Step]:
        """Return narrower scopes: the groups of a tenant that are read most, when all of it is meant."""
        if blast is None or len(targets) != 1 or targets[0].kind not in ("tenant", "prefix"):
            return []
        whose = targets[0].tenant
        rows: list[GroupCount] = [row for row in blast.rows if row.group and not isinstance(whose, All)]
        reads = {(line.alias, line.group): line.reads or 0.0 for line in lines}
        url = self.url("cacheadmin_invalidate")
        return [
            Step(
                _("Only %(group)s") % {"group": row.group},
                f"{url}?on={ids.scope_id(Target('group', row.group, row.tenant, row.alias))}",
                row.entries,
            )
            for row in sorted(rows, key=lambda row: (-reads.get((row.alias, row.group), 0.0), row.entries))[:3]
        ]


def _rest(lines: Sequence[Line]) -> dict[str, Any] | None:
    if not lines:
        return None
    known = [line.recompute for line in lines if line.recompute is not None]
    return {
        "count": len(lines),
        "entries": sum(line.entries for line in lines),
        "size_bytes": sum(line.size_bytes or 0 for line in lines),
        "is_weighed_whole": all(line.is_weighed_whole for line in lines),
        "recompute": sum(known) if known else None,
        "reads": sum(line.reads or 0 for line in lines) if any(line.reads is not None for line in lines) else None,
    }
