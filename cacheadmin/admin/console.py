"""The console in Django's admin: its entry in the index, its permissions, and the address of every page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.http import HttpRequest
from django.urls import URLPattern, URLResolver, path

from cacheadmin.models import Console

from .access import NAMES
from .pages import Page
from .unmigrated import migrated
from .views import (
    activity,
    clear,
    entries,
    entry,
    find,
    functions,
    groups,
    health,
    overview,
    pattern,
    plain,
    runs,
    scopes,
    tenants,
    warm,
)

PAGES: Final[tuple[tuple[str, type[Page], str], ...]] = (
    ("", overview.Overview, "cacheadmin_console_changelist"),
    ("data/overview/", overview.OverviewData, "cacheadmin_data_overview"),
    ("find/", find.Find, "cacheadmin_find"),
    ("tenants/", tenants.TenantList, "cacheadmin_tenant_list"),
    ("groups/", groups.GroupList, "cacheadmin_group_list"),
    ("tenants/<str:tenant>/", groups.TenantDetail, "cacheadmin_tenant_detail"),
    ("tenants/<str:tenant>/plain/", plain.PlainList, "cacheadmin_plain_list"),
    ("tenants/<str:tenant>/<str:group>/", entries.EntryList, "cacheadmin_entry_list"),
    ("entries/<str:entry>/", entry.EntryDetail, "cacheadmin_entry_detail"),
    ("entries/<str:entry>/recompute/", entry.EntryRecompute, "cacheadmin_entry_recompute"),
    ("functions/", functions.FunctionList, "cacheadmin_function_list"),
    ("functions/<path:function>/", functions.FunctionDetail, "cacheadmin_function_detail"),
    ("health/", health.Health, "cacheadmin_health"),
    ("activity/", activity.ActivityList, "cacheadmin_activity_list"),
    ("activity/retry/", activity.ActivityRetry, "cacheadmin_activity_retry"),
    ("data/activity/", activity.ActivityData, "cacheadmin_data_activity"),
    ("activity/<int:pk>/", activity.ActivityDetail, "cacheadmin_activity_detail"),
    ("runs/<int:pk>/", runs.RunDetail, "cacheadmin_run_detail"),
    ("data/run/<int:pk>/", runs.RunData, "cacheadmin_data_run"),
    ("runs/<int:pk>/cancel/", runs.RunCancel, "cacheadmin_run_cancel"),
    ("runs/<int:pk>/pace/", runs.RunPace, "cacheadmin_run_pace"),
    ("invalidate/", scopes.Invalidate, "cacheadmin_invalidate"),
    ("pattern/", pattern.Pattern, "cacheadmin_pattern"),
    ("warm/", warm.Warm, "cacheadmin_warm"),
    ("clear/", clear.Clear, "cacheadmin_clear"),
)
"""Address below `<admin>/cacheadmin/console/`, page, URL name. No signed id is the word `plain`: each holds a `~`."""

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Console]
else:  # generic for type checkers only
    _ModelAdmin = admin.ModelAdmin


@admin.register(Console)
class ConsoleAdmin(_ModelAdmin):
    """Puts the console into an AdminSite. Its model has no table: nothing is added, changed or deleted here."""

    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        """Return every page, each behind the admin site's own login."""
        guard = self.admin_site.admin_view
        urls: list[URLPattern | URLResolver] = []
        for route, page, name in PAGES:
            view = migrated(page.as_view(console=self), self, page.tab, is_data=route.startswith("data/"))
            urls.append(path(route, guard(view), name=name))
        return urls

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Show the app in the index to those who have any permission of the console."""
        return any(request.user.has_perm(f"cacheadmin.{name}") for name in NAMES)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Link the console from the index for those who may see what is cached."""
        return bool(request.user.has_perm("cacheadmin.view_keys"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        """Return the overview, for code that calls the change list itself."""
        return overview.Overview.as_view(console=self)(request)
