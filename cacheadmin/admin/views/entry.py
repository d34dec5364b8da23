"""Entry: why is this here, why is it stale, why did it miss?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class EntryDetail(Page):
    """One entry."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Entry"), crumbs=[Crumb(_("Entry"))])


class EntryRecompute(Page):
    """Compute it anew."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Entry"), crumbs=[Crumb(_("Entry"))])
