"""A server that is full: it evicts what it likes, or refuses to write."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import redis
from django.conf import settings
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import Target, cache_tenant_query, memory
from cacheadmin.invalidation import request
from cacheadmin.stats import INDEX, recorder
from faults import Asked, Outcome, site
from server import Server

POLICIES = ("allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl", "noeviction")
MEMORY = "4mb"
TENANTS = range(1, 5)
ITEMS = range(80)
VALUE_BYTES = 6000
TOO_BIG_BYTES = 20_000
MOST_BYTES = 10_000
"""`MAX_VALUE_BYTES` of the site."""
READERS = 3
ENOUGH = 9_000
"""Reads under one policy after which it can be seen what was stored."""


class Data:
    """What is cached: a version an item. `floor` is the one whose invalidation has returned last."""

    versions: dict[tuple[int, int], int]
    floors: dict[tuple[int, int], int]


def value_of(tenant: int, item: int) -> tuple[int, bytes]:
    """Return what stands now; it takes a moment, so that writes fall between reading and storing."""
    seen = Data.versions[tenant, item]
    time.sleep(0.0005)
    return seen, bytes(TOO_BIG_BYTES if item == ITEMS[-1] else VALUE_BYTES)


@cache_tenant_query(timeout=600, key_prefix="part", tags=["branch:{item}"])
def leased(tenant_id: int, item: int) -> tuple[int, bytes]:
    return value_of(tenant_id, item)


@cache_tenant_query(timeout=300, key_prefix="partly", single_flight=False)
def unleased(tenant_id: int, item: int) -> tuple[int, bytes]:
    return value_of(tenant_id, item)


@cache_tenant_query(timeout=None, key_prefix="parted")
def lasting(tenant_id: int, item: int) -> tuple[int, bytes]:
    return value_of(tenant_id, item)


def plain(tenant: int, item: int) -> tuple[int, bytes]:
    """Read as hand-written code does."""
    memory.clear()  # each read is a request of its own
    cache, key = caches["query"], f"tenant:{tenant}:plain:{item}"
    value = cache.get(key)
    if value is None:
        value = value_of(tenant, item)
        cache.set(key, value, 600)
    return value


KINDS: tuple[Callable[[int, int], tuple[int, bytes]], ...] = (leased, unleased, lasting, plain)
GROUPS = ("part", "partly", "parted", "plain")


def eviction(asked: Asked) -> Outcome:
    """Read and write `count` times under each policy, on a server too small for it all."""
    outcome = Outcome()
    for number, policy in enumerate(POLICIES):
        with Server.start(args=("--maxmemory", MEMORY, "--maxmemory-policy", policy)) as server:
            one_policy(outcome, asked, random.Random(asked.seed + number), server, policy)
        if asked.stops_at_first and outcome.is_broken:
            break
    return outcome


def one_policy(outcome: Outcome, asked: Asked, chance: random.Random, server: Server, policy: str) -> None:
    """Let readers and a writer at a server."""
    CACHES = {alias: settings.CACHES[alias] | {"LOCATION": server.url_for(n)} for n, alias in enumerate(site.ALIASES)}
    # Nobody but this scenario takes the counts.
    ours = settings.CACHEADMIN | {"MAX_VALUE_BYTES": MOST_BYTES, "PATIENCE_SECONDS": 0.05, "FLUSH_SECONDS": 3600.0}
    with override_settings(CACHES=CACHES, CACHEADMIN=ours), redis.Redis.from_url(server.url_for(0)) as client:
        recorder.reset()
        Data.versions = {(tenant, item): 1 for tenant in TENANTS for item in ITEMS}
        Data.floors = dict(Data.versions)
        done = threading.Event()
        seeds = [chance.randrange(1 << 30) for _ in range(READERS)]
        with ThreadPoolExecutor(READERS + 1) as threads:
            writing = threads.submit(write_on, outcome, random.Random(chance.random()), done)
            reading = [threads.submit(read_on, outcome, random.Random(s), asked, policy) for s in seeds]
            for each in reading:
                each.result()
            done.set()
            writing.result()
        told = client.info("stats")
        outcome.count("evicted", told["evicted_keys"])
        counts = counted()
        outcome.count("hits", counts["hit"])
        outcome.count("fills_refused_when_full", counts["refused_full"])
        outcome.count("too_big_for_the_site", counts["refused_size"])
        was_full = counts["refused_full"] if policy == "noeviction" else told["evicted_keys"]
        if not was_full or not counts["hit"]:
            outcome.violate("no_pressure", f"{policy}: {told['evicted_keys']} evicted, {counts}")
        look_for_big_ones(outcome, client)


def counted() -> dict[str, int]:
    """Return what this process counted since the last look, of all groups."""
    delta = recorder._take()
    return {event: sum(cell[i] for cell in delta.counts.values()) for event, i in INDEX.items()}


def look_for_big_ones(outcome: Outcome, client: redis.Redis) -> None:
    """See that nothing above the site's own limit was stored."""
    for key in client.scan_iter(match=f"*:v:*:*{ITEMS[-1]}*", count=1000):
        if client.strlen(key) > MOST_BYTES + 1000:
            outcome.violate("too_big", f"{key!r} holds {client.strlen(key)} bytes")


def read_on(outcome: Outcome, chance: random.Random, asked: Asked, policy: str) -> None:
    """Read `count` times, and judge each."""
    count = min(asked.count, ENOUGH) if asked.stops_at_first else asked.count
    for _ in range(count // READERS):
        tenant, item, kind = chance.choice(TENANTS), chance.choice(ITEMS), chance.choice(KINDS)
        floor = Data.floors[tenant, item]
        try:
            version, _ = kind(tenant, item)
        except Exception as error:
            outcome.violate("exceptions", f"{policy}: {type(error).__name__}: {error}")
            continue
        outcome.count("reads")
        if version < floor:
            outcome.violate("stale", f"{policy}: {kind}: {version} after {floor} was invalidated")
        if asked.stops_at_first and outcome.is_broken:
            return


def write_on(outcome: Outcome, chance: random.Random, done: threading.Event) -> None:
    """Make items newer until the readers are done."""
    while not done.is_set():
        tenant, item = chance.choice(TENANTS), chance.choice(ITEMS)
        everything = [(tenant, each) for each in ITEMS]
        way = chance.choices(("key", "groups", "prefix", "tenant"), (20, 3, 3, 1))[0]
        written = [(tenant, item)] if way == "key" else everything
        for each in written:
            Data.versions[each] += 1
        targets = {
            "key": [Target("group", "parted", str(tenant))] + [of_entry(tenant, item, kind) for kind in KINDS],
            "groups": [Target("group", group, str(tenant)) for group in GROUPS],
            "prefix": [Target("prefix", "part", str(tenant)), Target("group", "plain", str(tenant))],
            "tenant": [Target("tenant", "", str(tenant))],
        }[way]
        result = request(targets)
        outcome.count("invalidations")
        if not result.is_done:
            outcome.violate("not_invalidated", f"{result}: {result.error}")
            continue
        for each in written:
            Data.floors[each] = Data.versions[each]
        time.sleep(0.002)


def of_entry(tenant: int, item: int, kind: object) -> Target:
    """Return the target that is one entry."""
    if kind is plain:
        return Target("key", f"plain:{item}", str(tenant), "query")
    return Target("key", kind.key(tenant, item).split(":", 2)[2], str(tenant), "query")  # type: ignore[attr-defined]
