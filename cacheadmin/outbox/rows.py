"""The rows of the outbox, written and read past hooks, logs and counts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from cacheadmin.conf import config, on_change, replicas
from cacheadmin.exceptions import InvalidTarget
from cacheadmin.models import Intent
from cacheadmin.targets import ALL, Target
from cacheadmin.texts import restored
from cacheadmin.transactions import own_sql

TABLE: Final = Intent._meta.db_table

DUE_AFTER: Final = dt.timedelta(milliseconds=500)
"""How long a relay leaves a row to its writer."""

KEEP: Final = dt.timedelta(minutes=10)
"""How long done rows are kept: a server that comes back with older data needs them again."""

CLOCK_SLACK: Final = dt.timedelta(minutes=1)
"""A row due later than this was written by a host whose clock is ahead; it is taken at once."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is delivered together: all that one transaction asks for."""

    targets: tuple[Target, ...]
    rules: tuple[str, ...] = ()
    source: str = "code"
    name: str = ""
    warm: tuple[str, ...] = ()
    """Rules after which to warm."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "targets": [target.to_json() for target in self.targets],
            "rules": list(self.rules),
            "source": self.source,
            "name": self.name,
            "warm": list(self.warm),
        }


def keeps_rows(connection: BaseDatabaseWrapper, setting: Sequence[str] = ("durable",)) -> bool:
    """Say whether intents are written to this database: as the settings say, where our table is."""
    if config().outbox not in setting or connection.alias in _lagging():
        return False
    return own_sql.has_table(connection, TABLE)


@cache
def _lagging() -> frozenset[str]:
    return replicas()


@on_change
def forget() -> None:
    """Ask the settings anew which databases lag, and write statements anew."""
    _lagging.cache_clear()
    _inserts.clear()
    _payload.cache_clear()


def databases(aliases: Iterable[str] | None = None) -> list[str]:
    """Return which databases (of some, or all) have our table; replicas aside."""
    lagging = _lagging()
    chosen = connections if aliases is None else aliases
    return [alias for alias in chosen if alias not in lagging and own_sql.has_table(connections[alias], TABLE)]


def _prepared(connection: BaseDatabaseWrapper, values: dict[str, Any]) -> tuple[list[str], list[Any]]:
    columns, params = [], []
    for name, value in values.items():
        field: Any = Intent._meta.get_field(name)
        columns.append(connection.ops.quote_name(field.column))
        params.append(field.get_db_prep_save(value, connection))
    return columns, params


_inserts: dict[tuple[str, str, str], tuple[str, list[Any]]] = {}
"""(database alias, vendor, our table there) -> the statement and the values that every new row has."""


def insert(connection: BaseDatabaseWrapper, delivery: Delivery, delay: dt.timedelta = DUE_AFTER) -> int:
    """Write an intent and return its id. Cost: one statement, uncounted."""
    now = timezone.now()
    _, own = _prepared(connection, {"created": now, "due": now + delay})
    written = _payload if len(delivery.targets) <= MOST_KEPT else _payload.__wrapped__
    own.append(written(connection.alias, delivery))
    table = own_sql.name_of(connection, TABLE)
    known = _inserts.get((connection.alias, connection.vendor, table))
    if known is None:
        known = _inserts[connection.alias, connection.vendor, table] = _statement(connection, table)
    sql, common = known
    if sql.endswith("RETURNING id"):
        return int(own_sql.fetch(connection, sql, [*own, *common])[0][0])
    return own_sql.insert(connection, sql, [*own, *common], TABLE, "id")


MOST_KEPT: Final = 50
"""Targets above which a delivery is written anew each time: few are the same twice, and each takes room."""


@lru_cache(maxsize=1024)
def _payload(alias: str, delivery: Delivery) -> Any:
    """Return a delivery as its column takes it: a page's tenth save writes the same again."""
    return _prepared(connections[alias], {"payload": delivery.to_json()})[1][0]


def _statement(connection: BaseDatabaseWrapper, table: str) -> tuple[str, list[Any]]:
    state = Intent.State.PENDING
    names, common = _prepared(connection, {"state": state, "attempts": 0, "error": "", "delivered_to": {}})
    quote = connection.ops.quote_name
    columns = ", ".join([*map(quote, ("created", "due", "payload")), *names])
    places = ", ".join(["%s"] * (3 + len(common)))
    sql = f"INSERT INTO {table} ({columns}) VALUES ({places})"  # noqa: S608
    if connection.features.can_return_columns_from_insert and connection.vendor != "oracle":
        sql += " RETURNING id"
    return sql, common


def change(connection: BaseDatabaseWrapper, ids: Sequence[int], values: dict[str, Any]) -> int:
    """Set some columns of some rows and return how many there were. Cost: one statement a 500 rows, uncounted."""
    columns, params = _prepared(connection, values)
    quote, table, changed = connection.ops.quote_name, own_sql.name_of(connection, TABLE), 0
    assignments = ", ".join(f"{column} = %s" for column in columns)
    for start in range(0, len(ids), 500):
        part = list(ids[start : start + 500])
        where = f"{quote('id')} IN ({', '.join(['%s'] * len(part))})"
        changed += own_sql.run(connection, f"UPDATE {table} SET {assignments} WHERE {where}", [*params, *part])  # noqa: S608
    return changed


def mark_done(connection: BaseDatabaseWrapper, ids: Sequence[int], identities: dict[str, str]) -> None:
    """Note that rows were delivered, and to whom."""
    now = timezone.now()
    change(connection, ids, {"state": Intent.State.DONE, "delivered_at": now, "delivered_to": identities, "error": ""})


