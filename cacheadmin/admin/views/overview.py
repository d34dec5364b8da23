"""Overview: is the cache healthy, and for whom not?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class Overview(Page):
    """Verdict, figures, charts, who misses."""

    tab = "overview"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Overview"), crumbs=[Crumb(_("Overview"))])


class OverviewData(Page):
    """The same figures as JSON, for the page's script."""

    tab = "overview"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Overview"), crumbs=[Crumb(_("Overview"))])
