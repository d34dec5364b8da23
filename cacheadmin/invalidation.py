"""From targets to deleted epochs: who is hit, in which order, one UNLINK a place. And the calls that sites make.

`request` is what code, people and commands use: it waits for the commit of an open transaction, and hands what could
not be delivered to whoever keeps it (the outbox). `deliver` acts at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Literal

from django.core.cache import caches
from django.db import DatabaseError

from . import reclaiming, transactions
from .conf import cache_settings, config, managed, on_change, rank
from .exceptions import CacheAway, InvalidKey
from .fragments import stock_fragment
from .keys import Entry, Parsed, Place, logical, member, split, split_own, tenant_text, unescape
from .signals import invalidated
from .stats import EVERY_TENANT, recorder
from .store import Drop, RedisStore, Store, store
from .targets import All, Target, from_pattern, glob, matches
from .tenancy import tenancy

logger = logging.getLogger("cacheadmin")

PLACES_AT_ONCE: Final = 500
"""Places whose UNLINKs share a round trip."""

_TRUSTING: Final = ("rule", "relay")
"""Sources that believe `Tenancy.lists_all`; a person or a command also reaches tenants that no list has."""

Source = Literal["code", "user", "command", "rule", "relay"]


@dataclass(frozen=True, slots=True)
class Invalidation:
    """What became of a request to invalidate."""

    targets: tuple[Target, ...]
    state: Literal["done", "deferred", "waiting", "failed"]
    """`done`: no reader is served the old value · `deferred`: delivered after the commit of the open transaction ·
    `waiting`: recorded until the server answers · `failed`: neither; the caller has to try again."""
    source: str = "code"
    name: str = ""
    places: int = 0
    """Places (alias, tenant) that were reached."""
    keys: int = 0
    """Keys deleted by name; the entries below an epoch are not counted, there may be any number of them."""
    took_ms: float = 0.0
    error: str = ""
    reason: str = ""
    """Why, in the words of whoever asked."""
    pending: tuple[Target, ...] = ()
    """What is not done yet."""
    identities: dict[str, str] = field(default_factory=dict)
    """Alias -> identity (hex) of the server it was delivered to."""

    @property
    def is_done(self) -> bool:
        """Whether every reader is safe from the old values by now."""
        return self.state == "done"

    def __str__(self) -> str:
        what = ", ".join(map(str, self.targets[:3])) + ("…" if len(self.targets) > 3 else "")
        return f"{self.state}: {what}"


# --- planning -------------------------------------------------------------------------------------------------------


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


def _merged(of_alias: Plan, tenants: Sequence[str]) -> dict[str | None, Work]:
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


# --- delivering -----------------------------------------------------------------------------------------------------


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
    works = {p.alias: _merged(p, tenants) for p in plans}
    for shared in (True, False):  # shared data is computed from nothing of a tenant, so it goes first
        for of_alias in plans:
            chosen = {t: w for t, w in works[of_alias.alias].items() if (t is None) is shared}
            reached, deleted, identity = _drop(store(of_alias.alias), chosen)
            places += reached
            keys += deleted
            if identity:
                identities[of_alias.alias] = identity.hex()
    for of_alias in plans:
        if of_alias.everyone is not None and (not is_complete or source not in _TRUSTING):
            _sweep_tenants(of_alias, set(works[of_alias.alias]))
        keys += _sweep(of_alias, works[of_alias.alias], source)
    return places, keys


@lru_cache(maxsize=4096)
def _steps(targets: tuple[Target, ...]) -> tuple[tuple[str, tuple[Drop, ...]], ...] | None:
    """
    Return what a delivery comes to, in order, where the targets alone say it: a page's tenth save asks the same again.

    None where it depends on more: on the list of tenants, on what Redis holds, on keys outside the protocol, on a
    KEY_FUNCTION.
    """
    if any(target.kind not in _SCOPES or isinstance(target.tenant, All) for target in targets):
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


_SCOPES: Final = ("tenant", "group", "tag")

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


def _drop(of_alias: Store, works: dict[str | None, Work]) -> tuple[int, int, bytes]:
    """Invalidate in some places of one alias. Returns: places, keys deleted by name, the server's identity."""
    items, keys, identity = list(works.items()), 0, b""
    for start in range(0, len(items), PLACES_AT_ONCE):
        batch = [(of_alias.place(tenant), work) for tenant, work in items[start : start + PLACES_AT_ONCE]]
        drops: list[Drop] = []
        for (place, work), known in zip(batch, _registries(of_alias, batch), strict=True):
            if known:
                work.groups |= {g for g in known if any(g.startswith(p) for p in work.prefixes)}
            outside = _drop_outside(place, work)
            recorder.dropped(of_alias.alias, "", place.tenant, outside)
            keys += outside
            # Where the registry is lost it cannot be known what a prefix names.
            drops.append(_scopes(place, work, widen=bool(work.prefixes) and known is None))
        identity = of_alias.drop_many(drops) or identity
        for drop in drops:
            if drop.tenant or drop.groups:
                reclaiming.note(drop.place, None if drop.tenant else sorted(drop.groups))
    return len(items), keys, identity


