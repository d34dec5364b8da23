"""Which places targets come to, and in which order. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cacheadmin.conf import managed, rank
from cacheadmin.targets import All, Target

SCOPES: Final = ("tenant", "group", "tag")
"""Kinds of targets that are an epoch each."""


@dataclass(slots=True)
class Work:
    """Everything that one delivery does in one place."""

    tenant: bool = False
    groups: set[str] = field(default_factory=set)
    prefixes: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    """Callers' keys without `tenant:<id>:`."""

    def add(self, target: Target) -> None:
        """Take in one target; what the whole tenant covers already is left out."""
        if target.kind == "tenant":
            self.tenant = True
        elif target.kind == "group":
            self.groups.add(target.name)
        elif target.kind == "prefix":
            self.prefixes.add(target.name)
        elif target.kind == "tag":
            self.tags.add(target.name)
        else:
            self.keys.add(target.name)

    def covers(self, group: str, key: str) -> bool:
        """Say whether a plain key of the place is among what this work invalidates."""
        return (
            self.tenant or group in self.groups or key in self.keys or any(group.startswith(p) for p in self.prefixes)
        )


@dataclass(slots=True)
class Plan:
    """The work of one alias: for named places, for every tenant, and the patterns to look for."""

    alias: str
    named: dict[str | None, Work] = field(default_factory=dict)
    everyone: Work | None = None
    patterns: set[str] = field(default_factory=set)


def plan(targets: Iterable[Target]) -> list[Plan]:
    """Sort targets by alias and tenant; aliases come in order of rank, inner first. Raises: UnknownAlias."""
    plans: dict[str, Plan] = {}
    for target in targets:
        for alias in managed(target.alias):
            of_alias = plans.setdefault(alias, Plan(alias))
            if target.kind == "pattern":
                of_alias.patterns.add(target.name)
            elif isinstance(target.tenant, All):
                of_alias.everyone = of_alias.everyone or Work()
                of_alias.everyone.add(target)
            else:
                of_alias.named.setdefault(target.tenant, Work()).add(target)
    return sorted(plans.values(), key=lambda p: rank(p.alias))


def merged(of_alias: Plan, tenants: Sequence[str]) -> dict[str | None, Work]:
    """Return the work of every named or listed place, what is meant for everyone included."""
    if of_alias.everyone is None:
        return of_alias.named
    works = {tenant: Work() for tenant in (None, *tenants, *of_alias.named)}
    for tenant, work in works.items():
        for part in (of_alias.everyone, of_alias.named.get(tenant)):
            if part is not None:
                work.tenant |= part.tenant
                work.groups |= part.groups
                work.prefixes |= part.prefixes
                work.tags |= part.tags
                work.keys |= part.keys
    return works
