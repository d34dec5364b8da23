"""Cached functions: is each worth it, and who drops it?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class FunctionList(Page):
    """All cached functions of the site."""

    tab = "functions"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Cached functions"), crumbs=[Crumb(_("Cached functions"))])


class FunctionDetail(Page):
    """One cached function."""

    tab = "functions"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Cached functions"), crumbs=[Crumb(_("Cached functions"))])
