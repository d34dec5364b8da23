"""`cacheadmin.backends.RedisCache`: a django-redis cache whose plain keys obey scopes.

A key `[tenant:<id>:]<group>:<rest>` is an entry like those of decorated functions. A key without a colon keeps
django-redis' own name and behaviour. While the server is away, reads miss and writes are dropped; deletes wait.
"""

from __future__ import annotations

import inspect
import logging
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django_prometheus.cache.metrics import (
    django_cache_get_fail_total,
    django_cache_get_total,
    django_cache_hits_total,
    django_cache_misses_total,
)
from django_redis.cache import RedisCache as DjangoRedisCache
from django_redis.exceptions import ConnectionInterrupted
from django_redis.util import CacheKey
from redis.exceptions import ResponseError

from . import invalidation, memory, transactions
from .conf import alias_of, config
from .connections import AWAY
from .encoding import unescape
from .exceptions import CacheAway, UncacheableValue
from .keys import Entry, logical
from .scoped import ScopedKeys
from .store import RedisStore, store
from .targets import Target, glob

logger = logging.getLogger("cacheadmin")

_gets: Final = django_cache_get_total.labels(backend="redis")
_hits: Final = django_cache_hits_total.labels(backend="redis")
_misses: Final = django_cache_misses_total.labels(backend="redis")
_fails: Final = django_cache_get_fail_total.labels(backend="redis")

_MISSING: Final = object()


