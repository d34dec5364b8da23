"""What things are called on a page: tenants by their labels, scopes and targets in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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


def facts(targets: Sequence[Target]) -> dict[str, Any]:
    """Return what is hit and whose it is, as plain data that `in_words` says. Cost: what `Tenancy.labels` costs."""
    tenants, found = {target.tenant for target in targets}, _things(targets)
    if any(isinstance(tenant, All) for tenant in tenants):
        return found | {"whose": "all"}
    if tenants == {None}:
        return found | {"whose": "shared"}
    if len(tenants) == 1:
        return found | {"whose": "one", "label": whose(targets)}
    return found | {"whose": "many", "tenants": len(tenants - {None})}


def in_words(facts: Mapping[str, Any]) -> str:
    """Say in the language of now what `facts` returned, then or long ago: `inventory_list of Gold & Sons`."""
    words = {"all": _("all tenants"), "shared": shared_label(), "one": str(facts.get("label", ""))}
    by = words.get(str(facts.get("whose"))) or _counted_tenants(int(facts.get("tenants", 0)))
    if facts.get("kind") == "tenant":
        return by
    return _("%(thing)s of %(whose)s") % {"thing": _thing(facts), "whose": by}


def _counted_tenants(count: int) -> str:
    return ngettext("%(n)s tenant", "%(n)s tenants", count) % {"n": formats.number(count)}


def whose(targets: Sequence[Target]) -> str:
    """Return who is hit, in words: a name, "2 tenants", "all tenants"."""
    tenants = {target.tenant for target in targets}
    if any(isinstance(tenant, All) for tenant in tenants):
        return _("all tenants")
    if len(tenants) == 1:
        return tenant_label(next(tenant for tenant in tenants if not isinstance(tenant, All)))
    return _counted_tenants(len(tenants - {None}))


def named(kind: str, name: str) -> str:
    """Return one thing with the word for its kind: `group stock`, `prefix stock`, `tag branch:2`, "everything"."""
    words = {
        "tenant": _("everything"),
        "group": _("group %(name)s"),
        "prefix": _("prefix %(name)s"),
        "tag": _("tag %(name)s"),
        "key": _("key %(name)s"),
        "pattern": _("pattern %(name)s"),
    }
    return words[kind] % {"name": name} if kind in words else f"{kind} {name}".strip()


def shortly(kind: str, name: str) -> str:
    """Return one thing without that word where its name tells it: `stock`, `stock…`, `tag branch:2`, "everything"."""
    if kind in ("group", "fragment", "key"):
        return name
    return f"{name}…" if kind == "prefix" else named(kind, name)


def thing(targets: Sequence[Target]) -> str:
    """Return what is hit, in words, without whose it is: `inventory_list`, `tag branch:2`, "3 groups"."""
    return _thing(_things(targets))


def _things(targets: Sequence[Target]) -> dict[str, Any]:
    kinds = {target.kind for target in targets}
    names = {(target.kind, target.name) for target in targets}
    found: dict[str, Any] = {"kind": next(iter(kinds)) if len(kinds) == 1 else "", "count": len(targets)}
    return found | ({"name": targets[0].name} if len(names) == 1 else {})


def _thing(facts: Mapping[str, Any]) -> str:
    kind, count = facts.get("kind"), int(facts.get("count", 0))
    if kind == "tenant":
        return named(kind, "")
    if "name" in facts:
        return str(facts["name"]) if kind == "pattern" else shortly(str(kind), str(facts["name"]))
    if kind == "group":
        return ngettext("%(n)s group", "%(n)s groups", count) % {"n": formats.number(count)}
    if kind == "key":
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
    return in_words(facts(targets))


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
