"""Memory that is given back beside the work of the site: orphans go, what is valid stays."""

from __future__ import annotations

import random
from collections.abc import Callable

from cacheadmin import ABSENT, cache_tenant_query, invalidate_tags, invalidate_tenant_cache, reclaiming
from cacheadmin.functions import CachedFunction
from cacheadmin.store import RedisStore, store
from faults import Asked, Outcome

TENANT = 7
ITEMS = range(12)
STEPS = 12


class State:
    """The datum: whoever invalidates makes it newer."""

    version = 1


@cache_tenant_query(timeout=600, key_prefix="one", tags=["branch:{item}"])
def one(tenant_id: int, item: int) -> int:
    return State.version


@cache_tenant_query(timeout=None, key_prefix="other")
def other(tenant_id: int, item: int) -> int:
    return State.version


FUNCTIONS: tuple[CachedFunction, ...] = (one, other)


def reclaim(asked: Asked) -> Outcome:
    """Fill, invalidate and reclaim in any order, `count` times: what was filled since is there, the rest is freed."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    reclaiming._thread.start = lambda: None  # only when told
    of = store("query")
    assert isinstance(of, RedisStore)
    for _ in range(asked.count):
        of.link.call(("FLUSHDB",))
        walk(outcome, chance, of)
        if asked.stops_at_first and outcome.is_broken:
            break
    return outcome


def walk(outcome: Outcome, chance: random.Random, of: RedisStore) -> None:
    """Take some steps, then reclaim all and count what is left."""
    fresh: dict[tuple[CachedFunction, int], int] = {}

    def fill() -> None:
        function, item = chance.choice(FUNCTIONS), chance.choice(ITEMS)
        fresh.setdefault((function, item), State.version)
        function(TENANT, item)

    def drop() -> None:
        State.version += 1
        function, item = chance.choice(FUNCTIONS), chance.choice(ITEMS)
        ways: dict[str, tuple[Callable[[], object], Callable[[CachedFunction, int], bool]]] = {
            "tenant": (lambda: invalidate_tenant_cache(TENANT), lambda f, i: True),
            "group": (lambda: function.invalidate_all(TENANT), lambda f, i: f is function),
            "entry": (lambda: function.invalidate(TENANT, item), lambda f, i: (f, i) == (function, item)),
            "tag": (lambda: invalidate_tags(TENANT, f"branch:{item}"), lambda f, i: (f, i) == (one, item)),
        }
        invalidate, covers = ways[chance.choice(tuple(ways))]
        invalidate()
        outcome.count("invalidations")
        for key in [key for key in fresh if covers(*key)]:
            del fresh[key]

    def reclaim_all() -> None:
        outcome.count("freed", reclaiming.run_due(everything=True))
        for (function, item), version in fresh.items():
            outcome.count("looks")
            if (held := function.peek(TENANT, item)) is ABSENT:
                outcome.violate("fresh_lost", f"{function.group} {item} was valid, and is gone")
            elif held != version:
                outcome.violate("stale", f"{function.group} {item} is {held}, not {version}")

    for _ in range(STEPS):
        chance.choices((fill, drop, reclaim_all), (6, 2, 1))[0]()
    invalidate_tenant_cache(TENANT)
    fresh.clear()
    reclaim_all()
    left = [name for name, _ in (pair for page in of.scan_parsed("v") for pair in page)]
    outcome.count("left_for_the_sweep", len(left))  # of groups that a later tenant epoch does not know
