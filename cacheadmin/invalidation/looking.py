"""Look for keys on the server: those that match a pattern, of tenants that no list has, without an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from cacheadmin.conf import config
from cacheadmin.encoding import unescape
from cacheadmin.exceptions import InvalidKey
from cacheadmin.fragments import stock_fragment
from cacheadmin.invalidation.dropping import drop, keeps_scopes
from cacheadmin.invalidation.planning import Plan, Work
from cacheadmin.keys import Parsed, logical, split
from cacheadmin.store import SCAN_COUNT, RedisStore, store
from cacheadmin.targets import glob, matches


class Looked(NamedTuple):
    """How far a search for patterns is in one alias."""

    seen: int
    """Keys passed, about; each is passed once in each of the two passes."""
    total: int
    """Keys to pass in all, about: the whole database, for each pass."""
    gone: int
    """Values deleted so far."""


Watch = Callable[[str, Looked], bool]
"""Is told alias and progress after each page of a search for patterns, may take its time, and says whether to go on."""


class Stopped(Exception):
    """A watch said to stop; what was looked at is done, the rest is not."""


def sweep(of_alias: Plan, works: dict[str | None, Work], source: str, watch: Watch | None = None) -> int:
    """Find by SCAN what has no epoch: patterns, and plain keys of stock backends. Raises: Stopped."""
    where, gone = store(of_alias.alias), 0
    if not isinstance(where, RedisStore):
        return 0
    if of_alias.patterns:
        looked = Looked(0, 0, 0)
        for looked in sweeping(where, of_alias.patterns):
            if watch is not None and not watch(of_alias.alias, looked):
                raise Stopped
        gone += looked.gone
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
    """Do what `sweeping` does, to the end. Returns: how many values were deleted."""
    gone = 0
    for looked in sweeping(where, patterns, exactly=exactly):
        gone = looked.gone
    return gone


def sweeping(where: RedisStore, patterns: set[str], *, exactly: bool = False) -> Iterator[Looked]:
    """
    Delete what matches: first leases and every fence, so that no fill under way survives, then the values.

    The second pass begins when the first has ended; one alone misses a fill that moves from lease to value meanwhile.
    `exactly`: as the key stands, not also behind `tenant:<id>:`.
    Cost:    two SCANs of the database, and 1 round trip.
    Yields:  how far it is, after each page. Whoever stops asking leaves the rest as it is.
    """

    def fits(key: str) -> bool:
        return any(glob(p).fullmatch(key) if exactly else matches(p, key) for p in patterns)

    size = where.database_size()
    walks = [(pattern, True) for pattern in where.globs(ours_only=True)]
    walks += [(pattern, False) for pattern in where.globs()]
    gone, total = 0, size * len(walks)
    for i, (pattern, is_first_pass) in enumerate(walks):
        passed = 0
        for page in where.walk(pattern):
            ours, plain = where.parted(page)
            if is_first_pass:
                where.unlink(_leases_and_fences(fits, ours))
            else:
                found = _fitting_values(fits, where, ours)
                gone += where.unlink([*found, *(full for full, key in plain if fits(key))])
            passed = min(passed + SCAN_COUNT, size)  # the server passes about so many keys a page
            yield Looked(i * size + passed, total, gone)
        yield Looked((i + 1) * size, total, gone)


def _leases_and_fences(fits: Callable[[str], bool], ours: list[tuple[str, Parsed]]) -> list[str]:
    return [n for n, parts in ours if parts.kind == "f" or (parts.kind == "l" and _may_fit(fits, parts, None))]


def _fitting_values(fits: Callable[[str], bool], where: RedisStore, ours: list[tuple[str, Parsed]]) -> list[str]:
    values = [(name, parts) for name, parts in ours if parts.kind == "v"]
    abouts = where.abouts([name for name, parts in values if parts.is_digest])
    return [name for name, parts in values if _may_fit(fits, parts, abouts.get(name))]


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
