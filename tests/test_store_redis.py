"""What the Redis store costs, survives and refuses, against real servers."""

from __future__ import annotations

import pickle
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py
from django.core.cache import caches
from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from cacheadmin import (
    ABSENT,
    browser,
    cache_tenant_query,
    get_tenant_cache_key,
    invalidate_tags,
    invalidate_tenant_cache,
)
from cacheadmin.connections import Link, identity_of, link
from cacheadmin.connections.lines import Line
from cacheadmin.exceptions import CacheAway, CacheSkipped, UncacheableValue
from cacheadmin.keys import Entry
from cacheadmin.stats import recorder
from cacheadmin.store import ABSENT as NOTHING
from cacheadmin.store import BUSY, Fill, store
from faults.waits import Sleeper

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _identity_known() -> None:
    """Ask the identity now, so that the INFO of a new connection stays out of the counts."""
    for alias in ("query", "default"):
        store(alias).link.call(("PING",))


def listing(flight: bool = True, calls: list[int] | None = None):
    @cache_tenant_query(timeout=60, key_prefix="listing", single_flight=flight, tags=["branch:{branch}"])
    def numbers(tenant_id: int, branch: int = 1) -> list[int]:
        if calls is not None:
            calls.append(branch)
        return [branch]

    return numbers


# --- cost -----------------------------------------------------------------------------------------------------------


def test_hit_is_one_round_trip_and_one_mget(round_trips) -> None:
    numbers = listing()
    numbers(1)
    with round_trips() as sent:
        assert numbers(1) == [1]
    assert sent == ["MGET"]


def test_leased_miss_is_three_round_trips(round_trips) -> None:
    numbers = listing()
    numbers(1)  # the scripts are loaded now
    with round_trips() as sent:
        numbers(1, 2)
    assert sent == ["MGET", "EVALSHA", "EVALSHA"]


def test_lease_under_standing_epochs_needs_no_script(round_trips) -> None:
    numbers, where = listing(), store("query")
    numbers(1)
    where.link.call(("UNLINK", numbers.entry(1).key))
    with round_trips() as sent:
        numbers(1)
    assert sent == ["MGET", "SET ZSCORE", "EVALSHA"]


def test_unleased_miss_is_two_round_trips_once_fence_and_epochs_stand(round_trips) -> None:
    numbers = listing(flight=False)
    numbers(1)
    numbers.invalidate_all(tenant=2)
    with round_trips() as sent:
        numbers(1, branch=1)
    assert sent == ["MGET"]
    caches["query"].delete(numbers.key(1))
    with round_trips() as sent:
        numbers(1)
    assert sent == ["MGET", "EVALSHA", "EVALSHA"], "the delete took the fence along"
    where = store("query")
    where.link.call(("UNLINK", numbers.entry(1).key))
    with round_trips() as sent:
        numbers(1)
    assert sent == ["MGET", "EVALSHA"]


def test_plain_hit_is_one_round_trip_and_a_key_without_scope_one_command(round_trips) -> None:
    cache = caches["query"]
    cache.set("tenant:1:list:a", 1)
    cache.set("plain", 2)
    cache.get("tenant:1:list:a")
    with round_trips() as sent:
        assert cache.get("tenant:1:list:a") == 1
        assert cache.get("plain") == 2
    assert sent == ["MGET", "MGET"]


def test_many_keys_across_tenants_and_groups_are_one_round_trip(round_trips) -> None:
    cache = caches["query"]
    keys = [f"tenant:{tenant}:{group}:{i}" for tenant in (1, 2) for group in ("a", "b") for i in range(5)]
    cache.get_many(keys)
    cache.set_many(dict.fromkeys(keys, 1))
    with round_trips() as sent:
        assert cache.get_many(keys) == dict.fromkeys(keys, 1)
    assert sent == ["MGET MGET"]
    with round_trips() as sent:
        cache.set_many(dict.fromkeys(keys, 2))
    assert len(sent) == 1


