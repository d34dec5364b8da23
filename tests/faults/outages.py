"""A server that refuses, swallows or hangs, and is back with all its data."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from django.conf import settings
from django.test import override_settings

from cacheadmin.models import Intent
from faults import Asked, Outcome, crashes, site
from faults.crashes import TENANTS, WRITES, judge, newest, versions
from faults.models import Row
from faults.proxy import Mode, Proxy

MODES: tuple[Mode, ...] = ("refused", "black-holed", "hung")
CALLS = 60
SLOW_SECONDS = 0.08
TIMEOUT_MS = 100
LONGEST_BACKLOG_SECONDS = 30


def outage(asked: Asked) -> Outcome:
    """Break the wire `count` times while reading and writing; mend it, and wait until nothing waits."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    proxy = Proxy(urlsplit(asked.url).port or 0)
    caches = {
        alias: settings.CACHES[alias] | {"LOCATION": f"redis://127.0.0.1:{proxy.port}/{number}"}
        for number, alias in enumerate(site.ALIASES)
    }
    with override_settings(CACHES=caches, CACHEADMIN=settings.CACHEADMIN | {"TIMEOUT_MS": TIMEOUT_MS}):
        crashes.make_rows()
        for number in range(asked.count):
            mode = MODES[number % len(MODES)]
            for tenant in TENANTS:
                newest(tenant)
            proxy.set(mode)
            without_a_server(chance, outcome, mode)
            proxy.set("open")
            backlog_ms = 1000 * until_nothing_waits(outcome, mode)
            outcome.figures["longest_backlog_ms"] = max(outcome.figures.get("longest_backlog_ms", 0), backlog_ms)
            judge(outcome, dict.fromkeys(TENANTS, f"the server was {mode}"))
            outcome.count("outages")
            if asked.stops_at_first and outcome.violations:
                break
    proxy.close()
    return outcome


def without_a_server(chance: random.Random, outcome: Outcome, mode: str) -> None:
    """Read and write on: all works, with what is committed, and only the first calls wait in vain."""
    begun, slow = time.monotonic(), 0
    for _ in range(CALLS):
        tenant, write = chance.choice(TENANTS), chance.choice(WRITES)
        act: Callable[[int], object] = write if chance.random() < 0.3 else newest
        called = time.monotonic()
        try:
            value = act(tenant)
        except Exception as error:
            outcome.violate("exceptions", f"{mode}: {getattr(act, '__name__', act)}: {type(error).__name__}: {error}")
            continue
        slow += time.monotonic() - called > SLOW_SECONDS
        if act is newest and value != (committed := Row.objects.get(tenant=tenant).version):
            outcome.violate("stale", f"{mode}: {value} is served, {committed} is committed")
    outcome.count("calls", CALLS)
    outcome.count("slow_calls", slow)
    # One an alias at first, and one an alias and retry afterwards (every 0.75 s at the soonest).
    allowed = len(site.ALIASES) * (2 + int((time.monotonic() - begun) / 0.75))
    if slow > allowed:
        outcome.violate("too_slow", f"{mode}: {slow} of {CALLS} calls waited in vain")


def until_nothing_waits(outcome: Outcome, mode: str) -> float:
    """
    Wait for this process' relay, and read meanwhile: the server still holds what was invalidated without it.

    Returns: seconds until the outbox was empty.
    """
    begun, committed, is_waiting = time.monotonic(), versions(), True
    while is_waiting:
        is_waiting = Intent.objects.filter(state=Intent.State.PENDING).exists()
        for tenant in TENANTS:
            outcome.count("reads_when_back")
            if (value := newest(tenant)) != committed[tenant]:
                outcome.violate(
                    "stale", f"back after it was {mode}: {value} is served, {committed[tenant]} is committed"
                )
        assert time.monotonic() - begun < LONGEST_BACKLOG_SECONDS, "The outbox is never empty."
        time.sleep(0.02)
    return time.monotonic() - begun
