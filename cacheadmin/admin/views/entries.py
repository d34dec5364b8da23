"""Entries: what exactly is cached, until when?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class EntryList(Page):
    """Entries of one group."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Entries"), crumbs=[Crumb(_("Entries"))])
