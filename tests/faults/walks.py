"""Random walks over one tenant's entries: any order of reads, writes and losses, each read checked on the spot."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.core.cache import caches

from cacheadmin import (
    cache_tenant_query,
    invalidate_cache,
    invalidate_tags,
    invalidate_tenant_cache,
    memory,
)
from cacheadmin.functions import CachedFunction
from cacheadmin.store import store
from faults import Asked, Outcome

STEPS = 9
TENANT = 7
PLAIN = f"tenant:{TENANT}:plain:list"


class Source:
    """
    One datum whose every write makes it newer.

    `floor` is the version whose invalidation has returned last: nobody who begins to read now may see an older one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = self.floor = 1
        self.during: Callable[[], object] | None = None

    def compute(self) -> int:
        """Return what stands now; whatever was put into `during` happens before the caller can store it."""
        seen = self.version
        if self.during is not None:
            during, self.during = self.during, None
            during()
        return seen

    def write(self, invalidate: Callable[[], object]) -> None:
        """Make it newer and invalidate."""
        self.version += 1
        invalidate()
        self.floor = self.version


SOURCES = {name: Source(name) for name in ("leased", "unleased", "graceful", "plain")}


@cache_tenant_query(timeout=60, key_prefix="leased", tags=["branch:{branch}"])
def leased(tenant_id: int, branch: int = 1) -> int:
    return SOURCES["leased"].compute()


@cache_tenant_query(timeout=60, key_prefix="unleased", tags=["branch:{branch}"], single_flight=False)
def unleased(tenant_id: int, branch: int = 1) -> int:
    return SOURCES["unleased"].compute()


@cache_tenant_query(timeout=0.001, key_prefix="graceful", grace=60, tags=["branch:{branch}"])
def graceful(tenant_id: int, branch: int = 1) -> int:
    return SOURCES["graceful"].compute()


FUNCTIONS: dict[str, CachedFunction] = {"leased": leased, "unleased": unleased, "graceful": graceful}


def read(name: str) -> int:
    """Read one datum as a site does."""
    if name != "plain":
        return FUNCTIONS[name](TENANT)
    cache = caches["query"]
    value = cache.get(PLAIN)
    if value is None:
        value = SOURCES["plain"].compute()
        cache.set(PLAIN, value)
    return value


def invalidations(name: str) -> dict[str, Callable[[], object]]:
    """Return every call that covers this datum."""
    ways: dict[str, Callable[[], object]] = {
        "tenant": lambda: invalidate_tenant_cache(TENANT),
        "prefix": lambda: invalidate_tenant_cache(TENANT, prefix=name[:4]),
        "pattern": lambda: invalidate_cache(f"*{name[1:4]}?*:*" if name != "plain" else "*lis?"),
        "clear": lambda: caches["query"].clear(),
    }
    if name == "plain":
        return ways | {
            "group": lambda: invalidate_cache(f"tenant:{TENANT}:plain:*"),
            "entry": lambda: invalidate_cache(PLAIN),
        }
    function = FUNCTIONS[name]
    return ways | {
        "group": lambda: function.invalidate_all(tenant=TENANT),
        "group of everybody": lambda: function.invalidate_all(),
        "tag": lambda: invalidate_tags(TENANT, "branch:1"),
        "entry": lambda: function.invalidate(TENANT),
        "entry by its key": lambda: invalidate_cache(function.key(TENANT)),
    }


WAYS = {name: invalidations(name) for name in SOURCES}


class Walk:
    """One order of events, drawn by chance; each of them is a request of its own."""

    def __init__(self, chance: random.Random, outcome: Outcome, other: ThreadPoolExecutor, *, loses: bool) -> None:
        self.chance, self.outcome, self.other, self.loses = chance, outcome, other, loses
        self.trace: list[str] = []
        self.depth = 0

    def run(self) -> None:
        """Walk, and look at everything twice at the end."""
        for source in SOURCES.values():
            source.version = source.floor = 1
            source.during = None
        for function in FUNCTIONS.values():
            function.pace.slowest = 0.0  # computing takes as long as what happens meanwhile, waiting included
        link = store("query").link
        link.call(("FLUSHDB",))
        for _ in range(STEPS):
            self.step()
        for name in SOURCES:
            self.look(name)
            self.look(name)

    def step(self) -> None:
        """Let one thing happen."""
        memory.clear()
        name = self.chance.choice(tuple(SOURCES))
        kind = self.chance.choices(("race", "look", "write", "refresh", "lose"), (4, 3, 3, 1, 3 if self.loses else 0))[
            0
        ]
        if kind == "race" or (kind == "refresh" and name != "plain"):
            self.race(name, refreshes=kind == "refresh")
        elif kind == "write":
            self.write(name)
        elif kind == "lose":
            self.lose()
        else:
            self.look(name)

    def race(self, name: str, *, refreshes: bool) -> None:
        """Read; if that computes, something else happens between reading the data and storing it."""
        source = SOURCES[name]
        source.during = lambda: self.other.submit(self.meanwhile, name).result()
        self.trace.append(f"{'refresh' if refreshes else 'read'} {name} [")
        if refreshes:
            FUNCTIONS[name].refresh(TENANT)
        else:
            self.look(name)
        source.during = None
        self.trace.append("]")

    def meanwhile(self, name: str) -> None:
        """What another process does while this one computes."""
        memory.clear()
        for _ in range(self.chance.choice((1, 1, 2))):
            other = name if self.chance.random() < 0.75 else self.chance.choice(tuple(SOURCES))
            kind = self.chance.choices(("write", "look", "lose"), (6, 1, 2 if self.loses else 0))[0]
            if kind == "write":
                self.write(other)
                if other == "graceful" and self.chance.random() < 0.3:
                    self.look(other)
            elif kind == "lose":
                self.lose()
            else:
                self.look(other)

    def write(self, name: str) -> None:
        """Make a datum newer, in one of all ways to invalidate it."""
        way = self.chance.choice(tuple(WAYS[name]))
        self.trace.append(f"write {name} by {way}")
        SOURCES[name].write(WAYS[name][way])
        self.outcome.count("writes")

    def lose(self) -> None:
        """Take any one key from the server, as eviction or expiry would."""
        link = store("query").link
        names = sorted(link.call(("KEYS", "*")).values[0])
        if names:
            registries = [name for name in names if name.endswith(b":r")]
            victim = self.chance.choice(registries if registries and self.chance.random() < 0.2 else names)
            link.call(("UNLINK", victim))
            self.trace.append(f"lose {victim.decode(errors='replace').partition('}:')[2]}")
            self.outcome.count("lost_keys")

    def look(self, name: str) -> None:
        """Read and judge."""
        floor = SOURCES[name].floor
        value = read(name)
        self.outcome.count("reads")
        self.trace.append(f"{name} = {value}")
        if value < floor:
            self.outcome.violate("stale", f"{name}: {value} after {floor} was invalidated: {'; '.join(self.trace)}")


def walks(asked: Asked, *, loses: bool) -> Outcome:
    """Walk `count` times."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    with ThreadPoolExecutor(1) as other:
        for _ in range(asked.count):
            Walk(chance, outcome, other, loses=loses).run()
            if asked.stops_at_first and outcome.is_broken:
                break
    return outcome


def stale_set(asked: Asked) -> Outcome:
    """Writes between reading the data and storing it, in all ways, for all kinds of entries."""
    return walks(asked, loses=False)


def key_loss(asked: Asked) -> Outcome:
    """The same, and any one key may be gone at any moment."""
    return walks(asked, loses=True)
