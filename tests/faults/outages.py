"""A server that refuses, swallows, hangs or is full, and is back with all its data."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.core.cache import caches
from django.db import connection
from django.test import override_settings
from django.utils import timezone
from redis.connection import AbstractConnection

from cacheadmin.connections import Link, link
from cacheadmin.models import Intent
from cacheadmin.outbox import reopening
from faults import Asked, Outcome, crashes, site
from faults.crashes import TENANTS, WRITES, computing, judge, newest, versions
from faults.models import Row
from faults.proxy import Proxy, caches_behind
from faults.waits import MOST_LAG_MS, TIMEOUT_MS, Read, Sleeper, judge_lag, judge_reads, note_done

NARROW_WRITES = (crashes.by_save, crashes.by_update)
MODES = ("refused", "black-holed", "hung", "stopped", "full")
"""The first three are the wire's; `stopped` is the server itself (SIGSTOP)."""
OUTAGE_SECONDS = (0.3, 2.5)
PAUSE_SECONDS = 0.004
READERS = 3
"""Threads that only read, beside the one that reads and writes."""
LONGEST_BACKLOG_SECONDS = 90
MOST_OVERTAKEN = 5
"""Calls of other threads that had passed the gate, and were not sent yet, when it was shut."""


class Written:
    """Whose rows are written during an outage, and how; what else is cached outlives it, unless raw SQL is among it."""

    tenants: Sequence[int] = TENANTS
    others: Sequence[int] = TENANTS
    ways: Sequence[Callable[[int], object]] = WRITES
    returned: ClassVar[dict[int, int]] = {}
    """Tenant -> a version whose write has returned."""

    @classmethod
    def choose(cls, chance: random.Random) -> None:
        """Take half of the tenants, and mostly ways that concern only them."""
        cls.tenants = chance.sample(TENANTS, k=len(TENANTS) // 2)
        cls.others = [tenant for tenant in TENANTS if tenant not in cls.tenants]
        cls.ways = chance.choice((WRITES, NARROW_WRITES, NARROW_WRITES))


class Attempts:
    """What this process has tried so far: connections, and calls that waited in vain."""

    connects = 0
    timed_out = 0
    pressed_on = 0
    """Calls that were sent to a server of which this process knew that it does not answer."""
    drained: ClassVar[dict[str, float]] = {}
    """Alias -> when all that waited in the outage of the moment was delivered to it."""
    lock = threading.Lock()
    of_this_thread = threading.local()
    """Its `timed_out`: how many calls of this thread waited in vain."""


class Readers:
    """
    Threads that read all the time: what they are served is never older than the last write that has returned.

    Begin and end them around an outage, with `with`. Each has a connection to the database of its own.
    """

    def __init__(self, outcome: Outcome, mode: str, reads: dict[str, list[Read]], seed: int) -> None:
        self._outcome, self._mode, self._reads = outcome, mode, reads
        self._is_over, self._is_broken = threading.Event(), threading.Event()
        self._is_broken.set()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(f"{seed} {number}"),)) for number in range(READERS)
        ]

    def mended(self) -> None:
        """Go on without looking at the time that reads take."""
        self._is_broken.clear()

    def _run(self, chance: random.Random) -> None:
        connection.ensure_connection()  # what that takes is no read's
        while not self._is_over.wait(PAUSE_SECONDS):
            tenant, is_broken = chance.choice(TENANTS), self._is_broken.is_set()
            least = Written.returned.get(tenant, 0)
            try:
                value, read = timed(tenant)
            except Exception as error:
                with self._lock:
                    self._outcome.violate("exceptions", f"{self._mode}: {type(error).__name__}: {error}")
                continue
            with self._lock:
                self._outcome.count("reads_of_threads")
                if is_broken and self._is_broken.is_set():
                    self._reads[self._mode].append(read)
                if value < least:
                    self._outcome.violate("stale", f"{self._mode}: {value} is served after a write of {least} returned")
        connection.close()

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def timed(tenant: int) -> tuple[int, Read]:
    """Read, and say what that took more than its query."""
    computing.seconds = 0.0
    begun, before = time.monotonic(), in_vain()
    value = newest(tenant)
    ended, timeouts = time.monotonic(), in_vain() - before
    return value, Read(1000 * (ended - begun - computing.seconds), timeouts, begun, ended)


