"""Activity: who dropped it, and did it work?"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from ..pages import Crumb, Page


class ActivityList(Page):
    """What was done to the cache."""

    tab = "activity"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Activity"), crumbs=[Crumb(_("Activity"))])


class ActivityDetail(Page):
    """One line of it."""

    tab = "activity"
    template_name = "cacheadmin/base.html"

    def get(self, request: HttpRequest, **ids: Any) -> HttpResponse:
        """Show it."""
        return self.render(_("Activity"), crumbs=[Crumb(_("Activity"))])
