"""Processes that are killed around a COMMIT, and while they deliver what others left behind."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import connection, connections, transaction

from cacheadmin import cache_tenant_query, outbox, transactions
from cacheadmin.models import Intent
from cacheadmin.outbox import relay, rows, waking
from cacheadmin.store.redis import RedisStore
from cacheadmin.transactions import ends
from faults import Asked, Outcome
from faults.models import Row

TENANTS = range(1, 21)
LONGEST_CHILD_SECONDS = 60


class Computing(threading.local):
    """How long this thread's last computation took: what a read took besides was the cache's."""

    seconds = 0.0


computing = Computing()


@cache_tenant_query(timeout=600, key_prefix="rows")
def newest(tenant_id: int) -> int:
    begun = time.monotonic()
    try:
        return Row.objects.get(tenant=tenant_id).version
    finally:
        computing.seconds = time.monotonic() - begun


# --- what a child does ----------------------------------------------------------------------------------------------


def by_save(tenant: int) -> None:
    row = Row.objects.get(tenant=tenant)
    row.version += 1
    row.save()


def by_update(tenant: int) -> None:
    Row.objects.filter(tenant=tenant).update(version=Row.objects.get(tenant=tenant).version + 1)


def by_sql(tenant: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE faults_row SET version = version + 1 WHERE tenant = %s", [tenant])


def with_rows(tenant: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE faults_row SET version = version + 1 WHERE tenant = %s RETURNING version", [tenant])
        cursor.fetchone()


def in_a_transaction(tenant: int) -> None:
    with transaction.atomic():
        by_sql(tenant)
        by_update(tenant)


SLOW_SELECT = (
    "WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 20000) "
    "SELECT max(n) FROM counted"
)
"""Some milliseconds, as PostgreSQL's sleep: who reads meanwhile may store what is about to be old."""


def on_its_own(tenant: int) -> None:
    """Write by code of the database that commits by itself, so that it cannot be given a transaction."""
    update = f"UPDATE faults_row SET version = version + 1 WHERE tenant = {tenant:d};"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            sleep = "PERFORM pg_sleep(0.005);"
            cursor.execute(f"DO $$ BEGIN {sleep} {update} COMMIT; {sleep} END $$")
        else:
            cursor.executescript(f"{SLOW_SELECT}; {update}")


WRITES = (by_save, by_update, by_sql, with_rows, in_a_transaction, on_its_own)
WIDE = (by_sql, with_rows, in_a_transaction, on_its_own)
"""Of these only the table is known: one row drops the values of all tenants, and would hide what others lost."""


