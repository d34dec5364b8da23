"""Cached functions: is each worth it, and who drops it?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from cacheadmin import browser
from cacheadmin.admin import figures, formats, ids, naming, one_group, paging, worth
from cacheadmin.admin.misses import a_minute
from cacheadmin.admin.pages import Crumb, Figure, Note, Page
from cacheadmin.admin.rule_form import model_label
from cacheadmin.browser import GroupCount
from cacheadmin.functions import registry
from cacheadmin.overview import RANGES, Advised, Figures, advised_groups
from cacheadmin.rules import Rule
from cacheadmin.targets import ALL, Target
from cacheadmin.tenancy import Everyone, tenancy

ORDERS: Final = ("-saved", "name", "ratio", "-compute", "-entries", "-size")

TENANTS_COUNTED: Final = 200
"""Tenants whose entries are counted; for more these stand for the rest."""

NOTHING: Final = Figures()

Key = tuple[str, str]
"""Alias and group."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is in the cache of one group."""

    entries: int
    size_bytes: int
    tenants: int
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One function as the list shows it. Not the function itself: a template would call it."""

    name: str
    alias: str
    group: str
    url: str
    where: str
    figures: Figures
    saved: float | None
    """Seconds an hour; below 0 the site would be faster without."""
    saved_text: str
    held: Held | None
    timeout: str
    is_warmed: bool
    rules: Sequence[Rule]
    advice: Sequence[str]

    def sort_key(self, field: str) -> float:
        """Return the number to sort by."""
        value = {
            "saved": self.saved,
            "ratio": self.figures.hit_ratio,
            "compute": self.figures.mean_compute,
            "entries": None if self.held is None else self.held.entries,
            "size": None if self.held is None else self.held.size_bytes,
        }[field]
        return value if value is not None else (2.0 if field == "ratio" else -math.inf)


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One tenant of a function's page."""

    label: str
    url: str
    scope: str
    figures: Figures
    requests: str
    misses: str
    saved: str
    advice: Sequence[str]


def held_by(page: Page, alias: str | None) -> dict[Key, Held] | None:
    """Return what each group holds, over the tenants a user may see; None while Redis is away."""
    seen = page.access.tenants
    tenants: list[str | None] = [tenant.id for tenant in tenancy().list()] if isinstance(seen, Everyone) else [*seen]
    asked: list[str | None] = [*([None] if page.access.sees(None) else []), *tenants[:TENANTS_COUNTED]]
    counts = page.ask(lambda: browser.groups_of(asked, alias=alias, weigh=1))
    if counts is None:
        return None
    by_key: dict[Key, list[GroupCount]] = defaultdict(list)
    for count in counts:
        by_key[count.alias, count.group].append(count)
    scale = max(1.0, len(tenants) / TENANTS_COUNTED)
    return {
        key: Held(
            entries=round(sum(count.entries for count in some) * scale),
            size_bytes=round(sum(count.size_bytes or 0 for count in some) * scale),
            tenants=round(len({count.tenant for count in some} - {None}) * scale),
            is_estimate=scale > 1,
        )
        for key, some in by_key.items()
    }


def numbers_of(page: Page, span: figures.Span) -> dict[Key, Advised]:
    """Return what was counted for each group, over the tenants a user may see, and what it advises."""
    found = page.ask(lambda: advised_groups(RANGES[span.range], alias=span.alias, tenants=page.access.tenants))
    return found or {}