def dead(connection: BaseDatabaseWrapper) -> int:
    """Return how many rows were given up. Cost: one query, uncounted."""
    table = own_sql.name_of(connection, TABLE)
    names, params = _prepared(connection, {"state": Intent.State.DEAD})
    return int(own_sql.fetch(connection, f"SELECT COUNT(*) FROM {table} WHERE {names[0]} = %s", params)[0][0])  # noqa: S608


def revive(connection: BaseDatabaseWrapper) -> int:
    """Let rows that were given up wait again, due now, and return how many. Cost: one statement, uncounted."""
    again = {"state": Intent.State.PENDING, "due": timezone.now(), "attempts": 0, "error": ""}
    columns, params = _prepared(connection, again)
    where, state = _prepared(connection, {"state": Intent.State.DEAD})
    assignments = ", ".join(f"{column} = %s" for column in columns)
    sql = f"UPDATE {own_sql.name_of(connection, TABLE)} SET {assignments} WHERE {where[0]} = %s"  # noqa: S608
    return own_sql.run(connection, sql, [*params, *state])


def prune(connection: BaseDatabaseWrapper) -> int:
    """Delete rows that have been done for long enough and return how many."""
    table, state = own_sql.name_of(connection, TABLE), Intent.State.DONE
    where, params = _prepared(connection, {"state": state, "due": timezone.now() - KEEP})
    sql = f"DELETE FROM {table} WHERE {where[0]} = %s AND {where[1]} < %s"  # noqa: S608
    return own_sql.run(connection, sql, params)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits to be delivered."""

    count: int
    oldest_seconds: float
    """Age of the oldest; 0.0 if nothing waits."""


def overdue(connection: BaseDatabaseWrapper) -> Waiting:
    """Return what waits in one database and is not its writer's any more. Cost: one query, uncounted."""
    created, table, now = connection.ops.quote_name("created"), own_sql.name_of(connection, TABLE), timezone.now()
    names, params = _prepared(connection, {"state": Intent.State.PENDING, "due": now})
    sql = f"SELECT COUNT(*), MIN({created}) FROM {table} WHERE {names[0]} = %s AND {names[1]} <= %s"  # noqa: S608
    [(count, oldest)] = own_sql.fetch(connection, sql, params)
    since = _datetime(connection, oldest)
    return Waiting(int(count), max(0.0, (now - since).total_seconds()) if since else 0.0)


def _datetime(connection: BaseDatabaseWrapper, value: Any) -> dt.datetime | None:
    field: Any = Intent._meta.get_field("created")
    for converter in (*connection.ops.get_db_converters(field.get_col(TABLE)), *field.get_db_converters(connection)):
        value = converter(value, field.get_col(TABLE), connection)
    return None if value is None else value if timezone.is_aware(value) else timezone.make_aware(value)


def take(connection: BaseDatabaseWrapper, limit: int) -> list[tuple[int, int, Any]]:
    """
    Return id, attempts and payload of due rows: by state, since ids do not commit in order.

    The least tried come first, of these the oldest: many rows that wait for a server must not keep others from theirs.
    Inside a transaction the rows are locked, and those of other relays left out, where the database can do that.
    """
    quote, table, now = connection.ops.quote_name, own_sql.name_of(connection, TABLE), timezone.now()
    names, params = _prepared(connection, {"state": Intent.State.PENDING, "due": now})
    _, late = _prepared(connection, {"due": now + CLOCK_SLACK})
    columns = ", ".join(map(quote, ("id", "attempts", "payload")))
    sql = (
        f"SELECT {columns} FROM {table} WHERE {names[0]} = %s AND ({names[1]} <= %s OR {names[1]} > %s) "  # noqa: S608
        f"ORDER BY {quote('attempts')}, {quote('id')} LIMIT {int(limit)}"
    )
    if connection.in_atomic_block and connection.features.has_select_for_update_skip_locked:
        sql += " FOR UPDATE SKIP LOCKED"
    rows = own_sql.fetch(connection, sql, [*params, *late])
    return [(int(pk), int(attempts), payload) for pk, attempts, payload in rows]


def unseen(connection: BaseDatabaseWrapper, *, with_done: bool) -> list[Any]:
    """
    Return the payloads of all pending rows, due or not, and, if asked, of the done ones that are still kept.

    Cost:    one query, uncounted.
    """
    payload, table = connection.ops.quote_name("payload"), own_sql.name_of(connection, TABLE)
    names, params = _prepared(connection, {"state": Intent.State.PENDING})
    sql = f"SELECT {payload} FROM {table} WHERE {names[0]} = %s"  # noqa: S608
    if with_done:
        (_, due), since = _prepared(connection, {"state": Intent.State.DONE, "due": timezone.now() - KEEP})
        sql += f" OR ({names[0]} = %s AND {due} > %s)"
        params = [*params, *since]
    return [found for (found,) in own_sql.fetch(connection, sql, params)]


def read(payload: Any) -> Delivery:
    """Return what a row's payload says; what cannot be read of it widens to its alias, or to all."""
    try:
        data = restored(payload)
        given = data["targets"]
        rules, source, name = data.get("rules", ()), data.get("source", "relay"), data.get("name", "")
        warm = data.get("warm", ())
        targets = [_target(target) for target in given]
    except (AttributeError, KeyError, TypeError, ValueError):
        return Delivery((Target("tenant", tenant=ALL),), source="relay", name="unreadable intent")
    return Delivery(
        tuple(dict.fromkeys(targets)), tuple(map(str, rules)), str(source), str(name), tuple(map(str, warm))
    )


def _target(data: Any) -> Target:
    try:
        return Target.from_json(data)
    except InvalidTarget:
        alias = data.get("alias") if isinstance(data, dict) else None
        return Target("tenant", tenant=ALL, alias=alias if isinstance(alias, str) else None)
