"""Our backend keeps the promises of Django's caches and of django-redis, with and without a scope in the key."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from cache_contract import CacheContract, RedisExtras
from django.core.cache import caches
from django.core.signals import request_started
from django.db import connections, transaction
from django.test import override_settings
from django_prometheus.cache import metrics

from cacheadmin import invalidate_tenant_cache
from cacheadmin.backends import RedisCache
from cacheadmin.connections import Gate, Replies, forget_links, link
from cacheadmin.connections.links import Link
from cacheadmin.stats import recorder
from cacheadmin.store import store
from faults.proxy import Proxy
from faults.waits import Sleeper

pytestmark = pytest.mark.django_db


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
            with Sleeper() as sleeper:
                begun = time.monotonic()
                assert [cache.get("sessionid"), cache.set("sessionid", 2), cache.add("other", 2)] == [
                    None,
                    False,
                    False,
                ]
                assert [cache.has_key("sessionid"), cache.touch("sessionid")] == [False, False]
                assert [cache.ttl("sessionid"), cache.delete("sessionid"), cache.set_many({"other": 2})] == [
                    0,
                    False,
                    [],
                ]
                assert cache.keys("*") == []
                with pytest.raises(ValueError, match="not found"):
                    cache.incr("sessionid")
                ended = time.monotonic()
            waited = ended - begun - sleeper.late_ms(begun, ended) / 1000
            assert waited < 4, "django-redis' own connections wait for 5 seconds, each time"
        finally:
            server.resume()


# --- what reaches callers when the server does not do as it should -------------------------------------------------


def calls_of(cache: RedisCache) -> dict[str, Callable[[], object]]:
    """Everything that a site may ask, but for counting, whose ValueError is Django's."""
    key = "tenant:1:group:x"
    return {
        "get": lambda: cache.get(key),
        "get_many": lambda: cache.get_many([key, "plain"]),
        "get of a plain key": lambda: cache.get("plain"),
        "has_key": lambda: cache.has_key(key),
        "ttl": lambda: cache.ttl(key),
        "ttl of a plain key": lambda: cache.ttl("plain"),
        "touch": lambda: cache.touch(key, 5),
        "expire": lambda: cache.expire(key, 5),
        "persist": lambda: cache.persist(key),
        "set": lambda: cache.set(key, 1),
        "set of a plain key": lambda: cache.set("plain", 1),
        "set nx": lambda: cache.set(key, 1, nx=True),
        "set xx": lambda: cache.set(key, 1, xx=True),
        "set_many": lambda: cache.set_many({key: 1, "plain": 1}),
        "add": lambda: cache.add(key, 1),
        "get_or_set": lambda: cache.get_or_set(key, 1),
        "keys": lambda: cache.keys("*"),
        "delete": lambda: cache.delete(key),
        "delete_many": lambda: cache.delete_many([key, "plain"]),
        "delete_pattern": lambda: cache.delete_pattern("group:*"),
        "clear": lambda: cache.clear(),
    }


def test_commands_that_the_server_refuses_raise_nothing(redis, redis_server) -> None:
    redis.execute_command(
        "ACL", "SETUSER", "nobody", "on", ">secret", "~*", "&*", "-@all", "+info", "+client", "+select"
    )
    options = {"USERNAME": "nobody", "PASSWORD": "secret"}
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url, "OPTIONS": options}
    try:
        with override_settings(CACHES={"default": backend}):
            cache = caches["default"]
            for call in calls_of(cache).values():
                call()
            with pytest.raises(ValueError, match="not found"):
                cache.incr("tenant:1:group:x")
    finally:
        redis.execute_command("ACL", "DELUSER", "nobody")


def test_replies_to_somebody_elses_questions_raise_nothing_where_a_key_has_a_scope(monkeypatch) -> None:
    exchange, cache = Link._exchange, caches["query"]
    said: list[object] = []
    for odd in (1, [1, 2], [b"a"], b"OK", [b"a"] * 9):
        for name, call in calls_of(cache).items():
            cache.set("tenant:1:group:x", 1)

            def shifted(self: Link, line: Any, commands: Any, odd: object = odd) -> Replies:
                return exchange(self, line, commands)._replace(values=[odd for _ in commands])

            with monkeypatch.context() as patch:
                patch.setattr(Link, "_exchange", shifted)
                try:
                    call()
                except TypeError:
                    # Sound keys alone are ours to judge; django-redis trusts what it reads.
                    if "ttl" not in name:
                        said.append((odd, name))
    assert said == []


def test_what_cannot_be_deleted_now_is_deleted_when_the_server_is_back(redis_server) -> None:
    wire = Proxy(redis_server.port)
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": f"redis://127.0.0.1:{wire.port}", "TIMEOUT": 60}
    with override_settings(CACHES={"default": backend}, CACHEADMIN={"RETRY_SECONDS": 0.05}):
        cache = caches["default"]
        for forget in (lambda: cache.delete_pattern("group:*"), cache.clear):
            assert cache.set("group:x", 1)
            wire.set("refused")
            try:
                assert cache.get("group:x") is None
                forget()
            finally:
                wire.set("open")
            wait_until(lambda: link("default").gate is Gate.UP or cache.get("other:x"))
            assert cache.get("group:x") is None
        forget_links()
    wire.close()


@pytest.mark.django_db(transaction=True)
def test_clear_in_a_transaction_also_drops_what_others_filled_before_its_commit() -> None:
    cache = caches["query"]

    def fill() -> None:
        cache.get("group:x")
        cache.set("group:x", "old")
        connections.close_all()

    with transaction.atomic():
        cache.clear()
        other = threading.Thread(target=fill)
        other.start()
        other.join()
        assert cache.get("group:x") == "old"
    assert cache.get("group:x") is None


def test_groups_may_hold_any_text() -> None:
    cache = caches["query"]
    for key in ("gr\ud800up:x", "gr\udcffup:x", "\0:x", "tenant:\ud800:gr\ud800up:x"):
        assert cache.get(key) is None
        assert cache.set(key, key)
        assert cache.get(key) == key
    assert "gr\ud800up" in store("query").known_groups(store("query").place(None))
    assert invalidate_tenant_cache("\ud800", "gr").is_done
    assert cache.get("tenant:\ud800:gr\ud800up:x") is None
    assert cache.delete("gr\ud800up:x")
    recorder.flush()


def test_coroutines_count_atomically_too() -> None:
    cache, key = caches["query"], "tenant:1:group:n"
    cache.set(key, 0, 500)

    async def count() -> None:
        await asyncio.gather(*(cache.aincr(key, 2) for _ in range(20)), *(cache.adecr(key) for _ in range(20)))

    asyncio.run(count())
    assert cache.get(key) == 20
    assert cache.ttl(key) > 400
