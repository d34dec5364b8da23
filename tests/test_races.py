"""The promise, interleaving by interleaving: after an invalidation returned, nobody reads the old value."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.cache import caches

from cacheadmin import (
    ABSENT,
    cache_query_result,
    cache_tenant_query,
    get_or_set_cache,
    invalidate_cache,
    invalidate_tags,
    invalidate_tenant_cache,
)
from cacheadmin.functions import CachedFunction
from cacheadmin.store import store

pytestmark = pytest.mark.django_db


class Database:
    """One row whose value every write makes newer; `during` runs while a reader holds what it has read."""

    def __init__(self) -> None:
        self.version = 1
        self.reads = 0
        self.during: Callable[[], object] | None = None

    def read(self) -> int:
        self.reads += 1
        seen = self.version
        if self.during is not None:
            during, self.during = self.during, None
            during()
        return seen

    def write(self, invalidate: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            self.version += 1
            invalidate()

        return act


def cached(database: Database, **options: object) -> CachedFunction:
    @cache_tenant_query(timeout=60, key_prefix="stock", tags=["branch:{branch}"], **options)
    def stock(tenant_id: int, branch: int = 1) -> int:
        return database.read()

    return stock


INVALIDATIONS: dict[str, Callable[[CachedFunction], object]] = {
    "tenant": lambda f: invalidate_tenant_cache(7),
    "prefix": lambda f: invalidate_tenant_cache(7, prefix="sto"),
    "group of everybody": lambda f: f.invalidate_all(),
    "group": lambda f: f.invalidate_all(tenant=7),
    "tag": lambda f: invalidate_tags(7, "branch:1"),
    "entry": lambda f: f.invalidate(7),
    "entry by its key": lambda f: invalidate_cache(f.key(7)),
    "pattern": lambda f: invalidate_cache("*stoc?:*"),
    "clear": lambda f: caches["query"].clear(),
}


@pytest.mark.parametrize("flight", [True, False], ids=["leased", "unleased"])
@pytest.mark.parametrize("scope", INVALIDATIONS)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm before"])
def test_value_computed_before_an_invalidation_is_never_read_after_it(scope: str, flight: bool, warm: bool) -> None:
    database = Database()
    stock = cached(database, single_flight=flight)
    if warm:
        stock(7)
        stock.invalidate(7)
    database.during = database.write(lambda: INVALIDATIONS[scope](stock))
    assert stock(7) == 1, "the reader that raced keeps what it read"
    assert stock.peek(7) is ABSENT
    assert stock(7) == 2
    assert stock(7) == 2
    assert database.reads == (4 if warm else 3) - 1


@pytest.mark.parametrize("scope", INVALIDATIONS)
def test_refresh_does_not_bring_back_what_was_invalidated_meanwhile(scope: str) -> None:
    database = Database()
    stock = cached(database)
    stock(7)
    database.during = database.write(lambda: INVALIDATIONS[scope](stock))
    stock.refresh(7)
    assert stock(7) == 2


PLAIN = "tenant:7:stock:list"

PLAIN_INVALIDATIONS: dict[str, Callable[[], object]] = {
    "tenant": lambda: invalidate_tenant_cache(7),
    "prefix": lambda: invalidate_tenant_cache(7, prefix="stock"),
    "glob": lambda: invalidate_cache("stock:*"),
    "its key": lambda: invalidate_cache(PLAIN),
    "pattern": lambda: invalidate_cache("*lis?"),
}


@pytest.mark.parametrize("scope", PLAIN_INVALIDATIONS)
@pytest.mark.parametrize("write", ["set", "add", "set_many", "get_or_set"])
def test_plain_cache_aside_code_is_fenced_by_what_its_get_saw(scope: str, write: str) -> None:
    cache, database = caches["query"], Database()
    database.during = database.write(PLAIN_INVALIDATIONS[scope])
    if write == "get_or_set":
        assert cache.get_or_set(PLAIN, database.read) == 1
    else:
        assert cache.get(PLAIN) is None
        value = database.read()
        {
            "set": lambda: cache.set(PLAIN, value),
            "add": lambda: cache.add(PLAIN, value),
            "set_many": lambda: cache.set_many({PLAIN: value}),
        }[write]()
    assert cache.get(PLAIN) is None
    cache.set(PLAIN, database.version)
    assert cache.get(PLAIN) == 2


def test_plain_get_of_another_thread_does_not_unfence_the_set_of_this_one() -> None:
    cache = caches["query"]
    assert cache.get(PLAIN) is None
    invalidate_tenant_cache(7)
    other = threading.Thread(target=lambda: caches["query"].get(PLAIN))
    other.start()
    other.join()
    cache.set(PLAIN, "old")
    assert cache.get(PLAIN) is None


def test_own_delete_between_get_and_set_lets_the_set_through() -> None:
    cache = caches["query"]
    cache.get(PLAIN)
    cache.delete(PLAIN)
    cache.set(PLAIN, "new")
    assert cache.get(PLAIN) == "new"


def test_get_or_set_by_key_is_fenced_too() -> None:
    database = Database()
    database.during = database.write(lambda: invalidate_tenant_cache(7))
    assert get_or_set_cache(PLAIN, database.read, alias="query") == 1
    assert get_or_set_cache(PLAIN, database.read, alias="query") == 2


def test_losing_any_one_key_at_any_moment_costs_misses_only(redis) -> None:
    """Every key of ours, lost before the invalidation, between compute and fill, and after the invalidation."""
    client = store("query").link

    def names() -> list[bytes]:
        return sorted(client.call(("KEYS", "*")).values[0])

    def fresh() -> tuple[Database, CachedFunction]:
        redis.flushall()
        database = Database()
        return database, cached(database)

    database, stock = fresh()
    stock(7)
    caches["query"].get("tenant:7:stock:plain")  # makes the fence
    kinds = len(names())
    assert kinds >= 6
    for scope in ("tenant", "prefix", "group", "tag", "entry"):
        for moment in ("before", "computing", "after"):
            for victim in range(kinds + 1):
                database, stock = fresh()
                stock(7)
                caches["query"].get("tenant:7:stock:plain")

                def lose(victim: int = victim) -> None:
                    held = names()
                    if victim < len(held):
                        client.call(("UNLINK", held[victim]))

                def invalidate(stock: CachedFunction = stock, scope: str = scope) -> None:
                    INVALIDATIONS[scope](stock)

                if moment == "before":
                    lose()
                    database.write(invalidate)()
                elif moment == "computing":
                    stock.invalidate(7)

                    def act(database: Database = database, lose: Callable = lose, go: Callable = invalidate) -> None:
                        database.write(go)()
                        lose()

                    database.during = act
                    stock(7)
                else:
                    database.write(invalidate)()
                    lose()
                assert stock(7) == 2, (scope, moment, victim)
                assert stock(7) == 2, (scope, moment, victim)


def test_prefix_widens_to_the_tenant_when_its_registry_is_lost(redis) -> None:
    database = Database()
    stock = cached(database)
    stock(7)
    where = store("query")
    where.link.call(("UNLINK", where.place("7").registry()))
    database.write(lambda: invalidate_tenant_cache(7, prefix="stock"))()
    assert stock(7) == 2


def test_prefix_reaches_a_group_that_outlived_a_tenant_invalidation(redis) -> None:
    database = Database()
    stock = cached(database)
    stock(7)
    invalidate_tenant_cache(7)

    @cache_tenant_query(key_prefix="other")
    def other(tenant_id: int) -> int:
        return 0

    other(7)  # makes a new tenant epoch and registry; the old epoch of `stock` is still there
    stock(7)
    database.write(lambda: invalidate_tenant_cache(7, prefix="stock"))()
    assert stock(7) == 2


def test_grace_serves_stale_while_one_recomputes_and_never_past_an_invalidation() -> None:
    database = Database()

    @cache_tenant_query(timeout=0.05, key_prefix="graceful", grace=30)
    def graceful(tenant_id: int) -> int:
        return database.read()

    assert graceful(7) == 1
    time.sleep(0.08)
    database.version = 2
    served: list[int] = []
    database.during = lambda: served.append(graceful(8)) or served.append(_in_thread(lambda: graceful(7)))
    assert graceful(7) == 2, "the one who got the lease computes"
    assert served[1] == 1, "the others are served the stale value"
    time.sleep(0.08)
    database.write(lambda: graceful.invalidate_all(tenant=7))()
    database.during = lambda: served.append(_in_thread(lambda: graceful.peek(7)))
    assert graceful(7) == 3
    assert served[-1] is ABSENT


def _in_thread(call: Callable[[], object]) -> object:
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


def test_outer_value_is_not_made_of_inner_places_that_are_invalidated_after_it() -> None:
    database = Database()

    @cache_tenant_query(timeout=60, key_prefix="outer", alias="query")
    def outer(tenant_id: int) -> int:
        return inner(tenant_id)

    @cache_tenant_query(timeout=60, key_prefix="inner", alias="default")
    def inner(tenant_id: int) -> int:
        return database.read()

    inner(7)
    database.version = 2
    assert outer(7) == 2, "`default` ranks above `query`: it is not read while a value of `query` is computed"
    assert inner(7) == 1


def test_outer_value_may_be_made_of_lower_places_and_of_its_own() -> None:
    database = Database()

    @cache_query_result(timeout=60, key_prefix="rates", alias="query", shared=True)
    def rates() -> int:
        return database.read()

    @cache_tenant_query(timeout=60, key_prefix="prices", alias="query")
    def prices(tenant_id: int) -> int:
        return rates()

    @cache_tenant_query(timeout=60, key_prefix="page", alias="template")
    def page(tenant_id: int) -> int:
        return prices(tenant_id)

    rates()
    database.version = 2
    assert page(7) == 1
    assert database.reads == 1


@pytest.mark.usefixtures("nobody_waits")
def test_function_that_calls_itself_does_not_wait_for_its_own_lease() -> None:
    depth: list[int] = []

    @cache_tenant_query(timeout=60, key_prefix="recursive")
    def recursive(tenant_id: int) -> int:
        depth.append(1)
        return recursive(tenant_id) if len(depth) < 3 else 1

    assert recursive(7) == 1


@pytest.mark.usefixtures("nobody_waits")
def test_holder_that_fails_gives_its_lease_back_at_once() -> None:
    @cache_tenant_query(timeout=60, key_prefix="failing")
    def failing(tenant_id: int, fail: bool = False) -> int:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            failing(7)


WORKER = """
    import os, sys, time
    sys.path[:0] = {path!r}
    import django
    from django.conf import settings
    settings.configure(
        SECRET_KEY="x",
        CACHES={{"query": {{"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": {url!r}}}}},
        DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
        CACHEADMIN={{"TIMEOUT_MS": 10_000, "SLOW_MS": 5_000, "PATIENCE_SECONDS": 20.0}},  # the machine may be busy
    )
    django.setup()
    from cacheadmin import cache_tenant_query

    @cache_tenant_query(timeout=60, key_prefix="slow")
    def slow(tenant_id, key):
        with open({log!r}, "a") as log:
            log.write(f"{{key}}\\n")
        time.sleep(0.5)
        return key

    sys.stdout.write("ready\\n")
    sys.stdout.flush()
    for line in sys.stdin:
        slow(1, line.strip())
        sys.stdout.write("done\\n")
        sys.stdout.flush()
"""


def test_eight_processes_on_a_cold_key_compute_it_about_once(redis_server, tmp_path: Path) -> None:
    log, root = tmp_path / "computed", Path(__file__).parents[1]
    log.touch()
    code = textwrap.dedent(WORKER).format(path=[str(root)], url=redis_server.url_for(1), log=str(log))
    workers = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    rounds = 5
    try:
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for key in range(rounds):
            for worker in workers:
                worker.stdin.write(f"key{key}\n")
                worker.stdin.flush()
            for worker in workers:
                assert worker.stdout.readline() == "done\n"
    finally:
        for worker in workers:
            worker.stdin.close()
            worker.wait(timeout=60)
            worker.stdout.close()
    computed = len(log.read_text().splitlines())
    assert rounds <= computed <= 1.2 * rounds
