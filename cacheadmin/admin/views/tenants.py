"""Tenants: find one of 10,000 and see whose cache hurts."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class TenantList(Page):
    """All tenants."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Tenants"), crumbs=[Crumb(_("Tenants"))])
