"""Every kind of write, mixed at random, alone and in all sorts of transactions: each must be seen, in every table."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection, connections, transaction

from cacheadmin import cache_tenant_query
from cacheadmin.outbox import waking
from faults import Asked, Outcome
from faults.kinds import KINDS, World
from faults.models import Making, Mark, Special, Thing

TENANTS = (1, 2)
OTHER = "other"
"""A second database, with the same tables."""
NEW_WORLD_AFTER = 25


# --- what is cached: a group a table, computed of both databases ------------------------------------------------------


def things(tenant: int) -> list[Any]:
    """Return the things of a tenant with what they are related to."""
    found = _rows(Thing, tenant, "tenant", "pk", "name", "size", "shelf_id", "spare_id", "follows_id")
    found += _rows(Thing.labels.through, tenant, "thing__tenant", "thing_id", "label_id")
    return found + _rows(Thing.alike.through, tenant, "from_thing__tenant", "from_thing_id", "to_thing_id")


def specials(tenant: int) -> list[Any]:
    """Return the special things of a tenant, their parents' columns too."""
    return _rows(Special, tenant, "tenant", "pk", "name", "size", "shine", "shelf_id")


def makings(tenant: int) -> list[Any]:
    """Return who made the things of a tenant."""
    return _rows(Making, tenant, "thing__tenant", "pk", "thing_id", "maker_id", "year")


def marks(tenant: int) -> list[Any]:
    """Return the marks on the things of a tenant."""
    return _rows(Mark, tenant, "thing__tenant", "pk", "thing_id", "text")


def _rows(model: Any, tenant: int, path: str, *names: str) -> list[Any]:
    found = (model.objects.using(alias).filter(**{path: tenant}).order_by("pk") for alias in ("default", OTHER))
    return [row for rows in found for row in rows.values_list(*names)]


COMPUTED = {function.__name__: function for function in (things, specials, makings, marks)}
CACHED = {name: cache_tenant_query(timeout=600, key_prefix=name)(function) for name, function in COMPUTED.items()}


# --- ways to run a write ----------------------------------------------------------------------------------------------


class OnPurpose(Exception):
    """Ends a block or a callback."""


@contextmanager
def alone(alias: str) -> Iterator[None]:
    yield


@contextmanager
def in_a_block(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        yield


@contextmanager
def in_two_blocks(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias), transaction.atomic(using=alias):
        yield


@contextmanager
def rolled_back(alias: str) -> Iterator[None]:
    try:
        with transaction.atomic(using=alias):
            yield
            raise OnPurpose
    except OnPurpose:
        return


@contextmanager
def beside_a_savepoint_rolled_back(alias: str) -> Iterator[None]:
    with transaction.atomic(using=alias):
        try:
            with transaction.atomic(using=alias):
                Thing.objects.using(alias).update(size=-1)
                raise OnPurpose
        except OnPurpose:
            yield


@contextmanager
def before_a_callback_that_raises(alias: str) -> Iterator[None]:
    def burst() -> None:
        raise OnPurpose

    try:
        with transaction.atomic(using=alias):
            transaction.on_commit(burst, using=alias)
            yield
    except OnPurpose:
        return


@contextmanager
def by_hand(alias: str) -> Iterator[None]:
    transaction.set_autocommit(False, using=alias)
    try:
        yield
        connections[alias].commit()
    finally:
        connections[alias].rollback()
        transaction.set_autocommit(True, using=alias)


WAYS: tuple[Callable[[str], Any], ...] = (
    alone,
    alone,
    in_a_block,
    in_two_blocks,
    rolled_back,
    beside_a_savepoint_rolled_back,
    before_a_callback_that_raises,
    by_hand,
)


# --- the scenario -----------------------------------------------------------------------------------------------------


def add_a_database() -> None:
    """Give this process a second database, of the same kind as the first."""
    settings = connection.settings_dict
    name = str(settings["NAME"])
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}_{OTHER}" TEMPLATE template0')
        name = f"{name}_{OTHER}"
    else:
        name = str(Path(name).with_name(f"{OTHER}.sqlite3"))
    connections.databases[OTHER] = settings | {"NAME": name}
    call_command("migrate", run_syncdb=True, verbosity=0, database=OTHER)


def judge(outcome: Outcome, told: str) -> None:
    """Compare what is served with what stands, in every table."""
    for name, tenant in itertools.product(CACHED, TENANTS):
        outcome.count("reads")
        if CACHED[name](tenant) != COMPUTED[name](tenant):
            outcome.violate("missed", f"{name} of {tenant} after {told}")
            CACHED[name].invalidate_all()


def writes(asked: Asked) -> Outcome:
    """Write `count` times."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    # SQLite refuses a transaction that has read, and writes after somebody else did: done rows are marked in between.
    waking.has_thread = lambda connection: False
    add_a_database()
    worlds: dict[str, World] = {}
    kinds = iter(())
    for number in range(asked.count):
        if number % NEW_WORLD_AFTER == 0:
            worlds = {alias: World(alias, TENANTS, chance) for alias in ("default", OTHER)}
            judge(outcome, "a new world")
        # All kinds in turn, shuffled anew each time: none is left out by chance.
        kind = next(kinds, None) or next(kinds := iter(chance.sample(KINDS, len(KINDS))))
        alias, way = chance.choices(("default", OTHER), (3, 1))[0], chance.choice(WAYS)
        told = f"{kind.__name__} {way.__name__} in {alias}"
        with way(alias):
            kind(worlds[alias])
        outcome.count("writes")
        outcome.figures["kinds"] = len(KINDS)
        judge(outcome, told)
        if asked.stops_at_first and outcome.is_broken:
            break
    return outcome
