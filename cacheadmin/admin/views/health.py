"""Health: what is set up wrong?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser, doctor
from cacheadmin.admin import formats
from cacheadmin.admin.pages import Crumb, Note, Page, count_beside

KEPT_SECONDS: Final = 300
"""For so long a process shows what its checks found, on this page and beside its tab."""

SAID_BY_THE_FRAME: Final = "cacheadmin.E010"
"""That a server is away stands above every page already."""


def open_problems() -> tuple[doctor.Finding, ...]:
    """Return the errors and warnings that this process knows of. Cost: none; they are looked for beside the page."""
    report = doctor.known(KEPT_SECONDS)
    return report.problems if report is not None else ()


def is_known() -> bool:
    """Say whether this process has looked yet."""
    return doctor.known(KEPT_SECONDS) is not None


def open_findings() -> int:
    """Return how many problems stand beside the tab."""
    return len(open_problems())


count_beside("health", open_findings)


def anchor_of(check: str) -> str:
    """Return the fragment of the page's address where the first finding of a check stands."""
    return f"check-{check.rpartition('.')[2]}"


def notes(page: Page) -> list[Note]:
    """Put errors into words for another page, each with a link to how it is put right."""
    url = page.url("cacheadmin_health")
    return [
        Note(found.why, found.title, "bad", [(_("How to put it right"), f"{url}#{anchor_of(found.check)}")])
        for found in open_problems()
        if found.level == "error" and found.check != SAID_BY_THE_FRAME
    ]


@dataclass(frozen=True, slots=True)
class Shown:
    """One finding as the page shows it."""

    finding: doctor.Finding
    anchor: str
    """Empty but for the first of its check."""


def _shown(report: doctor.Report) -> list[Shown]:
    seen: set[str] = set()
    rows = []
    for finding in report.findings:
        rows.append(Shown(finding, "" if finding.check in seen else anchor_of(finding.check)))
        seen.add(finding.check)
    return rows


def _listed(checks: tuple[doctor.Check, ...]) -> str:
    return ", ".join(check.id for check in checks)


class Health(Page):
    """Findings of the doctor, worst first, and the checks that passed."""

    tab = "health"
    template_name = "cacheadmin/health.html"
    http_method_names = ["get", "head", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show what this process' checks found last; anew if a server went away or came back since."""
        report = doctor.latest(KEPT_SECONDS)
        was_away = any(finding.check == SAID_BY_THE_FRAME for finding in report.findings)
        is_told = all(check.id != SAID_BY_THE_FRAME for check in report.silenced)
        if is_told and was_away != bool(browser.away()):
            report = doctor.latest(0)
        return self.render(
            _("Health"),
            crumbs=[Crumb(_("Health"))],
            report=report,
            rows=_shown(report),
            unfinished=_listed(report.unfinished),
            silenced=_listed(report.silenced),
            passed=ngettext("%(n)s check passed", "%(n)s checks passed", len(report.passed))
            % {"n": formats.number(len(report.passed))},
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Run the checks again."""
        count = len(doctor.latest(0).findings)
        text = ngettext("Checked: %(n)s finding.", "Checked: %(n)s findings.", count) % {"n": formats.number(count)}
        messages.info(request, text if count else _("Checked: nothing was found."))
        return HttpResponseRedirect(self.url("cacheadmin_health"))
