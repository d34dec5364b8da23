"""The pages of the rules' files: upload, diff, apply, download."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from . import rule_changes, rule_import, told
from .pages import Crumb, Note, url_to
from .rule_base import RulePages
from .rule_files import FILE_BYTES, FORMATS, UnreadableFile

MOST_SELECTED: Final = 1000

MEANINGS: Final[dict[str, str | Promise]] = {
    "json": gettext_lazy("A list of objects."),
    "yaml": gettext_lazy("A list of mappings; reads well in a repository."),
    "csv": gettext_lazy("One rule a line, a header first."),
    "xlsx": gettext_lazy("One sheet, a header first."),
}


class Transfer(RulePages):
    """Adds import and export to the ModelAdmin of the rules."""

    def export_view(self, request: HttpRequest) -> HttpResponse:
        """Offer the rules of the database as a file; with `format` send it."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        rows = self.get_queryset(request).order_by("name")
        only = [pk for pk in request.GET.get("only", "").split(",")[:MOST_SELECTED] if pk.isdecimal() and len(pk) < 19]
        if only:
            rows = rows.filter(pk__in=only)
        names = [each.__name__.lower() for each in FORMATS]
        if request.GET.get("format") in names:
            return rule_import.download(rows, request.GET["format"])
        context = {
            **self.framed(request, _("Export invalidation rules"), Crumb(_("Export"))),
            "formats": [(name, each.__name__, MEANINGS[name]) for name, each in zip(names, FORMATS, strict=True)],
            "only": ",".join(only),
            "count": rows.count(),
        }
        return self.page(request, "export.html", context)

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Take a file, show what it would change, and apply that."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        if request.method == "POST" and "apply" in request.POST:
            return self._apply(request)
        form = rule_import.UploadForm(request.POST or None, request.FILES or None)
        if request.method == "POST" and form.is_valid() and form.sheet is not None:
            try:
                diff = rule_import.compare(form.sheet, request.user, **self._rights(request))
            except UnreadableFile as error:
                form.add_error("file", str(error))
            else:
                return self._diff(request, diff)
        context = {
            **self.framed(request, _("Import invalidation rules"), Crumb(_("Import"))),
            "form": form,
            "limit": FILE_BYTES,
        }
        return self.page(request, "import.html", context)

    def _rights(self, request: HttpRequest) -> dict[str, bool]:
        return {"may_add": self.has_add_permission(request), "may_change": self.has_change_permission(request)}

    def _diff(self, request: HttpRequest, diff: rule_import.Diff, notes: Iterable[Note] = ()) -> HttpResponse:
        crumbs = Crumb(_("Import"), url_to(self.admin_site, "cacheadmin_invalidationrule_import")), Crumb(_("Diff"))
        context = {**self.framed(request, str(diff), *crumbs), "diff": diff, "notes": list(notes)}
        return self.page(request, "import_diff.html", context)

    def _apply(self, request: HttpRequest) -> HttpResponse:
        back = HttpResponseRedirect(url_to(self.admin_site, "cacheadmin_invalidationrule_import"))
        without = request.POST.get("without_errors") == "1"
        rights = self._rights(request)
        try:
            fingerprint, rows = rule_import.opened(request.POST.get("rows", ""), request.user)
        except UnreadableFile as error:
            messages.error(request, str(error))
            return back
        try:
            done = rule_import.apply(rows, fingerprint, without_errors=without, **rights)
        except rule_import.Stale:
            note = Note(_("Look at the differences again."), _("The rules changed meanwhile."))
            return self._diff(request, rule_import.compare(rows, request.user, **rights), [note])
        except UnreadableFile as error:
            note = Note(_("Nothing was written. Tick “leave out the rows with errors”, or mend the file."), str(error))
            return self._diff(request, rule_import.compare(rows, request.user, **rights), [note])
        for row in done.new:
            told_new = rule_changes.message(rule_changes.changes(None, row), is_new=True, is_imported=True)
            super().log_addition(request, row, told_new)
        for row, found in done.changed:
            super().log_change(request, row, rule_changes.message(found, is_new=False, is_imported=True))
        total = len(done.new) + len(done.changed)
        said = told.imported(len(done.new), len(done.changed))
        if total:
            self.note(request, said)
        messages.success(request, f"{told.text(said)}.")
        return HttpResponseRedirect(url_to(self.admin_site, "cacheadmin_invalidationrule_changelist"))
