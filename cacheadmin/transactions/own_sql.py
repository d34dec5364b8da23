"""Statements of our own: not logged, not counted by `assertNumQueries`, seen by nobody's wrappers, ours included."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

from cacheadmin.transactions.state import note_asked, state_of


def fetch(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run a query and return all its rows, as the driver gives them."""
    return _execute(connection, sql, params)[0]


def run(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any] = ()) -> int:
    """Run a statement and return how many rows it touched."""
    return _execute(connection, sql, params)[1]


def insert(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any], table: str, key: str) -> int:
    """Run an INSERT where the database cannot return columns, and return the new key."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = _cursor(connection)
        try:
            cursor.execute(sql, tuple(params))
            return int(connection.ops.last_insert_id(cursor, table, key))
        finally:
            cursor.close()


def _cursor(connection: BaseDatabaseWrapper) -> Any:
    """Return a cursor of the driver, which no hook sees; that it asks is noted all the same."""
    note_asked(connection)
    return connection.create_cursor()


def _execute(connection: BaseDatabaseWrapper, sql: str, params: Sequence[Any]) -> tuple[list[tuple[Any, ...]], int]:
    connection.validate_thread_sharing()
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = _cursor(connection)
        try:
            cursor.execute(sql, tuple(params))
            rows = cursor.fetchall() if cursor.description is not None else []
            return rows, cursor.rowcount
        finally:
            cursor.close()


@contextmanager
def unseen(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Keep the statements of this block from our hooks and out of the query logs."""
    state = state_of(connection)
    state.depth += 1
    try:
        with quiet():
            yield
    finally:
        state.depth -= 1


@contextmanager
def savepoint(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Undo what a block of an open transaction did, if it fails, and leave the transaction as it was before."""
    ops, name = connection.ops, "cacheadmin"
    run(connection, ops.savepoint_create_sql(name))
    try:
        yield
    except BaseException:
        run(connection, ops.savepoint_rollback_sql(name))
        raise
    run(connection, ops.savepoint_commit_sql(name))


class quiet:  # noqa: N801 - used like a function, and a generator costs more
    """Take the statements of a block out of this thread's query logs."""

    __slots__ = ("logs",)

    def __enter__(self) -> None:
        self.logs = [
            (c.queries_log, len(c.queries_log)) for c in connections.all(initialized_only=True) if c.queries_logged
        ]

    def __exit__(self, *error: object) -> None:
        for log, length in self.logs:
            while len(log) > length:
                log.pop()


# --- which tables there are -----------------------------------------------------------------------------------------

ABSENT_SECONDS: Final = 60.0
"""How long a table that is not there is taken for absent; on PostgreSQL a failed query would end the transaction."""

_tables: dict[tuple[str, str, str | None], tuple[frozenset[str], float]] = {}


def has_table(connection: BaseDatabaseWrapper, table: str) -> bool:
    """Say whether a table exists. Cost: one query a database and process, and one a minute while it does not."""
    key = (connection.alias, str(connection.settings_dict["NAME"]), getattr(connection, "schema_name", None))
    known, looked = _tables.get(key, (frozenset(), 0.0))
    if table in known:
        return True
    if key in _tables and time.monotonic() - looked < ABSENT_SECONDS:
        return False
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = _cursor(connection)
        try:
            # Only our own: of the rest nothing is ever asked.
            found = {
                t.name for t in connection.introspection.get_table_list(cursor) if t.name.startswith("cacheadmin_")
            }
        finally:
            cursor.close()
    _tables[key] = frozenset(found), time.monotonic()
    return table in found


def forget_tables(**_: Any) -> None:
    """Look again which tables there are."""
    _tables.clear()


post_migrate.connect(forget_tables, dispatch_uid="cacheadmin.transactions")