def _registries(of_alias: Store, batch: Sequence[tuple[Place, Work]]) -> list[list[str] | None]:
    if not any(work.prefixes and not work.tenant for _, work in batch):
        return [[] for _ in batch]
    return of_alias.groups_many([place for place, _ in batch])


def _scopes(place: Place, work: Work, *, widen: bool) -> Drop:
    entries = []
    for key in work.keys:
        group, rest = split_own(key)
        if group or place.tenant is not None:
            entries.append(Entry(place.group(group), member(rest)))
    return Drop(place, work.tenant or widen, work.groups, work.tags, entries)


def _drop_outside(place: Place, work: Work) -> int:
    """Delete plain keys that the protocol does not know: those without a group, and exact keys of stock backends."""
    cache, gone = caches[place.alias], 0
    for key in work.keys:
        if not keeps_scopes(place.alias):
            gone += bool(cache.delete(logical(place.tenant, "", key)))
        elif place.tenant is None and not split_own(key)[0]:
            gone += bool(cache.delete(key))
    return gone


def keeps_scopes(alias: str) -> bool:
    """Say whether plain keys of an alias obey scopes: its backend is ours."""
    return bool(getattr(caches[alias], "keeps_scopes", False))


# --- looking for keys -----------------------------------------------------------------------------------------------


def _sweep(of_alias: Plan, works: dict[str | None, Work], source: str) -> int:
    """Find by SCAN what has no epoch: patterns, and plain keys of stock backends."""
    where, gone = store(of_alias.alias), 0
    if not isinstance(where, RedisStore):
        return 0
    if of_alias.patterns:
        gone += sweep_patterns(where, of_alias.patterns)
    raw = config().raw_keys
    if not keeps_scopes(of_alias.alias) and (raw == "always" or (raw == "manual" and source not in ("rule", "relay"))):
        gone += _sweep_raw(where, of_alias, works)
    return gone


def _sweep_tenants(of_alias: Plan, known: set[str | None]) -> None:
    """Do the work meant for everyone in places that `Tenancy.list()` does not name: their tenant epochs tell."""
    where, work = store(of_alias.alias), of_alias.everyone
    if not isinstance(where, RedisStore) or work is None:
        return
    for page in where.scan_parsed("t"):
        # Where a tenant's id was so long that only its digest is known, the names below it are not: all of it goes.
        where.unlink([name for name, parts in page if parts.is_digest])
        found: set[str | None] = {parts.tenant for _, parts in page if not parts.is_digest} - known
        _drop(where, {tenant: replace(work, groups=set(work.groups)) for tenant in found})
        known |= found


def sweep_patterns(where: RedisStore, patterns: set[str], *, exactly: bool = False) -> int:
    """
    Delete what matches: first leases and every fence, so that no fill under way survives, then the values.

    `exactly`: as the key stands, not also behind `tenant:<id>:`.
    Cost:    two SCANs of the database.
    Returns: how many values were deleted.
    """

    def fits(key: str) -> bool:
        return any(glob(p).fullmatch(key) if exactly else matches(p, key) for p in patterns)

    for page in where.scan_parsed("lf"):
        where.unlink([n for n, parts in page if parts.kind == "f" or _may_fit(fits, parts, None)])
    gone = 0
    for page in where.scan_parsed("v"):
        abouts = where.abouts([n for n, parts in page if parts.is_digest])
        gone += where.unlink([n for n, parts in page if _may_fit(fits, parts, abouts.get(n))])
    for raw in where.scan_raw():
        gone += where.unlink([full for full, key in raw if fits(key)])
    return gone


