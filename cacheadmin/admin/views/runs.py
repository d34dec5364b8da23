"""A run: how far, how fast? A long deed is a line of Activity that is still running."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _

from cacheadmin.admin.access import Access
from cacheadmin.admin.pages import Crumb, Page
from cacheadmin.models import Activity


def find_run(access: Access, pk: int) -> Activity:
    """Return a line of Activity. Raises: Http404 if there is none, or it concerns tenants the user may not see."""
    found = Activity.objects.filter(pk=pk)
    if not access.is_bound:
        row = found.first()
    else:
        row = next((row for row in found if row.tenants != "*" and _is_within(row, access)), None)
    if row is None:
        raise Http404
    return row


def _is_within(row: Activity, access: Access) -> bool:
    return all(access.sees(tenant) for tenant in row.tenants or [None])


class RunDetail(Page):
    """Progress of a long deed."""

    tab = "activity"
    template_name = "cacheadmin/run.html"

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show it."""
        run = find_run(self.access, pk)
        crumbs = [Crumb(_("Activity"), self.url("cacheadmin_activity_list")), Crumb(_("Run"))]
        return self.render(run.what or str(run), crumbs=crumbs, run=run)


class RunData(Page):
    """The same as JSON, for the page's script."""

    def get(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Return state and count."""
        run = find_run(self.access, pk)
        return JsonResponse({"state": run.state, "entries": run.entries, "tookMs": run.took_ms})