@pytest.mark.parametrize("entries", [10, 100_000])
def test_invalidating_a_group_is_the_same_command_however_many_entries(entries: int, redis, commandstats) -> None:
    numbers, where = listing(), store("query")
    numbers(1)
    group = where.place("1").group("listing")
    with _client(redis, 1) as client:
        pipe = client.pipeline(transaction=False)
        for i in range(entries):
            pipe.set(f"{group.values}{i}", "x")
            if i % 10_000 == 9_999:
                pipe.execute()
        pipe.execute()
    with commandstats() as calls:
        numbers.invalidate_all(tenant=1)
    assert calls == {"unlink": 1, "echo": 1}
    assert numbers.peek(1) is ABSENT


@pytest.mark.slow
def test_a_million_other_keys_change_no_count(fresh_server, commandstats) -> None:
    server = fresh_server(args=("--maxmemory", "1gb", "--enable-debug-command", "local"))
    with on(server), redis_py.Redis.from_url(server.url_for(1)) as client:
        numbers, asked = listing(), []
        for keys in (10_000, 1_000_000):
            client.execute_command("DEBUG", "POPULATE", keys, "filler", 10)
            assert client.dbsize() >= keys
            for branch in range(60):
                numbers(1, branch)
            browser.entries("query", "1", "listing", limit=50)  # the script is loaded now
            store("query").link.call(("PING",))
            with commandstats(client) as invalidating:
                numbers.invalidate_all(tenant=1)
            with commandstats(client) as browsing:
                page = browser.entries("query", "1", "listing", limit=50)
            assert len(page.rows) == 50
            asked.append(
                (invalidating, {name: n for name, n in browsing.items() if name in ("evalsha", "mget", "scan")})
            )
        assert asked[0] == asked[1]
        assert asked[0][0] == {"unlink": 1, "echo": 1}
        assert sum(asked[0][1].values()) <= 3
        assert "scan" not in asked[0][1]


def _client(redis: redis_py.Redis, db: int) -> redis_py.Redis:
    kwargs = dict(redis.connection_pool.connection_kwargs) | {"db": db}
    return redis_py.Redis(connection_pool=redis_py.ConnectionPool(redis.connection_pool.connection_class, **kwargs))


def test_several_scopes_of_a_place_go_in_one_command(commandstats) -> None:
    numbers = listing()
    numbers(1)
    with commandstats() as calls:
        invalidate_tags(1, "branch:1", "branch:2", "branch:3", alias="query")
    assert calls == {"unlink": 1, "echo": 1}


def test_prefix_costs_one_script_more(commandstats) -> None:
    listing()(1)
    invalidate_tenant_cache(2, "list", alias="query")
    with commandstats() as calls:
        invalidate_tenant_cache(1, "list", alias="query")
    assert {name: calls[name] for name in ("evalsha", "unlink", "echo")} == {"evalsha": 1, "unlink": 1, "echo": 1}


def test_all_keys_of_a_place_fall_into_one_cluster_slot(redis) -> None:
    for tenant in ("1", "a b{c}", "{", "}", "né\n", "x" * 5000):
        redis.flushall()
        numbers = listing()
        numbers(tenant)
        cache = caches["query"]
        key = get_tenant_cache_key(tenant, "plain:{group}", 1)
        cache.get(key)
        cache.set(key, 1)
        with _client(redis, 1) as client:
            names = client.keys("*")
            assert len(names) >= 9
            assert len({key_slot(name) for name in names}) == 1


def test_index_costs_little_memory(redis) -> None:
    """At most 60 bytes an entry in groups up to 128, 160 beyond (a listpack becomes a skiplist)."""
    where = store("query")
    for size, limit in ((100, 60), (1000, 160)):
        redis.flushall()
        numbers = listing()
        for branch in range(size):
            numbers(1, branch)
        group = where.place("1").group("listing")
        with _client(redis, 1) as client:
            assert client.memory_usage(group.index, samples=0) / size <= limit


