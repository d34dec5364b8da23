"""Invalidate at once: shared data first, inner aliases before outer ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from django.core.cache import caches
from django.db import DatabaseError

from cacheadmin import memory, reclaiming
from cacheadmin.conf import config, managed, on_change
from cacheadmin.exceptions import CacheAway
from cacheadmin.invalidation.dropping import PLACES_AT_ONCE, drop, keeps_scopes
from cacheadmin.invalidation.looking import Stopped, Watch, sweep, sweep_tenants
from cacheadmin.invalidation.outcomes import Invalidation
from cacheadmin.invalidation.planning import SCOPES, Plan, merged, plan
from cacheadmin.keys import Place
from cacheadmin.signals import invalidated
from cacheadmin.stats import EVERY_TENANT, recorder
from cacheadmin.store import Drop, RedisStore, Store, store
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import tenancy
from cacheadmin.transactions import own_sql

logger = logging.getLogger("cacheadmin")

_TRUSTING: Final = ("rule", "relay")
"""Sources that believe `Tenancy.lists_all`; a person or a command also reaches tenants that no list has."""

_OF_RULES: Final = ("rule", "relay")
"""Sources whose names are rules, or several with commas between."""


def deliver(
    targets: Sequence[Target],
    *,
    source: str = "code",
    name: str = "",
    reason: str = "",
    quietly: bool = False,
    watch: Watch | None = None,
) -> Invalidation:
    """
    Invalidate at once, whatever transactions are open.

    `quietly`: what it may ask the database, the list of tenants, is kept out of query counts and logs.
    `watch`: is told how far the search for a pattern is, page by page, and may end it; the rest is then `pending`.
    Cost:    one round trip for up to 500 places of an alias, shared data first, inner aliases before outer ones; one
             more where a prefix is among the targets. All tenants: as many as `Tenancy.list()` has, and, unless that
             list is complete, a SCAN. A pattern: two SCANs. Stock backends: a SCAN for plain keys.
    Returns: "done", or "failed" with the error and what is still to do: never raises for an absent server.
    Raises:  UnknownAlias.
    """
    begun, by = time.perf_counter(), name if source in _OF_RULES else ""
    memory.forget_hits()
    prepare = _prepared if len(targets) <= MOST_KEPT else _prepared.__wrapped__
    prepared = prepare(tuple(targets))
    targets = prepared.targets
    places, keys, error, is_stopped = 0, 0, "", False
    identities: dict[str, str] = {}
    try:
        if prepared.steps is not None:
            for alias, drops in prepared.steps:
                identities[alias] = store(alias).drop_many(drops).hex()
                places += len(drops)
            for place, groups in prepared.orphaned:
                reclaiming.note(place, groups, by)
        elif quietly:
            with own_sql.quiet():
                places, keys = _deliver(targets, source, identities, watch, by)
        else:
            places, keys = _deliver(targets, source, identities, watch, by)
    except Stopped:
        error, is_stopped = "Stopped before the end: what was looked at is done, the rest is not.", True
    except CacheAway as failure:
        error = str(failure)
        logger.warning("An invalidation was not delivered: %s", error)
    memory.forget_hits()  # another task of this request may have read meanwhile
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
        is_stopped=is_stopped,
    )
    if not error or is_stopped:
        for alias, tenant, what, is_first in prepared.counted:
            recorder.invalidated(alias, tenant, what, source, name, is_first=is_first)
    invalidated.send(Invalidation, invalidation=result)
    return result


def _deliver(
    targets: tuple[Target, ...], source: str, identities: dict[str, str], watch: Watch | None = None, by: str = ""
) -> tuple[int, int]:
    """Deliver what has to be planned anew. Adds to `identities`. Returns: places, keys deleted by name."""
    plans, places, keys = plan(targets), 0, 0
    tenants, is_complete = _tenants() if any(map(_asks_for_tenants, plans)) else ([], True)
    works = {p.alias: merged(p, tenants) for p in plans}
    for shared in (True, False):  # shared data is computed from nothing of a tenant, so it goes first
        for of_alias in plans:
            chosen = {t: w for t, w in works[of_alias.alias].items() if (t is None) is shared}
            where = store(of_alias.alias)
            for who in _prefixes(where, tenants) if shared and chosen else (None,):
                with where.acting(who):
                    reached, deleted, identity = drop(where, chosen, by)
                places += reached
                keys += deleted
                if identity:
                    identities[of_alias.alias] = identity.hex()
    for of_alias in plans:
        work, where = works[of_alias.alias], store(of_alias.alias)
        for who in _prefixes(where, [*tenants, *filter(None, work)]):
            with where.acting(who):
                if of_alias.everyone is not None and (not is_complete or source not in _TRUSTING):
                    sweep_tenants(of_alias, set(work))
                keys += sweep(of_alias, work, source, watch)
    return places, keys


def _asks_for_tenants(of_alias: Plan) -> bool:
    """Say whether the list of tenants is needed: for targets of all, or where each has shared data of its own."""
    if of_alias.everyone is not None:
        return True
    return store(of_alias.alias).follows_tenant and (None in of_alias.named or bool(of_alias.patterns))


def _prefixes(where: Store, tenants: Sequence[str]) -> list[str | None]:
    """
    Return as whom to act so that each beginning is met once that the alias' keys may have; None is whoever is active.

    It is one, unless a KEY_FUNCTION asks who is active. Then shared data and plain keys are each tenant's own.
    """
    found: dict[str, str | None] = {}
    for tenant in (None, *(tenants if where.follows_tenant else ())):
        with where.acting(tenant):
            found.setdefault(caches[where.alias].make_key(""), tenant)
    return list(found.values())


class _Known(Drop):
    """A drop whose names are worked out once; a changed copy of it works them out anew."""

    def epochs(self) -> list[str]:
        found: list[str] | None = self.__dict__.get("names")
        if found is None:
            found = self.__dict__["names"] = super().epochs()
        return found


class _Prepared(NamedTuple):
    """All of a delivery that its targets alone say."""

    targets: tuple[Target, ...]
    """Each once."""
    counted: tuple[tuple[str, str | None, str, bool], ...]
    """What the counters are told: alias, tenant, what, and whether it is the first of that alias and tenant."""
    steps: tuple[tuple[str, tuple[Drop, ...]], ...] | None
    """The UNLINKs, alias by alias in order; None where it depends on more than the targets."""
    orphaned: tuple[tuple[Place, list[str] | None], ...]
    """What `reclaiming.note` is told after them."""


MOST_KEPT: Final = 50
"""Targets above which a delivery is planned anew each time: few are the same twice, and each takes room."""


@lru_cache(maxsize=4096)
def _prepared(targets: tuple[Target, ...]) -> _Prepared:
    """Return what is known of a delivery beforehand: a page's tenth save asks the same again. Raises: UnknownAlias."""
    targets = tuple(dict.fromkeys(targets))
    steps = _steps(targets)
    drops = [drop for _, of_alias in steps or () for drop in of_alias if drop.tenant or drop.groups]
    orphaned = tuple((drop.place, None if drop.tenant else list(drop.groups)) for drop in drops)
    return _Prepared(targets, tuple(_counted(targets)), steps, orphaned)


