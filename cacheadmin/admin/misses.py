"""*Who misses*: tenants or groups ranked by what their misses cost, and all others together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from cacheadmin import browser
from cacheadmin.admin import formats, ids, naming, paging
from cacheadmin.admin.pages import Page
from cacheadmin.browser import GroupCount
from cacheadmin.conf import config
from cacheadmin.functions import registry
from cacheadmin.overview import Figures, Overview, Ranking
from cacheadmin.overview.figures import READS_TO_JUDGE
from cacheadmin.tenancy import Everyone, tenancy

TENANTS_COUNTED: Final = 50
"""Tenants up to which a group's entries are counted over all of them."""

K = TypeVar("K", bound=Hashable)
Held = Mapping[K, tuple[int, int]]
"""Name -> entries, bytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    label: str
    small: str
    url: str
    figures: Figures
    requests: str
    misses: str
    invalidations: str
    share: str = ""
    """Its cost as a share of the largest, as HTML writes numbers."""
    entries: str = formats.UNKNOWN
    size: str = formats.UNKNOWN
    is_sum: bool = False

    @property
    def is_bad(self) -> bool:
        """Whether its hit ratio fell, with reads enough to say so."""
        return self.figures.is_worse and self.figures.reads >= READS_TO_JUDGE


@dataclass(frozen=True, slots=True)
class Misses:
    """The table, with its switches."""

    rows: Sequence[Row]
    columns: Sequence[paging.Column]
    whose: Sequence[tuple[str, str, bool]]
    """Label, link, whether it is chosen."""
    all_url: str
    all_label: str


def a_minute(value: float | None) -> str:
    """Return a rate for a table: one decimal below ten."""
    if value is None or value == 0 or value >= 9.95:
        return formats.number(None if value is None else round(value))
    return formats.number(value, 1) if value >= 0.05 else f"<{formats.number(0.1, 1)}"


def is_by_group(wish: paging.Asked) -> bool:
    """Say whether the table lists groups, not tenants."""
    return not tenancy().has_tenants or wish.value("who", ("groups",)) == "groups"


def counted_tenants(page: Page, wish: paging.Asked, ranked: Sequence[str | None]) -> list[str | None]:
    """Return the tenants whose entries the table counts: those it lists; all of them for groups, if they are few."""
    if not is_by_group(wish):
        return [*ranked]
    seen = page.access.tenants
    if not isinstance(seen, Everyone):
        tenants: list[str | None] = [*sorted(seen)]
    else:
        tenants = [None, *(tenant.id for tenant in islice(tenancy().list(), TENANTS_COUNTED))]
    return tenants if len(tenants) <= TENANTS_COUNTED else []


def commands_along(page: Page, wish: paging.Asked, alias: str | None, ranked: Sequence[str | None]) -> list[Any]:
    """Return what can be asked of the roll-ups' own database before the table is made: which groups tenants have."""
    own = config().stats_alias
    if own not in browser.indexed_aliases() or alias not in (None, own):
        return []
    return browser.registry_commands(own, counted_tenants(page, wish, ranked))


def misses(page: Page, found: Overview, wish: paging.Asked, alias: str | None) -> Misses:
    """
    Return the table, with the entries and the memory of its rows.

    Cost: two round trips an alias; one to that of the roll-ups, whose `found.along` answers `commands_along`.
    """
    has_tenants, is_groups = tenancy().has_tenants, is_by_group(wish)
    tenants = counted_tenants(page, wish, [row.name for row in found.tenants.rows])
    known = {config().stats_alias: found.along} if found.along else {}
    counts = page.ask(lambda: browser.groups_of(tenants, alias=alias, weigh=2, registries=known)) if tenants else []
    rows = (
        _groups(page, found.groups, counts if tenants else None) if is_groups else _tenants(page, found.tenants, counts)
    )
    if is_groups or page.access.is_bound:
        all_label, all_page = _("All groups"), "cacheadmin_group_list"
    else:
        count = found.tenants.others_count + len(found.tenants.rows)
        all_label = ngettext("%(n)s tenant with reads", "All %(n)s tenants with reads", count)
        all_label, all_page = all_label % {"n": formats.number(count)}, "cacheadmin_tenant_list"
    return Misses(
        rows=rows,
        columns=_columns(wish, _("Group") if is_groups else _("Tenant")),
        whose=[
            (_("Tenants"), wish.link(who=None), not is_groups),
            (_("Groups"), wish.link(who="groups"), is_groups),
        ]
        if has_tenants
        else [],
        all_url=page.url(all_page),
        all_label=all_label,
    )


