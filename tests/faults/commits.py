"""Reads before, inside and beside transactions: nothing uncommitted, nothing older than a commit, own writes seen."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from cacheadmin import cache_tenant_query, transactions
from cacheadmin.outbox import waking
from cacheadmin.store import store
from cacheadmin.transactions import ends
from faults import Asked, Outcome
from faults.models import Row

STEPS = 8
TENANT = 7


class RolledBack(Exception):
    """Ends a transaction without its writes."""


class Hook:
    """What happens between reading the data and storing what was computed of it."""

    during: Callable[[], object] | None = None


@cache_tenant_query(timeout=60, key_prefix="rows")
def newest(tenant_id: int) -> int:
    found = Row.objects.get(tenant=tenant_id).version
    if Hook.during is not None:
        during, Hook.during = Hook.during, None
        during()
    return found


def by_save(version: int) -> None:
    row = Row.objects.get(tenant=TENANT)
    row.version = version
    row.save()


def by_update(version: int) -> None:
    Row.objects.filter(tenant=TENANT).update(version=version)


def by_bulk_update(version: int) -> None:
    row = Row.objects.get(tenant=TENANT)
    row.version = version
    Row.objects.bulk_update([row], ["version"])


def by_sql(version: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE faults_row SET version = %s WHERE tenant = %s", [version, TENANT])


def by_replacing(version: int) -> None:
    with transaction.atomic():
        Row.objects.filter(tenant=TENANT).delete()
        Row.objects.create(tenant=TENANT, version=version)


WRITES = (by_save, by_update, by_bulk_update, by_sql, by_replacing)


class Walk:
    """One order of events between two connections: this thread's and the other one's."""

    def __init__(self, chance: random.Random, outcome: Outcome, other: ThreadPoolExecutor) -> None:
        self.chance, self.outcome, self.other = chance, outcome, other
        self.committed = 1
        self.given = 1
        self.trace: list[str] = []
        self.is_ready = False

    def run(self) -> None:
        """Walk, and look at the end."""
        Row.objects.all().delete()
        Row.objects.create(tenant=TENANT, version=1)
        store("query").link.call(("FLUSHDB",))
        self.is_ready = True
        for _ in range(STEPS):
            self.chance.choice((self.look, self.write, self.race, self.transact, self.transact, self.keep_a_snapshot))()
        self.look()
        self.look()

    def look(self, *, own: int = 0) -> None:
        """Read and judge; `own` is what this connection has written and not committed."""
        newest.pace.slowest = 0.0
        value = newest(TENANT)
        self.outcome.count("reads")
        self.trace.append(f"read {value}")
        told = f"{value} instead of {own or self.committed}: {'; '.join(self.trace)}"
        if own and value != own:
            self.outcome.violate("own_write_unseen", told)
        elif not own and value < self.committed:
            self.outcome.violate("stale", told)
        elif not own and value > self.committed:
            self.outcome.violate("uncommitted", told)

    def beside(self, act: Callable[[], object]) -> None:
        """Let the other connection do something now."""
        self.trace.append("beside:")
        self.other.submit(act).result()

    def new(self) -> int:
        """Return a version that was never there, rolled back ones included."""
        self.given += 1
        return self.given

    def write(self) -> None:
        """Write in autocommit."""
        how, version = self.chance.choice(WRITES), self.new()
        self.trace.append(f"{how.__name__} {version}")
        how(version)
        self.committed = version
        self.outcome.count("commits")

    def race(self) -> None:
        """Read; the other connection writes before the value is stored."""
        Hook.during = lambda: self.beside(self.write)
        newest(TENANT)
        Hook.during = None
        self.look()

    def transact(self) -> None:
        """Write in a transaction, read in it and beside it, and commit or not."""
        version, commits = self.new(), self.chance.random() < 0.6
        with self.rolled_back(), transaction.atomic():
            if self.chance.random() < 0.3:
                self.savepoint()
            how = self.chance.choice(WRITES)
            self.trace.append(f"begin; {how.__name__} {version}")
            how(version)
            for _ in range(self.chance.choice((1, 2))):
                self.chance.choice((lambda: self.look(own=version), lambda: self.beside(self.look)))()
            self.trace.append("commit" if commits else "rollback")
            if not commits:
                raise RolledBack
        if commits:
            self.committed = version
            self.outcome.count("commits")
        else:
            self.outcome.count("rollbacks")
        self.chance.choice((self.look, lambda: self.beside(self.look)))()

    def savepoint(self) -> None:
        """Write and take it back, inside a transaction."""
        version = self.new()
        with self.rolled_back(), transaction.atomic():
            by_update(version)
            self.look(own=version)
            raise RolledBack
        self.trace.append("savepoint rolled back")

    def keep_a_snapshot(self) -> None:
        """Read in a transaction whose snapshot is older than what the other connection commits meanwhile."""
        with transaction.atomic():
            Row.objects.count()
            self.trace.append("snapshot")
            self.beside(self.write)
            self.outcome.count("snapshots")
            newest(TENANT)
        self.look()

    @staticmethod
    @contextmanager
    def rolled_back() -> Iterator[None]:
        """Take the exception that ended a transaction."""
        try:
            yield
        except RolledBack:
            return


def look_before_commits(chance: random.Random, current: Callable[[], Walk]) -> None:
    """Let the other connection read when all is ready for a COMMIT, and the COMMIT is still to come."""
    before, after = ends._before, ends._after

    def then_look(connection: Any, pending: Any) -> Any:
        receipt = before(connection, pending)
        if current().is_ready and threading.current_thread() is threading.main_thread() and chance.random() < 0.3:
            current().beside(current().look)
        return receipt

    transactions.on_end(then_look, after)


def early_invalidate(asked: Asked) -> Outcome:
    """Walk `count` times."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    # SQLite refuses a transaction that has read, and writes after somebody else did: done rows are marked in between.
    waking.has_thread = lambda connection: False
    with ThreadPoolExecutor(1) as other:
        look_before_commits(chance, lambda: walk)
        for _ in range(asked.count):
            walk = Walk(chance, outcome, other)
            walk.run()
            if asked.stops_at_first and outcome.is_broken:
                break
        other.submit(lambda: connection.close()).result()
    return outcome