def _may_fit(fits: Callable[[str], bool], parts: Parsed, about: dict[str, Any] | None) -> bool:
    """Say whether an entry's key fits, or may fit because it is known by a digest only."""
    if parts.is_digest:
        key = str((about or {}).get("key", ""))
        fragment = stock_fragment(key)
        return (
            not key
            or key.endswith("…")
            or fits(key)
            or (fragment is not None and fits(logical(parts.tenant, *fragment)))
        )
    return fits(logical(parts.tenant, parts.group, unescape(parts.member)))


def _sweep_raw(where: RedisStore, of_alias: Plan, works: dict[str | None, Work]) -> int:
    """Delete plain keys of a stock backend that belong to a scope: its keys have no epochs."""
    gone, everyone = 0, of_alias.everyone
    named = [t for t in works if t is not None]
    only = named[0] if everyone is None and len(works) == 1 and named else None
    for page in where.scan_raw(only):
        doomed = []
        for full, key in page:
            try:
                scoped = split(key)
            except InvalidKey:
                continue  # hand-made, and of a tenant that nobody can tell
            if scoped is None:
                continue
            work = works.get(scoped.tenant, everyone)
            if work is not None and work.covers(scoped.group, logical(None, scoped.group, scoped.rest)):
                doomed.append(full)
        gone += where.unlink(doomed)
    return gone


# --- what sites call ------------------------------------------------------------------------------------------------

Keep = Callable[[Invalidation], bool]
_keep: Keep | None = None


def on_failure(keep: Keep | None) -> None:
    """Set who records what could not be delivered; `keep(invalidation)` says whether it did."""
    global _keep
    _keep = keep


def request(targets: Sequence[Target], *, source: str = "code", name: str = "", reason: str = "") -> Invalidation:
    """
    Invalidate now, or after the commit if a transaction of this thread is open.

    Cost:    as `deliver`; nothing while a transaction is open.
    Returns: "done", "deferred", "waiting" (the server is away; recorded, and delivered when it is back) or "failed".
    Raises:  UnknownAlias.
    """
    plan(targets)  # names are checked here, where the caller can still be told
    if transactions.defer(targets, source, name):
        return Invalidation(tuple(targets), "deferred", source, name, reason=reason, pending=tuple(targets))
    result = deliver(targets, source=source, name=name, reason=reason)
    if result.state == "failed" and _keep is not None and _keep(result):
        return replace(result, state="waiting")
    return result


def invalidate_cache(pattern: str, alias: str | None = None) -> Invalidation:
    """
    Invalidate what a glob over keys matches, as it is and behind `tenant:<id>:`.

    `tenant:12:*`, `inventory:*` and `tenant:12:inventory:*` are scopes: one round trip, whatever they hold. Another
    glob is looked for with two SCANs; a key without a glob is one entry.
    Raises:  InvalidTarget; UnknownAlias.
    """
    return request(from_pattern(pattern, alias))


def invalidate_tenant_cache(tenant_id: Any, prefix: str | None = None, alias: str | None = None) -> Invalidation:
    """
    Invalidate everything of a tenant, or its groups whose names begin with `prefix`.

    `inventory` reaches `inventory_list` and `inventory:branch:5`. A tenant id matches only itself.
    Raises:  InvalidTenant; UnknownAlias.
    """
    tenant = tenant_text(tenant_id)
    return request([Target("prefix", prefix, tenant, alias) if prefix else Target("tenant", "", tenant, alias)])


def invalidate_tags(tenant_id: Any, *tags: str, alias: str | None = None) -> Invalidation:
    """
    Invalidate every entry of a tenant that carries one of the tags; `tenant_id=None` means shared data.

    Raises:  InvalidTenant; InvalidTarget for an empty tag; UnknownAlias.
    """
    tenant = None if tenant_id is None else tenant_text(tenant_id)
    return request([Target("tag", tag, tenant, alias) for tag in tags])
