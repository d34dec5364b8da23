"""Entries: what exactly is cached in a group, and until when?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser
from cacheadmin.admin import figures, formats, history, ids, naming, paging, worth
from cacheadmin.admin.dropping import rules_for
from cacheadmin.admin.pages import Crumb, Figure, Page
from cacheadmin.admin.warmable import can_warm
from cacheadmin.admin.words import state_word
from cacheadmin.browser import STATES, EntryPage, EntryRow
from cacheadmin.browser.entries import WHOLE, Order
from cacheadmin.conf import config
from cacheadmin.functions import registry
from cacheadmin.overview.reach import Function
from cacheadmin.store import store
from cacheadmin.targets import Target
from cacheadmin.tenancy import tenancy


@dataclass(frozen=True, slots=True)
class Row:
    """One entry with its links."""

    entry: EntryRow
    url: str
    scope: str
    expires: str


@dataclass(frozen=True, slots=True)
class Segment:
    """One choice of the filter by state."""

    label: str
    link: str
    is_current: bool


def functions_of(alias: str, group: str) -> list[Function]:
    """Return the functions that fill a group."""
    return [each for each in registry.values() if each.alias == alias and each.group == group]


def signature(function: Function) -> str:
    """Return a function or a view as one would call it, at most 120 characters."""
    text = function.name.rpartition(".")[0] + f".{worth.signature_text(function)}"
    return text if len(text) <= 120 else text[:118] + "…)"


def crumbs_to(page: Page, tenant: str | None, label: str) -> list[Crumb]:
    """Return the breadcrumbs down to a tenant's groups."""
    groups = page.url("cacheadmin_tenant_detail", ids.tenant_id(tenant))
    if not tenancy().has_tenants:
        return [Crumb(_("Groups"), page.url("cacheadmin_group_list"))]
    return [Crumb(_("Tenants"), page.url("cacheadmin_tenant_list")), Crumb(label, groups)]