def test_fill_prunes_members_whose_values_are_gone(redis) -> None:
    numbers, where = listing(), store("query")
    for branch in range(40):
        numbers(1, branch)
    group = where.place("1").group("listing")
    with _client(redis, 1) as client:
        for name in client.keys(group.values + "*"):
            client.delete(name)
        for branch in range(100, 500):
            numbers(1, branch)
        assert client.zcard(group.index) < 400 + 20


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "", [], {}, False, 1.5, b"\x00", 2**62, -1, 2**70, {"a": [1, {"b": None}]}])
def test_any_value_comes_back_as_it_was(value: object) -> None:
    calls: list[int] = []

    @cache_tenant_query(timeout=60, key_prefix="values")
    def values(tenant_id: int) -> object:
        calls.append(1)
        return value

    values(1)
    assert values(1) == value
    assert type(values(1)) is type(value)
    assert calls == [1]


@pytest.mark.usefixtures("nobody_waits")
def test_what_can_be_read_only_once_is_refused_and_no_lease_stays(tmp_path) -> None:
    with (tmp_path / "file").open("w+") as file:

        @cache_tenant_query(timeout=60, key_prefix="once")
        def once(tenant_id: int, what: str) -> object:
            return (x for x in [1]) if what == "generator" else file

        for what in ("generator", "file"):
            for _ in range(2):
                with pytest.raises(UncacheableValue, match="read only once"):
                    once(1, what)


def test_too_large_value_is_returned_and_not_stored() -> None:
    @cache_tenant_query(timeout=60, key_prefix="large", max_value_bytes=100)
    def large(tenant_id: int) -> str:
        return "x" * 200

    assert large(1) == "x" * 200
    assert large.peek(1) is ABSENT


@override_settings(CACHEADMIN={"SIGN_VALUES": True, "TENANCY": "shop.cache.Tenancy"})
def test_signed_value_is_not_unpickled_when_it_was_changed(redis) -> None:
    numbers = listing()
    numbers(1)
    assert numbers.peek(1) == [1]
    with _client(redis, 1) as client:
        name = numbers.entry(1).key
        stored = client.get(name)
        assert stored.endswith(pickle.dumps([1], 5)) or pickle.dumps([1])[-4:] in stored
        client.set(name, stored[:-1] + b"X")
    assert numbers.peek(1) is ABSENT
    cache = caches["query"]
    cache.set("tenant:1:signed:a", {"b": 1})
    assert cache.get("tenant:1:signed:a") == {"b": 1}


