"""What things are called on a page: tenants by their labels, scopes and targets in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.preview.values import escaped
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import tenancy

from . import formats


def shared_label() -> str:
    """Return what data of no tenant is called."""
    return _("Shared data")


def tenant_labels(tenants: Iterable[str | None]) -> dict[str | None, str]:
    """
    Return the names of some tenants, the id where a tenant has none; what does not print stands in them as escapes.

    Cost: what `Tenancy.labels` costs, once.
    """
    wanted = [tenant for tenant in dict.fromkeys(tenants) if tenant is not None]
    found = tenancy().labels(wanted) if wanted else {}
    labels: dict[str | None, str] = {tenant: escaped(found.get(tenant) or tenant) for tenant in wanted}
    labels[None] = shared_label()
    return labels


def tenant_label(tenant: str | None) -> str:
    """Return the name of one tenant."""
    return tenant_labels([tenant])[tenant]


def whose(targets: Sequence[Target]) -> str:
    """Return who is hit, in words: a name, "2 tenants", "all tenants"."""
    tenants = {target.tenant for target in targets}
    if any(isinstance(tenant, All) for tenant in tenants):
        return _("all tenants")
    if len(tenants) == 1:
        return tenant_label(next(tenant for tenant in tenants if not isinstance(tenant, All)))
    count = len(tenants - {None})
    return ngettext("%(n)s tenant", "%(n)s tenants", count) % {"n": formats.number(count)}


def thing(targets: Sequence[Target]) -> str:
    """Return what is hit, in words, without whose it is: `inventory_list`, `tag branch:2`, "3 groups"."""
    kinds = {target.kind for target in targets}
    if len(targets) == 1 or len({(t.kind, t.name) for t in targets}) == 1:
        target = targets[0]
        if target.kind == "tenant":
            return _("everything")
        if target.kind == "group":
            return target.name
        if target.kind == "prefix":
            return f"{target.name}…"
        if target.kind == "tag":
            return _("tag %(name)s") % {"name": target.name}
        return target.name
    count = len(targets)
    if kinds == {"tenant"}:
        return _("everything")
    if kinds == {"group"}:
        return ngettext("%(n)s group", "%(n)s groups", count) % {"n": formats.number(count)}
    if kinds == {"key"}:
        return ngettext("%(n)s entry", "%(n)s entries", count) % {"n": formats.number(count)}
    return ngettext("%(n)s selection", "%(n)s selections", count) % {"n": formats.number(count)}


def name_to_type(targets: Sequence[Target]) -> str:
    """Return what a person must type before a wide act, as it is shown: the name of who is hit, else of what."""
    return escaped(_name_of(targets))


def _name_of(targets: Sequence[Target]) -> str:
    tenants = {target.tenant for target in targets}
    aliases = {target.alias for target in targets}
    if any(isinstance(tenant, All) for tenant in tenants):
        if all(target.kind == "tenant" for target in targets) and len(aliases) == 1 and None not in aliases:
            return str(next(iter(aliases)))
        return thing(targets) if len(targets) == 1 and targets[0].name else _("all tenants")
    return whose(targets)


def phrase(targets: Sequence[Target]) -> str:
    """Return what is hit and whose it is: `inventory_list of Gold & Sons`."""
    if all(target.kind == "tenant" for target in targets):
        return whose(targets)
    return _("%(thing)s of %(whose)s") % {"thing": thing(targets), "whose": whose(targets)}


def question(targets: Sequence[Target]) -> str:
    """Return the question that a confirm page asks."""
    aliases = {target.alias for target in targets}
    alias = next(iter(aliases)) if len(aliases) == 1 else None
    names = {"thing": thing(targets), "whose": whose(targets), "alias": alias or ""}
    if all(target.kind == "tenant" for target in targets):
        if alias:
            return _("Invalidate everything cached for %(whose)s in %(alias)s?") % names
        return _("Invalidate everything cached for %(whose)s?") % names
    if all(target.kind == "key" for target in targets) and len(targets) == 1:
        return _("Invalidate one entry of %(whose)s?") % names
    return _("Invalidate %(thing)s of %(whose)s?") % names
