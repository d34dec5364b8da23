"""Plain keys: what lies under an alias' prefix outside our layout. No index lists them, so they are looked for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from cacheadmin import connections
from cacheadmin.encoding import literal_glob
from cacheadmin.keys import alias_base, logical_tenant
from cacheadmin.preview import MAX_BYTES
from cacheadmin.store import RedisStore, store

from .keyspace import SCAN_COUNT, is_of

STEPS: Final = 1000
SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class PlainKey:
    """One plain key."""

    key: str
    """As callers write it, without the alias' prefix."""
    full_key: str
    """In Redis; bytes that are no UTF-8 stand in it as surrogates."""
    type_name: str
    """Redis' type: string, hash, …"""
    expires_in: float | None
    size_bytes: int | None
    """Of a string; None for other types."""


@dataclass(frozen=True, slots=True)
class PlainPage:
    """What one bounded look found."""

    rows: tuple[PlainKey, ...]
    cursor: int
    """Where to continue; 0 at the end."""
    scanned: int
    """Keys of the database that were passed, about."""
    total: int
    """Keys of the database."""
    took: float


def keys_of(alias: str) -> int:
    """
    Return how many keys a search for a pattern passes in an alias: those of its whole database. Cost: 1 round trip.

    Raises:  CacheAway; UnknownAlias.
    """
    where = store(alias)
    return where.database_size() if isinstance(where, RedisStore) else 0


def plain_keys(
    alias: str, tenant: str | None, *, cursor: int = 0, limit: int = 200, seconds: float = SECONDS
) -> PlainPage:
    """
    Look for plain keys of a tenant (None: of no tenant), from a cursor on, for at most a second and 1,000 steps.

    A step more than `limit` may come with the last page of the SCAN, since a cursor cannot stand within one.
    Cost:    one round trip for every 1,000 keys passed, and 1 for what was found.
    Raises:  CacheAway; UnknownAlias.
    """
    begun = time.perf_counter()
    where = store(alias)
    if not isinstance(where, RedisStore):
        return PlainPage((), 0, 0, 0, 0.0)
    prefix = connections.prefix(alias) + ":"
    ours = alias_base(prefix[:-1], alias)
    below = f"tenant:{logical_tenant(tenant)}:" if tenant is not None else ""
    found: list[str] = []
    scanned, total = 0, 0
    for _ in range(STEPS):
        reply, total = where.link.call(
            ("SCAN", cursor, "MATCH", literal_glob(prefix + below) + "*", "COUNT", SCAN_COUNT), ("DBSIZE",)
        ).values
        if isinstance(reply, Exception):
            raise reply
        cursor, scanned = int(reply[0]), scanned + SCAN_COUNT
        names = (name.decode("utf-8", "surrogateescape") for name in reply[1])
        found += (n for n in names if not n.startswith(ours) and is_of(n[len(prefix) :], tenant))
        if cursor == 0 or len(found) >= limit or time.perf_counter() - begun > seconds:
            break
    rows = _described(where, prefix, list(dict.fromkeys(found)))
    scanned = total if cursor == 0 else min(scanned, total)
    return PlainPage(tuple(rows), cursor, scanned, total, time.perf_counter() - begun)


def _described(where: RedisStore, prefix: str, names: list[str]) -> list[PlainKey]:
    if not names:
        return []
    raw = [name.encode("utf-8", "surrogateescape") for name in names]
    commands: list[tuple[Any, ...]] = []
    for name in raw:
        commands += [("TYPE", name), ("PTTL", name), ("STRLEN", name)]
    replies = where.link.call(*commands).values
    rows = []
    for full_key, kind, ttl_ms, size in zip(names, replies[::3], replies[1::3], replies[2::3], strict=True):
        type_name = kind.decode() if isinstance(kind, bytes) else str(kind)
        if type_name != "none":
            left = ttl_ms / 1000 if isinstance(ttl_ms, int) and ttl_ms >= 0 else None
            bytes_ = size if isinstance(size, int) else None
            rows.append(PlainKey(full_key[len(prefix) :], full_key, type_name, left, bytes_))
    return sorted(rows, key=lambda row: row.key)


@dataclass(frozen=True, slots=True)
class PlainValue:
    """The beginning of a plain key's value."""

    row: PlainKey
    payload: bytes


def plain_value(alias: str, tenant: str | None, full_key: str) -> PlainValue | None:
    """
    Return one plain key of a tenant and at most 64 KB of it; None if it is gone or is not a plain key of that tenant.

    Cost:    2 round trips.
    Raises:  CacheAway; UnknownAlias.
    """
    where = store(alias)
    prefix = connections.prefix(alias) + ":"
    is_plain = full_key.startswith(prefix) and not full_key.startswith(alias_base(prefix[:-1], alias))
    if not isinstance(where, RedisStore) or not is_plain or not is_of(full_key[len(prefix) :], tenant):
        return None
    rows = _described(where, prefix, [full_key])
    if not rows:
        return None
    reply = where.link.call(("GETRANGE", full_key.encode("utf-8", "surrogateescape"), 0, MAX_BYTES - 1)).values[0]
    return PlainValue(rows[0], reply if isinstance(reply, bytes) else b"")
