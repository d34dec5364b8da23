"""Plain keys: what was written without a group?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class PlainList(Page):
    """A bounded look at them."""

    tab = "tenants"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Plain keys"), crumbs=[Crumb(_("Plain keys"))])
