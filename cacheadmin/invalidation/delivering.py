"""Invalidate at once: shared data first, inner aliases before outer ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from django.db import DatabaseError

from cacheadmin import memory, reclaiming
from cacheadmin.conf import cache_settings, config, managed, on_change
from cacheadmin.exceptions import CacheAway
from cacheadmin.invalidation.dropping import PLACES_AT_ONCE, drop, keeps_scopes
from cacheadmin.invalidation.looking import sweep, sweep_tenants
from cacheadmin.invalidation.outcomes import Invalidation
from cacheadmin.invalidation.planning import SCOPES, merged, plan
from cacheadmin.signals import invalidated
from cacheadmin.stats import EVERY_TENANT, recorder
from cacheadmin.store import Drop, RedisStore, store
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import tenancy

logger = logging.getLogger("cacheadmin")

_TRUSTING: Final = ("rule", "relay")
"""Sources that believe `Tenancy.lists_all`; a person or a command also reaches tenants that no list has."""


def deliver(targets: Sequence[Target], *, source: str = "code", name: str = "", reason: str = "") -> Invalidation:
    """
    Invalidate at once, whatever transactions are open.

    Cost:    one round trip for up to 500 places of an alias, shared data first, inner aliases before outer ones; one
             more where a prefix is among the targets. All tenants: as many as `Tenancy.list()` has, and, unless that
             list is complete, a SCAN. A pattern: two SCANs. Stock backends: a SCAN for plain keys.
    Returns: "done", or "failed" with the error and what is still to do: never raises for an absent server.
    Raises:  UnknownAlias.
    """
    begun = time.perf_counter()
    memory.forget_hits()
    targets = tuple(dict.fromkeys(targets))
    places, keys, error = 0, 0, ""
    identities: dict[str, str] = {}
    steps = _steps(targets)
    try:
        if steps is not None:
            for alias, drops in steps:
                identities[alias] = store(alias).drop_many(drops).hex()
                places += len(drops)
                for drop in drops:
                    if drop.tenant or drop.groups:
                        reclaiming.note(drop.place, None if drop.tenant else list(drop.groups))
        else:
            places, keys = _deliver(targets, source, identities)
    except CacheAway as failure:
        error = str(failure)
        logger.warning("An invalidation was not delivered: %s", error)
    result = Invalidation(
        targets=targets,
        state="failed" if error else "done",
        source=source,
        name=name,
        places=places,
        keys=keys,
        took_ms=(time.perf_counter() - begun) * 1000,
        error=error,
        reason=reason,
        pending=targets if error else (),
        identities=identities,
    )
    if not error:
        _count(result)
    invalidated.send(Invalidation, invalidation=result)
    return result


def _deliver(targets: tuple[Target, ...], source: str, identities: dict[str, str]) -> tuple[int, int]:
    """Deliver what has to be planned anew. Adds to `identities`. Returns: places, keys deleted by name."""
    plans, places, keys = plan(targets), 0, 0
    tenants, is_complete = _tenants() if any(p.everyone is not None for p in plans) else ([], True)
    works = {p.alias: merged(p, tenants) for p in plans}
    for shared in (True, False):  # shared data is computed from nothing of a tenant, so it goes first
        for of_alias in plans:
            chosen = {t: w for t, w in works[of_alias.alias].items() if (t is None) is shared}
            reached, deleted, identity = drop(store(of_alias.alias), chosen)
            places += reached
            keys += deleted
            if identity:
                identities[of_alias.alias] = identity.hex()
    for of_alias in plans:
        if of_alias.everyone is not None and (not is_complete or source not in _TRUSTING):
            sweep_tenants(of_alias, set(works[of_alias.alias]))
        keys += sweep(of_alias, works[of_alias.alias], source)
    return places, keys


@lru_cache(maxsize=4096)
def _steps(targets: tuple[Target, ...]) -> tuple[tuple[str, tuple[Drop, ...]], ...] | None:
    """
    Return what a delivery comes to, in order, where the targets alone say it: a page's tenth save asks the same again.

    None where it depends on more: on the list of tenants, on what Redis holds, on keys outside the protocol, on a
    KEY_FUNCTION.
    """
    if any(target.kind not in SCOPES or isinstance(target.tenant, All) for target in targets):
        return None
    plans, steps = plan(targets), []
    if not all(_is_plain(of_alias.alias) for of_alias in plans) or any(len(p.named) > PLACES_AT_ONCE for p in plans):
        return None
    for shared in (True, False):
        for of_alias in plans:
            where = store(of_alias.alias)
            drops = tuple(
                Drop(where.place(tenant), work.tenant, tuple(sorted(work.groups)), tuple(sorted(work.tags)))
                for tenant, work in of_alias.named.items()
                if (tenant is None) is shared
            )
            if drops:
                steps.append((of_alias.alias, drops))
    return tuple(steps)


def is_planned(targets: tuple[Target, ...]) -> bool:
    """Say whether delivering these asks no database and holds nothing but UNLINKs. Raises: UnknownAlias."""
    return _steps(targets) is not None


on_change(_steps.cache_clear)


def _is_plain(alias: str) -> bool:
    """Say whether invalidating scopes of an alias is UNLINKs under names that never change, and nothing else."""
    if not isinstance(store(alias), RedisStore) or "KEY_FUNCTION" in cache_settings(alias):
        return False
    return keeps_scopes(alias) or config().raw_keys == "never"


def _tenants() -> tuple[list[str], bool]:
    """Return the tenants that the site lists, and whether these are surely all. Cost: what `Tenancy.list()` costs."""
    site = tenancy()
    try:
        return [tenant.id for tenant in site.list()], site.lists_all
    except DatabaseError as error:
        logger.warning("The tenants cannot be listed (%s); they are looked for on the server.", type(error).__name__)
        return [], False


def _count(result: Invalidation) -> None:
    counted: set[tuple[str, str | None]] = set()
    for target in result.targets:
        tenant = EVERY_TENANT if isinstance(target.tenant, All) else target.tenant
        for alias in managed(target.alias):
            what = f"{target.kind} {target.name}".strip()
            is_first = (alias, tenant) not in counted
            counted.add((alias, tenant))
            recorder.invalidated(alias, tenant, what, result.source, result.name, is_first=is_first)