class FunctionList(Page):
    """All cached functions that were imported."""

    tab = "functions"
    template_name = "cacheadmin/functions.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """List them by what they save."""
        wish = paging.asked(request.GET, orders=ORDERS, size=50)
        span = figures.Span.of(request.GET, self.access)
        chosen = wish.value("show", ("unruled", "unwarmed", "advice"))
        rows = [row for row in self._rows(span, wish.search) if _is_shown(row, chosen)]
        field, turned = wish.order.removeprefix("-"), wish.order.startswith("-")
        rows.sort(key=lambda row: row.name, reverse=wish.order == "-name")
        if field != "name":
            rows.sort(key=lambda row: row.sort_key(field), reverse=turned)
        shown, pager = paging.page_of(rows, wish)
        segments = [("", _("All")), ("unruled", _("No rule")), ("unwarmed", _("Not warmed")), ("advice", _("Advice"))]
        return self.render(
            _("Cached functions"),
            crumbs=[Crumb(_("Cached functions"))],
            wish=wish,
            span=span,
            rows=shown,
            pager=pager,
            columns=paging.columns(_heads(), wish),
            largest=max((row.saved or 0.0 for row in rows), default=0.0),
            segments=[(label, wish.link(show=value), value == chosen) for value, label in segments],
            kept=[(name, request.GET[name]) for name in ("q", "show", "o") if name in request.GET],
            is_empty=not registry,
        )

    def _rows(self, span: figures.Span, search: str) -> list[Row]:
        known, held = worth.rules(), held_by(self, span.alias)
        numbers = numbers_of(self, span)
        rows = []
        for function in registry.values():
            if span.alias not in (None, function.alias) or search.casefold() not in function.name.casefold():
                continue
            key = (function.alias, function.group)
            counted, dropped_by = numbers.get(key), worth.rules_of(function, known)
            rows.append(
                Row(
                    name=function.name,
                    alias=function.alias,
                    group=function.group,
                    url=self.url("cacheadmin_function_detail", function.name),
                    where=worth.where_is(function),
                    figures=counted.figures if counted else NOTHING,
                    saved=(saved := counted.judged.gains.saved_seconds_per_hour if counted else None),
                    saved_text=worth.saved_text(saved),
                    held=held.get(key, Held(0, 0, 0, False)) if held is not None else None,
                    timeout=worth.timeout_text(function),
                    is_warmed=function.warm_with is not None,
                    rules=dropped_by,
                    advice=worth.advice(function, counted, len(dropped_by)),
                )
            )
        return rows


def _is_shown(row: Row, chosen: str) -> bool:
    if chosen == "unruled":
        return not row.rules
    if chosen == "unwarmed":
        return not row.is_warmed
    return chosen != "advice" or bool(row.advice)


def _heads() -> list[dict[str, Any]]:
    return [
        {"label": _("Function"), "sort": "name"},
        {"label": _("Timeout"), "is_number": True, "is_low": True},
        {"label": _("Hit ratio"), "sort": "ratio", "is_number": True},
        {"label": _("Mean compute"), "sort": "-compute", "is_number": True, "is_low": True},
        {
            "label": _("Saved an hour"),
            "sort": "-saved",
            "is_number": True,
            "title": _("Compute time spared by hits, less what reading the cache took"),
        },
        {"label": _("Entries"), "sort": "-entries", "is_number": True, "is_low": True},
        {"label": _("Size"), "sort": "-size", "is_number": True, "is_low": True},
        {"label": _("Tenants"), "is_number": True, "is_low": True},
        {"label": _("Rules"), "is_number": True},
    ]


class FunctionDetail(Page):
    """One cached function: signature, charts, tenants, rules."""

    tab = "functions"
    template_name = "cacheadmin/function.html"

    def get(self, request: HttpRequest, function: str) -> HttpResponse:
        """Show it."""
        found = registry.get(function)
        if found is None or not self.access.sees_alias(found.alias):
            return self.gone()
        span = figures.Span.of(request.GET, self.access)
        key = (found.alias, found.group)
        advised = numbers_of(self, span).get(key)
        held = held_by(self, found.alias)
        rules = worth.rules_of(found, worth.rules())
        counted = self.ask(lambda: one_group.look(key, RANGES[span.range], self.access.tenants))
        sheet = counted.sheet if counted else None
        return self.render(
            found.name,
            crumbs=[Crumb(_("Cached functions"), self.url("cacheadmin_function_list")), Crumb(found.name)],
            notes=[Note(text, level="info") for text in worth.advice(found, advised, len(rules))],
            facts={
                "name": found.name,
                "alias": found.alias,
                "group": found.group,
                "grace": found.grace,
                "is_warmed": found.warm_with is not None,
            },
            where=worth.where_is(found),
            signature=worth.signature_text(found),
            timeout=worth.timeout_text(found),
            whose=worth.whose_text(found),
            warmed=worth.warmed_text(found),
            tags=_("computed") if callable(found.tags) else ", ".join(found.tags),
            span=span,
            strip=self._strip(advised, held.get(key) if held is not None else None),
            sheet=sheet,
            sheet_json=sheet.to_json() if sheet else None,
            tenants=self._tenants(found, counted.tenants if counted else []),
            rules=[(rule.name, model_label(rule.model), self.rules_url(rule.name)) for rule in rules],
            scope=self._scope(found),
            is_for_all=not self.access.is_bound,
            invalidate_url=self.url("cacheadmin_invalidate"),
            warm_url=self.url("cacheadmin_warm") if found.warm_with is not None and held is not None else "",
        )

    def gone(self) -> HttpResponse:
        """Say that no such function is known to this process."""
        text = _("No function of that name is cached, or its module was not imported by this process.")
        return self.missing(_("Not found"), text)

    def _scope(self, function: worth.Function) -> str:
        seen = self.access.tenants
        if isinstance(seen, Everyone):
            return ids.scope_id(Target("group", function.group, ALL, function.alias))
        mine = sorted(seen)[: ids.SCOPE_TARGETS]
        return (
            ids.scope_id([Target("group", function.group, tenant, function.alias) for tenant in mine]) if mine else ""
        )

    def _strip(self, advised: Advised | None, held: Held | None) -> list[Figure]:
        numbers = advised.figures if advised else NOTHING
        gained = advised.judged.gains.saved_seconds_per_hour if advised else None
        saved, saved_unit = formats.parted(worth.saved_text(gained))
        cost, cost_unit = formats.parted(formats.duration(numbers.cost))
        compute, unit = formats.parted(formats.duration(numbers.mean_compute))
        moved = formats.points(numbers.change) if numbers.change and abs(numbers.change) >= 0.0005 else ""
        sign = "▲" if numbers.change and numbers.change > 0 else "▼"
        took = numbers.mean_read
        read = "" if took is None else _("reading it %(time)s") % {"time": formats.duration(took)}
        return [
            Figure(
                _("Hit ratio"),
                formats.percent(numbers.hit_ratio, 1),
                note=_("%(sign)s %(points)s points") % {"sign": sign, "points": moved} if moved else "",
                level="bad" if numbers.is_worse else "",
            ),
            Figure(_("Requests"), a_minute(numbers.requests), _("/min")),
            Figure(_("Misses"), a_minute(numbers.misses), _("/min")),
            Figure(_("Mean compute"), compute, unit, note=read),
            Figure(_("Cost a minute"), cost, cost_unit),
            Figure(_("Saved an hour"), saved, saved_unit, level="bad" if gained is not None and gained < 0 else ""),
            Figure(
                _("Entries"),
                formats.compact(held.entries if held else None),
                note=figures.about(held.size_bytes) if held else "",
            ),
        ]

    def _tenants(self, function: worth.Function, found: Sequence[Advised]) -> list[TenantRow]:
        labels = naming.tenant_labels(each.tenant for each in found)
        return [
            TenantRow(
                label=labels[each.tenant],
                url=self.url(
                    "cacheadmin_entry_list", ids.tenant_id(each.tenant), ids.group_id(function.alias, function.group)
                ),
                scope=ids.scope_id(Target("group", function.group, each.tenant, function.alias)),
                figures=each.figures,
                requests=a_minute(each.figures.requests),
                misses=a_minute(each.figures.misses),
                saved=worth.saved_text(each.judged.gains.saved_seconds_per_hour),
                advice=worth.sentences(each.judged),
            )
            for each in found
            if self.access.sees(each.tenant)
        ]
