"""A run: how far, how fast, can I stop it?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class RunDetail(Page):
    """Progress of a long deed."""

    tab = "activity"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Run"), crumbs=[Crumb(_("Run"))])


class RunCancel(Page):
    """Stop it."""

    tab = "activity"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Run"), crumbs=[Crumb(_("Run"))])


class RunData(Page):
    """Its figures as JSON."""

    tab = "activity"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Run"), crumbs=[Crumb(_("Run"))])
