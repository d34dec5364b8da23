"""Groups: which list is stale, or churns?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class GroupList(Page):
    """Groups over all tenants."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Groups"), crumbs=[Crumb(_("Groups"))])


class TenantDetail(Page):
    """Groups of one tenant."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Groups"), crumbs=[Crumb(_("Groups"))])