@override_settings(CACHEADMIN={"SIGN_VALUES": True, "TENANCY": "shop.cache.Tenancy"})
def test_integers_are_read_and_counted_on_where_values_are_signed() -> None:
    @cache_tenant_query(timeout=60, key_prefix="signed_number")
    def number(tenant_id: int) -> int:
        return 7

    assert (number(1), number.peek(1)) == (7, 7)
    cache = caches["query"]
    cache.set("tenant:1:signed:n", 5)
    cache.set_many({"tenant:1:signed:m": -6})
    assert cache.get_many(["tenant:1:signed:n", "tenant:1:signed:m"]) == {
        "tenant:1:signed:n": 5,
        "tenant:1:signed:m": -6,
    }
    assert (cache.incr("tenant:1:signed:n"), cache.get("tenant:1:signed:n")) == (6, 6)


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """A flipped bit can make a pickle ask for any amount of memory: let that fail as it would on a real host."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@settings(
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(data=st.data())
def test_mutated_value_is_a_miss_never_an_exception(data: st.DataObject, bounded_memory: None) -> None:
    where = store("query")
    entry = Entry(where.place("1").group("fuzz"), "m")
    stamp = where.open(entry, "take", ttl_ms=60_000, lease_ms=60_000)
    assert where.fill(Fill(entry, stamp, where.encode({"a": [1, 2, "three"]}), 60_000, {"fn": "f"}))
    sound = where.link.call(("GET", entry.key)).values[0]
    stored = bytearray(sound)
    position = data.draw(st.integers(0, len(stored) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if kind == "flip":
        stored[position] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del stored[position:]
    else:
        stored[position:position] = data.draw(st.binary(min_size=1, max_size=40))
    where.link.call(("SET", entry.key, bytes(stored)))
    found = where.read(entry)
    assert found.state in ("hit", "miss")
    if stored[:51] != sound[:51]:  # all of it up to the epochs
        assert found.state == "miss"


def test_key_of_a_wrong_type_is_a_miss_and_is_overwritten(redis) -> None:
    numbers = listing()
    entry = numbers.entry(1)
    group = entry.group
    with _client(redis, 1) as client:
        for name in (
            entry.key,
            group.tenant_epoch,
            group.epoch,
            group.registry,
            group.index,
            entry.lease,
            entry.epochs()[2],
        ):
            client.flushdb()
            client.rpush(name, "x")
            assert numbers(1) == [1], name
            assert numbers(1) == [1], name


def test_reply_meant_for_another_key_is_a_miss(redis, caplog) -> None:
    numbers = listing()
    numbers(1, 1)
    numbers(2, 1)
    with _client(redis, 1) as client:
        client.copy(numbers.entry(2, 1).key, numbers.entry(1, 1).key, replace=True)
    assert numbers.peek(1, 1) is ABSENT
    assert "another key" in caplog.text


# --- servers --------------------------------------------------------------------------------------------------------


def on(server, **options) -> override_settings:
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "KEY_PREFIX": "t", "TIMEOUT": 60}
    caches_ = {alias: backend | {"LOCATION": server.url_for(i)} for i, alias in enumerate(("default", "query"))}
    return override_settings(
        CACHES=caches_, CACHEADMIN={"TENANCY": "shop.cache.Tenancy", "TIMEOUT_MS": 2000, **options}
    )


def test_full_server_refuses_fills_and_still_invalidates(fresh_server) -> None:
    server = fresh_server(args=("--maxmemory-policy", "noeviction"))
    with on(server):
        calls: list[int] = []
        numbers = listing(calls=calls)
        numbers(1)
        with redis_py.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", "1")
            with pytest.raises(redis_py.ResponseError, match="maxmemory"):
                client.set("a", "b")
        assert numbers(1) == [1]
        assert numbers(1, 2) == [2]
        assert numbers(1, 2) == [2]
        assert calls == [1, 2, 2], "a new value is refused, quietly"
        assert invalidate_tenant_cache(1).is_done
        assert numbers.peek(1) is ABSENT
        assert numbers(1) == [1]
        assert caches["query"].set("tenant:1:x:y", 1) is False
        assert caches["query"].get("tenant:1:x:y") is None


def test_a_server_that_is_full_when_the_value_comes_is_counted_as_full(fresh_server, monkeypatch) -> None:
    server, reasons = fresh_server(args=("--maxmemory-policy", "noeviction")), []
    monkeypatch.setattr(recorder, "refused", lambda *told: reasons.append(told[-1]))
    with on(server), redis_py.Redis.from_url(server.url) as client:

        @cache_tenant_query(timeout=60, key_prefix="filling")
        def filling(tenant_id: int) -> int:
            client.config_set("maxmemory", "1")
            return 1

        assert filling(1) == 1
        assert reasons == ["full"]
        assert filling.peek(1) is ABSENT


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-ttl"])
def test_eviction_never_leaves_a_stale_value(policy: str, fresh_server) -> None:
    server = fresh_server(args=("--maxmemory", "4mb", "--maxmemory-policy", policy))
    with on(server):
        versions = dict.fromkeys(range(60), 1)

        @cache_tenant_query(timeout=60, key_prefix="evicted", tags=["row:{row}"])
        def evicted(tenant_id: int, row: int) -> tuple[int, str]:
            return versions[row], "x" * 2000

        with redis_py.Redis.from_url(server.url) as client:
            for turn in range(6):
                for row in versions:
                    evicted(1, row)
                    client.set(f"filler{turn}:{row}", b"x" * 15_000, ex=100)
                for row in range(0, 60, 3):
                    versions[row] += 1
                    [lambda r=row: evicted.invalidate(1, r), lambda r=row: invalidate_tags(1, f"row:{r}")][row % 2]()
                for row in versions:
                    assert evicted(1, row)[0] == versions[row]
            assert client.info("stats")["evicted_keys"] > 0


def test_restarted_server_starts_cold_even_with_its_old_data(fresh_server, tmp_path) -> None:
    server = fresh_server(directory=tmp_path / "one")
    with on(server):
        numbers = listing()
        numbers(1)
        identity = store("query").link.identity
        with redis_py.Redis.from_url(server.url_for(1)) as client:
            dump = {name: client.dump(name) for name in client.keys("*")}
        server.stop()
        again = fresh_server(directory=tmp_path / "two", port=server.port)
        with redis_py.Redis.from_url(again.url_for(1)) as client:
            for name, data in dump.items():
                client.restore(name, 0, data)
        time.sleep(1.2)
        assert numbers.peek(1) is ABSENT
        assert store("query").link.identity != identity


def test_identity_names_server_and_reign() -> None:
    def sections(run: str, reign: str) -> list[bytes]:
        return [f"# Server\r\nrun_id:{run}\r\n".encode(), f"role:master\r\nmaster_replid:{reign}\r\n".encode()]

    first = identity_of(sections("a", "1"))
    assert len(first) == 8
    assert identity_of(sections("a", "1")) == first
    assert len({first, identity_of(sections("a", "2")), identity_of(sections("b", "1"))}) == 3
    assert identity_of([b"", b""]) == bytes(8)
    with pytest.raises(redis_py.ConnectionError):
        identity_of([b"run_id:a\r\n", b"role:slave\r\nmaster_replid:1\r\n"])


def test_hung_server_costs_one_timeout_and_then_nothing(fresh_server, monkeypatch) -> None:
    server, timeouts, asked = fresh_server(), [], []
    failed, exchange = Link._failed, Line.exchange
    monkeypatch.setattr(Link, "_failed", lambda self, error: timeouts.append(error) or failed(self, error))
    monkeypatch.setattr(Line, "exchange", lambda *told: asked.append(told) or exchange(*told))
    with on(server, TIMEOUT_MS=1000, RETRY_SECONDS=3600.0):
        calls: list[int] = []
        numbers = listing(calls=calls)
        numbers(1)
        asked.clear()
        server.pause()
        try:
            with Sleeper() as sleeper:
                begun = time.monotonic()
                assert numbers(1) == [1]
                ended = time.monotonic()
            assert 1.0 <= ended - begun < 2.0 + sleeper.late_ms(begun, ended) / 1000
            assert ([type(error) for error in timeouts], len(asked)) == ([redis_py.TimeoutError], 1)
            for _ in range(20):
                assert numbers(1) == [1]
            with pytest.raises(CacheSkipped):
                store("query").link.call(("PING",))
            assert (len(timeouts), len(asked), len(calls)) == (1, 1, 22)
        finally:
            server.resume()
    with on(server, TIMEOUT_MS=10_000):
        assert numbers(1) == [1]
        assert len(calls) == 22, "the value survived, and it is read again"


def test_dead_server_breaks_nothing_and_says_so(fresh_server) -> None:
    server = fresh_server()
    with on(server, OUTBOX="off"):
        numbers, cache = listing(), caches["query"]
        numbers(1)
        cache.set("a:b", 1)
        server.kill()
        assert numbers(1) == [1]
        assert cache.get("a:b", "default") == "default"
        assert cache.get_many(["a:b", "plain"]) == {}
        assert cache.set("a:b", 2) is False
        assert cache.add("a:b", 2) is False
        assert cache.get("plain") is None
        with pytest.raises(ValueError, match="a:b"):
            cache.incr("a:b")
        assert not invalidate_tenant_cache(1).is_done
        assert "does not answer" in invalidate_tenant_cache(1).error or "away" in invalidate_tenant_cache(1).error
        with pytest.raises(CacheAway):
            link("query").call(("PING",))


def test_password_stands_in_no_error(fresh_server) -> None:
    server = fresh_server()
    with redis_py.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "s3cret")
    url = server.url_for(1).replace("redis://", "redis://:wr0ng@")
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": url}
    with override_settings(CACHES={"default": backend, "query": backend}):
        with pytest.raises(CacheAway) as caught:
            link("query").call(("PING",))
        assert "wr0ng" not in str(caught.value)
        assert "wr0ng" not in repr(link("query"))


# --- leases ---------------------------------------------------------------------------------------------------------


def test_lease_is_granted_once_joined_and_taken() -> None:
    where = store("query")
    entry = Entry(where.place("1").group("leases"), "m")
    first = where.open(entry, "ask", ttl_ms=60_000, lease_ms=60_000)
    assert where.open(entry, "ask", ttl_ms=60_000, lease_ms=60_000) is BUSY
    assert where.open(entry, "join", ttl_ms=60_000, lease_ms=60_000) == first
    taken = where.open(entry, "take", ttl_ms=60_000, lease_ms=60_000)
    assert taken.token != first.token
    assert not where.fill(Fill(entry, first, where.encode(1), 60_000, {}))
    assert where.fill(Fill(entry, taken, where.encode(2), 60_000, {}))
    assert not where.fill(Fill(entry, taken, where.encode(3), 60_000, {})), "the lease ended with the fill"
    assert where.read(entry).value == 2


def test_lease_of_dead_epochs_is_granted_anew() -> None:
    where = store("query")
    entry = Entry(where.place("1").group("leases"), "m")
    where.open(entry, "ask", ttl_ms=60_000, lease_ms=60_000)
    invalidate_tenant_cache(1)
    assert where.open(entry, "ask", ttl_ms=60_000, lease_ms=60_000) is not BUSY


def test_epochs_outlive_the_longest_entry(redis) -> None:
    where = store("query")
    group = where.place("1").group("life")
    with _client(redis, 1) as client:
        for ttl_ms in (1_000, 50_000_000, 2_000):
            entry = Entry(group, f"m{ttl_ms}")
            stamp = where.open(entry, "ask", ttl_ms=ttl_ms, lease_ms=60_000)
            where.fill(Fill(entry, stamp, where.encode(1), ttl_ms, {}))
        for name in (group.tenant_epoch, group.epoch, group.registry, group.index):
            assert client.pttl(name) > 50_000_000, name
        entry = Entry(group, "forever")
        stamp = where.open(entry, "ask", ttl_ms=0, lease_ms=60_000)
        where.fill(Fill(entry, stamp, where.encode(1), 0, {}))
        for name in (group.tenant_epoch, group.epoch, group.registry, group.index, entry.key):
            assert client.pttl(name) == -1, name


# --- reclaiming -----------------------------------------------------------------------------------------------------


def test_reclaim_frees_orphans_and_keeps_what_is_valid(redis) -> None:
    numbers, where = listing(), store("query")
    for branch in range(500):
        numbers(1, branch)
    numbers.invalidate_all(tenant=1)
    group = where.place("1").group("listing")
    for branch in range(10):
        numbers(1, branch)
    aside = where.set_aside(group)
    numbers(1, 1000)
    assert where.reclaim(group, aside, 0, 300) == (300, 300)
    assert where.reclaim(group, aside, 300, 300) == (190, 0)
    assert numbers.peek(1, 3) == [3]
    with _client(redis, 1) as client:
        assert client.zcard(group.index) == 11
        assert not client.exists(aside)


def test_nothing_is_stored_for_a_place_that_was_only_read(redis) -> None:
    where = store("query")
    entry = Entry(where.place("1").group("quiet"), "m")
    assert where.read(entry).value is NOTHING
    with _client(redis, 1) as client:
        assert client.dbsize() == 0
