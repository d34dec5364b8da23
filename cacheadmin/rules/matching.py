"""From changes to targets. Pure: a snapshot and changes in, targets out; what is not known widens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cacheadmin.exceptions import InvalidTarget, InvalidTenant
from cacheadmin.keys import tenant_text
from cacheadmin.rules.rule import ALL_TENANTS, PLACEHOLDER, SHARED_DATA, Change, RuleTarget
from cacheadmin.rules.snapshot import Compiled, Snapshot
from cacheadmin.targets import ALL, WIDEST_PATTERN, All, Target, from_pattern

MOST_TARGETS: Final = 500
"""Above this many targets one rule drops everything of the tenants instead; above as many tenants, of all."""

_GLOB = re.compile(r"[*?\[\]\\]")


@dataclass(frozen=True, slots=True)
class FiredRule:
    """What one rule drops after some writes."""

    name: str
    targets: tuple[Target, ...]
    warm: bool = False


def targets_for(changes: Iterable[Change], snapshot: Snapshot) -> tuple[FiredRule, ...]:
    """Return what each rule drops for these changes, in the order of the rules; others are absent."""
    fired: dict[int, tuple[Compiled, dict[Target, None]]] = {}
    for change in changes:
        for compiled in snapshot.concerned(change.model, change.event, change.fields):
            _, targets = fired.setdefault(id(compiled), (compiled, {}))
            targets.update(dict.fromkeys(_targets(compiled, change)))
    order = {id(c): i for i, c in enumerate(c for found in snapshot.compiled.values() for c in found)}
    return tuple(
        FiredRule(compiled.rule.name, _bounded(targets), compiled.rule.warm)
        for _, (compiled, targets) in sorted(fired.items(), key=lambda item: order[item[0]])
        if targets
    )


_UNKNOWN: Final[Mapping[str, Any]] = {}


def _targets(compiled: Compiled, change: Change) -> Iterator[Target]:
    rows = (_UNKNOWN,) if change.rows is None else change.rows
    for target in compiled.rule.targets:
        for row in rows:
            tenant = _tenant(compiled, target, row)
            yield from expand(target, tenant, lambda path, row=row: row[path])  # type: ignore[misc]


def _tenant(compiled: Compiled, target: RuleTarget, row: Mapping[str, Any]) -> str | All | None:
    if target.tenant == "shared":
        return None
    if target.tenant != "same" or compiled.tenant == ALL_TENANTS:
        return ALL
    if compiled.tenant == SHARED_DATA:
        return None
    if compiled.tenant not in row:
        return ALL
    value = row[compiled.tenant]
    if value is None or value == "":
        return None
    try:
        return tenant_text(value)
    except InvalidTenant:
        return ALL  # the column holds something else than ids


def expand(target: RuleTarget, tenant: str | All | None, value: Callable[[str], Any]) -> Iterator[Target]:
    """Yield what a rule's target means for one tenant; `value(path)` fills placeholders or raises KeyError."""
    alias, name = target.alias, target.name
    everything = Target("tenant", "", tenant, alias)
    if target.kind == "tenant" or not name:
        yield everything
    elif target.kind in ("group", "prefix"):
        yield Target(target.kind, name, tenant, alias)  # type: ignore[arg-type]
    elif target.kind == "fragment":
        yield Target("group", name, tenant, alias)
    elif target.kind in ("tag", "key"):
        try:
            filled = PLACEHOLDER.sub(lambda match: str(value(match[1])), name)
        except KeyError:
            filled = ""
        yield Target(target.kind, filled, tenant, alias) if filled else everything  # type: ignore[arg-type]
    elif target.kind == "pattern":
        yield from _groups_of(name, tenant, alias)
    else:
        yield everything


def _groups_of(pattern: str, tenant: str | All | None, alias: str | None) -> Iterator[Target]:
    """Widen a glob to the groups that its matches can be in, so that a write never has to look for keys."""
    try:
        scopes = from_pattern(pattern, alias)
    except (InvalidTarget, ValueError):
        yield Target("tenant", "", tenant, alias)
        return
    if all(scope.kind != "pattern" for scope in scopes):
        for scope in scopes:
            whose = scope.tenant if isinstance(scope.tenant, str) else tenant
            yield Target(scope.kind, scope.name, whose, alias)
        return
    assert len(pattern) <= WIDEST_PATTERN
    if pattern.startswith("tenant:"):
        _, _, rest = pattern.split(":", 2) if pattern.count(":") > 1 else ("", "", "")
        pattern, tenant = rest, ALL  # what stands for the tenant is a glob, or too near to one
    head = _GLOB.split(pattern, maxsplit=1)[0]
    if not head or "tenant:".startswith(head):
        yield Target("tenant", "", tenant, alias)
        return
    group = head.rpartition(":")[0]
    if group:
        yield Target("group", group, tenant, alias)
    yield Target("prefix", head, tenant, alias)


def _bounded(targets: dict[Target, None]) -> tuple[Target, ...]:
    if len(targets) <= MOST_TARGETS:
        return tuple(targets)
    whole = dict.fromkeys(Target("tenant", "", target.tenant, target.alias) for target in targets)
    if len(whole) <= MOST_TARGETS:
        return tuple(whole)
    return tuple(dict.fromkeys(Target("tenant", "", ALL, target.alias) for target in whole))


def targets_of_rules(rules: Iterable[Compiled], tenant: str | All | None) -> list[Target]:
    """Return all that some rules can drop for a tenant, whatever changed; what depends on a row widens."""
    found: dict[Target, None] = {}
    for compiled in rules:
        for target in compiled.rule.targets:
            own = compiled.tenant not in (ALL_TENANTS, SHARED_DATA) and target.tenant == "same"
            whose = tenant if own else _tenant(compiled, target, _UNKNOWN)
            found.update(dict.fromkeys(expand(target, whose, _unknown)))
    return list(found)


def _unknown(path: str) -> Any:
    raise KeyError(path)
