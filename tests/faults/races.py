"""
Four processes on a few rows: two read, two write, all of them pause, and the parent freezes one after the other.

Whoever writes publishes, after its invalidation has returned, which version it committed; whoever reads looks at that
before it reads. A read that gives less than what was published before it began is stale.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from django.core.cache import caches
from django.db import connection, transaction
from django.db.models import F

from cacheadmin import cache_tenant_query, memory, outbox
from faults import Asked, Outcome
from faults.crashes import by_save, by_sql, by_update, start
from faults.models import Row

READERS = WRITERS = 2
OWNED, SHARED = (1, 2, 3, 4), (5, 6)
"""Rows that one writer has for itself, and that both write."""
ROWS = (*OWNED, *SHARED)
UNCOMMITTED = 1_000_000_000
"""A version that is always rolled back."""
LONGEST_SECONDS = 7200
FREEZE_EVERY_SECONDS = 0.03
LONGEST_FREEZE_SECONDS = 0.08
EXAMPLES = 3


class Shared:
    """Numbers that all processes see: one cell of 8 bytes each, every cell written by one process."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 4096)
        self._cells = memoryview(self._map).cast("Q")

    def publish(self, writer: int, tenant: int, version: int) -> None:
        """Note that the invalidation of a committed version has returned."""
        self._cells[writer * (max(ROWS) + 1) + tenant] = version

    def floor(self, tenant: int) -> int:
        """Return the newest version whose invalidation has returned."""
        return max(self._cells[writer * (max(ROWS) + 1) + tenant] for writer in range(WRITERS))

    def end(self) -> None:
        """Tell everybody to stop."""
        self._cells[-1] = 1

    @property
    def is_over(self) -> bool:
        """Whether everybody is to stop."""
        return bool(self._cells[-1])


class Pauses:
    """How often a computation of this process sleeps between its query and its end."""

    chance = random.Random(0)
    computed = 0

    @classmethod
    def take(cls) -> None:
        cls.computed += 1
        if cls.chance.random() < 0.6:
            time.sleep(cls.chance.expovariate(1 / 0.006))


def version_of(tenant: int) -> int:
    """Return what this connection sees."""
    return int(Row.objects.values_list("version", flat=True).get(tenant=tenant))


@cache_tenant_query(timeout=600, key_prefix="rows")
def by_group(tenant_id: int) -> int:
    version = version_of(tenant_id)
    Pauses.take()
    return version


@cache_tenant_query(timeout=600, key_prefix="one")
def by_entry(tenant_id: int) -> int:
    version = version_of(tenant_id)
    Pauses.take()
    return version


def by_hand(tenant: int) -> int:
    """Read as sites did before: get, query, set."""
    cache, key = caches["query"], f"tenant:{tenant}:rows:plain"
    memory.clear()  # each read is a request of its own
    version = cache.get(key)
    if version is None:
        version = version_of(tenant)
        Pauses.take()
        cache.set(key, version, 600)
    return int(version)


READS: tuple[Callable[[int], int], ...] = (by_group, by_hand, *[by_entry] * 4)


# --- readers --------------------------------------------------------------------------------------------------------


def read_on(shared: Shared, outcome: Outcome, chance: random.Random, count: int, *, stops_at_first: bool) -> None:
    """Read `count` times, some of it inside transactions, and judge each read."""
    last: dict[tuple[object, int], int] = {}
    left = count
    while left > 0 and not shared.is_over:
        in_a_block = chance.random() < 0.1
        several = min(left, chance.randint(1, 4)) if in_a_block else 1
        # What SQLite shows in a transaction is as old as its first query.
        begun = {tenant: shared.floor(tenant) for tenant in ROWS}
        with transaction.atomic() if in_a_block else nullcontext():
            for _ in range(several):
                tenant, read = chance.choice(ROWS), chance.choice(READS)
                is_old = in_a_block and connection.vendor == "sqlite"
                floor = begun[tenant] if is_old else shared.floor(tenant)
                version = read(tenant)
                outcome.count("reads")
                name = getattr(read, "__name__", str(read))
                if version >= UNCOMMITTED:
                    outcome.violate("uncommitted", f"{name}({tenant}) gave what was never committed")
                elif version < floor:
                    outcome.violate("stale", f"{name}({tenant}) gave {version} after {floor} was published")
                    if stops_at_first:
                        shared.end()
                        return
                outcome.count("backwards", version < last.get((read, tenant), 0))
                last[read, tenant] = version
        left -= several
    outcome.count("hits", outcome.figures.get("reads", 0) - Pauses.computed)


# --- writers --------------------------------------------------------------------------------------------------------


class RolledBack(Exception):
    """Ends a transaction without its writes."""


class Delivered:
    """Whether each invalidation since the last look has come to its end: else nothing is promised about it."""

    count = 0

    @classmethod
    def note(cls, delivery: Any, result: Any) -> None:
        cls.count += 1

    @classmethod
    @contextmanager
    def expected(cls, outcome: Outcome) -> Iterator[Callable[[], bool]]:
        before = cls.count
        yield lambda: cls.count > before
        outcome.count("undelivered", cls.count == before)


def write_alone(tenant: int, chance: random.Random) -> int:
    """Write a row that nobody else writes, in autocommit, and invalidate its entry by hand."""
    chance.choice((by_save, by_update, by_sql))(tenant)
    by_entry.invalidate(tenant)
    return version_of(tenant)


