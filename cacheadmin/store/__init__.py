"""Where entries live: one store a managed alias, Redis by the protocol or any other Django cache by a smaller one."""

from __future__ import annotations

from ..conf import cache_settings, managed, on_change
from .base import ABSENT, BUSY, REFUSED, Denied, Drop, Fill, Found, Seen, Stamp, Store
from .keyspace import SCAN_COUNT
from .portable import PortableStore
from .redis import RedisStore

__all__ = [
    "ABSENT",
    "BUSY",
    "REFUSED",
    "SCAN_COUNT",
    "Denied",
    "Drop",
    "Fill",
    "Found",
    "PortableStore",
    "RedisStore",
    "Seen",
    "Stamp",
    "Store",
    "is_redis",
    "store",
]

_stores: dict[str, Store] = {}


def store(alias: str) -> Store:
    """Return the store of a managed alias; the same one for the whole process. Raises: UnknownAlias."""
    stores = _stores
    try:
        return stores[alias]
    except KeyError:
        managed(alias)
        return stores.setdefault(alias, RedisStore(alias) if is_redis(alias) else PortableStore(alias))


def is_redis(alias: str) -> bool:
    """Say whether an alias' backend speaks to a Redis or Valkey server."""
    backend = cache_settings(alias)["BACKEND"].lower()
    return "redis" in backend or "valkey" in backend


@on_change
def _forget() -> None:
    """Begin anew, so that what a thread makes by the old settings at this moment stays with the old ones."""
    global _stores
    _stores = {}
