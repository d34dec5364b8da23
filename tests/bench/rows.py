"""What is measured: each row compares two or more ways to do the same work, round by round in shuffled order."""

from __future__ import annotations

import pickle
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import django
import redis
from django.conf import settings
from django.core.cache import caches
from django.core.management import call_command

from cacheadmin.signals import cache_read

ROUNDS, CALLS = 60, 100


@dataclass(slots=True)
class Row:
    """One comparison. `ratio` is the median of the ratios within rounds."""

    name: str
    against: str
    ratio: float
    target: str = ""
    is_met: bool | None = None
    round_trips: str = ""
    notes: str = ""
    others: dict[str, float] = field(default_factory=dict)


def prepare() -> None:
    """Set Django up and make the tables."""
    django.setup()
    call_command("migrate", verbosity=0)
    cache_read.receivers.clear()  # the shop listens, to show on its pages what was cached
    cache_read.sender_receivers_cache.clear()


def interleaved(ways: dict[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return seconds a call of each way, one figure a round; the ways of a round run right after each other."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            way = ways[name]
            begun = time.perf_counter()
            for _ in range(calls):
                way()
            taken[name].append((time.perf_counter() - begun) / calls)
    return taken


def ratio(taken: dict[str, list[float]], name: str, against: str) -> float:
    """Return the median of the ratios within rounds."""
    return statistics.median(a / b for a, b in zip(taken[name], taken[against], strict=True))


@contextmanager
def commands() -> Iterator[dict[str, int]]:
    """Yield a dict that holds, after the block, how often the server ran each command."""
    client = _client(0)
    client.config_resetstat()
    told: dict[str, int] = {}
    yield told
    ignored = ("info", "config|resetstat", "client|setinfo", "client|setname", "select", "hello", "ping", "config|get")
    stats = client.info("commandstats")
    told.update({k.removeprefix("cmdstat_"): v["calls"] for k, v in stats.items() if k[8:] not in ignored})


def _client(db: int) -> redis.Redis:
    return redis.Redis.from_url(f"{settings.REDIS}/{db}")


def _shown(told: dict[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(told.items()))


def value_of(size: int) -> list[dict[str, Any]]:
    """Return rows as a query would, about `size` bytes when pickled."""
    return [{"id": i, "sku": f"RG-{i:05d}", "name": "Ruby halo ring", "qty": i % 9} for i in range(size // 34)]


def run(*, quick: bool) -> list[Row]:
    """Measure everything. Takes about a minute and a half; some seconds if quick."""
    rounds = 6 if quick else ROUNDS
    found: list[Row] = []
    for size, limit in ((1_000, 1.20), (50_000, 1.15)):
        found += hits(size, limit, rounds)
    found.append(counting(rounds))
    found += misses(rounds)
    found += drops([10_000] if quick else [10_000, 100_000])
    found += memory([100] if quick else [100, 1_000])
    found += browsing([10_000] if quick else [10_000, 100_000], rounds)
    found += saves(rounds)
    return found


def _met(row: Row, limit: float) -> Row:
    row.is_met = row.ratio <= limit
    return row


# --- reading --------------------------------------------------------------------------------------------------------


def hits(size: int, limit: float, rounds: int) -> list[Row]:
    from cache_memoize import cache_memoize

    from cacheadmin import cache_tenant_query

    value = value_of(size)
    label = f"{len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)) / 1000:.0f} kB"
    raw = _client(8)
    raw.set("k", pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    for alias in ("django_redis", "prometheus"):
        caches[alias].set("tenant:1:list:a", value)
    caches["query"].set("tenant:1:list:a", value)

    @cache_tenant_query(timeout=3600, key_prefix=f"bench_{size}")
    def ours(tenant_id: int, branch_id: int | None = None, year: int = 2024) -> object:
        return value

    @cache_memoize(3600, prefix=f"memoize{size}", cache_alias="memoize")
    def memoized(tenant_id: int, branch_id: int | None = None, year: int = 2024) -> object:
        return value

    ways: dict[str, Callable[[], object]] = {
        "raw": lambda: pickle.loads(raw.get("k")),
        "django_redis": lambda: caches["django_redis"].get("tenant:1:list:a"),
        "prometheus": lambda: caches["prometheus"].get("tenant:1:list:a"),
        "ours": lambda: caches["query"].get("tenant:1:list:a"),
        "decorated": lambda: ours(1, 5),
        "memoize": lambda: memoized(1, 5),
    }
    taken = interleaved(ways, rounds, CALLS)
    with commands() as told:
        ours(1, 5)
    backend = Row(
        f"hit through the backend, {label}",
        "django-redis `cache.get`",
        ratio(taken, "ours", "django_redis"),
        f"≤ {limit:.2f}",
        round_trips=f"1 ({_shown(told)})",
        others={
            "django_prometheus": ratio(taken, "prometheus", "django_redis"),
            "raw GET": ratio(taken, "raw", "django_redis"),
        },
    )
    decorated = Row(
        f"hit of a decorated function, {label}",
        "django-cache-memoize",
        ratio(taken, "decorated", "memoize"),
        "≤ 1.10",
        round_trips=f"1 ({_shown(told)})",
        others={"raw GET + unpickle = 1": ratio(taken, "decorated", "raw")},
    )
    return [_met(backend, limit), _met(decorated, 1.10)]


def counting(rounds: int) -> Row:
    """What one call of the recorder takes, against a whole hit."""
    from cacheadmin import cache_tenant_query
    from cacheadmin.stats import recorder

    @cache_tenant_query(timeout=3600, key_prefix="bench_counting")
    def ours(tenant_id: int) -> object:
        return 1

    ours(1)
    ways = {"hit": lambda: ours(1), "count": lambda: recorder.read("query", "bench_counting", "1", "hit", 40_000)}
    taken = interleaved(ways, rounds, CALLS)
    return _met(Row("counting a hit", "the whole hit", ratio(taken, "count", "hit"), "≤ 0.02"), 0.02)


def misses(rounds: int) -> list[Row]:
    from cacheadmin import cache_tenant_query

    value, numbers = value_of(1_000), count()

    @cache_tenant_query(timeout=3600, key_prefix="bench_leased")
    def leased(tenant_id: int, number: int) -> object:
        return value

    @cache_tenant_query(timeout=3600, key_prefix="bench_unleased", single_flight=False)
    def unleased(tenant_id: int, number: int) -> object:
        return value

    peer = caches["django_redis"]

    def get_and_set() -> None:
        key = f"k:{next(numbers)}"
        if peer.get(key) is None:
            peer.set(key, value)

    ways: dict[str, Callable[[], object]] = {
        "get_set": get_and_set,
        "leased": lambda: leased(1, next(numbers)),
        "unleased": lambda: unleased(1, next(numbers)),
    }
    taken = interleaved(ways, rounds, CALLS // 2)
    with commands() as told:
        leased(1, next(numbers))
    with commands() as told_unleased:
        unleased(1, next(numbers))
    sent = {k: v for k, v in told.items() if k in ("mget", "evalsha")}
    return [
        _met(
            Row(
                "miss with a lease",
                "django-redis get + set",
                ratio(taken, "leased", "get_set"),
                "≤ 1.80",
                round_trips="3",
                notes=f"evalsha {sent.get('evalsha', 0)}, the rest inside scripts",
            ),
            1.80,
        ),
        _met(
            Row(
                "miss without a lease",
                "django-redis get + set",
                ratio(taken, "unleased", "get_set"),
                "≤ 1.25",
                round_trips="2",
                notes=f"evalsha {told_unleased.get('evalsha', 0)}",
            ),
            1.25,
        ),
    ]


# --- invalidating ---------------------------------------------------------------------------------------------------


def drops(sizes: list[int]) -> list[Row]:
    from cacheadmin import cache_tenant_query, invalidate_tenant_cache
    from cacheadmin.store import store

    found = []
    for size in sizes:
        for db in (1, 5):
            _client(db).flushdb()

        @cache_tenant_query(timeout=3600, key_prefix="bench_drop")
        def ours(tenant_id: int) -> int:
            return 1

        fill = _client(1).pipeline(transaction=False)
        group = store("query").place("2").group("bench_drop")
        for i in range(size):
            fill.set(f"{group.values}{i}", b"x" * 100)
            if i % 5_000 == 4_999:
                fill.execute()
        fill.execute()
        peer = caches["django_redis"]
        taken: dict[str, list[float]] = {"ours": [], "pattern": []}
        for _ in range(5):
            for start in range(0, size, 5_000):
                peer.set_many({f"tenant:{'1' if i < 1_000 else '2'}:list:{i}": 1 for i in range(start, start + 5_000)})
            begun = time.perf_counter()
            peer.delete_pattern("tenant:1:*", itersize=1000)
            taken["pattern"].append(time.perf_counter() - begun)
            asked = []
            for _ in range(20):
                ours(1)
                begun = time.perf_counter()
                invalidate_tenant_cache(1, alias="query")
                asked.append(time.perf_counter() - begun)
            taken["ours"].append(statistics.median(asked))
        with commands() as told:
            invalidate_tenant_cache(1, alias="query")
        faster = statistics.median(b / a for a, b in zip(taken["ours"], taken["pattern"], strict=True))
        row = Row(
            f"drop a tenant among {size:,} keys",
            "`delete_pattern(itersize=1000)`",
            1 / faster,
            "≥ 200 times faster" if size >= 100_000 else "",
            round_trips=f"1 ({_shown(told)})",
            notes=f"{faster:,.0f} times faster",
        )
        if size >= 100_000:
            row.is_met = faster >= 200
        found.append(row)
    return found


# --- memory and pages -----------------------------------------------------------------------------------------------


def memory(sizes: list[int]) -> list[Row]:
    from cacheadmin import cache_tenant_query
    from cacheadmin.store import store

    found = []
    for size in sizes:
        _client(1).flushdb()

        @cache_tenant_query(timeout=3600, key_prefix="bench_memory")
        def ours(tenant_id: int, number: int) -> int:
            return 1

        for number in range(size):
            ours(1, number)
        index = store("query").place("1").group("bench_memory").index
        used, limit = _client(1).memory_usage(index, samples=0) / size, 60 if size <= 128 else 160
        found.append(Row(f"index bytes an entry, group of {size:,}", "bytes", used, f"≤ {limit}", used <= limit))
    return found


def browsing(sizes: list[int], rounds: int) -> list[Row]:
    from cacheadmin import browser, cache_tenant_query

    taken: dict[int, float] = {}
    for size in sizes:
        _client(1).flushdb()

        @cache_tenant_query(timeout=3600, key_prefix="bench_browse")
        def ours(tenant_id: int, number: int) -> int:
            return 1

        for number in range(200):
            ours(1, number)
        fill = _client(1).pipeline(transaction=False)
        for i in range(size):
            fill.set(f"filler:{i}", b"x")
            if i % 5_000 == 4_999:
                fill.execute()
        fill.execute()
        page = lambda: browser.entries("query", "1", "bench_browse", limit=50)  # noqa: E731
        page()
        figures = []
        for _ in range(rounds):
            begun = time.perf_counter()
            page()
            figures.append(time.perf_counter() - begun)
        taken[size] = statistics.median(figures)
    with commands() as told:
        page()
    small, large = taken[sizes[0]], taken[sizes[-1]]
    shown = _shown({k: v for k, v in told.items() if k in ("evalsha", "mget", "scan", "keys")})
    row = Row(
        f"first page of 50 entries, {sizes[-1]:,} keys",
        f"the same at {sizes[0]:,} keys",
        large / small,
        "≤ 1.50",
        round_trips=f"at most 2 ({shown})",
        notes=f"{large * 1000:.1f} ms",
    )
    return [_met(row, 1.5)]


def saves(rounds: int) -> list[Row]:
    from django.test import override_settings

    from shop.models import Branch, Category, InventoryItem, Tenant

    tenant = Tenant.objects.create(name="Bench", slug="bench")
    branch = Branch.objects.create(tenant=tenant, name="One")
    category = Category.objects.create(tenant=tenant, name="Rings")
    item = InventoryItem.objects.create(
        tenant=tenant, branch=branch, category=category, sku="a", name="b", price=1, quantity=1, weight=1
    )
    from cacheadmin import writes

    def saved() -> None:
        item.quantity += 1
        item.save()

    found = []
    for outbox in ("on_failure", "durable"):
        taken: dict[str, list[float]] = {"plain": [], "mapped": []}
        with override_settings(CACHEADMIN=settings.CACHEADMIN | {"OUTBOX": outbox}):
            saved()
            for _ in range(rounds):
                for name in random.sample(["plain", "mapped"], 2):
                    if name == "plain":
                        writes.uninstall()
                    try:
                        begun = time.perf_counter()
                        for _ in range(20):
                            saved()
                        taken[name].append((time.perf_counter() - begun) / 20)
                    finally:
                        if name == "plain":
                            writes.install()
        found.append(
            Row(
                f"`save()` of a mapped model, OUTBOX {outbox}",
                "plain `save()`",
                ratio(taken, "mapped", "plain"),
                notes="SQLite in memory; the shop's rules name several groups in four aliases",
            )
        )
    return found