def _steps(targets: tuple[Target, ...]) -> tuple[tuple[str, tuple[Drop, ...]], ...] | None:
    """
    Return what a delivery comes to, in order, where the targets alone say it.

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
                _Known(where.place(tenant), work.tenant, tuple(sorted(work.groups)), tuple(sorted(work.tags)))
                for tenant, work in of_alias.named.items()
                if (tenant is None) is shared
            )
            if drops:
                steps.append((of_alias.alias, drops))
    return tuple(steps)


def _counted(targets: tuple[Target, ...]) -> Iterator[tuple[str, str | None, str, bool]]:
    seen: set[tuple[str, str | None]] = set()
    for target in targets:
        tenant = EVERY_TENANT if isinstance(target.tenant, All) else target.tenant
        for alias in managed(target.alias):
            yield alias, tenant, f"{target.kind} {target.name}".strip(), (alias, tenant) not in seen
            seen.add((alias, tenant))


on_change(_prepared.cache_clear)


def _is_plain(alias: str) -> bool:
    """Say whether invalidating scopes of an alias is UNLINKs under names that never change, and nothing else."""
    where = store(alias)
    if not isinstance(where, RedisStore) or where.follows_tenant:
        return False
    return keeps_scopes(alias) or config().raw_keys == "never"


def _tenants() -> tuple[list[str], bool]:
    """Return the tenants that the site lists, and whether these are surely all. Cost: what `Tenancy.list()` costs."""
    site = tenancy()
    try:
        return [tenant.id for tenant in site.list()], site.lists_all
    except DatabaseError as error:
        logger.warning("The tenants cannot be listed (%s); they are looked for on the server.", type(error).__name__)
    except Exception:  # the site's own code: no invalidation may wait until somebody has mended it
        logger.exception("Tenancy.list() failed; the tenants are looked for on the server.")
    return [], False
