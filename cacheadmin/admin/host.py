"""What the rules of a host's model mean for some of its rows: targets to invalidate, and the panel that shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from django.contrib.admin import AdminSite
from django.db.models import Model

from cacheadmin import rules
from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import Console
from cacheadmin.rules import Change
from cacheadmin.stats.history import DroppedLine
from cacheadmin.targets import ALL, All, Target

from . import history, ids, rule_preview
from .access import Access

LONGEST_ID: Final = 3000
"""Characters of a selection in a URL; servers begin to refuse at 4,094."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What saving some rows would drop, and by which rules."""

    targets: Sequence[Target]
    rules: Mapping[Target, Sequence[str]]
    names: Sequence[str]
    """The rules in force for the model, whether they drop anything for these rows or not."""


def has_console(site: AdminSite) -> bool:
    """Say whether an admin site has the console, where acts are confirmed."""
    return site.is_registered(Console)


def reach(model: type[Model], queryset: Any, access: Access) -> Reach:
    """
    Return what the rules in force drop when rows of a model change in any way, as far as the user may see it.

    Cost: one query, and a look at the rules once a second.
    """
    try:
        snapshot = rules.snapshot()
    except InvalidRule:  # a module of rules that cannot be imported; the list of rules says which
        return Reach((), {}, ())
    label = model._meta.concrete_model._meta.label  # type: ignore[union-attr]
    names = [compiled.rule.name for compiled in snapshot.compiled.get(label, ())]
    if not names:
        return Reach((), {}, ())
    rows = rule_preview.rows_of(snapshot.paths.get(label, ()), queryset)
    changes = [] if rows == () else [Change(label, event, None, rows) for event in rule_preview.ALL_EVENTS]
    behind: dict[Target, dict[str, None]] = {}
    for fired in rules.targets_for(changes, snapshot):
        for target in rule_preview.visible(fired.targets, access):
            behind.setdefault(target, {})[fired.name] = None
    return Reach(merged(behind), {target: tuple(found) for target, found in behind.items()}, names)


def merged(targets: Iterable[Target]) -> list[Target]:
    """Leave out what another of the targets covers."""
    found = list(dict.fromkeys(targets))
    whole = {(target.tenant, target.alias) for target in found if target.kind == "tenant"}

    def is_covered(target: Target) -> bool:
        wider = [(whose, alias) for whose in {target.tenant, ALL} for alias in {target.alias, None}]
        own = (target.tenant, target.alias)
        return any(pair in whole and (target.kind != "tenant" or pair != own) for pair in wider)

    return [target for target in found if not is_covered(target)]


def confirm_token(targets: Sequence[Target]) -> str | None:
    """
    Return the id of a confirm page's scope; too many targets for a URL are widened to all of their tenants.

    None if there are too many tenants, too.
    """
    if len(targets) <= ids.SCOPE_TARGETS and len(token := ids.scope_id(targets)) <= LONGEST_ID:
        return token
    wide = merged(replace(target, kind="tenant", name="", alias=None) for target in targets)
    if any(isinstance(target.tenant, All) for target in wide):
        wide = [Target("tenant", "", ALL)]
    if len(wide) <= ids.SCOPE_TARGETS and len(token := ids.scope_id(wide)) <= LONGEST_ID:
        return token
    return None


def with_last(
    lines: Sequence[rule_preview.GroupLine], targets: Iterable[Target], dropped: Sequence[DroppedLine]
) -> list[rule_preview.GroupLine]:
    """Add to groups when they were invalidated last, if all are one tenant's. Cost: 1 query."""
    tenants = {target.tenant for target in targets}
    if len(tenants) != 1 or ALL in tenants or not lines:
        return list(lines)
    tenant = next(iter(tenants))
    assert not isinstance(tenant, All)
    known = history.last_dropped(tenant, history.recent(tenant), dropped)
    return [replace(line, invalidated=known.of(line.alias, line.group)) for line in lines]