class RedisCache(DjangoRedisCache):
    """
    A drop-in for django-redis that also feeds django-prometheus' counters.

    Cost:    get 1 round trip (2 on a group's first miss), set 1, get_many and set_many 1 across tenants and groups.
    Differs: `clear()` and `delete_pattern()` remove this alias' own keys only, never the whole database.
    """

    keeps_scopes = True

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._alias = alias_of(server, params)
        if "IGNORE_EXCEPTIONS" not in params.get("OPTIONS", {}):
            self._ignore_exceptions = True

    @cached_property
    def _scoped(self) -> ScopedKeys | None:
        """The scoped keys of this alias; None if it is not managed, then everything is django-redis' own."""
        if self._alias is None or self._alias not in config().aliases:
            return None
        of_alias = store(self._alias)
        return ScopedKeys(of_alias) if isinstance(of_alias, RedisStore) else None

    def _find(self, key: Any, version: int | None) -> tuple[ScopedKeys, Entry] | None:
        """Return the scoped keys and the entry that a caller's key names; None for a key without scope."""
        scoped = self._scoped
        if scoped is None or isinstance(key, CacheKey):
            return None
        entry = scoped.entry(str(key), None if version is None or version == self.version else version)
        return None if entry is None else (scoped, entry)

    def _ms(self, timeout: Any) -> int:
        """Return Django's timeout as ms: 0 for ever, -1 for "delete"."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return 0
        return max(1, int(timeout * 1000)) if timeout > 0 else -1

    def _outside(self, name: str, *args: Any, otherwise: Any = None, client: Any = None, **options: Any) -> Any:
        """
        Let django-redis do something with keys that have no scope, on our connection and behind its gate.

        Returns: `otherwise` while the server is away or full, unless the site wants django-redis' exceptions.
        """
        if self._scoped is None or client is not None:
            return getattr(super(), name)(*args, client=client, **options)
        try:
            return getattr(self.client, name)(*args, client=self._scoped.store.link.lent, **options)
        except (CacheAway, ConnectionInterrupted, ResponseError) as error:
            if self._ignore_exceptions:
                return otherwise
            raise error.__cause__ or error from error

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: int | None = None, client: Any = None) -> Any:
        """Return the value, or `default`. Cost: 1 round trip, one MGET (one GET for a key without scope)."""
        _gets.inc()
        found = self._find(key, version)
        if found is not None:
            scoped, entry = found
            read = scoped.get(entry)
            if read is not None and read.state == "hit":
                _hits.inc()
                return read.value
            (_fails if read is None else _misses).inc()
            return default
        value = self._get_plain(key, version, client)
        (_misses if value is _MISSING else _hits).inc()
        return default if value is _MISSING else value

    def _get_plain(self, key: Any, version: int | None, client: Any) -> Any:
        if self._scoped is None or client is not None:
            return super().get(key, _MISSING, version, client)
        raw = self._scoped.plain_many((self.make_key(key, version),))[0]
        return _MISSING if raw is None else self._decoded(raw)

    def _decoded(self, raw: bytes) -> Any:
        try:
            return self.client.decode(raw)
        except Exception as error:  # noqa: BLE001 - whatever the serializer raises for foreign bytes: a miss
            logger.warning("A plain value cannot be decoded (%s).", type(error).__name__)
            return _MISSING

    def get_many(self, keys: Iterable[Any], version: int | None = None, client: Any = None) -> dict[Any, Any]:
        """Return what is there of these keys. Cost: 1 round trip, one MGET a tenant and one for keys without scope."""
        wanted = list(keys)
        found = {key: self._find(key, version) for key in wanted}
        outside = [key for key in wanted if found[key] is None]
        if self._scoped is None or client is not None:
            return super().get_many(wanted, version, client)
        entries = [pair[1] for pair in found.values() if pair]
        founds, raws = self._scoped.get_many(entries, [self.make_key(key, version) for key in outside])
        by_entry = dict(zip((id(entry) for entry in entries), founds, strict=True))
        plain = {k: self._decoded(raw) for k, raw in zip(outside, raws, strict=True) if raw is not None}
        result = {}
        for key in wanted:
            pair = found[key]
            if pair is None:
                if plain.get(key, _MISSING) is not _MISSING:
                    result[key] = plain[key]
            elif (read := by_entry[id(pair[1])]) is not None and read.state == "hit":
                result[key] = read.value
        return result

    def has_key(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Say whether a value is there. Cost: 1 round trip."""
        found = self._find(key, version)
        if found is None:
            return bool(self._outside("has_key", key, version=version, client=client))
        read = found[0].get(found[1])
        return read is not None and read.state == "hit"

    def ttl(self, key: Any, version: int | None = None, client: Any = None) -> int | None:
        """Return the seconds left, 0 if there is no value, None if it never expires."""
        left = self.pttl(key, version, client)
        return None if left is None else math.ceil(left / 1000)

    def pttl(self, key: Any, version: int | None = None, client: Any = None) -> int | None:
        """Return the ms left, 0 if there is no value, None if it never expires."""
        found = self._find(key, version)
        left = self._ask(lambda: found[0].store.remaining_ms(found[1]), None) if found else None
        if left is None:
            left = self._outside("pttl", key, otherwise=0, version=version, client=client)
            return None if left is None else int(left)
        return None if left < 0 else left

    @staticmethod
    def _ask(question: Callable[[], Any], otherwise: Any) -> Any:
        """Return the answer, or `otherwise` while the server is away."""
        try:
            return question()
        except (CacheAway, *AWAY):
            return otherwise

    # --- writing ----------------------------------------------------------------------------------------------------

    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        client: Any = None,
        nx: bool = False,
        xx: bool = False,
    ) -> bool:
        """
        Store a value; under the stamp that a `get` of this request saw, if there was one.

        Returns: whether it was stored. It is dropped if its stamp is gone, and in a transaction that has written.
        Cost:    1 round trip.
        """
        found = self._find(key, version)
        if found is None:
            return bool(self._outside("set", key, value, timeout, version=version, client=client, nx=nx, xx=xx))
        scoped, entry = found
        ttl_ms = self._ms(timeout)
        if ttl_ms < 0:
            return not self.has_key(key, version) if nx else self.delete(key, version)
        if nx:
            return self._stored(lambda: scoped.add(str(key), entry, value, ttl_ms))
        if xx:
            return self._stored(lambda: scoped.replace(str(key), entry, value, ttl_ms))
        return self._stored(lambda: scoped.set_many([(str(key), entry, value)], ttl_ms) == 1)

    @staticmethod
    def _stored(store_it: Callable[[], bool]) -> bool:
        try:
            return store_it()
        except UncacheableValue as error:
            raise error.__cause__ or error from error  # what django-redis would have raised

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None
    ) -> bool:
        """Store a value if there is none; return whether it was stored. Cost: 1 round trip."""
        found = self._find(key, version)
        if found is None:
            return bool(self._outside("add", key, value, timeout, version=version, client=client))
        ttl_ms = self._ms(timeout)
        if ttl_ms < 0:
            return not self.has_key(key, version)
        return self._stored(lambda: found[0].add(str(key), found[1], value, ttl_ms))

    def get_or_set(self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> Any:
        """Return the value, or store and return `default` (called if callable), fenced. Cost: 1 or 2 round trips."""
        value = self.get(key, _MISSING, version)
        if value is not _MISSING:
            return value
        value = default() if callable(default) else default
        self.set(key, value, timeout, version)
        return value

    def set_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None
    ) -> list[Any]:
        """Store values. Cost: 1 round trip, 1 more for keys without scope. Returns: [], as no key is at fault."""
        ttl_ms = self._ms(timeout)
        if ttl_ms < 0:
            self.delete_many(data, version)
            return []
        found = {key: self._find(key, version) for key in data}
        outside = {key: value for key, value in data.items() if found[key] is None}
        inside = [(str(key), pair[1], data[key]) for key, pair in found.items() if pair]
        if outside:
            self._outside("set_many", outside, timeout, version=version, client=client)
        if inside and self._scoped is not None:
            scoped = self._scoped
            self._stored(lambda: bool(scoped.set_many(inside, ttl_ms)))
        return []

    def incr(
        self, key: Any, delta: int = 1, version: int | None = None, client: Any = None, ignore_key_check: bool = False
    ) -> Any:
        """
        Add to a number, atomically for integers of 64 bits. Cost: 1 round trip.

        Raises:  ValueError if there is no value, or the server is away: it cannot be told apart.
        """
        found = self._find(key, version)
        if found is None:
            options = {"ignore_key_check": True} if ignore_key_check else {}
            value = self._outside("incr", key, delta, version=version, client=client, **options)
            if value is None:
                raise ValueError(f"Key {str(key)!r} not found")
            return value
        scoped, entry = found
        memory.forget(entry.key)
        try:
            value = scoped.store.incr(entry, delta)
        except CacheAway:
            value = None
        except OverflowError:
            value = "other"
        if isinstance(value, int):
            return value
        if value is None and ignore_key_check:
            self.set(key, delta, None, version)
            return delta
        held: Any = self.get(key, _MISSING, version) if value == "other" else _MISSING
        if held is _MISSING:
            raise ValueError(f"Key {str(key)!r} not found")
        left = self.pttl(key, version)
        self.set(key, held + delta, None if left is None else left / 1000, version)
        return held + delta

    def decr(self, key: Any, delta: int = 1, version: int | None = None, client: Any = None) -> Any:
        """Subtract from a number; see `incr`."""
        return self.incr(key, -delta, version, client)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, client: Any = None) -> bool:
        """Give a value a new timeout; return whether there is one. Cost: 1 round trip."""
        found = self._find(key, version)
        if found is None:
            return bool(self._outside("touch", key, timeout, version=version, client=client))
        ttl_ms = self._ms(timeout)
        if ttl_ms < 0:
            return self.delete(key, version)
        return bool(self._ask(lambda: found[0].store.touch(found[1], ttl_ms), False))

    def expire(self, key: Any, timeout: Any, version: int | None = None, client: Any = None) -> bool:
        """Let a value expire in `timeout` seconds (or a timedelta)."""
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        return self.pexpire(key, int(seconds * 1000), version, client)

    def pexpire(self, key: Any, timeout: Any, version: int | None = None, client: Any = None) -> bool:
        """Let a value expire in `timeout` ms (or a timedelta)."""
        ms = int(timeout.total_seconds() * 1000) if isinstance(timeout, timedelta) else int(timeout)
        if self._find(key, version) is not None and self.touch(key, ms / 1000, version):
            return True
        return bool(self._outside("pexpire", key, ms, version=version, client=client))

    def expire_at(self, key: Any, when: Any, version: int | None = None, client: Any = None) -> bool:
        """Let a value expire at a datetime or at seconds since 1970."""
        seconds = when.timestamp() if isinstance(when, datetime) else when
        return self.pexpire(key, int((seconds - time.time()) * 1000), version, client)

    def pexpire_at(self, key: Any, when: Any, version: int | None = None, client: Any = None) -> bool:
        """Let a value expire at a datetime or at ms since 1970."""
        ms = when.timestamp() * 1000 if isinstance(when, datetime) else when
        return self.pexpire(key, int(ms - time.time() * 1000), version, client)

    def persist(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Let a value never expire."""
        if self._find(key, version) is not None and self.touch(key, None, version):
            return True
        return bool(self._outside("persist", key, version=version, client=client))

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None, client: Any = None) -> int:
        """Move a value to another version. Cost: 3 round trips."""
        if self._find(key, version) is None:
            return int(super().incr_version(key, delta, version=version, client=client))
        return BaseCache.incr_version(self, key, delta, version)

    # --- deleting ---------------------------------------------------------------------------------------------------

    def delete(self, key: Any, version: int | None = None, client: Any = None) -> bool:
        """Delete one value and refuse fills of it under way; return whether there was one. Cost: 1 round trip."""
        return self.delete_many((key,), version, client) > 0

    def delete_many(self, keys: Iterable[Any], version: int | None = None, client: Any = None) -> int:
        """
        Delete values, now and again after the commit of an open transaction. Cost: 1 round trip.

        While the server is away, keys with a scope are recorded and deleted when it is back.
        """
        wanted = list(keys)
        scoped = self._scoped
        if scoped is None:
            return int(super().delete_many(wanted, version, client) or 0)
        entries, targets = [], []
        for key in wanted:
            if pair := self._find(key, version):
                entries.append(pair[1])
                targets.append(scoped.target(str(key), pair[1], version is None or version == self.version))
        transactions.defer(targets, "code", "")
        names = [key if isinstance(key, CacheKey) else self.make_key(key, version) for key in wanted]
        try:
            return scoped.delete_many(entries, names)
        except CacheAway:
            if targets:
                invalidation.request(targets)
            return 0

    def delete_pattern(
        self, pattern: str, version: int | None = None, prefix: str | None = None, client: Any = None, **options: Any
    ) -> int:
        """
        Delete the keys that match a glob, wherever they are; return how many. Cost: two SCANs.

        While the server is away it is recorded, and done when that is back.
        """
        if self._scoped is None or version not in (None, self.version) or prefix is not None:
            options.setdefault("itersize", self._default_scan_itersize)
            return int(super().delete_pattern(pattern, version=version, prefix=prefix, client=client, **options) or 0)
        target = Target("pattern", pattern, alias=self._alias)
        transactions.defer([target], "code", "")
        memory.forget_hits()
        try:
            return invalidation.sweep_patterns(self._scoped.store, {pattern}, exactly=True)
        except CacheAway:
            self._later(target)
            return 0

    def clear(self) -> None:
        """
        Delete every key of this alias, by its own prefix, never by FLUSHDB. Cost: one SCAN.

        In a transaction all scopes go once more after its commit. While the server is away it is recorded, and done
        when that is back.
        """
        memory.clear()
        memory.forget_hits()
        if self._scoped is None:
            super().clear()
            return
        transactions.defer([Target("tenant", alias=self._alias)], "code", "")  # others may fill until the commit
        try:
            self._scoped.store.clear()
        except CacheAway:
            self._later(Target("pattern", "*", alias=self._alias))

    @staticmethod
    def _later(target: Target) -> None:
        """Have done what an absent server did not do, when it is back. Raises: CacheAway if nobody keeps it."""
        result = invalidation.request([target])
        if result.state == "failed":
            raise CacheAway(result.error)

    # --- listing ----------------------------------------------------------------------------------------------------

    def keys(self, search: str = "*", version: int | None = None, client: Any = None) -> list[str]:
        """Return the keys that match a glob. Cost: one SCAN."""
        return list(self.iter_keys(search, version=version, client=client))

    def iter_keys(
        self, search: str = "*", itersize: int | None = None, client: Any = None, version: int | None = None
    ) -> Iterator[str]:
        """Yield the keys that match a glob, in no order. Cost: one SCAN. Entries of other versions are left out."""
        scoped, chosen = self._scoped, glob(search)
        if scoped is None or version not in (None, self.version):
            yield from super().iter_keys(search, itersize=itersize or 1000, client=client, version=version)
            return
        try:
            yield from self._found(scoped, chosen)
        except CacheAway as error:
            logger.warning("The keys cannot be listed: %s", error)

    @staticmethod
    def _found(scoped: ScopedKeys, chosen: re.Pattern[str]) -> Iterator[str]:
        for page in scoped.store.scan_raw():
            yield from (key for _, key in page if chosen.fullmatch(key))
        for found in scoped.store.scan_parsed("v"):
            abouts = scoped.store.abouts([name for name, parts in found if parts.is_digest])
            for name, parts in found:
                known = abouts.get(name, {}).get("key") if name in abouts else None
                key = known or logical(parts.tenant, parts.group, unescape(parts.member))
                if chosen.fullmatch(key):
                    yield key

    # --- async ------------------------------------------------------------------------------------------------------

    async def aget_many(self, *args: Any, **kwargs: Any) -> Any:
        """As `get_many`, for coroutines: one round trip."""
        return await sync_to_async(self.get_many, thread_sensitive=True)(*args, **kwargs)

    async def aset_many(self, *args: Any, **kwargs: Any) -> Any:
        """As `set_many`, for coroutines: one round trip."""
        return await sync_to_async(self.set_many, thread_sensitive=True)(*args, **kwargs)

    async def aincr(self, *args: Any, **kwargs: Any) -> Any:
        """As `incr`, for coroutines, and as atomic: Django's own is a `get` and a `set`."""
        return await sync_to_async(self.incr, thread_sensitive=True)(*args, **kwargs)

    async def adecr(self, *args: Any, **kwargs: Any) -> Any:
        """As `decr`, for coroutines."""
        return await sync_to_async(self.decr, thread_sensitive=True)(*args, **kwargs)

    async def aincr_version(self, *args: Any, **kwargs: Any) -> int:
        """As `incr_version`, for coroutines."""
        return await sync_to_async(self.incr_version, thread_sensitive=True)(*args, **kwargs)

    async def adelete_many(self, *args: Any, **kwargs: Any) -> int:
        """As `delete_many`, for coroutines: one round trip."""
        return await sync_to_async(self.delete_many, thread_sensitive=True)(*args, **kwargs)

    async def aget_or_set(
        self, key: Any, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> Any:
        """As `get_or_set`, for coroutines; `default` may be a coroutine function."""
        value = await self.aget(key, _MISSING, version)
        if value is not _MISSING:
            return value
        value = default() if callable(default) else default
        if inspect.isawaitable(value):
            value = await value
        await self.aset(key, value, timeout, version)
        return value
