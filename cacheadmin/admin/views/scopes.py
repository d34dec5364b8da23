"""Confirm pages: what would an act hit?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class Invalidate(Page):
    """Ask, then do."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Invalidate"), crumbs=[Crumb(_("Invalidate"))])


class Warm(Page):
    """Ask, then do."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Warm"), crumbs=[Crumb(_("Warm"))])


class Clear(Page):
    """Ask, then do."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Clear"), crumbs=[Crumb(_("Clear"))])
