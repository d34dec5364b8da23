"""Find: a tenant's name or id, a group, a full key, a call with its arguments. One match opens it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from cacheadmin import browser
from cacheadmin.admin import calls, ids, naming
from cacheadmin.admin.pages import Crumb, Page
from cacheadmin.encoding import unescape
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.functions import registry
from cacheadmin.keys import member, parse, split
from cacheadmin.store import RedisStore, store
from cacheadmin.tenancy import Everyone, Tenant, tenancy

LIMIT = 20

TENANTS_TRIED = 1000
"""Tenants among whom the entry of a call is looked for."""


@dataclass(frozen=True, slots=True)
class Match:
    """Something that was found."""

    label: str
    url: str
    note: str = ""


class Find(Page):
    """What begins with a text, inside what the user may see."""

    tab = ""
    template_name = "cacheadmin/find.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        """Open the one match, or list up to 20 under each of three headings."""
        text = request.GET.get("q", "").strip()[: calls.LONGEST]
        found: list[tuple[str, list[Match]]] = []
        if text:
            found = [
                (_("Tenants"), list(self._tenants(text))),
                (_("Groups"), list(islice(self._groups(text), LIMIT))),
                (_("Entries"), list(islice(chain(self._entries(text), self._called(text)), LIMIT))),
            ]
        matches = [match for _heading, listed in found for match in listed]
        if len(matches) == 1:
            return HttpResponseRedirect(matches[0].url)
        title = _("Find “%(text)s”") % {"text": text} if text else _("Find")
        sections = [(heading, listed) for heading, listed in found if listed]
        return self.render(title, crumbs=[Crumb(_("Find"))], find_text=text, sections=sections)

    def _tenants(self, text: str) -> Iterable[Match]:
        if not tenancy().has_tenants:
            return
        allowed = self.access.tenants
        if isinstance(allowed, Everyone):
            tenants: Iterable[Tenant] = tenancy().find(text, LIMIT)
        else:
            labels, low = naming.tenant_labels(allowed), text.casefold()
            listed = (Tenant(tenant, labels[tenant]) for tenant in sorted(allowed))
            tenants = [t for t in listed if t.label.casefold().startswith(low) or t.id.casefold().startswith(low)]
        for tenant in tenants:
            yield Match(tenant.label, self.url("cacheadmin_tenant_detail", ids.tenant_id(tenant.id)), tenant.id)

    def _groups(self, text: str) -> Iterable[Match]:
        """Find groups that this process knows, and those of the one tenant or of shared data."""
        allowed = self.access.tenants
        only = None if isinstance(allowed, Everyone) else next(iter(allowed)) if len(allowed) == 1 else ""
        if only == "":
            return
        places = set()
        if only or not tenancy().has_tenants:
            places = {(each.alias, each.group) for each in registry.values()}
        for count in self.ask(lambda: browser.groups_of([only])) or ():
            places.add((count.alias, count.group))
        low = text.casefold()
        for alias, group in sorted(places)[:10_000]:
            if group.casefold().startswith(low) and self.access.sees_alias(alias):
                url = self.url("cacheadmin_entry_list", ids.tenant_id(only), ids.group_id(alias, group))
                yield Match(group, url, alias)
        if only is None and tenancy().has_tenants:
            functions = sorted(
                (each.group, each.alias, each.name) for each in registry.values() if not getattr(each, "shared", False)
            )
            for group, alias, name in functions:
                if group.casefold().startswith(low) and alias in self.access.aliases and (alias, group) not in places:
                    note = _("%(alias)s, all tenants") % {"alias": alias}
                    yield Match(group, self.url("cacheadmin_function_detail", name), note)

    def _entries(self, text: str) -> Iterable[Match]:
        """Find an entry by its key, as callers write it or as Redis holds it."""
        for alias in self.access.aliases:
            where = store(alias)
            if not isinstance(where, RedisStore):
                continue
            for tenant, group, name in _entry_names(where, text):
                if self.access.sees(tenant):
                    view = self.ask(lambda t=tenant, g=group, n=name, a=alias: browser.entry(a, t, g, n))  # type: ignore[misc]
                    if view is not None:
                        url = self.url("cacheadmin_entry_detail", ids.entry_id(alias, tenant, group, name))
                        yield Match(view.arguments or group, url, f"{group}, {alias}")

    def _called(self, text: str) -> Iterable[Match]:
        """Find the entries that a call means: of the tenant it names, else of those the user may see."""
        call = calls.parse(text)
        for found in calls.entries_of(call) if call is not None else ():
            function = found.function
            alias, group = function.alias, function.group
            if alias not in self.access.aliases:
                continue
            if not found.is_of_any:
                # Also if it is not cached: its page tells what happened to it.
                tenants = self.access.only([found.tenant])
            else:
                tried = self.access.only([*([None] if function.may_fall_back else []), *self._tried()])
                tenants = self.ask(partial(browser.present, alias, group, found.member, tried)) or []
            labels = naming.tenant_labels(tenants)
            for tenant in tenants:
                url = self.url("cacheadmin_entry_detail", ids.entry_id(alias, tenant, group, found.member))
                yield Match(text, url, f"{group}, {alias}, {labels[tenant]}")

    def _tried(self) -> list[str]:
        allowed = self.access.tenants
        if not isinstance(allowed, Everyone):
            return sorted(allowed)[:TENANTS_TRIED]
        return [tenant.id for tenant in islice(tenancy().list(), TENANTS_TRIED)]


def _entry_names(where: RedisStore, text: str) -> Iterable[tuple[str | None, str, str]]:
    """Return what a text may name in an alias: tenant, group and member."""
    parsed = parse(text, where.place(None).prefix, where.alias)
    if parsed is not None:
        if parsed.kind == "v" and not parsed.group.startswith("~"):
            yield parsed.tenant, parsed.group, parsed.member
        return
    try:
        scoped = split(text)
    except CacheAdminError:
        return
    if scoped is not None:
        yield scoped.tenant, scoped.group, member(scoped.rest)
        if unescape(scoped.rest) != scoped.rest:
            yield scoped.tenant, scoped.group, scoped.rest
