"""What the pages of the rules share: who may, the console's frame around them, and a line of Activity for each edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _

from cacheadmin.conf import config
from cacheadmin.models import Activity, InvalidationRule

from . import acts, told
from .pages import Crumb, frame, url_to

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[InvalidationRule]
else:
    ModelAdmin = admin.ModelAdmin


class RulePages(ModelAdmin):
    """Permissions, frame and log. Nobody edits while `CACHEADMIN["READ_ONLY"]` is set."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Ask Django's permission, and the site's mode."""
        return super().has_add_permission(request) and not config().read_only

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask Django's permission, and the site's mode."""
        return super().has_change_permission(request, obj) and not config().read_only

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Ask Django's permission, and the site's mode."""
        return super().has_delete_permission(request, obj) and not config().read_only

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Say whether one may look: also those who may change rules, were it not for the site's mode."""
        return super().has_view_permission(request, obj) or super().has_change_permission(request, obj)

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Say whether one may import files: the permission for it, and one to add or change rules."""
        may_write = self.has_add_permission(request) or self.has_change_permission(request)
        return may_write and bool(request.user.has_perm("cacheadmin.import_rules"))

    def framed(self, request: HttpRequest, title: str, *crumbs: Crumb) -> dict[str, Any]:
        """Return the context of a page of the rules. Cost: a ping a managed alias."""
        request.current_app = self.admin_site.name
        here, list_url = _("Invalidation rules"), url_to(self.admin_site, "cacheadmin_invalidationrule_changelist")
        trail = [Crumb(here, list_url), *crumbs] if crumbs else [Crumb(here)]
        return {
            **frame(request, self.admin_site, tab="rules", crumbs=trail),
            "opts": self.opts,
            "title": title,
            "may_add": self.has_add_permission(request),
            "may_change": self.has_change_permission(request),
            "may_import": self.has_import_permission(request),
            "list_url": list_url,
            "add_url": url_to(self.admin_site, "cacheadmin_invalidationrule_add"),
            "import_url": url_to(self.admin_site, "cacheadmin_invalidationrule_import"),
            "export_url": url_to(self.admin_site, "cacheadmin_invalidationrule_export"),
        }

    def page(self, request: HttpRequest, template: str, context: dict[str, Any], status: int = 200) -> TemplateResponse:
        """Render one of our own pages."""
        name = f"admin/cacheadmin/invalidationrule/{template}"
        return TemplateResponse(request, name, context, status=status)

    def note(self, request: HttpRequest, said: told.Said, reason: str = "") -> None:
        """Write a line of Activity for an edit."""
        user: Any = request.user
        Activity.objects.create(
            kind=Activity.Kind.RULE,
            source=Activity.Source.USER,
            who=acts.one_line(user.get_username(), 200),
            user=user,
            tenants="*",
            targets=[said],
            what=acts.one_line(told.text(said)),
            reason=acts.one_line(reason, 1000),
        )
