"""What an invalidation would hit, counted before it is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cacheadmin import envelope
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.keys import Entry, logical, member, split
from cacheadmin.scripts import run_many, script
from cacheadmin.store import RedisStore, store
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import tenancy

from .counts import GroupCount, groups_of, indexed_aliases
from .entries import HEADER_BYTES, PART, tags_of
from .reach import covers

TENANTS_COUNTED: Final = 200
"""Tenants whose groups are counted one by one; for more the first ones stand for all."""

SAMPLE: Final = 200
"""Entries of a large group that stand for all when a tag is counted."""

Reach = dict[str, list[str | None]]
"""Alias -> tenants that are counted in it."""


@dataclass(frozen=True, slots=True)
class Blast:
    """What some targets would hit."""

    rows: tuple[GroupCount, ...]
    """Group by group, largest first; of a tag or a key only what it reaches."""
    tenants: int
    """Tenants named or meant, shared data not counted."""
    tenants_total: int | None
    """All tenants of the site, where all are meant."""
    entries: int | None
    """None where it cannot be counted (a pattern)."""
    size_bytes: int | None
    is_exact: bool
    """False if a tag was counted by samples, or only some of very many tenants were looked at."""
    hits_shared: bool = False

    @property
    def is_weighed_whole(self) -> bool:
        """Whether `size_bytes` counts every entry."""
        return self.is_exact and all(row.is_weighed_whole for row in self.rows)


@dataclass(frozen=True, slots=True)
class Reached:
    """Whose groups are counted for some targets."""

    named: frozenset[str | None]
    """Tenants that the targets name; None is shared data."""
    listed: tuple[str, ...]
    """All tenants of the site, where all are meant."""
    hits_all: bool
    counted: tuple[str | None, ...]


def reached(targets: Iterable[Target]) -> Reached:
    """Return whose groups `blast` counts. Cost: one of `Tenancy.list` where all tenants are meant."""
    wanted = list(targets)
    named = frozenset(t.tenant for t in wanted if not isinstance(t.tenant, All))
    listed: tuple[str, ...] = ()
    if hits_all := any(isinstance(target.tenant, All) for target in wanted):
        listed = tuple(tenant.id for tenant in tenancy().list())
    counted: list[str | None] = [*sorted(t for t in named if t is not None)]
    counted += [tenant for tenant in listed[:TENANTS_COUNTED] if tenant not in named]
    counted += [None] if hits_all or None in named else []
    return Reached(named, listed, hits_all, tuple(counted))


def blast(
    targets: Iterable[Target], *, whose: Reached | None = None, registries: Mapping[str, Sequence[Any]] | None = None
) -> Blast:
    """
    Count what some targets would hit.

    `whose` is what `reached` says of the same targets, `registries` what `groups_of` takes for those, where a caller
    has them.
    Cost:    for tenants, groups and prefixes 2 round trips an alias; with tags 3; for keys alone 1. All tenants: as for
             the first 200 of them. One less where an alias' registries are given.
    Raises:  CacheAway; UnknownAlias.
    """
    wanted = list(dict.fromkeys(targets))
    whose = reached(wanted) if whose is None else whose
    named, listed, hits_all, counted = whose.named, whose.listed, whose.hits_all, whose.counted
    left_out = len(set(listed).difference(t for t in counted if t is not None))
    rows, is_exact = _rows(wanted, counted, registries)
    scale = 1 + left_out / max(1, len(counted) - 1) if left_out else 1.0
    is_countable = all(target.kind != "pattern" for target in wanted)
    sizes = [row.size_bytes for row in rows if row.size_bytes is not None]
    return Blast(
        rows=tuple(sorted(rows, key=lambda row: (-row.entries, row.group))),
        tenants=len({*named, *listed} - {None}),
        tenants_total=len(listed) if hits_all else None,
        entries=round(sum(row.entries for row in rows) * scale) if is_countable else None,
        size_bytes=round(sum(sizes) * scale) if is_countable else None,
        is_exact=is_exact and is_countable and not left_out,
        hits_shared=hits_all or None in named,
    )


def _rows(
    wanted: Sequence[Target], counted: Sequence[str | None], registries: Mapping[str, Sequence[Any]] | None
) -> tuple[list[GroupCount], bool]:
    """Return what is hit in each group, and whether each was counted whole."""
    scopes = [t for t in wanted if t.kind in ("tenant", "group", "prefix")]
    tags = [t for t in wanted if t.kind == "tag"]
    rows: list[GroupCount] = []
    sampled: list[GroupCount] = []
    if scopes or tags:
        aliases = {target.alias for target in (*scopes, *tags)}
        alias = next(iter(aliases)) if len(aliases) == 1 else None
        for row in groups_of(counted, alias=alias, registries=registries):
            if any(covers(target, row.alias, row.tenant, row.group) for target in scopes):
                rows.append(row)
            elif any(t.alias in (None, row.alias) and _is_of(t, row.tenant) for t in tags):
                sampled.append(row)
    by_tag, is_exact = _tagged(sampled, tags)
    known = {(row.alias, row.tenant, row.group) for row in rows}
    single = [row for row in _keyed(wanted, counted) if (row.alias, row.tenant, row.group) not in known]
    return rows + by_tag + single, is_exact


def _is_of(target: Target, tenant: str | None) -> bool:
    return isinstance(target.tenant, All) or target.tenant == tenant


def _tagged(groups: Sequence[GroupCount], tags: Sequence[Target]) -> tuple[list[GroupCount], bool]:
    """Count what tags reach in some groups: the first entries stand for those of a large one. Cost: 1 round trip."""
    found, is_exact = [], True
    by_alias: dict[str, list[GroupCount]] = defaultdict(list)
    for row in groups:
        by_alias[row.alias].append(row)
    for alias, rows in by_alias.items():
        where = store(alias)
        assert isinstance(where, RedisStore)  # only these are counted
        calls: list[tuple[Any, Any, Any]] = []
        for row in rows:
            names = where.place(row.tenant).group(row.group)
            args = (names.values, 0, SAMPLE, "asc", PART, HEADER_BYTES, 0, PART)
            calls.append((script("browse"), (names.index, names.tenant_epoch, names.epoch), args))
        for row, reply in zip(rows, run_many(where.link, calls).values, strict=True):
            if not isinstance(reply, list):
                continue
            _now, total, _tenant_epoch, _group_epoch, is_whole, *flat = reply
            headers = [(size, envelope.parse(stored)) for size, stored in zip(flat[2::4], flat[3::4], strict=True)]
            hit = [s for s, h in headers if h and any(covers(t, alias, row.tenant, "", tags_of(h)) for t in tags)]
            share = 1.0 if is_whole else total / max(1, len(headers))
            is_exact = is_exact and bool(is_whole)
            if hit:
                count, size = max(1, round(len(hit) * share)), round(sum(hit) * share)
                found.append(replace(row, entries=count, size_bytes=size, is_weighed_whole=bool(is_whole)))
    return found, is_exact


def _keyed(wanted: Sequence[Target], counted: Sequence[str | None]) -> list[GroupCount]:
    """Count which of the entries and plain keys that are named by key are there. Cost: 1 round trip an alias."""
    found: list[GroupCount] = []
    for alias in indexed_aliases():
        where = store(alias)
        targets = [t for t in wanted if t.kind == "key" and t.alias in (None, alias)]
        pairs = [(target.name, tenant) for target in targets for tenant in counted if _is_of(target, tenant)]
        if not pairs or not isinstance(where, RedisStore):
            continue
        names = [_names_of(where, key, tenant) for key, tenant in pairs]
        sizes = where.link.call(*(("STRLEN", name) for _group, both in names for name in both)).values
        held: dict[tuple[str | None, str], list[int]] = defaultdict(list)
        for i, ((_key, tenant), (group, _both)) in enumerate(zip(pairs, names, strict=True)):
            replies = sizes[2 * i : 2 * i + 2]
            if any(replies):  # an error is the reply for a key that holds no string
                held[tenant, group].append(max((size for size in replies if isinstance(size, int)), default=0))
        for (tenant, group), each in held.items():
            found.append(
                GroupCount(alias, tenant, group, len(each), sum(each), is_weighed_whole=True, is_orphaned=False)
            )
    return found


def _names_of(where: RedisStore, key: str, tenant: str | None) -> tuple[str, tuple[str, str]]:
    """Return the group of a caller's key, and the two Redis keys it may have: as an entry, and as a plain key."""
    place = where.place(tenant)
    try:
        scoped = split(key)
    except CacheAdminError:
        scoped = None
    if scoped is None:
        plain = f"{place.prefix}:{key if tenant is None else logical(tenant, '', key)}"
        return "", (Entry(place.group(""), member(key)).key, plain)
    plain = f"{place.prefix}:{logical(tenant, scoped.group, scoped.rest)}"
    return scoped.group, (Entry(place.group(scoped.group), member(scoped.rest)).key, plain)
