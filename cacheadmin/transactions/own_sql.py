"""Statements of our own: not logged, not counted by `assertNumQueries`, seen by nobody's wrappers, ours included."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.signals import post_migrate

from cacheadmin.transactions.state import is_lost, note_asked, state_of


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
    """Undo what a block of an open transaction did, if a statement in it fails; the transaction goes on as it was."""
    ops, name = connection.ops, "cacheadmin"
    run(connection, ops.savepoint_create_sql(name))
    try:
        yield
    except BaseException:
        run(connection, ops.savepoint_rollback_sql(name))
        raise
    run(connection, ops.savepoint_rollback_sql(name) if is_lost(connection) else ops.savepoint_commit_sql(name))


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

OURS: Final = "cacheadmin_"
"""What the names of our own tables begin with: of the rest nothing is ever asked."""

_Found = tuple[Mapping[str, str], float]
"""Each table of ours and how a statement names it; when it was looked (time.monotonic)."""

_NEVER: Final[_Found] = {}, float("-inf")
_tables: dict[tuple[str, str, str | None], _Found] = {}


def _where(connection: BaseDatabaseWrapper) -> tuple[str, str, str | None]:
    return connection.alias, str(connection.settings_dict["NAME"]), getattr(connection, "schema_name", None)


def has_table(connection: BaseDatabaseWrapper, table: str) -> bool:
    """
    Say whether one of our tables exists.

    Cost:    a query a database and process, on PostgreSQL maybe two; and one a minute while it does not exist.
    """
    where = _where(connection)
    known, looked_at = _tables.get(where, _NEVER)
    if table in known:
        return True
    if time.monotonic() - looked_at < ABSENT_SECONDS:
        return False
    connection.ensure_connection()
    found = _on_postgresql(connection) if connection.vendor == "postgresql" else _by_introspection(connection)
    _tables[where] = found, time.monotonic()
    return table in found


def name_of(connection: BaseDatabaseWrapper, table: str) -> str:
    """Return how a statement names one of our tables, quoted: on PostgreSQL with its schema, once `has_table` knows."""
    known, _ = _tables.get(_where(connection), _NEVER)
    return known.get(table) or connection.ops.quote_name(table)


def _by_introspection(connection: BaseDatabaseWrapper) -> Mapping[str, str]:
    with connection.wrap_database_errors:
        cursor = _cursor(connection)
        try:
            names = [table.name for table in connection.introspection.get_table_list(cursor)]
        finally:
            cursor.close()
    return {name: connection.ops.quote_name(name) for name in names if name.startswith(OURS)}


def _on_postgresql(connection: BaseDatabaseWrapper) -> Mapping[str, str]:
    """
    Return our tables with the schemas in which they are found now, else by the search path that the session began with.

    A site may set another path by hand, on which ours are not: what it writes then must not fail because of us.
    """
    found: dict[str, dict[str, bool]] = {}
    for table, schema, is_visible in fetch(connection, _TABLES, [OURS]):
        found.setdefault(table, {})[schema] = is_visible
    # Where each tenant has a schema, the path may still be another's.
    chosen = [schema for schema in (getattr(connection, "schema_name", None),) if schema]
    at_first = [] if any(any(schemas.values()) for schemas in found.values()) else _path_at_first(connection)
    quote, names = connection.ops.quote_name, {}
    for table, schemas in found.items():
        visible = [schema for schema, is_visible in schemas.items() if is_visible]
        schema = next((schema for schema in (*chosen, *visible, *at_first) if schema in schemas), None)
        if schema is not None:
            names[table] = f"{quote(schema)}.{quote(table)}"
    return names


_TABLES: Final = (
    "SELECT c.relname, n.nspname, pg_table_is_visible(c.oid) FROM pg_class c JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'f', 'm') AND starts_with(c.relname, %s)"
)

_SCHEMA = re.compile(r'"((?:[^"]|"")+)"|([^\s,"]+)')


def _path_at_first(connection: BaseDatabaseWrapper) -> list[str]:
    """Return the schemas of the search path that settings, role and database gave this session."""
    [(path, user)] = fetch(connection, "SELECT reset_val, session_user FROM pg_settings WHERE name = 'search_path'")
    names = [quoted.replace('""', '"') or plain.lower() for quoted, plain in _SCHEMA.findall(path)]
    return [user if name == "$user" else name for name in names]


def forget_tables(**_: Any) -> None:
    """Look again which tables there are."""
    _tables.clear()


post_migrate.connect(forget_tables, dispatch_uid="cacheadmin.transactions")
