"""Look for keys on the server: those that match a pattern, of tenants that no list has, without an epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidKey
from cacheadmin.fragments import stock_fragment
from cacheadmin.invalidation.dropping import drop, keeps_scopes
from cacheadmin.invalidation.planning import Plan, Work
from cacheadmin.keys import Parsed, logical, split, unescape
from cacheadmin.store import RedisStore, store
from cacheadmin.targets import glob, matches


def sweep(of_alias: Plan, works: dict[str | None, Work], source: str) -> int:
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


def sweep_tenants(of_alias: Plan, known: set[str | None]) -> None:
    """Do the work meant for everyone in places that `Tenancy.list()` does not name: their tenant epochs tell."""
    where, work = store(of_alias.alias), of_alias.everyone
    if not isinstance(where, RedisStore) or work is None:
        return
    for page in where.scan_parsed("t"):
        # Where a tenant's id was so long that only its digest is known, the names below it are not: all of it goes.
        where.unlink([name for name, parts in page if parts.is_digest])
        found: set[str | None] = {parts.tenant for _, parts in page if not parts.is_digest} - known
        drop(where, {tenant: replace(work, groups=set(work.groups)) for tenant in found})
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
