"""Health: what is set up wrong?"""

from __future__ import annotations

from typing import Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import doctor
from cacheadmin.admin import formats
from cacheadmin.admin.pages import Crumb, Page, count_beside

KEPT_SECONDS: Final = 300
"""For so long a process shows what its checks found, on this page and beside its tab."""


def open_findings() -> int:
    """Return how many findings stand beside the tab. Cost: none, but for the first page in a while."""
    return len(doctor.latest(KEPT_SECONDS).findings)


count_beside("health", open_findings)


class Health(Page):
    """Findings of the doctor, worst first, and the checks that passed."""

    tab = "health"
    template_name = "cacheadmin/health.html"
    http_method_names = ["get", "head", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        """Show what this process' checks found last."""
        report = doctor.latest(KEPT_SECONDS)
        return self.render(
            _("Health"),
            crumbs=[Crumb(_("Health"))],
            report=report,
            passed=ngettext("%(n)s check passed", "%(n)s checks passed", len(report.passed))
            % {"n": formats.number(len(report.passed))},
        )

    def post(self, request: HttpRequest) -> HttpResponse:
        """Run the checks again."""
        count = len(doctor.latest(0).findings)
        text = ngettext("Checked: %(n)s finding.", "Checked: %(n)s findings.", count) % {"n": formats.number(count)}
        messages.info(request, text if count else _("Checked: nothing was found."))
        return HttpResponseRedirect(self.url("cacheadmin_health"))
