"""The write that nine of ten are, one row by its key or a new one, noted without a query of ours.

An UPDATE that writes a column of which the old value is wanted too gets one condition more: that it is the old value
already. Where that holds, as nearly always for a tenant, one statement has proved what a SELECT and a lock would have
found out; where it does not, no row was touched and the slow way begins. Columns that are wanted and not written come
back by RETURNING.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, IntegerFieldExact
from django.db.models.sql.compiler import SQLUpdateCompiler
from django.db.models.sql.constants import ROW_COUNT

from cacheadmin import outbox, transactions
from cacheadmin.rules import Seen, Snapshot
from cacheadmin.rules.paths import ACTIVE_TENANT
from cacheadmin.tenancy import tenancy
from cacheadmin.transactions.state import State
from cacheadmin.writes.blocks import block
from cacheadmin.writes.images import MOST_ROWS
from cacheadmin.writes.shapes import Insert, Update, insert_shape, update_shape

SLOW: Final = object()
"""The answer for a write that has to be looked at thoroughly; nothing was run, or nothing was touched."""

_INTEGERS: Final = frozenset({Exact, IntegerFieldExact})
"""Conditions that an integer column has: `column = value`."""

_IDS: Final = frozenset({int, uuid.UUID})

_PLAIN: Final = frozenset({int, str, uuid.UUID, type(None)})
"""Types of values that come back from the database as they went in, and may be names in a set."""

_LITERALS: Final = _PLAIN | {float, bool, bytes, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta}
"""Types of values that stand in a statement as one parameter, or as NULL."""

MOST_TEXTS: Final = 64


class _Still:
    """A condition, ready to stand in a WHERE clause."""

    __slots__ = ("params", "sql")
    contains_aggregate = contains_over_clause = False

    def __init__(self, sql: str, params: Sequence[Any]) -> None:
        self.sql, self.params = sql, params

    def as_sql(self, compiler: Any, connection: BaseDatabaseWrapper) -> tuple[str, Sequence[Any]]:
        """Return what it is."""
        return self.sql, self.params


# --- UPDATE ---------------------------------------------------------------------------------------------------------


def update(
    original: Callable[..., Any],
    compiler: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    state: State,
    snapshot: Snapshot,
    seens: tuple[Seen, ...],
) -> Any:
    """Run an UPDATE of one row by its key and note it. Returns: what `original` does, or SLOW."""
    query, connection = compiler.query, compiler.connection
    asked = args[0] if args else kwargs.get("result_type", kwargs.get("returning_fields"))
    counts = original.__name__ == "execute_sql"
    if (asked != ROW_COUNT if counts else asked) or query.related_updates:
        return SLOW
    children = query.where.children
    if len(children) != 1 or query.where.negated or (pk := _key(children[0], query)) is None:
        return SLOW
    values = query.values
    shape = update_shape(snapshot, connection, query.model, [value[0] for value in values], seens)
    if shape is None:
        return SLOW
    if shape.key is None:
        transactions.mark_written(connection)
        return _announced(original, compiler, args, kwargs)
    if shape.returning and not is_djangos(original):
        return SLOW
    found: list[Any] = [pk] if shape.has_key else []
    params: list[Any] = []
    conditions = shape.conditions
    for at, column in shape.still:
        value = values[at][2]
        if type(value) is int:
            params.append(value)
        elif type(value) is uuid.UUID:
            params.append(column.get_db_prep_save(value, connection))
        elif value is None:
            conditions = ""
        else:
            return SLOW
        found.append(value)
    if shape.still and not conditions:
        conditions = _with_nulls(shape, found)
    condition = children[0]
    if type(pk) is int and type(condition) in _INTEGERS and shape.least <= pk <= shape.most:
        # What Django would make of it, made once.
        conditions = f"{shape.is_row} AND {conditions}" if conditions else shape.is_row
        children[0] = _Still(conditions, (pk, *params))
    elif conditions:
        children.append(_Still(conditions, params))
    try:
        if not state.pending.has_written and outbox.keeps_rows(connection):
            with block(connection, is_needed=True):
                count = _run(original, compiler, args, kwargs, state, shape, found)
        else:
            count = _run(original, compiler, args, kwargs, state, shape, found)
    finally:
        children[:] = (condition,)
    if count == 0 and shape.still:
        if connection.queries_logged:
            connection.queries_log.pop()  # it is about to be run again
        return SLOW
    if not state.pending.has_written:
        transactions.settle(connection)
    return count if counts else [()] * count


def _key(node: Any, query: Any) -> Any:
    """Return the primary key if a condition is nothing but `pk = x`, else None."""
    if not isinstance(node, Exact) or type(node.rhs) not in _PLAIN:
        return None
    column = node.lhs
    if type(column) is not Col or not column.target.primary_key or column.alias != query.base_table:
        return None
    return node.rhs


def _with_nulls(shape: Update, found: list[Any]) -> str:
    values = found[1:] if shape.has_key else found
    return " AND ".join(
        null if value is None else given for value, (given, null) in zip(values, shape.parts, strict=True)
    )


def _run(
    original: Callable[..., Any],
    compiler: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    state: State,
    shape: Update,
    found: list[Any],
) -> int:
    """Run an UPDATE and note the row; return how many rows it touched."""
    connection = compiler.connection
    if not state.pending.has_written:
        transactions.mark_written(connection)
    before, state.announced = state.announced, shape.table
    try:
        if shape.returning or is_djangos(original):
            count = _sent(compiler, shape, found)
        else:
            result = original(compiler, *args, **kwargs)
            count = result if type(result) is int else len(result)
    finally:
        state.announced = before
    if count == 1:
        _note(state, shape, tuple(found))
    return count


@cache
def is_djangos(method: Callable[..., Any]) -> bool:
    """Say whether a method is what Django has there, and not another app's that wraps it."""
    return method.__module__ == SQLUpdateCompiler.__module__ and not hasattr(method, "__wrapped__")


