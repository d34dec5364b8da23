"""Transactions of PostgreSQL that see the past: nothing of it is stored, in whatever way the level was chosen."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.db import connection, transaction
from psycopg import IsolationLevel

from cacheadmin import ABSENT
from cacheadmin.store import store
from faults import Asked, Outcome
from faults.commits import TENANT, WRITES, newest
from faults.models import Row

OLD = ("REPEATABLE READ", "SERIALIZABLE")


def sql(statement: str) -> None:
    """Run a statement on this thread's connection."""
    with connection.cursor() as cursor:
        cursor.execute(statement)


# --- ways to ask for a level ----------------------------------------------------------------------------------------


@contextmanager
def by_the_transaction(level: str) -> Iterator[None]:
    with transaction.atomic():
        sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
        yield


@contextmanager
def by_the_session(level: str) -> Iterator[None]:
    sql(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")
    try:
        with transaction.atomic():
            yield
    finally:
        sql("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")


@contextmanager
def by_a_parameter(level: str) -> Iterator[None]:
    sql(f"SET default_transaction_isolation = '{level.lower()}'")
    try:
        with transaction.atomic():
            yield
    finally:
        sql("RESET default_transaction_isolation")


@contextmanager
def by_the_role(level: str) -> Iterator[None]:
    """The settings say nothing, and no statement of this connection does: the server decides when it connects."""
    sql(f"ALTER ROLE CURRENT_USER SET default_transaction_isolation = '{level.lower()}'")
    connection.close()
    try:
        with transaction.atomic():
            yield
    finally:
        sql("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
        connection.close()


@contextmanager
def by_the_settings(level: str) -> Iterator[None]:
    options = connection.settings_dict["OPTIONS"]
    options["isolation_level"] = IsolationLevel[level.replace(" ", "_")]
    connection.close()
    try:
        with transaction.atomic():
            yield
    finally:
        del options["isolation_level"]
        connection.close()


WAYS: tuple[Callable[..., object], ...] = (
    by_the_transaction,
    by_the_session,
    by_a_parameter,
    by_the_role,
    by_the_settings,
)
FREQUENT = (by_the_transaction, by_the_session, by_a_parameter)
"""Those that need no new connection."""


class Walk:
    """One transaction that looks back while others go on."""

    def __init__(self, chance: random.Random, outcome: Outcome, other: ThreadPoolExecutor) -> None:
        self.chance, self.outcome, self.other = chance, outcome, other
        self.version = 1

    def write_beside(self) -> None:
        """Let another connection commit a newer version, and invalidate."""
        self.version += 1
        self.other.submit(self.chance.choice(WRITES), self.version).result()

    def look(self, told: str) -> None:
        """Read outside of any transaction."""
        newest.pace.slowest = 0.0
        self.outcome.count("reads")
        if (value := newest(TENANT)) != self.version:
            self.outcome.violate("stale", f"{value} instead of {self.version} after a snapshot {told}")

    def look_back(self) -> None:
        """Read in a transaction whose snapshot is older than the stamp, and outside of it afterwards."""
        way = self.chance.choices(WAYS, [20 if way in FREQUENT else 1 for way in WAYS])[0]
        level, begun = self.chance.choice(OLD), self.version
        told = f"{level} {way.__name__}"
        newest.pace.slowest = 0.0
        if self.chance.random() < 0.5:
            newest(TENANT)
        with way(level):
            Row.objects.count()
            if self.chance.random() < 0.9:
                self.write_beside()
            value = newest(TENANT)  # the old one, computed for this transaction alone, or the new one if it is cached
            if value not in (begun, self.version):
                self.outcome.violate("stale", f"{value} is seen in a snapshot {told} of {begun}")
            self.outcome.count("snapshots")
            if self.chance.random() < 0.5:
                self.other.submit(self.look, told).result()
        self.look(told)

    def look_twice(self) -> None:
        """The first look leaves a stamp that the second one's snapshot is younger than, unless somebody writes."""
        way, level = self.chance.choice((by_the_session, by_a_parameter)), self.chance.choice(OLD)
        told = f"{level} {way.__name__}, twice"
        self.write_beside()
        for writes in (self.chance.random() < 0.3, self.chance.random() < 0.3):
            newest.pace.slowest = 0.0
            with way(level):
                Row.objects.count()
                if writes:
                    self.write_beside()
                newest(TENANT)
        if not writes and newest.peek(TENANT) is ABSENT:
            self.outcome.violate("not_cached", f"{told}: its stamp is known since before the snapshot")
        self.look(told)
        self.outcome.count("second_looks")

    def look_on(self) -> None:
        """Under READ COMMITTED each query sees what is committed: what is read may be stored, and is found again."""
        with transaction.atomic():
            Row.objects.count()
            self.write_beside()
            self.look("READ COMMITTED, from inside")
            with connection.execute_wrapper(self.no_query):
                self.look("READ COMMITTED, again")
        self.outcome.count("hits_in_transactions")

    def no_query(self, execute: object, sql: str, *_: object) -> object:
        """Stand where queries pass: a hit makes none."""
        self.outcome.violate("not_cached", f"READ COMMITTED in a transaction that only reads: {sql[:80]}")
        return execute(sql, *_)  # type: ignore[operator]


def old_snapshot(asked: Asked) -> Outcome:
    """Look back `count` times."""
    assert connection.vendor == "postgresql", "SQLite's snapshots are walked through by early_invalidate."
    outcome, chance = Outcome(), random.Random(asked.seed)
    Row.objects.all().delete()
    Row.objects.create(tenant=TENANT, version=1)
    store("query").link.call(("FLUSHDB",))
    with ThreadPoolExecutor(1) as other:
        walk = Walk(chance, outcome, other)
        while outcome.figures.get("snapshots", 0) < asked.count:
            chance.choices((walk.look_back, walk.look_twice, walk.look_on), (8, 1, 1))[0]()
            if asked.stops_at_first and outcome.is_broken:
                break
        other.submit(lambda: connection.close()).result()
    return outcome
