"""Our backend keeps the promises of Django's caches and of django-redis, with and without a scope in the key."""

from __future__ import annotations

import threading
import time

import pytest
from cache_contract import CacheContract, RedisExtras
from django.core.cache import caches
from django.core.signals import request_started
from django.test import override_settings
from django_prometheus.cache import metrics

from cacheadmin import invalidate_tenant_cache
from cacheadmin.backends import RedisCache

pytestmark = pytest.mark.django_db


class TestStockBackend(CacheContract, RedisExtras):
    """The control: what fails here is no promise of django-redis."""

    prefix = "stock:"

    @pytest.fixture
    def cache(self, redis_server):
        backend = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis_server.url_for(1), "KEY_PREFIX": "c"}
        with override_settings(CACHES={"default": backend}):
            yield caches["default"]


class TestKeysOfATenant(CacheContract, RedisExtras):
    prefix = "tenant:1:group:"

    @pytest.fixture
    def cache(self):
        assert isinstance(caches["query"], RedisCache)
        return caches["query"]


class TestSharedKeys(CacheContract, RedisExtras):
    prefix = "group:below:"

    @pytest.fixture
    def cache(self):
        return caches["query"]


class TestKeysWithoutScope(CacheContract, RedisExtras):
    @pytest.fixture
    def cache(self):
        return caches["query"]


class TestUnmanagedAlias(CacheContract, RedisExtras):
    prefix = "tenant:1:group:"

    @pytest.fixture
    def cache(self, redis_server):
        ours = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url_for(1)}
        other = ours | {"LOCATION": redis_server.url_for(2), "KEY_PREFIX": "other"}
        with override_settings(CACHES={"default": ours, "other": other}, CACHEADMIN={"ALIASES": ["default"]}):
            yield caches["other"]


def test_clear_leaves_other_prefixes_alone(redis, redis_server, commandstats) -> None:
    ours = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url, "KEY_PREFIX": "a"}
    with override_settings(
        CACHES={"default": ours, "b": ours | {"KEY_PREFIX": "b"}, "ab": ours | {"KEY_PREFIX": "ab"}}
    ):
        redis.set("session", "x")
        for alias in ("default", "b", "ab"):
            caches[alias].set_many({"plain": 1, "tenant:1:group:x": 2})
        with commandstats() as calls:
            caches["default"].clear()
        assert not {"flushdb", "flushall", "keys"} & set(calls)
        assert caches["default"].get_many(["plain", "tenant:1:group:x"]) == {}
        for alias in ("b", "ab"):
            assert caches[alias].get_many(["plain", "tenant:1:group:x"]) == {"plain": 1, "tenant:1:group:x": 2}
        assert redis.get("session") == b"x"


def test_counters_of_django_prometheus_keep_counting() -> None:
    def now() -> list[float]:
        names = ("get_total", "hits_total", "misses_total", "get_fail_total")
        return [getattr(metrics, f"django_cache_{n}").labels(backend="redis")._value.get() for n in names]

    cache, before = caches["query"], now()
    for key in ("tenant:1:group:x", "plain"):
        cache.get(key)
        cache.set(key, None)
        cache.get(key)
    assert [a - b for a, b in zip(now(), before, strict=True)] == [4, 2, 2, 0]


def test_incr_is_atomic_across_threads() -> None:
    key = "tenant:1:count:visits"
    caches["query"].set(key, 0, None)
    threads = [threading.Thread(target=lambda: [caches["query"].incr(key) for _ in range(50)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caches["query"].get(key) == 300


def test_ambiguous_tenant_in_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="get_tenant_cache_key"):
        caches["query"].get("tenant:%41:group:x")


def test_request_forgets_its_stamps() -> None:
    cache = caches["query"]
    assert cache.get("tenant:1:group:x") is None
    invalidate_tenant_cache(1)
    request_started.send(RedisCache)
    cache.set("tenant:1:group:x", 1)
    assert cache.get("tenant:1:group:x") == 1


def test_keys_without_scope_wait_for_a_hung_server_once(fresh_server) -> None:
    server = fresh_server()
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": server.url, "TIMEOUT": 60}
    with override_settings(CACHES={"default": backend}, CACHEADMIN={"TIMEOUT_MS": 100}):
        cache = caches["default"]
        cache.set("sessionid", 1)
        assert cache.get("sessionid") == 1
        server.pause()
        try:
            started = time.monotonic()
            assert [cache.get("sessionid"), cache.set("sessionid", 2), cache.add("other", 2)] == [None, False, False]
            assert [cache.has_key("sessionid"), cache.touch("sessionid"), cache.ttl("sessionid")] == [False, False, 0]
            assert [cache.delete("sessionid"), cache.set_many({"other": 2}), cache.keys("*")] == [False, [], []]
            with pytest.raises(ValueError, match="not found"):
                cache.incr("sessionid")
            assert time.monotonic() - started < 4, "django-redis' own connections wait for 5 seconds, each time"
        finally:
            server.resume()
