"""What any Django cache promises, as a mixin: the suite runs it on our backend and on the stock one."""

from __future__ import annotations

import contextlib
import copy
import pickle
import time
from collections.abc import Callable

import pytest
from asgiref.sync import async_to_sync
from django.core.cache.backends.base import BaseCache

KEYS = ("apple", "berry", "citrus")


def longest_in_time(succeeds: Callable[[float], bool]) -> float:
    """Do what must be done before some seconds are over, and return how many they were; once more where they were."""
    for seconds in (0.1, 1.0, 10.0):
        begun = time.monotonic()
        if succeeds(seconds):
            return seconds
        assert time.monotonic() - begun > seconds, "it was done in time, and failed"
    raise AssertionError("Ten seconds are not enough.")


class Unpicklable:
    """A value that refuses to be pickled."""

    def __reduce__(self) -> str:
        raise pickle.PicklingError("not me")


class CacheContract:
    """Tests of `django.core.cache.backends.base.BaseCache`'s promises. A subclass gives `cache` and how keys look."""

    prefix = ""

    @pytest.fixture
    def cache(self) -> BaseCache:
        raise NotImplementedError

    def key(self, name: str) -> str:
        return self.prefix + name

    # --- get, set, add ----------------------------------------------------------------------------------------------

    def test_value_comes_back(self, cache: BaseCache) -> None:
        for value in ("text", 1, 1.5, True, None, b"\x00", [1], {"a": {"b": 2}}, "ünï", (1, 2)):
            cache.set(self.key("v"), value)
            assert cache.get(self.key("v"), "default") == value

    def test_absent_key_gives_the_default(self, cache: BaseCache) -> None:
        assert cache.get(self.key("gone")) is None
        assert cache.get(self.key("gone"), "bang") == "bang"

    def test_value_is_a_copy(self, cache: BaseCache) -> None:
        value = {"list": [1]}
        cache.set(self.key("v"), value)
        before = copy.deepcopy(value)
        cache.get(self.key("v"))["list"].append(2)
        assert cache.get(self.key("v")) == before

    def test_add_stores_only_what_is_absent(self, cache: BaseCache) -> None:
        assert cache.add(self.key("a"), 1) is True
        assert cache.add(self.key("a"), 2) is False
        assert cache.get(self.key("a")) == 1

    def test_prefixes_of_keys_do_not_meet(self, cache: BaseCache) -> None:
        cache.set(self.key("a"), 1)
        assert cache.get(self.key("ab")) is None
        assert cache.get(self.key("")) is None

    def test_unicode_long_and_odd_keys(self, cache: BaseCache) -> None:
        for name in ("ключ", "a b\n", "x" * 4000, "a*?[b]\\", "{tag}", "%41", "~x"):
            cache.set(self.key(name), name)
            assert cache.get(self.key(name)) == name
        assert cache.get(self.key("A")) is None

    def test_has_key_and_in(self, cache: BaseCache) -> None:
        cache.set(self.key("a"), None)
        assert cache.has_key(self.key("a"))
        assert self.key("a") in cache
        assert not cache.has_key(self.key("b"))
        assert self.key("b") not in cache

    def test_unpicklable_value_raises_and_stores_nothing(self, cache: BaseCache) -> None:
        with pytest.raises(pickle.PickleError):
            cache.set(self.key("u"), Unpicklable())
        with pytest.raises(pickle.PickleError):
            cache.add(self.key("u"), Unpicklable())
        assert cache.get(self.key("u")) is None

    # --- timeouts ---------------------------------------------------------------------------------------------------

    def test_value_expires(self, cache: BaseCache) -> None:
        cache.set(self.key("short"), 1, 0.05)
        cache.add(self.key("short2"), 1, 0.05)
        cache.set_many({self.key("short3"): 1}, 0.05)
        cache.set(self.key("long"), 1, 100)
        cache.set(self.key("ever"), 1, None)
        time.sleep(0.1)
        assert [cache.get(self.key(k)) for k in ("short", "short2", "short3", "long", "ever")] == [
            None,
            None,
            None,
            1,
            1,
        ]

    @pytest.mark.parametrize("timeout", [0, -1])
    def test_timeout_zero_stores_nothing(self, cache: BaseCache, timeout: int) -> None:
        cache.set(self.key("a"), 1)
        cache.set(self.key("a"), 2, timeout)
        assert cache.get(self.key("a")) is None
        assert cache.add(self.key("b"), 2, timeout) is True
        assert cache.get(self.key("b")) is None
        cache.set_many({self.key("c"): 1}, timeout)
        assert cache.get(self.key("c")) is None

    def test_touch(self, cache: BaseCache) -> None:
        def touched(seconds: float) -> bool:
            cache.set(self.key("a"), 1, seconds)
            return cache.touch(self.key("a"), 100)

        time.sleep(2 * longest_in_time(touched))
        assert cache.get(self.key("a")) == 1
        assert cache.touch(self.key("gone")) is False
        assert cache.touch(self.key("a"), 0) is True
        assert cache.get(self.key("a")) is None

    # --- delete, clear ----------------------------------------------------------------------------------------------

    def test_delete(self, cache: BaseCache) -> None:
        cache.set_many({self.key(name): name for name in KEYS})
        assert cache.delete(self.key("apple")) is True
        assert cache.delete(self.key("apple")) is False
        assert cache.get(self.key("apple")) is None
        cache.delete_many([self.key("berry"), self.key("gone")])
        assert cache.get(self.key("berry")) is None
        assert cache.get(self.key("citrus")) == "citrus"

    def test_clear(self, cache: BaseCache) -> None:
        cache.set_many({self.key(name): name for name in KEYS})
        cache.clear()
        assert cache.get_many([self.key(name) for name in KEYS]) == {}

    # --- many -------------------------------------------------------------------------------------------------------

    def test_many(self, cache: BaseCache) -> None:
        data = {self.key(name): name for name in KEYS}
        assert not cache.set_many(data)
        assert cache.get_many([*data, self.key("gone")]) == data
        assert cache.get_many([]) == {}
        cache.set_many({})
        cache.delete_many([])

    # --- counting ---------------------------------------------------------------------------------------------------

    def test_incr_and_decr(self, cache: BaseCache) -> None:
        cache.set(self.key("n"), 41)
        assert cache.incr(self.key("n")) == 42
        assert cache.incr(self.key("n"), 10) == 52
        assert cache.decr(self.key("n"), 50) == 2
        assert cache.decr(self.key("n"), 5) == -3
        assert cache.get(self.key("n")) == -3
        for call in (cache.incr, cache.decr):
            with pytest.raises(ValueError, match="not found"):
                call(self.key("gone"))

    def test_incr_keeps_the_timeout_and_passes_64_bits(self, cache: BaseCache) -> None:
        def counted(seconds: float) -> bool:
            cache.set(self.key("n"), 1, seconds)
            with contextlib.suppress(ValueError):
                return cache.incr(self.key("n")) == 2
            return False

        time.sleep(1.5 * longest_in_time(counted))
        assert cache.get(self.key("n")) is None
        cache.set(self.key("big"), 2**63 - 1, 100)
        assert cache.incr(self.key("big")) == 2**63
        assert cache.get(self.key("big")) == 2**63

    # --- versions ---------------------------------------------------------------------------------------------------

    def test_versions_do_not_meet(self, cache: BaseCache) -> None:
        key = self.key("v")
        cache.set(key, "one")
        cache.set(key, "two", version=2)
        assert (cache.get(key), cache.get(key, version=1), cache.get(key, version=2)) == ("one", "one", "two")
        assert cache.get_many([key], version=2) == {key: "two"}
        assert cache.add(key, "x", version=2) is False
        assert cache.has_key(key, version=2)
        assert cache.touch(key, 500, version=2)
        cache.delete(key, version=2)
        assert (cache.get(key), cache.get(key, version=2)) == ("one", None)

    def test_incr_version_and_decr_version(self, cache: BaseCache) -> None:
        key = self.key("v")
        cache.set(key, 42, version=2)
        assert cache.incr_version(key, version=2) == 3
        assert (cache.get(key, version=2), cache.get(key, version=3)) == (None, 42)
        assert cache.decr_version(key, version=3) == 2
        assert cache.get(key, version=2) == 42
        with pytest.raises(ValueError, match="not found"):
            cache.incr_version(self.key("gone"))

    # --- get_or_set -------------------------------------------------------------------------------------------------

    def test_get_or_set(self, cache: BaseCache) -> None:
        assert cache.get_or_set(self.key("a"), 1) == 1
        assert cache.get_or_set(self.key("a"), 2) == 1
        assert cache.get_or_set(self.key("b"), lambda: 3) == 3
        assert cache.get_or_set(self.key("b"), lambda: 4) == 3
        assert cache.get_or_set(self.key("c"), 1, version=5) == 1
        assert cache.get(self.key("c")) is None

    # --- async ------------------------------------------------------------------------------------------------------

    def test_async(self, cache: BaseCache) -> None:
        async_to_sync(self._async)(cache)

    async def _async(self, cache: BaseCache) -> None:
        key, other = self.key("a"), self.key("b")
        await cache.aset(key, 1)
        assert await cache.aget(key) == 1
        assert await cache.aadd(key, 2) is False
        assert await cache.aget_or_set(other, lambda: 5) == 5
        assert await cache.aget_many([key, other]) == {key: 1, other: 5}
        await cache.aset_many({key: 3})
        assert await cache.aincr(key) == 4
        assert await cache.ahas_key(key)
        assert await cache.atouch(key, 100)
        assert await cache.adelete(key)
        await cache.adelete_many([other])
        assert await cache.aget(other, "d") == "d"
        await cache.aclear()


