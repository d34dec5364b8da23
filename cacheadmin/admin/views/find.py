"""Find: a tenant, a group, a key, pasted arguments."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class Find(Page):
    """What begins with the text."""

    tab = ""
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Find"), crumbs=[Crumb(_("Find"))])