def _columns(wish: paging.Asked, first: str) -> list[paging.Column]:
    """Return the heads; one sorts by what is worst, so always the largest first."""

    def sortable(label: str, name: str, **more: Any) -> paging.Column:
        is_on = wish.order.removeprefix("-") == name
        return paging.Column(
            label, link=wish.link(o=f"-{name}"), direction="descending" if is_on else "", is_number=True, **more
        )

    def number(label: str) -> paging.Column:
        return paging.Column(label, is_number=True, is_low=True)

    return [
        paging.Column(first),
        paging.Column(_("Hit ratio"), is_number=True),
        number(pgettext("column", "Change")),
        number(_("Requests")),
        sortable(_("Misses"), "misses"),
        sortable(_("Cost"), "cost", title=_("Compute time spent on misses")),
        sortable(_("Invalidations"), "churn", is_low=True),
        number(_("Entries")),
        number(_("Memory")),
    ]


def _tenants(page: Page, ranking: Ranking[str | None], counts: Sequence[GroupCount] | None) -> list[Row]:
    tenants = [row.name for row in ranking.rows]
    labels = naming.tenant_labels(tenants)
    held: dict[str | None, tuple[int, int]] | None = None
    if counts is not None:
        held = dict.fromkeys(tenants, (0, 0))
        for count in counts:
            entries, size = held[count.tenant]
            held[count.tenant] = entries + count.entries, size + (count.size_bytes or 0)

    def named(tenant: str | None) -> tuple[str, str, str]:
        label = labels[tenant]
        small = "" if tenant is None or label == tenant else tenant
        return label, small, page.url("cacheadmin_tenant_detail", ids.tenant_id(tenant))

    rest = ranking.others_count
    others = ngettext("%(n)s other tenant", "%(n)s other tenants", rest) % {"n": formats.number(rest)}
    return _rows(ranking, named, held, others)


def _groups(page: Page, ranking: Ranking[tuple[str, str]], counts: Sequence[GroupCount] | None) -> list[Row]:
    functions = {(function.alias, function.group): function.name for function in registry.values()}
    held: dict[tuple[str, str], tuple[int, int]] | None = None
    if counts is not None:
        held = defaultdict(lambda: (0, 0))
        for count in counts:
            entries, size = held[count.alias, count.group]
            held[count.alias, count.group] = entries + count.entries, size + (count.size_bytes or 0)

    def named(name: tuple[str, str]) -> tuple[str, str, str]:
        function = functions.get(name)
        url = page.url("cacheadmin_function_detail", function) if function else ""
        return name[1], name[0], url

    rest = ranking.others_count
    others = ngettext("%(n)s other group", "%(n)s other groups", rest) % {"n": formats.number(rest)}
    return _rows(ranking, named, held, others)


def _rows(
    ranking: Ranking[K], named: Callable[[K], tuple[str, str, str]], held: Held[K] | None, others: str
) -> list[Row]:
    largest = max((row.figures.cost or 0.0 for row in ranking.rows), default=0.0)
    rows = []
    for row in ranking.rows:
        label, small, url = named(row.name)
        entries, size = held[row.name] if held is not None else (None, None)
        rows.append(
            Row(
                label,
                small,
                url,
                row.figures,
                a_minute(row.figures.requests),
                a_minute(row.figures.misses),
                a_minute(row.figures.invalidations),
                share=f"{(row.figures.cost or 0.0) / largest:.3f}" if largest else "",
                entries=formats.number(entries),
                size=formats.size(size) if not size else f"~ {formats.size(size)}",
            )
        )
    if ranking.others is not None and ranking.others_count:
        rest = ranking.others
        numbers = a_minute(rest.requests), a_minute(rest.misses), a_minute(rest.invalidations)
        share = f"{min(1.0, (rest.cost or 0.0) / largest):.3f}" if largest else ""
        rows.append(Row(others, "", "", rest, *numbers, share=share, is_sum=True))
    return rows
