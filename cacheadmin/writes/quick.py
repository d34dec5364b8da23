"""The write that nine of ten are, one row by its key or a new one, noted without a query of ours.

An UPDATE that writes a column of which the old value is wanted too gets one condition more: that it is the old value
already. Where that holds, as nearly always for a tenant, one statement has proved what a SELECT and a lock would have
found out; where it does not, no row was touched and the slow way begins. Columns that are wanted and not written come
back by RETURNING.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, ForeignKey, Model
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, IntegerFieldExact
from django.db.models.sql.constants import ROW_COUNT

from cacheadmin import outbox, transactions
from cacheadmin.rules import Seen, Snapshot
from cacheadmin.rules.paths import ACTIVE_TENANT, resolve
from cacheadmin.tenancy import tenancy
from cacheadmin.transactions.state import State
from cacheadmin.writes.blocks import block
from cacheadmin.writes.images import MOST_ROWS

SLOW: Final = object()
"""The answer for a write that has to be looked at thoroughly; nothing was run, or nothing was touched."""

MOST_SHAPES: Final = 64

_EXACT: Final = frozenset(
    {
        *("AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField"),
        *("PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField", "UUIDField"),
    }
)
"""Columns whose values are equal in the database if and only if they are the same: texts have collations."""

_INTEGERS: Final = frozenset({Exact, IntegerFieldExact})
"""Conditions that an integer column has: `column = value`."""

_PLAIN: Final = frozenset({int, str, uuid.UUID, type(None)})
"""Types of values that come back from the database as they went in, and may be names in a set."""


@dataclass(slots=True)
class _Update:
    """How an UPDATE of certain columns concerns the one model that rules name. `key` is empty if it does not."""

    fields: list[Field[Any, Any]]
    is_quick: bool = True
    key: tuple[str, str, frozenset[str] | None] | None = None
    paths: tuple[str, ...] = ()
    """What is known of the row: its key, if that is wanted; what stays as it is; what the statement returns."""
    has_key: bool = False
    still: tuple[tuple[int, Field[Any, Any]], ...] = ()
    """Place among the fields, column."""
    is_row: str = ""
    """The condition that the key is a value, and which integers it may be."""
    least: int = 0
    most: int = -1
    conditions: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    """The condition of each column, for a value and for NULL."""
    returned: tuple[tuple[tuple[Any, ...], Any], ...] = ()
    """Converters, column."""
    returning: str = ""
    wants_active: bool = False


@dataclass(slots=True)
class _Insert:
    """How an INSERT concerns the one model that rules name."""

    is_quick: bool = True
    key: tuple[str, str, frozenset[str] | None] | None = None
    paths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    wants_active: bool = False


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
    shape = _shape(snapshot, connection, query.model, [value[0] for value in values], seens)
    if shape is None:
        return SLOW
    if shape.key is None:
        transactions.mark_written(connection)
        return _announced(original, compiler, args, kwargs, state)
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
        children[0] = _Still(conditions, [pk, *params])
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


def _with_nulls(shape: _Update, found: list[Any]) -> str:
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
    shape: _Update,
    found: list[Any],
) -> int:
    """Run an UPDATE and note the row; return how many rows it touched."""
    connection = compiler.connection
    if not state.pending.has_written:
        transactions.mark_written(connection)
    state.announced += 1
    try:
        if shape.returning:
            count = _returned(compiler, shape, found)
        else:
            result = original(compiler, *args, **kwargs)
            count = result if type(result) is int else len(result)
    finally:
        state.announced -= 1
    if count == 1:
        _note(state, shape, tuple(found))
    return count


def _returned(compiler: Any, shape: _Update, found: list[Any]) -> int:
    """Run an UPDATE and add what it returns to `found`."""
    connection = compiler.connection
    sql, params = compiler.as_sql()
    with connection.cursor() as cursor:
        cursor.execute(sql + shape.returning, params)
        rows: list[Any] = cursor.fetchall()
    for row in rows:
        for (converters, column), value in zip(shape.returned, row, strict=True):
            for converter in converters:
                value = converter(value, column, connection)
            found.append(value)
    return len(rows)


def _shape(
    snapshot: Snapshot, connection: BaseDatabaseWrapper, model: type[Model], fields: list[Any], seens: tuple[Seen, ...]
) -> _Update | None:
    """Return how an UPDATE of these columns is noted; None if it has to go the slow way."""
    known = snapshot.memo.setdefault(("update", connection.alias, model), [])
    for shape in known:
        if shape.fields == fields:
            return shape if shape.is_quick else None
    if len(known) >= MOST_SHAPES:
        return None
    names = frozenset(name for field in fields for name in (field.name, field.attname))
    shape = _make(snapshot, connection, model, fields, names, seens) or _Update(fields, is_quick=False)
    known.append(shape)
    return shape if shape.is_quick else None


def _make(
    snapshot: Snapshot,
    connection: BaseDatabaseWrapper,
    model: type[Model],
    fields: list[Any],
    names: frozenset[str],
    seens: tuple[Seen, ...],
) -> _Update | None:
    concerned = [seen for seen in seens if snapshot.concerns(seen, "update", names)]
    if not concerned:
        return _Update(fields)
    seen = concerned[0]
    meta: Any = _concrete(model)
    if len(concerned) > 1 or seen.how != "row" or snapshot.models[seen.label] is not meta.model:
        return None
    watched: frozenset[str] = frozenset().union(*(c.fields for c in snapshot.compiled[seen.label]))
    if any(field.name in watched for field in fields):
        return None  # values have to be compared
    quote = connection.ops.quote_name
    table = quote(meta.db_table)
    shape = _Update(fields, key=(seen.label, "update", names))
    keys, still, returned = [], [], []
    for path in snapshot.paths[seen.label]:
        if path == ACTIVE_TENANT:
            shape.wants_active = True
            continue
        column, rest = resolve(meta.model, path)
        name = f"{table}.{quote(str(column.column))}"
        if rest or column not in meta.local_concrete_fields:
            return None
        if column in fields:
            if not _is_exact(column):
                return None
            still.append((path, (fields.index(column), column), (f"{name} = %s", f"{name} IS NULL")))
        elif column.primary_key:
            keys.append(path)
        elif connection.vendor not in ("postgresql", "sqlite") or not _returns(connection):
            return None
        else:
            wanted = column.get_col(meta.db_table)
            converters = (*connection.ops.get_db_converters(wanted), *wanted.get_db_converters(connection))
            returned.append((path, name, (converters, wanted)))
    if len(keys) > 1:
        return None
    shape.paths = (*keys, *(path for path, *_ in still), *(path for path, *_ in returned))
    shape.has_key = bool(keys)
    kind = meta.pk.get_internal_type()
    least, most = connection.ops.integer_field_range(kind) if kind in _EXACT and kind != "UUIDField" else (None, None)
    if least is not None and most is not None:
        shape.is_row, shape.least, shape.most = f"{table}.{quote(meta.pk.column)} = %s", least, most
    shape.still, shape.parts = tuple(at for _, at, _ in still), tuple(parts for *_, parts in still)
    shape.conditions = " AND ".join(given for given, _ in shape.parts)
    if returned:
        shape.returned = tuple(told for *_, told in returned)
        shape.returning = " RETURNING " + ", ".join(name for _, name, _ in returned)
    return shape


def _concrete(model: type[Model]) -> Any:
    concrete: Any = model._meta.concrete_model
    return concrete._meta


def _is_exact(column: Any) -> bool:
    while isinstance(column, ForeignKey):
        column = column.target_field
    return column.get_internal_type() in _EXACT


def _returns(connection: BaseDatabaseWrapper) -> bool:
    return bool(connection.features.can_return_columns_from_insert)  # SQLite 3.35 has it for all three statements


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
    shape: _Insert | None = snapshot.memo.get(("create", connection.alias, query.model))
    if shape is None:
        shape = _make_insert(snapshot, query.model, seens) or _Insert(is_quick=False)
        snapshot.memo["create", connection.alias, query.model] = shape
    if not shape.is_quick:
        return SLOW
    if shape.key is None:
        transactions.mark_written(connection)
        return _announced(original, compiler, args, kwargs, state)
    one = query.objs[0]
    found = [getattr(one, name, SLOW) for name in shape.names]
    if not all(type(value) is int or type(value) is uuid.UUID for value in found):
        return SLOW
    with block(connection, is_needed=outbox.keeps_rows(connection)):
        if not state.pending.has_written:
            transactions.mark_written(connection)
        result = _announced(original, compiler, args, kwargs, state)
        _note(state, shape, tuple(found))
    if not state.pending.has_written:
        transactions.settle(connection)
    return result


def _make_insert(snapshot: Snapshot, model: type[Model], seens: tuple[Seen, ...]) -> _Insert | None:
    concerned = [seen for seen in seens if snapshot.concerns(seen, "create", None)]
    if not concerned:
        return _Insert()
    seen = concerned[0]
    meta: Any = _concrete(model)
    if len(concerned) > 1 or seen.how != "row" or snapshot.models[seen.label] is not meta.model:
        return None
    columns, wants_active = [], False
    for path in snapshot.paths[seen.label]:
        if path == ACTIVE_TENANT:
            wants_active = True
            continue
        column, rest = resolve(meta.model, path)
        if rest or column.primary_key or not _is_exact(column):
            return None
        columns.append((path, column.attname))
    paths, names = zip(*columns, strict=True) if columns else ((), ())
    return _Insert(key=(seen.label, "create", None), paths=paths, names=names, wants_active=wants_active)


# --- both -----------------------------------------------------------------------------------------------------------


def _announced(original: Callable[..., Any], compiler: Any, args: Any, kwargs: Any, state: State) -> Any:
    state.announced += 1
    try:
        return original(compiler, *args, **kwargs)
    finally:
        state.announced -= 1


def _note(state: State, shape: _Update | _Insert, found: tuple[Any, ...]) -> None:
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