def write_in_a_block(tenant: int, chance: random.Random) -> int:
    """Write a row that others write too; what is read back while it is locked will be what was committed."""
    with transaction.atomic():
        by_entry.invalidate(tenant)
        rows = Row.objects.filter(tenant=tenant)
        chance.choice((lambda: rows.update(version=F("version") + 1), lambda: by_sql(tenant)))()
        if chance.random() < 0.2:
            time.sleep(chance.expovariate(1 / 0.002))
        return version_of(tenant)


def write_in_vain(tenant: int, chance: random.Random, outcome: Outcome) -> None:
    """Write, look at it from inside, and take it back."""
    try:
        with transaction.atomic():
            Row.objects.filter(tenant=tenant).update(version=UNCOMMITTED)
            for read in (by_group, by_entry):
                if (seen := read(tenant)) != UNCOMMITTED:
                    outcome.violate("own_write_unseen", f"{seen} is seen after {UNCOMMITTED} was written")
            raise RolledBack
    except RolledBack:
        outcome.count("rollbacks")


def write_on(shared: Shared, outcome: Outcome, chance: random.Random, number: int) -> None:
    """Write until somebody says stop: bursts, so that a second write falls into what follows from the first."""
    outbox.on_delivered(Delivered.note)
    mine = [tenant for tenant in OWNED if tenant % WRITERS == number]
    while not shared.is_over:
        tenant = chance.choice((*mine, *SHARED))
        for _ in range(chance.randint(2, 4)):
            if chance.random() < 0.1:
                write_in_vain(tenant, chance, outcome)
                continue
            alone = tenant in mine and chance.random() < 0.6
            with Delivered.expected(outcome) as is_delivered:
                version = (write_alone if alone else write_in_a_block)(tenant, chance)
                if is_delivered():
                    shared.publish(number, tenant, version)
            outcome.count("writes")
            if chance.random() < 0.8:
                time.sleep(chance.expovariate(1 / 0.004))
        time.sleep(chance.expovariate(1 / 0.1))


# --- the parent -----------------------------------------------------------------------------------------------------


class Player(NamedTuple):
    """One process that takes part."""

    pid: int
    results: int
    """Where its outcome can be read from."""


def play(act: Callable[[Outcome], None], seed: int) -> Player:
    """Start a process that plays a part and hands back what it counted."""
    receive, send = os.pipe()

    def part() -> None:
        os.close(receive)
        Pauses.chance, outcome = random.Random(seed), Outcome()
        try:
            act(outcome)
        except Exception as error:
            outcome.violate("exceptions", f"{type(error).__name__}: {error}")
            outcome.violations.insert(0, outcome.violations.pop())
        examples = [text[:300] for text in outcome.violations[:EXAMPLES]]
        told = {"figures": outcome.figures, "kinds": sorted(outcome.kinds), "violations": examples}
        os.write(send, json.dumps(told).encode())

    pid = start(part)
    os.close(send)
    return Player(pid, receive)


def freeze_by_turns(players: list[Player], readers: list[Player], shared: Shared, chance: random.Random) -> int:
    """Stop one process after the other for a moment until all readers have ended. Returns: how often."""
    freezes, living, deadline = 0, {player.pid for player in readers}, time.monotonic() + LONGEST_SECONDS
    while living and time.monotonic() < deadline:
        for pid in tuple(living):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                living.discard(pid)
        time.sleep(chance.uniform(0, 2 * FREEZE_EVERY_SECONDS))
        pid = chance.choice(players).pid  # not yet waited for, so nobody else has its number
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0, LONGEST_FREEZE_SECONDS))
        os.kill(pid, signal.SIGCONT)
        freezes += 1
    shared.end()
    return freezes


def race(asked: Asked) -> Outcome:
    """Read `count` times in two processes while two others write."""
    Row.objects.all().delete()
    Row.objects.bulk_create(Row(tenant=tenant) for tenant in ROWS)
    outcome, chance, shared = Outcome(), random.Random(asked.seed), Shared()
    seeds = iter(chance.sample(range(1_000_000), READERS + WRITERS))

    def reader(outcome: Outcome) -> None:
        read_on(shared, outcome, Pauses.chance, asked.count // READERS, stops_at_first=asked.stops_at_first)

    def writer(number: int) -> Callable[[Outcome], None]:
        return lambda outcome: write_on(shared, outcome, Pauses.chance, number)

    readers = [play(reader, next(seeds)) for _ in range(READERS)]
    writers = [play(writer(number), next(seeds)) for number in range(WRITERS)]
    outcome.count("freezes", freeze_by_turns([*readers, *writers], readers, shared, chance))
    for player in (*readers, *writers):
        with os.fdopen(player.results, "rb") as results:
            gather(outcome, results.read())
        os.waitpid(player.pid, 0)
    for tenant in ROWS:
        for read in (by_group, by_entry, by_hand):
            if (version := read(tenant)) != (committed := version_of(tenant)):
                outcome.violate("stuck", f"{version} of {tenant} is served for good, {committed} is committed")
    return outcome


def gather(outcome: Outcome, told: bytes) -> None:
    """Add what one process has counted."""
    if not told:
        outcome.violate("exceptions", "a process ended without a word")
        return
    counted = json.loads(told)
    for name, figure in counted["figures"].items():
        outcome.count(name, figure)
    outcome.kinds.update(counted["kinds"])
    outcome.violations[:0] = counted["violations"]
