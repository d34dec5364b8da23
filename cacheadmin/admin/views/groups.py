"""Groups: which list is stale, or churns? Of one tenant, or over all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from cacheadmin import browser
from cacheadmin.admin import figures, formats, history, ids, naming, paging
from cacheadmin.admin.pages import Crumb, Figure, Page
from cacheadmin.admin.warmable import can_warm
from cacheadmin.browser import GroupCount
from cacheadmin.functions import registry
from cacheadmin.targets import ALL, Target
from cacheadmin.tenancy import Everyone, tenancy

TENANTS_COUNTED = 200
"""Tenants whose entries the table over all of them counts one by one; for more they stand for the rest."""


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group as the lists show it."""

    alias: str
    group: str
    kind: str
    url: str
    scope: str
    figures: figures.Figures
    invalidated: history.Dropped | None
    entries: int | None
    size_bytes: int | None
    is_size_exact: bool
    is_orphaned: bool
    tenants: int = 0


@dataclass(frozen=True, slots=True)
class PlainRow:
    """The row of what was written without a group."""

    alias: str
    url: str
    count: int


def kind_word(alias: str, group: str, seen: str) -> str:
    """Return what fills a group: what this process has registered for it, else what one of its entries looks like."""
    kinds = {each.kind for each in registry.values() if (each.alias, each.group) == (alias, group)} or {seen}
    words = {"function": _("function"), "view": _("view"), "template": _("template"), "plain": _("plain")}
    return ", ".join(words.get(kind, kind) for kind in sorted(kinds))


HEADS = (
    {"name": "group", "sort": "group"},
    {"name": "ratio", "sort": "ratio", "is_number": True},
    {"name": "change", "is_number": True, "is_low": True},
    {"name": "misses", "sort": "-misses", "is_number": True, "is_low": True},
    {"name": "cost", "sort": "-cost", "is_number": True},
    {"name": "invalidated", "is_low": True},
    {"name": "entries", "sort": "-entries", "is_number": True},
    {"name": "size", "sort": "-size", "is_number": True, "is_low": True},
)

ORDERS = ("-cost", "group", "alias", "ratio", "-misses", "-entries", "-size")


def heads(wish: paging.Asked, *, with_tenants: bool = False) -> list[paging.Column]:
    """Return the heads of the table of groups."""
    labels = {
        "group": _("Group"),
        "ratio": _("Hit ratio"),
        "change": pgettext("column", "Change"),
        "misses": _("Misses"),
        "cost": _("Cost"),
        "invalidated": _("Invalidated"),
        "entries": _("Entries"),
        "size": _("Size"),
    }
    found = [{**head, "label": labels[str(head["name"])]} for head in HEADS]
    if with_tenants:  # who invalidated a group of all tenants, and when, is a question for Activity
        found[5] = {"label": _("Tenants"), "is_number": True, "is_low": True}
    return paging.columns(found, wish)


def sorted_rows(rows: Iterable[GroupRow], order: str) -> list[GroupRow]:
    """Return rows in an asked order; ties and the unknown by name."""
    found = sorted(rows, key=lambda row: (row.group, row.alias))
    field, turned = order.removeprefix("-"), order.startswith("-")
    if field == "entries":
        found.sort(key=lambda row: row.entries or 0, reverse=turned)
    elif field == "size":
        found.sort(key=lambda row: row.size_bytes or 0, reverse=turned)
    elif field == "alias":
        found.sort(key=lambda row: row.alias, reverse=turned)
    elif field == "group":
        found = found[::-1] if turned else found
    else:
        found.sort(key=lambda row: figures.sort_key(row.figures, field), reverse=turned)
    return found


