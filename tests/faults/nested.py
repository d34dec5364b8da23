"""Values made of other cached values, with readers between the deletes of one invalidation."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cacheadmin import Target, cache_query_result, cache_tenant_query
from cacheadmin.connections import Link
from cacheadmin.functions import CachedFunction
from cacheadmin.invalidation import request
from cacheadmin.store import store
from faults import Asked, Outcome, site

STEPS = 6
TENANT = 7


class State:
    """The datum, and what happens beside each UNLINK."""

    version = 1
    floor = 1
    beside: Callable[[], object] | None = None


@cache_query_result(timeout=60, key_prefix="rates", alias="query", shared=True)
def rates() -> int:
    return State.version


@cache_tenant_query(timeout=60, key_prefix="part", alias="query")
def part(tenant_id: int) -> int:
    return rates()


@cache_tenant_query(timeout=60, key_prefix="whole", alias="query")
def whole(tenant_id: int) -> int:
    return part(tenant_id)


@cache_tenant_query(timeout=60, key_prefix="page", alias="template")
def page(tenant_id: int) -> int:
    return whole(tenant_id)


@cache_tenant_query(timeout=60, key_prefix="late", alias="template")
def late(tenant_id: int) -> int:
    return State.version


@cache_tenant_query(timeout=60, key_prefix="early", alias="query")
def early(tenant_id: int) -> int:
    return late(tenant_id)


FUNCTIONS: tuple[CachedFunction, ...] = (part, whole, page, late, early)
NAMES = ("part", "whole", "page", "late", "early")


def watch_unlinks() -> None:
    """Let readers in before and after each UNLINK that a writer sends."""
    call = Link.call

    def watched(self: Link, *commands: tuple[Any, ...], **options: bool) -> Any:
        beside = State.beside
        if beside is None or not _is_unlink(commands[0]):
            return call(self, *commands, **options)
        beside()
        replies = call(self, *commands, **options)
        beside()
        return replies

    Link.call = watched


def _is_unlink(command: Any) -> bool:
    return b"UNLINK" in command if isinstance(command, bytes) else command[0] == "UNLINK"


def nesting(asked: Asked) -> Outcome:
    """Read and write `count` times a handful of steps."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    watch_unlinks()
    with ThreadPoolExecutor(1) as other:

        def read_some() -> None:
            beside, State.beside = State.beside, None
            for function in chance.choices(FUNCTIONS, k=chance.choice((1, 2, 3))):
                other.submit(function, TENANT).result()
                outcome.count("reads_between")
            State.beside = beside

        for _ in range(asked.count):
            State.version = State.floor = 1
            for alias in site.ALIASES:
                store(alias).link.call(("FLUSHDB",))
            for _ in range(STEPS):
                step(chance, outcome, read_some)
            if asked.stops_at_first and outcome.is_broken:
                break
    return outcome


def step(chance: random.Random, outcome: Outcome, read_some: Callable[[], None]) -> None:
    """Write with readers between, or read, then judge all."""
    if chance.random() < 0.5:
        State.version += 1
        State.beside = read_some
        targets = [Target("group", name, str(TENANT)) for name in NAMES]
        targets.append(Target("group", "rates", None))
        chance.shuffle(targets)
        request(targets)
        State.beside = None
        State.floor = State.version
        outcome.count("writes")
    for function in chance.sample(FUNCTIONS, k=chance.choice((1, 2, len(FUNCTIONS)))):
        value = function(TENANT)
        outcome.count("reads")
        if value < State.floor:
            outcome.violate("stale", f"{function.__name__} is {value}, {State.floor} was invalidated")