def die(*_: object, **__: object) -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def dying(call: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """Return a call during which the process dies: before it does anything, or right after it."""

    def last(*args: Any, **kwargs: Any) -> None:
        if not before:
            call(*args, **kwargs)
        die()

    return last


def _die_before_the_intent() -> None:
    transactions.on_end(dying(ends._before, before=True), ends._after)


def _die_before_the_commit() -> None:
    transactions.on_end(dying(ends._before, before=False), ends._after)


def _die_after_the_commit() -> None:
    transactions.on_end(ends._before, dying(ends._after, before=True))


def _die_before_the_delete() -> None:
    RedisStore.drop_many = dying(RedisStore.drop_many, before=True)


def _die_after_the_delete() -> None:
    RedisStore.drop_many = dying(RedisStore.drop_many, before=False)


def _die_before_the_row_is_done() -> None:
    rows.mark_done = dying(rows.mark_done, before=True)


POINTS = {
    "before the intent": _die_before_the_intent,
    "before the commit": _die_before_the_commit,
    "after the commit": _die_after_the_commit,
    "before the delete": _die_before_the_delete,
    "after the delete": _die_after_the_delete,
    "before the row is done": _die_before_the_row_is_done,
}


def die_after(seconds: float) -> None:
    """Die by the clock, wherever the process is then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def start(act: Callable[[], object]) -> int:
    """Do something in a process of its own, and return its id."""
    connections.close_all()  # a child must not share a connection to SQLite
    pid = os.fork()
    if pid:
        return pid
    try:
        act()
    finally:
        os._exit(0)


def wait_for(pid: int, meanwhile: Callable[[], object] = lambda: time.sleep(0.001)) -> bool:
    """Wait for a child, and do something again and again. Returns: whether it was killed."""
    ends_at = time.monotonic() + LONGEST_CHILD_SECONDS
    while time.monotonic() < ends_at:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WIFSIGNALED(status)
        meanwhile()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("A child did not end.")


# --- what the parent sees -------------------------------------------------------------------------------------------


def prepare() -> None:
    """Make the rows; nobody delivers in the background, so that what is seen is what the scenario did."""
    waking.has_thread = lambda connection: False
    relay._thread.wake = lambda in_seconds, **_: None
    make_rows()


def make_rows() -> None:
    """Begin with one row a tenant."""
    Row.objects.all().delete()
    Row.objects.bulk_create(Row(tenant=tenant) for tenant in TENANTS)


def relay_all() -> int:
    """Deliver what waits, as a relay does when it is due. Returns: rows delivered."""
    delivered, ends_at = 0, time.monotonic() + LONGEST_CHILD_SECONDS
    while Intent.objects.filter(state=Intent.State.PENDING).exists():
        delivered += outbox.relay_once().delivered
        assert time.monotonic() < ends_at, "The outbox is never empty."
        time.sleep(0.02)
    return delivered


def judge(outcome: Outcome, told: dict[int, str], tenants: Sequence[int] = TENANTS) -> None:
    """Compare what readers are served with what is committed."""
    for tenant in tenants:
        value, committed = newest(tenant), Row.objects.get(tenant=tenant).version
        outcome.count("reads")
        if value != committed:
            outcome.violate("lost", f"{value} is served, {committed} is committed; {told.get(tenant, '')}")


def versions() -> dict[int, int]:
    """Return what is committed."""
    return dict(Row.objects.values_list("tenant", "version"))


def crash(asked: Asked) -> Outcome:
    """Kill `count` writers around their COMMIT, and relay what they left."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    prepare()
    narrow = [write for write in WRITES if write not in WIDE]
    while outcome.figures.get("writers", 0) < asked.count and not (asked.stops_at_first and outcome.is_broken):
        if chance.random() < len(narrow) / len(WRITES):
            _kill_some(outcome, chance, TENANTS, narrow)
        else:
            for tenant in TENANTS:
                _kill_some(outcome, chance, (tenant,), WIDE)
    return outcome


def _kill_some(outcome: Outcome, chance: random.Random, tenants: Sequence[int], writes: Sequence[Any]) -> None:
    """Let a writer for each tenant die around its COMMIT, relay what they left, and read."""
    told: dict[int, str] = {}
    before = versions()
    for tenant in tenants:
        newest(tenant)
        point, write = chance.choice((*POINTS, "by the clock")), chance.choice(writes)
        after = chance.uniform(0.0, 0.02)

        def act(tenant: int = tenant, point: str = point, write: Any = write, after: float = after) -> None:
            POINTS[point]() if point in POINTS else die_after(after)
            write(tenant)

        told[tenant] = f"{write.__name__}, killed {point}"
        outcome.count("writers")
        # Who reads while it writes may store again what was deleted too early.
        outcome.count("kills", wait_for(start(act), lambda tenant=tenant: newest(tenant)))
    outcome.count("commits", sum(version != before[tenant] for tenant, version in versions().items()))
    if len(tenants) == 1:
        Intent.objects.filter(state=Intent.State.PENDING).update(due="2000-01-01T00:00:00Z")
    outcome.count("relayed", relay_all())
    judge(outcome, told, tenants)


RELAY_POINTS = ("before the delete", "after the delete", "before the row is done")


def relay_killed(asked: Asked) -> Outcome:
    """Leave rows behind `count` times; two relays at once, one or both killed midway; then one that lives."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    prepare()
    for _ in range(asked.count):
        for tenant in TENANTS:
            newest(tenant)
        deliver = ends._after
        transactions.on_end(ends._before, lambda pending, receipt: None)  # as if each writer died after its COMMIT
        for tenant in TENANTS:
            chance.choice(WRITES)(tenant)
        transactions.on_end(ends._before, deliver)
        Intent.objects.filter(state=Intent.State.PENDING).update(due="2000-01-01T00:00:00Z")
        outcome.count("rows", Intent.objects.filter(state=Intent.State.PENDING).count())
        limit = chance.choice((3, 7, 500))
        points = (chance.choice(RELAY_POINTS), chance.choice((*RELAY_POINTS, "never")))

        def act(point: str, limit: int = limit) -> None:
            logging.disable(logging.CRITICAL)
            if point in POINTS:
                POINTS[point]()
            outbox.relay_once(limit)

        children = [start(lambda point=point: act(point)) for point in points]
        outcome.count("relays", len(children))
        outcome.count("kills", sum(map(wait_for, children)))
        outcome.count("relayed_at_last", relay_all())
        judge(outcome, dict.fromkeys(TENANTS, f"relays killed {' and '.join(points)}"))
        if asked.stops_at_first and outcome.is_broken:
            break
    return outcome