class TenantDetail(Page):
    """The groups of one tenant, or of shared data."""

    tab = "tenants"
    template_name = "cacheadmin/groups.html"

    def get(self, request: HttpRequest, tenant: str) -> HttpResponse:
        """List what is cached for a tenant."""
        whose = ids.open_tenant(tenant)
        self.access.require_tenant(whose)
        label = naming.tenant_label(whose)
        span = figures.Span.of(request.GET, self.access)
        wish = paging.asked(request.GET, orders=ORDERS, size=50)
        held = self.ask(lambda: browser.place_count(whose, alias=span.alias))
        counts = held.groups if held else None
        numbers = figures.of_place(span, whose)
        dropped = history.last_dropped(whose, history.recent(whose), numbers.dropped)
        rows = sorted_rows(self._rows(whose, counts, numbers.groups, dropped), wish.order)
        shown, pager = paging.page_of(rows, wish)
        plain = self._plain(whose, held.plain) if held else []
        scope = Target("tenant", "", whose, span.alias)
        crumbs = [Crumb(_("Tenants"), self.url("cacheadmin_tenant_list")), Crumb(label)]
        return self.render(
            label,
            crumbs=crumbs if tenancy().has_tenants else [Crumb(_("Groups"))],
            wish=wish,
            span=span,
            tenant=whose,
            tenant_id=tenant,
            is_shared=whose is None,
            rows=shown,
            plain=plain,
            columns=heads(wish),
            pager=pager,
            strip=self._strip(counts, numbers.whole, dropped),
            is_away=counts is None,
            largest_cost=max((row.figures.cost or 0.0 for row in rows), default=0.0),
            scope=ids.scope_id(scope),
            warm_url=self.url("cacheadmin_warm") if can_warm(self.access, [scope]) else "",
            invalidate_url=self.url("cacheadmin_invalidate"),
            last=dropped.newest(),
            reads=numbers.whole.requests,
        )

    def _rows(
        self,
        whose: str | None,
        counts: Sequence[GroupCount] | None,
        numbers: Mapping[tuple[str, str], figures.Figures],
        dropped: history.DroppedMap,
    ) -> Iterable[GroupRow]:
        found = {(count.alias, count.group): count for count in counts or ()}
        read = (name for name, counted in numbers.items() if counted.reads)
        for alias, group in dict.fromkeys([*found, *read]):
            count = found.get((alias, group))
            yield GroupRow(
                alias=alias,
                group=group,
                kind=kind_word(alias, group, count.kind if count else "plain"),
                url=self.url("cacheadmin_entry_list", ids.tenant_id(whose), ids.group_id(alias, group)),
                scope=ids.scope_id(Target("group", group, whose, alias)) if group else "",
                figures=numbers.get((alias, group), figures.NOTHING),
                invalidated=dropped.of(alias, group),
                entries=count.entries if count else (None if counts is None else 0),
                size_bytes=count.size_bytes if count else None,
                is_size_exact=count.is_weighed_whole if count else True,
                is_orphaned=count.is_orphaned if count else False,
            )

    def _plain(self, whose: str | None, counts: Mapping[str, int]) -> list[PlainRow]:
        """Return a row for each alias with keys that were written without a group."""
        url = self.url("cacheadmin_plain_list", ids.tenant_id(whose))
        return [PlainRow(alias, f"{url}?alias={alias}", count) for alias, count in counts.items()]

    def _strip(
        self,
        counts: Sequence[GroupCount] | None,
        numbers: figures.Figures,
        dropped: history.DroppedMap,
    ) -> list[Figure]:
        entries = None if counts is None else sum(count.entries for count in counts)
        size = None if counts is None else sum(count.size_bytes or 0 for count in counts)
        last = dropped.newest()
        return [
            Figure(_("Entries"), formats.compact(entries), note=figures.about(size), title=formats.number(entries)),
            *figures.strip_of(numbers),
            Figure(_("Invalidated"), *figures.ago_parts(last.at if last else None), note=last.by if last else ""),
        ]


class GroupList(Page):
    """Groups over all tenants a user may see; the only list of a site without tenants."""

    tab = "tenants"
    template_name = "cacheadmin/groups.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them; a site without tenants has one place, which is shown as a tenant's is."""
        if not tenancy().has_tenants:
            page = TenantDetail(console=self.console)
            page.setup(request)
            page.access = self.access
            return page.get(request, ids.tenant_id(None))
        if not isinstance(self.access.tenants, Everyone):
            return HttpResponseRedirect(self.url("cacheadmin_tenant_list"))
        span = figures.Span.of(request.GET, self.access)
        wish = paging.asked(request.GET, orders=ORDERS, size=50)
        tenants = [tenant.id for tenant in tenancy().list()]
        counted: list[str | None] = [None, *tenants[:TENANTS_COUNTED]]
        counts = self.ask(lambda: browser.groups_of(counted, alias=span.alias, weigh=1))
        scale = len(tenants) / TENANTS_COUNTED if len(tenants) > TENANTS_COUNTED else 1.0
        rows = sorted_rows(self._rows(counts, figures.by_group(span, ALL), scale), wish.order)
        shown, pager = paging.page_of(rows, wish)
        return self.render(
            _("Groups"),
            crumbs=[Crumb(_("Groups"))],
            wish=wish,
            span=span,
            rows=shown,
            plain=[],
            is_over_all=True,
            is_estimate=scale > 1,
            columns=heads(wish, with_tenants=True),
            pager=pager,
            is_away=counts is None,
            largest_cost=max((row.figures.cost or 0.0 for row in rows), default=0.0),
            invalidate_url=self.url("cacheadmin_invalidate"),
        )

    def _function_url(self, alias: str, group: str) -> str:
        """Return the page of the function that fills a group, empty if there is none."""
        name = next((each.name for each in registry.values() if (each.alias, each.group) == (alias, group)), "")
        return self.url("cacheadmin_function_detail", name) if name else ""

    def _rows(
        self, counts: Sequence[GroupCount] | None, numbers: dict[tuple[str, str], figures.Figures], scale: float
    ) -> Iterable[GroupRow]:
        merged: dict[tuple[str, str], GroupCount] = {}
        tenants: dict[tuple[str, str], set[str | None]] = defaultdict(set)
        for count in counts or ():
            key = (count.alias, count.group)
            tenants[key].add(count.tenant)
            other = merged.get(key)
            merged[key] = (
                count
                if other is None
                else replace(
                    other,
                    entries=other.entries + count.entries,
                    size_bytes=(other.size_bytes or 0) + (count.size_bytes or 0),
                    is_weighed_whole=other.is_weighed_whole and count.is_weighed_whole,
                    is_orphaned=other.is_orphaned and count.is_orphaned,
                )
            )
        read = (name for name, counted in numbers.items() if counted.reads)
        for alias, group in dict.fromkeys([*merged, *read]):
            whole = merged.get((alias, group))
            yield GroupRow(
                alias=alias,
                group=group,
                kind=kind_word(alias, group, whole.kind if whole else "plain"),
                url=self._function_url(alias, group),
                scope=ids.scope_id(Target("group", group, ALL, alias)) if group else "",
                figures=numbers.get((alias, group), figures.NOTHING),
                invalidated=None,
                entries=round(whole.entries * scale) if whole else (None if counts is None else 0),
                size_bytes=round((whole.size_bytes or 0) * scale) if whole else None,
                is_size_exact=whole.is_weighed_whole and scale == 1 if whole else True,
                is_orphaned=whole.is_orphaned if whole else False,
                tenants=len(tenants[alias, group]),
            )
