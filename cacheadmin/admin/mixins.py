"""Mixins for a site's own ModelAdmins: what is cached of these rows, and buttons to invalidate and to warm it.

    @admin.register(Tenant)
    class TenantAdmin(TenantCacheMixin, admin.ModelAdmin): …

    @admin.register(InventoryItem)
    class InventoryItemAdmin(CacheInvalidationMixin, admin.ModelAdmin): …

They ask the console's permissions, and do nothing on an admin site that has no console. A change page costs no query
more; every act is confirmed on the console's pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.loader import render_to_string, select_template
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from cacheadmin.keys import tenant_text
from cacheadmin.targets import Target

from . import host, ids, rule_preview
from .access import Access, access_of
from .pages import Crumb, frame, url_to
from .unmigrated import migrated

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:
    Base = object

LISTED = 12
"""Groups that the panel of a change page lists."""


class ConsoleButtons(Base):
    """What both mixins share: buttons on the change page, above the template that the site chose."""

    cache_actions: tuple[str, ...] = ()
    """Names of the actions that a mixin adds; a ModelAdmin may have several mixins."""

    def __init__(self, model: Any, admin_site: admin.AdminSite) -> None:
        super().__init__(model, admin_site)
        if self.actions is not None:  # None: the site wants no actions on this list
            ours = [name for base in reversed(type(self).__mro__) for name in vars(base).get("cache_actions", ())]
            self.actions = list(dict.fromkeys([*self.actions, *ours]))
        self._site_template: Any = self.change_form_template
        self.change_form_template = "admin/cacheadmin/host/change_form.html"  # type: ignore[misc]  # Django reads it here

    def cache_tools(self, request: HttpRequest, obj: Any, access: Access) -> list[tuple[str, str]]:
        """Return the buttons of a change page: pairs of label and URL. No queries, please."""
        return []

    def cache_panel_url(self, request: HttpRequest, obj: Any, access: Access) -> str:
        """Return where the panel of a change page is filled from; empty for none."""
        return ""

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        """Add the buttons and the panel, both without a query."""
        obj = kwargs.get("obj") or context.get("original")
        access = access_of(request.user)
        is_shown = obj is not None and host.has_console(self.admin_site)
        context |= {
            "cacheadmin_base": self._base_template(),
            "cacheadmin_tools": self.cache_tools(request, obj, access) if is_shown else [],
            "cacheadmin_panel_url": self.cache_panel_url(request, obj, access) if is_shown else "",
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def _base_template(self) -> Any:
        """Return the template that the page would have without us."""
        chosen = self._site_template
        if not chosen:
            app, name = self.opts.app_label, self.opts.model_name
            chosen = [f"admin/{app}/{name}/change_form.html", f"admin/{app}/change_form.html", "admin/change_form.html"]
        return select_template([chosen] if isinstance(chosen, str) else list(chosen))

    def has_invalidate_caches_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may invalidate, and there is a page to confirm it on."""
        access = access_of(request.user)
        return host.has_console(self.admin_site) and access.may("view_keys") and access.may("invalidate")

    def has_warm_caches_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may warm, and there is a page to confirm it on."""
        access = access_of(request.user)
        return host.has_console(self.admin_site) and access.may("view_keys") and access.may("warm")


class CacheInvalidationMixin(ConsoleButtons):
    """
    For models that rules name: invalidate what depends on chosen rows, and see what that is.

    Adds an action to the list; to the change page a button and a folded part *Cached data*.
    """

    cache_actions = ("invalidate_caches",)

    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        """Add the panel, and the way to the confirm page."""
        guard, info = self.admin_site.admin_view, self._info
        panel, button = require_safe(self.cached_data_view), require_safe(self.invalidate_caches_view)
        own = [
            path("<path:object_id>/cached-data/", guard(migrated(panel, self, "")), name=f"{info}_cached_data"),
            path("<path:object_id>/invalidate-caches/", guard(migrated(button, self, "")), name=f"{info}_invalidate"),
        ]
        return [*own, *super().get_urls()]

    @property
    def _info(self) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}"

    def _own_url(self, what: str, obj: Any) -> str:
        return reverse(f"admin:{self._info}_{what}", args=[quote(obj.pk)], current_app=self.admin_site.name)

    def cache_tools(self, request: HttpRequest, obj: Any, access: Access) -> list[tuple[str, str]]:
        """Return the button that leads to the confirm page."""
        tools = super().cache_tools(request, obj, access)
        if self.has_invalidate_caches_permission(request):
            tools.append((_("Invalidate caches…"), self._own_url("invalidate", obj)))
        return tools

    def cache_panel_url(self, request: HttpRequest, obj: Any, access: Access) -> str:
        """Return the panel's URL for those who may see what is cached."""
        return self._own_url("cached_data", obj) if access.may("view_keys") else ""

    def _reached(self, request: HttpRequest, object_id: str) -> tuple[Any, Access, host.Reach]:
        """Return the row as this ModelAdmin shows it to the user, and what its rules drop. Raises: Http404."""
        obj = self.get_object(request, unquote(object_id))
        if obj is None or not host.has_console(self.admin_site):
            raise Http404
        if not self.has_view_or_change_permission(request, obj):
            raise PermissionDenied
        access = access_of(request.user)
        access.require("view_keys")
        return obj, access, host.reach(self.model, self.model._base_manager.filter(pk=obj.pk), access)

    def cached_data_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """
        Show what saving this row would drop: a page of its own, or as JSON for the change page's script.

        Cost: two queries for the row, one of Activity; a round trip for the counters, and as `browser.blast`.
        """
        obj, access, reach = self._reached(request, object_id)
        shown = rule_preview.counted(
            reach.targets, access, self.admin_site, whose=None, thing=str(self.opts.verbose_name), rules=reach.rules
        )
        may_add = request.user.has_perm("cacheadmin.add_invalidationrule")
        context = {
            "panel": shown,
            "lines": host.with_last(shown.lines[:LISTED], reach.targets, shown.dropped or ()),
            "more": max(0, len(shown.lines) - LISTED),
            "sentence": rule_preview.sentence_of_row(shown),
            "has_rules": bool(reach.names),
            "add_url": self._add_rule_url() if may_add else "",
        }
        if request.GET.get("format") == "json":
            return JsonResponse({"html": render_to_string("admin/cacheadmin/host/panel.html", context, request)})
        request.current_app = self.admin_site.name
        here = _("Cached data")
        all_url = reverse(f"admin:{self._info}_changelist", current_app=self.admin_site.name)
        crumbs = [
            Crumb(str(capfirst(self.opts.verbose_name_plural)), all_url),
            Crumb(str(obj), self._own_url("change", obj)),
            Crumb(here),
        ]
        page = frame(request, self.admin_site, tab="", crumbs=crumbs) | {"title": f"{here}: {obj}", "opts": self.opts}
        return TemplateResponse(request, "admin/cacheadmin/host/cached_data.html", {**page, **context})

    def _add_rule_url(self) -> str:
        label = self.model._meta.label
        return f"{url_to(self.admin_site, 'cacheadmin_invalidationrule_add')}?model={label}"

    def invalidate_caches_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Lead to the confirm page for one row. Changes nothing."""
        obj, access, reach = self._reached(request, object_id)
        access.require("invalidate")
        if not reach.targets:
            return HttpResponseRedirect(self._own_url("cached_data", obj))
        return self._to_confirm(request, reach) or HttpResponseRedirect(self._own_url("cached_data", obj))

    @admin.action(
        description=gettext_lazy("Invalidate caches of selected %(verbose_name_plural)s…"),
        permissions=["invalidate_caches"],
    )
    def invalidate_caches(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Lead to the confirm page for what the rules drop when the selected rows change."""
        reach = host.reach(self.model, queryset.order_by(), access_of(request.user))
        if not reach.targets:
            texts = _("Nothing to invalidate: no rule names this model."), _("Nothing to invalidate.")
            messages.warning(request, texts[bool(reach.names)])
            return None
        return self._to_confirm(request, reach)

    def _to_confirm(self, request: HttpRequest, reach: host.Reach) -> HttpResponse | None:
        token = host.confirm_token(reach.targets)
        if token is None:
            text = _("That reaches more than %(n)s tenants. Choose fewer.") % {"n": ids.SCOPE_TARGETS}
            messages.warning(request, text)
            return None
        return HttpResponseRedirect(f"{url_to(self.admin_site, 'cacheadmin_invalidate')}?on={token}")