def _sent(compiler: Any, shape: Update, found: list[Any]) -> int:
    """Run an UPDATE, add what it returns to `found`, and return how many rows it touched."""
    connection = compiler.connection
    try:
        sql, params = _statement(compiler, shape)
    except EmptyResultSet:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(sql + shape.returning, params)
        if not shape.returning:
            return int(cursor.rowcount)
        rows: list[Any] = cursor.fetchall()
    for row in rows:
        for (converters, column), value in zip(shape.returned, row, strict=True):
            for converter in converters:
                value = converter(value, column, connection)
            found.append(value)
    return len(rows)


def _statement(compiler: Any, shape: Update) -> tuple[str, Sequence[Any]]:
    """
    Return what `compiler.as_sql()` does; what Django wrote once is not written again for other values.

    Raises:  EmptyResultSet.
    """
    query, connection, texts = compiler.query, compiler.connection, shape.texts
    condition: Any = query.where.children[-1]
    if texts is None or type(condition) is not _Still or len(query.where.children) > 1 or len(query.alias_map) > 1:
        return compiler.as_sql()
    params: list[Any] = []
    nulls: list[int] = []
    for (column, _, value), unprepared in zip(query.values, shape.unprepared, strict=True):
        kind = type(value)
        if kind is not unprepared:
            if kind not in _LITERALS:
                return compiler.as_sql()
            value = column.get_db_prep_save(value, connection)
            if value is None:
                nulls.append(len(params))
        params.append(value)
    params += condition.params
    given = [value for value in params if value is not None] if nulls else params
    key: tuple[str | int, ...] = (condition.sql, *nulls)
    known = texts.get(key)
    if known is None:
        sql, written = compiler.as_sql()
        # Django 5.2 writes NULL into the text, 6.1 gives it as a parameter.
        if list(written) not in (given, params):
            shape.texts = None  # a field of the site's own that writes more than a value
            return sql, written
        if len(texts) < MOST_TEXTS:
            texts[key] = sql, len(written) == len(params)
        return sql, written
    sql, has_nulls = known
    return sql, params if has_nulls else given


# --- INSERT ---------------------------------------------------------------------------------------------------------


def insert(
    original: Callable[..., Any],
    compiler: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    state: State,
    snapshot: Snapshot,
    seens: tuple[Seen, ...],
) -> Any:
    """Run an INSERT of one row and note it. Returns: what `original` does, or SLOW."""
    query, connection = compiler.query, compiler.connection
    if len(query.objs) != 1 or query.on_conflict is not None:
        return SLOW
    shape = insert_shape(snapshot, connection, query.model, seens)
    if shape is None:
        return SLOW
    if shape.key is None:
        transactions.mark_written(connection)
        return _announced(original, compiler, args, kwargs)
    values = query.objs[0].__dict__
    found = tuple(values.get(name) for name in shape.names)
    if not _IDS.issuperset(map(type, found)):
        return SLOW
    with block(connection, is_needed=outbox.keeps_rows(connection)):
        if not state.pending.has_written:
            transactions.mark_written(connection)
        result = _announced(original, compiler, args, kwargs)
        _note(state, shape, found)
    if not state.pending.has_written:
        transactions.settle(connection)
    return result


# --- both -----------------------------------------------------------------------------------------------------------


def _announced(original: Callable[..., Any], compiler: Any, args: Any, kwargs: Any) -> Any:
    return transactions.announced(compiler.connection, _table(compiler), original, compiler, *args, **kwargs)


def _table(compiler: Any) -> str:
    table: str = compiler.query.model._meta.db_table
    return table


def _note(state: State, shape: Update | Insert, found: tuple[Any, ...]) -> None:
    """Add a row to what is pending. All of one kind of change have their paths in one order."""
    if shape.wants_active:
        found += (tenancy().current(),)
    for value in found:
        if type(value) not in _PLAIN:
            name: Any = tuple(map(repr, found))
            break
    else:
        name = found
    key: Any = shape.key
    changes = state.pending.changes
    rows = changes.get(key, SLOW)
    if rows is SLOW:
        rows = changes[key] = {}
    elif rows is None or name in rows:
        return
    rows[name] = dict(zip((*shape.paths, ACTIVE_TENANT) if shape.wants_active else shape.paths, found, strict=True))
    if len(rows) > MOST_ROWS:
        changes[key] = None
