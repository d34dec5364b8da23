"""Which groups a tenant has in which alias, how many entries are in them, and about how large they are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from cacheadmin.arguments import LABEL_CHARS
from cacheadmin.conf import managed
from cacheadmin.connections import link
from cacheadmin.exceptions import CacheAway
from cacheadmin.functions import registry
from cacheadmin.invalidation import keeps_scopes
from cacheadmin.keys import Place
from cacheadmin.scripts import run_many, script
from cacheadmin.store import RedisStore, is_redis, store

from .keyspace import SAMPLE, estimate

GROUPS_AT_ONCE: Final = 1000
"""Groups of one tenant and alias that are looked at. Who has more has keys that hold what should be arguments."""

Kind = Literal["function", "template", "plain"]


def kind_of(member: str) -> Kind:
    """Return what made an entry, as its name in Redis tells: a function's begins with a label, a fragment's says so."""
    label, mark, _ = member.partition("!")
    if not mark:
        return "plain"
    return "template" if label in ("frag", "stock") else "function" if len(label) == LABEL_CHARS else "plain"


@dataclass(frozen=True, slots=True)
class Away:
    """An alias whose server does not answer."""

    alias: str
    since: float
    """Seconds since 1970 at which this process found out."""


@dataclass(frozen=True, slots=True)
class GroupCount:
    """One group of one tenant (None: shared data) in one alias."""

    alias: str
    tenant: str | None
    group: str
    entries: int
    """Members of the index that have not expired."""
    size_bytes: int | None
    """An estimate from a few entries; None if none could be weighed."""
    is_weighed_whole: bool
    """Whether `size_bytes` counts every entry."""
    is_orphaned: bool
    """Whether it was invalidated as a whole, and none of its entries is ever served again."""
    kind: Kind = "plain"
    """What made one of its entries."""


FRESH_SECONDS: Final = 1.0
"""How long a server is believed to answer after it has."""


def away(aliases: Sequence[str] | None = None) -> list[Away]:
    """
    Return the managed Redis aliases whose server does not answer now.

    Cost:    one PING an alias that was not heard within the last second; while a server is away at most one call a
             second waits for its timeout.
    """
    found = []
    for alias in managed(None) if aliases is None else aliases:
        if not is_redis(alias):
            continue
        to = link(alias)
        if not to.is_away and time.monotonic() - to.heard_at < FRESH_SECONDS:
            continue
        try:
            to.call(("PING",))
        except CacheAway:
            found.append(Away(alias, to.away_since))
    return found


def indexed_aliases(alias: str | None = None) -> list[str]:
    """Return the managed aliases whose entries can be listed. Raises: UnknownAlias."""
    return [name for name in managed(alias) if store(name).keeps_index]


def groups_of(
    tenants: Iterable[str | None],
    *,
    alias: str | None = None,
    weigh: int = 8,
    registries: Mapping[str, Sequence[Any]] | None = None,
) -> list[GroupCount]:
    """
    Return the groups of some tenants that hold anything, alias by alias.

    `registries` are replies to `registry_commands` for the same tenants, by alias, where a caller has them already.
    Cost:    2 round trips an alias, whatever the number of entries; 1 where its registries are given. O(tenants ·
             their groups) for the server.
    Raises:  CacheAway if no alias could be asked; those that are away are left out otherwise. UnknownAlias.
    """
    wanted, found, failure = list(dict.fromkeys(tenants)), [], None
    asked = indexed_aliases(alias)
    for name in asked:
        try:
            found += _counted(name, wanted, weigh, registries=(registries or {}).get(name))
        except CacheAway as error:
            failure, asked = error, [other for other in asked if other != name]
    if failure and not asked:
        raise failure
    return found


@dataclass(frozen=True, slots=True)
class PlaceCount:
    """What one tenant (None: shared data) holds."""

    groups: tuple[GroupCount, ...]
    plain: Mapping[str, int]
    """Alias -> about how many keys were written without a group; only where there are any."""


def place_count(tenant: str | None, *, alias: str | None = None, weigh: int = 8) -> PlaceCount:
    """
    Return the groups of one tenant, and about how many plain keys it has, from one step of a SCAN.

    Where our backend writes them a tenant's keys all lie in groups, so plain ones are not looked for.
    Cost:    as `groups_of`.
    Raises:  as `groups_of`.
    """
    plain: dict[str, int] = {}
    found, failures, asked = [], [], indexed_aliases(alias)
    for name in asked:
        try:
            found += _counted(name, [tenant], weigh, plain if tenant is None or not keeps_scopes(name) else None)
        except CacheAway as error:
            failures.append(error)
    if failures and len(failures) == len(asked):
        raise failures[0]
    return PlaceCount(tuple(found), {name: count for name, count in plain.items() if count})


def registry_commands(alias: str, tenants: Iterable[str | None]) -> list[tuple[Any, ...]]:
    """Return the commands that ask which groups each of some tenants has; none for an alias without an index."""
    where = store(alias)
    if not isinstance(where, RedisStore):
        return []
    return [_registry_command(where.place(tenant)) for tenant in dict.fromkeys(tenants)]


def _registry_command(place: Place) -> tuple[Any, ...]:
    return ("HSCAN", place.registry(), 0, "COUNT", GROUPS_AT_ONCE)


def _counted(
    alias: str,
    tenants: list[str | None],
    weigh: int,
    plain: dict[str, int] | None = None,
    registries: Sequence[Any] | None = None,
) -> list[GroupCount]:
    where = store(alias)
    if not isinstance(where, RedisStore) or not tenants:
        return []
    places = [where.place(tenant) for tenant in tenants]
    listed_names, scanned = _group_names(where, places, SAMPLE if plain is not None else (), registries)
    if plain is not None:
        plain[alias] = estimate(alias, tenants[0], *scanned)
    calls: list[tuple[Any, list[str], list[Any]]] = []
    listed = [(place, sorted(groups)) for place, groups in zip(places, listed_names, strict=True) if groups]
    for place, groups in listed:
        keys: list[str] = [place.tenant_epoch()]
        args: list[Any] = [weigh]
        for names in map(place.group, groups):
            keys += (names.index, names.epoch)
            args.append(names.values)
        calls.append((script("weigh"), keys, args))
    if not calls:
        return []
    found = []
    for (place, groups), counts in zip(listed, run_many(where.link, calls).values, strict=True):
        if isinstance(counts, list):
            for group, (entries, weighed, total, stands, one) in zip(groups, counts, strict=True):
                if entries:
                    size = round(total / weighed * entries) if weighed else None
                    is_whole, sort = weighed >= entries, kind_of(one.decode("utf-8", "replace"))
                    found.append(GroupCount(alias, place.tenant, group, entries, size, is_whole, not stands, sort))
    return found


def _group_names(
    where: RedisStore,
    places: Sequence[Place],
    besides: Sequence[tuple[Any, ...]],
    registries: Sequence[Any] | None = None,
) -> tuple[list[set[str]], Sequence[Any]]:
    """
    Return the names of each place's groups: those in its registry, and those of the functions that this process knows.

    A registry that lost its marker still serves for sight. Cost: 1 round trip, shared with the commands `besides`,
    whose replies come second; none if the registries are given.
    """
    known = {function.group for function in registry.values() if function.alias == where.alias}
    others: Sequence[Any] = ()
    if registries is None:
        replies = where.link.call(*map(_registry_command, places), *besides).values
        registries, others = replies[: len(places)], replies[len(places) :]
    return [known | (_fields(reply[1]) if isinstance(reply, list) else set()) for reply in registries], others


def _fields(flat: list[bytes]) -> set[str]:
    names = (name[2:].decode("utf-8", "replace") for name in flat[::2] if name.startswith(b"g:"))
    return {name for _, name in zip(range(GROUPS_AT_ONCE), names, strict=False)}
