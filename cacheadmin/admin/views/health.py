"""Health: what is set up wrong?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class Health(Page):
    """Findings of the doctor."""

    tab = "health"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Health"), crumbs=[Crumb(_("Health"))])