class EntryList(Page):
    """The entries of one group of one tenant."""

    tab = "tenants"
    template_name = "cacheadmin/entries.html"

    def get(self, request: HttpRequest, tenant: str, group: str) -> HttpResponse:
        """List one page of entries from the group's index."""
        whose = ids.open_tenant(tenant)
        self.access.require_tenant(whose)
        alias, name = ids.open_group(group)
        self.access.require_alias(alias)
        if alias not in config().aliases:
            return self.missing(text=_("The alias %(alias)s is not configured any more.") % {"alias": alias})
        label = naming.tenant_label(whose)
        wish = paging.asked(request.GET, orders=("expires", "-size"))
        state = wish.value("state", STATES)
        offset = paging.whole(request.GET.get("at"), 0, 0, 10**9) if request.GET.get("at") else None
        page = self._read(alias, whose, name, wish, state, offset)
        if page is not None and not page.rows and wish.page > 1 and offset is None and page.total:
            wish = paging.Asked(wish.query, max(1, -(-page.total // wish.size)), wish.size, wish.order, wish.search)
            page = self._read(alias, whose, name, wish, state, offset)
        span = figures.Span.of(request.GET, self.access)
        place = figures.of_place(span, whose)
        dropped = history.last_dropped(whose, history.recent(whose), place.dropped).of(alias, name)
        numbers = place.groups.get((alias, name), figures.NOTHING)
        functions = functions_of(alias, name)
        scope = Target("group", name, whose, alias) if name else None
        return self.render(
            name or _("(no group)"),
            crumbs=[*crumbs_to(self, whose, label), Crumb(name or _("(no group)"))],
            wish=wish,
            alias=alias,
            tenant_label=label,
            tenant_url=self.url("cacheadmin_tenant_detail", tenant),
            signatures=[signature(function) for function in functions[:3]],
            can_list=store(alias).keeps_index,
            rows=[self._row(alias, whose, name, entry) for entry in page.rows] if page else [],
            page=page,
            pager=self._pager(page, wish),
            read_at=timezone.now(),
            reading=self._reading(page) if page else "",
            is_filtered=bool(state or wish.search),
            columns=self._columns(page, wish),
            segments=self._segments(page, wish, state),
            strip=self._strip(page, numbers, functions, dropped, len(rules_for(alias, name))),
            state=state,
            continue_link=wish.link(at=page.next_offset) if page and page.next_offset is not None else "",
            dropped=dropped,
            reads=numbers.requests,
            scope=ids.scope_id(scope) if scope else "",
            warm_url=self.url("cacheadmin_warm") if scope and can_warm(self.access, [scope]) else "",
            invalidate_url=self.url("cacheadmin_invalidate"),
        )

    def _read(
        self, alias: str, whose: str | None, name: str, wish: paging.Asked, state: str, offset: int | None
    ) -> EntryPage | None:
        order = cast(Order, wish.order if wish.order in get_args(Order) else "expires")
        return self.ask(
            lambda: browser.entries(
                alias,
                whose,
                name,
                offset=(wish.page - 1) * wish.size if offset is None else offset,
                limit=wish.size,
                order=order,
                state=state or None,  # type: ignore[arg-type]  # one of STATES
                search=wish.search,
                waiting=browser.waiting_targets(),
            )
        )

    def _row(self, alias: str, whose: str | None, group: str, entry: EntryRow) -> Row:
        target = browser.key_target(alias, whose, group, entry.member, entry.about)
        return Row(
            entry=entry,
            url=self.url("cacheadmin_entry_detail", ids.entry_id(alias, whose, group, entry.member)),
            scope=ids.scope_id(target) if target.kind == "key" else "",
            expires=expires_text(entry.expires_in, entry.state),
        )

    def _pager(self, page: EntryPage | None, wish: paging.Asked) -> paging.Pager | None:
        if page is None:
            return None
        total = page.total if page.is_whole or not (wish.search or wish.query.get("state")) else None
        return paging.Pager(wish, len(page.rows), total, page.has_next and page.next_offset is None)

    def _reading(self, page: EntryPage) -> str:
        trips = ngettext("%(n)s round trip", "%(n)s round trips", page.round_trips) % {"n": page.round_trips}
        return _("read in %(time)s, %(trips)s") % {"time": formats.duration(page.took), "trips": trips}

    def _columns(self, page: EntryPage | None, wish: paging.Asked) -> list[paging.Column]:
        by_size = page is not None and page.is_whole
        return paging.columns(
            [
                {"label": _("Arguments")},
                {"label": _("State")},
                {"label": _("Expires in"), "sort": "expires", "is_number": True},
                {
                    "label": _("Size"),
                    "is_number": True,
                    "is_low": True,
                    "sort": "-size" if by_size else "",
                    "title": "" if by_size else _("Groups above %(n)s entries are not sorted by size") % {"n": WHOLE},
                },
                {"label": _("Computed"), "is_number": True, "is_low": True},
                {"label": _("Took"), "is_number": True, "is_low": True},
                {"label": _("Tags"), "is_low": True},
            ],
            wish,
        )

    def _segments(self, page: EntryPage | None, wish: paging.Asked, state: str) -> list[Segment]:
        if page is None:
            return []
        total = sum(page.counts.values()) if page.is_whole else page.total
        found = [Segment(f"{_('All')} {formats.number(total)}", wish.link(state=None, at=None), not state)]
        for name in STATES:
            count = page.counts[name]
            if count or name in ("live", state):
                text = formats.number(count)
                if not page.is_whole:
                    share = count / max(1, sum(page.counts.values()))
                    text = f"~ {formats.number(round(share * page.total))}"
                found.append(Segment(f"{state_word(name)} {text}", wish.link(state=name, at=None), name == state))
        return found

    def _strip(
        self,
        page: EntryPage | None,
        numbers: figures.Figures,
        functions: Sequence[Function],
        dropped: history.Dropped | None,
        rules: int,
    ) -> list[Figure]:
        total = None if page is None else sum(page.counts.values()) if page.is_whole else page.total
        timeout, grace = ("", "") if not functions else timeout_texts(functions[0])
        value, unit = formats.parted(timeout)
        return [
            Figure(_("Entries"), formats.compact(total), title=formats.number(total)),
            *figures.strip_of(numbers),
            Figure(_("Timeout"), value or formats.UNKNOWN, unit, note=grace),
            Figure(
                _("Invalidated"),
                *figures.ago_parts(dropped.at if dropped else None),
                note=_("by %(who)s") % {"who": dropped.by} if dropped and dropped.by else "",
            ),
            Figure(
                _("Rules"),
                formats.number(rules),
                note=_("drop this group") if rules else _("only its timeout does"),
                level="" if rules else "bad",
                url=self.rules_url() if rules else "",
            ),
        ]


def timeout_texts(function: Function) -> tuple[str, str]:
    """Return a function's timeout, and what follows it: "15 min", "then 60 s of grace"."""
    options = function.options()
    if options.timeout_ms < 0:
        return _("off"), ""
    timeout = formats.duration(options.timeout_ms / 1000) if options.timeout_ms else _("never")
    grace = formats.duration(options.grace_ms / 1000)
    return timeout, _("then %(time)s of grace") % {"time": grace} if options.grace_ms else ""


def expires_text(seconds: float | None, state: str) -> str:
    """Return when an entry is gone: "48 s of grace", "3 min 6 s", "never"."""
    if seconds is None:
        return _("never")
    text = formats.duration(max(1, round(seconds)))
    return _("%(time)s of grace") % {"time": text} if state == "stale" else text