class RedisExtras:
    """What django-redis adds."""

    def test_ttl(self, cache) -> None:
        cache.set(self.key("a"), 1, 100)
        assert 60 <= cache.ttl(self.key("a")) <= 100
        assert 60_000 <= cache.pttl(self.key("a")) <= 100_000
        cache.set(self.key("ever"), 1, None)
        assert cache.ttl(self.key("ever")) is None
        assert cache.ttl(self.key("gone")) == 0

    def test_expire_and_persist(self, cache) -> None:
        cache.set(self.key("a"), 1, None)
        assert cache.expire(self.key("a"), 500) is True
        assert 400 < cache.ttl(self.key("a")) <= 500
        assert cache.pexpire(self.key("a"), 200_000) is True
        assert 100 < cache.ttl(self.key("a")) <= 200
        assert cache.expire_at(self.key("a"), int(time.time()) + 300) is True
        assert 200 < cache.ttl(self.key("a")) <= 301
        assert cache.pexpire_at(self.key("a"), int((time.time() + 400) * 1000)) is True
        assert 301 < cache.ttl(self.key("a")) <= 401
        assert cache.persist(self.key("a")) is True
        assert cache.ttl(self.key("a")) is None
        assert cache.expire(self.key("gone"), 5) is False
        assert cache.persist(self.key("gone")) is False

    def test_nx_and_xx(self, cache) -> None:
        assert not cache.set(self.key("a"), 1, xx=True)
        assert cache.set(self.key("a"), 2, nx=True)
        assert not cache.set(self.key("a"), 3, nx=True)
        assert cache.set(self.key("a"), 4, xx=True)
        assert cache.get(self.key("a")) == 4

    def test_keys_and_delete_pattern(self, cache) -> None:
        names = {self.key(name) for name in ("foo-aa", "foo-ab", "foo-b", "x" * 50)}
        for name in names:
            cache.set(name, 1)
        assert set(cache.keys("*")) == names
        assert set(cache.iter_keys(self.key("foo-a*"))) == {self.key("foo-aa"), self.key("foo-ab")}
        assert set(cache.keys(self.key("foo-?"))) == {self.key("foo-b")}
        assert cache.delete_pattern(self.key("foo-a*"), itersize=100) == 2
        assert set(cache.keys("*")) == {self.key("foo-b"), self.key("x" * 50)}
        assert cache.delete_pattern(self.key("xxx*")) == 1
        assert not cache.delete_pattern("*nothing*")

    def test_lock_and_data_structures(self, cache) -> None:
        with cache.lock(self.key("lock"), timeout=60) as lock:
            assert lock.owned()
        cache.sadd(self.key("set"), "a", "b")
        assert cache.scard(self.key("set")) == 2
        assert cache.delete(self.key("set")) is True
        assert cache.scard(self.key("set")) == 0

    def test_incr_of_an_absent_key_may_be_asked_for(self, cache) -> None:
        assert cache.incr(self.key("n"), 3, ignore_key_check=True) == 3
        assert cache.get(self.key("n")) == 3