class TenantCacheMixin(ConsoleButtons):
    """For the model of a site's tenants: invalidate or warm all that is cached for chosen ones."""

    cache_actions = ("invalidate_tenants", "warm_tenants")

    def cache_tenant(self, obj: Any) -> str:
        """Return the tenant's id of a row: its schema where it has one, else its primary key. Override what differs."""
        return tenant_text(getattr(obj, "schema_name", None) or obj.pk)

    def cache_tools(self, request: HttpRequest, obj: Any, access: Access) -> list[tuple[str, str]]:
        """Return the buttons that lead to the confirm pages, for tenants that the user may see."""
        tools = super().cache_tools(request, obj, access)
        tenant = self.cache_tenant(obj)
        if access.sees(tenant):
            if self.has_invalidate_caches_permission(request):
                tools.append((_("Invalidate this tenant…"), self._tenants_url("cacheadmin_invalidate", [tenant])))
            if self.has_warm_caches_permission(request):
                tools.append((_("Warm this tenant…"), self._tenants_url("cacheadmin_warm", [tenant])))
        return tools

    def _tenants_url(self, page: str, tenants: list[str]) -> str:
        token = ids.scope_id(Target("tenant", "", tenant) for tenant in tenants)
        return f"{url_to(self.admin_site, page)}?on={token}"

    @admin.action(
        description=gettext_lazy("Invalidate everything cached for selected %(verbose_name_plural)s…"),
        permissions=["invalidate_caches"],
    )
    def invalidate_tenants(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Lead to the confirm page for the selected tenants."""
        return self._to_page(request, queryset, "cacheadmin_invalidate")

    @admin.action(
        description=gettext_lazy("Warm caches of selected %(verbose_name_plural)s…"), permissions=["warm_caches"]
    )
    def warm_tenants(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Lead to the page that warms the selected tenants."""
        return self._to_page(request, queryset, "cacheadmin_warm")

    def _to_page(self, request: HttpRequest, queryset: Any, page: str) -> HttpResponse | None:
        access = access_of(request.user)
        limit = ids.SCOPE_TARGETS
        tenants = [tenant for tenant in map(self.cache_tenant, queryset[: limit + 1]) if access.sees(tenant)]
        if not tenants:
            messages.warning(request, _("None of these is a tenant whose cache you may see."))
        elif len(tenants) > limit or len(url := self._tenants_url(page, tenants)) > host.LONGEST_ID:
            messages.warning(request, _("That is too much at once: choose fewer than %(n)s tenants.") % {"n": limit})
        else:
            return HttpResponseRedirect(url)
        return None
