"""Tenants: find one of 10,000 and see whose cache hurts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from cacheadmin import browser
from cacheadmin.admin import figures, ids, naming, paging
from cacheadmin.admin.pages import Crumb, Page
from cacheadmin.targets import ALL, Target
from cacheadmin.tenancy import Everyone, Tenant, tenancy

ORDERS = ("-cost", "name", "ratio", "-requests", "-misses", "-invalidated")

SHOWN = ("worse", "waiting", "quiet")

SEARCHED = 500
"""Most tenants that a search lists."""


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One tenant as the list shows it."""

    id: str
    label: str
    url: str
    scope: str
    figures: figures.Figures
    entries: int | None
    size_bytes: int | None
    is_weighed_whole: bool


class TenantList(Page):
    """All tenants a user may see: those with reads ranked, the rest by name."""

    tab = "tenants"
    template_name = "cacheadmin/tenants.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them; a user who is bound to one tenant is sent to its groups."""
        allowed = self.access.tenants
        if not tenancy().has_tenants:
            return HttpResponseRedirect(self.url("cacheadmin_group_list"))
        if not isinstance(allowed, Everyone) and len(allowed) == 1:
            return HttpResponseRedirect(self.url("cacheadmin_tenant_detail", ids.tenant_id(next(iter(allowed)))))
        wish = paging.asked(request.GET, orders=ORDERS, size=50)
        span = figures.Span.of(request.GET, self.access)
        numbers = figures.by_tenant(span)
        show = wish.value("show", SHOWN)
        listed = [tenant for tenant in self._found(wish.search) if self._fits(tenant, show, numbers)]
        found = self._sorted(listed, numbers, wish.order)
        shown, pager = paging.page_of(found, wish)
        shows_shared = wish.page == 1 and not wish.search and not show and self.access.sees(None)
        first = [Tenant("", naming.shared_label())] if shows_shared else []
        rows = self._rows([*first, *shown], numbers, span.alias)
        heads: list[dict[str, Any]] = [
            {"label": _("Tenant"), "sort": "name"},
            {"label": _("Hit ratio"), "sort": "ratio", "is_number": True},
            {"label": pgettext("column", "Change"), "is_number": True, "is_low": True},
            {"label": _("Requests"), "sort": "-requests", "is_number": True, "is_low": True},
            {"label": _("Misses"), "sort": "-misses", "is_number": True},
            {"label": _("Cost"), "sort": "-cost", "is_number": True, "title": _("Compute time spent on misses")},
            {"label": _("Invalidations"), "sort": "-invalidated", "is_number": True, "is_low": True},
            {"label": _("Entries"), "is_number": True, "is_low": True},
            {"label": _("Memory"), "is_number": True, "is_low": True},
        ]
        return self.render(
            _("Tenants"),
            crumbs=[Crumb(_("Tenants"))],
            wish=wish,
            span=span,
            clear_link=wish.link(q=None),
            show=show,
            filters=[
                (_("All"), wish.link(show=None), not show),
                (_("Missing more than usual"), wish.link(show="worse"), show == "worse"),
                (_("Waiting"), wish.link(show="waiting"), show == "waiting"),
                (_("Quiet"), wish.link(show="quiet"), show == "quiet"),
            ],
            rows=rows,
            columns=paging.columns(heads, wish),
            pager=pager,
            largest_cost=max((row.figures.cost or 0.0 for row in rows), default=0.0),
            invalidate_url=self.url("cacheadmin_invalidate"),
        )

    def _found(self, search: str) -> list[Tenant]:
        allowed = self.access.tenants
        if isinstance(allowed, Everyone):
            return list(tenancy().find(search, SEARCHED) if search else tenancy().list())
        labels = naming.tenant_labels(allowed)
        text = search.casefold()
        tenants = (Tenant(tenant, labels[tenant]) for tenant in allowed)
        return [t for t in tenants if t.label.casefold().startswith(text) or t.id.casefold().startswith(text)]

    def _fits(self, tenant: Tenant, show: str, numbers: Mapping[str | None, figures.Figures]) -> bool:
        counted = numbers.get(tenant.id, figures.NOTHING)
        if show == "worse":
            return counted.is_worse
        if show == "quiet":
            return not counted.reads
        return show != "waiting" or any(t.tenant in (tenant.id, ALL) for t in self.waiting)

    @cached_property
    def waiting(self) -> list[Target]:
        """Targets of invalidations that wait."""
        return browser.waiting_targets()

    def _sorted(self, found: list[Tenant], numbers: dict[str | None, figures.Figures], order: str) -> list[Tenant]:
        found.sort(key=lambda tenant: tenant.label.casefold())
        if order == "-name":
            found.reverse()
        elif order != "name":
            field, turned = order.removeprefix("-"), order.startswith("-")
            known = [tenant for tenant in found if tenant.id in numbers]
            known.sort(key=lambda tenant: figures.sort_key(numbers[tenant.id], field), reverse=turned)
            ranked = {tenant.id for tenant in known}
            found = [*known, *(tenant for tenant in found if tenant.id not in ranked)]
        return found

    def _rows(
        self, tenants: Sequence[Tenant], numbers: dict[str | None, figures.Figures], alias: str | None
    ) -> list[TenantRow]:
        counts = self.ask(lambda: browser.groups_of([t.id or None for t in tenants], alias=alias, weigh=2))
        rows = []
        for tenant in tenants:
            key = tenant.id or None
            mine = [count for count in counts or () if count.tenant == key]
            rows.append(
                TenantRow(
                    id=tenant.id,
                    label=tenant.label,
                    url=self.url("cacheadmin_tenant_detail", ids.tenant_id(key)),
                    scope=ids.scope_id(Target("tenant", "", key, alias)),
                    figures=numbers.get(key, figures.NOTHING),
                    entries=None if counts is None else sum(count.entries for count in mine),
                    size_bytes=None if counts is None else sum(count.size_bytes or 0 for count in mine),
                    is_weighed_whole=all(count.is_weighed_whole for count in mine),
                )
            )
        return rows