def in_vain() -> int:
    """Return how many calls of this thread have waited in vain so far."""
    return int(getattr(Attempts.of_this_thread, "timed_out", 0))


def returned(tenants: Sequence[int]) -> None:
    """Note what is committed: writes of it have returned."""
    Written.returned.update(Row.objects.filter(tenant__in=tenants).values_list("tenant", "version"))


def outage(asked: Asked) -> Outcome:
    """Break the server `count` times while reading and writing; mend it, and wait until nothing waits."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    proxy = Proxy(urlsplit(asked.url).port or 0)
    added: dict[str, list[Read]] = {mode: [] for mode in MODES}
    lags: list[float] = []
    marked: list[float] = []
    count_attempts()
    with (
        override_settings(CACHES=caches_behind(proxy.port), CACHEADMIN=quick()),
        ThreadPoolExecutor(1) as other,
        Sleeper() as sleeper,
        redis.Redis.from_url(f"{asked.url}/0") as server,
    ):
        crashes.make_rows()
        write_while_draining(chance, other)
        for number in range(asked.count):
            mode = MODES[number % len(MODES)]
            for tenant in TENANTS:
                newest(tenant)
            Written.choose(chance)
            Written.returned.clear()
            with Readers(outcome, mode, added, chance.getrandbits(32)) as readers:
                with broken(proxy, server, mode):
                    without_a_server(chance, outcome, mode, added)
                    waiting = list(Intent.objects.filter(state=Intent.State.PENDING).values_list("pk", flat=True))
                    Attempts.drained.clear()
                    readers.mended()
                back_at, mended = timezone.now(), time.monotonic()
                until_nothing_waits(outcome, mode)
            if waiting:
                late = 1000 * max([0.0, *(at - mended for at in Attempts.drained.values())])
                lags += [late] * len(waiting)
                if late > MOST_LAG_MS:
                    outcome.violate("late", f"back after it was {mode}: what waited was delivered after {late:.0f} ms")
            done = Intent.objects.filter(pk__in=waiting, delivered_at__isnull=False)
            marked += [1000 * (at - back_at).total_seconds() for at in done.values_list("delivered_at", flat=True)]
            judge(outcome, dict.fromkeys(TENANTS, f"the server was {mode}"))
            outcome.count("outages")
            if asked.stops_at_first and outcome.is_broken:
                break
    proxy.close()
    seconds = outcome.figures["outage_seconds"]
    outcome.figures["timed_out_a_second"] = round(outcome.figures["timed_out"] / seconds, 2)
    outcome.figures["connects_a_second"] = round(outcome.figures["connects"] / seconds, 2)
    outages = int(outcome.figures["outages"])
    judge_reads(outcome, "away", [read for mode in MODES if mode != "full" for read in added[mode]], outages, sleeper)
    judge_reads(outcome, "hung", added["hung"], outages, sleeper)
    outcome.figures["longest_stall_ms"] = round(sleeper.longest_ms())
    judge_lag(outcome, lags, outages)
    note_done(outcome, marked)
    return outcome


def quick() -> dict[str, Any]:
    """Return the settings of a site, with the timeout that sites have."""
    return settings.CACHEADMIN | {"TIMEOUT_MS": TIMEOUT_MS}


def count_attempts() -> None:
    """Count connections, what failed for want of an answer in time, and what the breaker let through."""
    connect, failed, call = AbstractConnection.connect, Link._failed, Link._call

    def counted(self: Any) -> None:
        with Attempts.lock:
            Attempts.connects += 1
        connect(self)

    def noted(self: Link, error: BaseException) -> Any:
        if isinstance(error, (redis.TimeoutError, TimeoutError)):
            Attempts.of_this_thread.timed_out = in_vain() + 1
            with Attempts.lock:
                Attempts.timed_out += 1
        return failed(self, error)

    def watched(self: Link, *told: Any) -> Any:
        if self.is_away:
            with Attempts.lock:
                Attempts.pressed_on += 1
        return call(self, *told)

    AbstractConnection.connect, Link._failed, Link._call = counted, noted, watched


def write_while_draining(chance: random.Random, other: ThreadPoolExecutor) -> None:
    """Let somebody write when what waits was delivered, and readers have still to be let in."""
    drain = reopening.drain

    def write() -> None:
        with suppress(Row.DoesNotExist):
            crashes.by_update(tenant := chance.choice(Written.others))
            returned([tenant])
        connection.close()

    def then_write(alias: str, has_changed: bool) -> bool:
        is_drained = drain(alias, has_changed)
        if is_drained:
            Attempts.drained.setdefault(alias, time.monotonic())
        if alias == "query":
            other.submit(write).result()
        return is_drained

    reopening.drain = then_write


@contextmanager
def broken(proxy: Proxy, server: redis.Redis, mode: str) -> Iterator[None]:
    """Break the wire or the server, and mend it."""
    if mode == "full":
        server.config_set("maxmemory", 1)
        try:
            yield
        finally:
            server.config_set("maxmemory", "256mb")
    elif mode == "stopped":
        pid = int(server.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
    else:
        proxy.set(mode)  # type: ignore[arg-type]
        try:
            yield
        finally:
            proxy.set("open")


def plain(tenant: int) -> None:
    """Use keys with a scope and without one as sites do: for sessions, for counters."""
    cache = caches["query"]
    cache.set(f"session{tenant}", tenant)
    cache.get(f"tenant:{tenant}:plain:x")
    cache.set(f"tenant:{tenant}:plain:x", tenant)
    cache.add(f"lock{tenant}", 1)


def without_a_server(chance: random.Random, outcome: Outcome, mode: str, added: dict[str, list[Read]]) -> None:
    """Read and write on: all works, with what is committed, and hardly a call waits in vain."""
    begun, connects, timed_out = time.monotonic(), Attempts.connects, Attempts.timed_out
    pressed_on = Attempts.pressed_on
    ends_at = begun + chance.uniform(*OUTAGE_SECONDS)
    while time.monotonic() < ends_at:
        what = chance.random()
        tenant = chance.choice(Written.tenants if what < 0.3 else TENANTS)
        act: Callable[[int], Any] = chance.choice(Written.ways) if what < 0.3 else plain if what < 0.4 else newest
        try:
            value, read = timed(tenant) if act is newest else (act(tenant), None)
        except Exception as error:
            kind = "failed_writes" if act in WRITES else "exceptions"
            outcome.violate(kind, f"{mode}: {getattr(act, '__name__', act)}: {type(error).__name__}: {error}")
            continue
        outcome.count("calls")
        if act in WRITES:
            returned([tenant])
        if read is not None:
            added[mode].append(read)
            if value != (committed := Row.objects.get(tenant=tenant).version):
                outcome.violate("stale", f"{mode}: {value} is served, {committed} is committed")
        time.sleep(PAUSE_SECONDS)
    seconds = time.monotonic() - begun
    outcome.count("outage_seconds", round(seconds, 1))
    outcome.count("connects", Attempts.connects - connects)
    outcome.count("timed_out", vain := Attempts.timed_out - timed_out)
    outcome.count("pressed_on", pressed_on := Attempts.pressed_on - pressed_on)
    if pressed_on > MOST_OVERTAKEN:
        outcome.violate("pressed", f"{mode}: {pressed_on} calls went to a server that was known to be away")
    # At most one a second is aimed at, and printed. A machine that is busy itself may be late besides.
    if vain > 6 + 2 * seconds:
        outcome.violate("too_slow", f"{mode}: {vain} calls waited in vain within {seconds:.1f} s")
    if Attempts.connects - connects > 10 + 10 * seconds:
        outcome.violate("storm", f"{mode}: {Attempts.connects - connects} connections within {seconds:.1f} s")


def gates() -> dict[str, str]:
    """Return how far each alias' server is trusted."""
    return {alias: link(alias).gate.name for alias in site.ALIASES}


def until_nothing_waits(outcome: Outcome, mode: str) -> None:
    """Wait for this process' relay, and read meanwhile: the server still holds what was invalidated without it."""
    begun, is_waiting = time.monotonic(), True
    while is_waiting:
        is_waiting = Intent.objects.filter(state=Intent.State.PENDING).exists()
        committed = versions()
        for tenant in TENANTS:
            outcome.count("reads_when_back")
            if (value := newest(tenant)) < committed[tenant]:
                told = f"{value} is served, {committed[tenant]} is committed"
                outcome.violate("stale", f"back after it was {mode}: {told}")
        if time.monotonic() - begun > LONGEST_BACKLOG_SECONDS:
            left = list(Intent.objects.filter(state=Intent.State.PENDING).values_list("attempts", "error")[:3])
            outcome.violate("lost", f"{mode}: the outbox is never empty: {left}, {gates()}")
            return
        time.sleep(0.02)
