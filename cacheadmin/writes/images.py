"""What of the touched rows has to be known: before a statement runs, and after it.

Each SELECT here is ours: compiled by the ORM, run past logs and counts. What compiles but cannot run is raised on
PostgreSQL, where the caller's transaction is lost with it; everything else that goes wrong means "not known".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from django.core.exceptions import EmptyResultSet
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model, QuerySet
from django.db.models.expressions import Col
from django.db.models.lookups import Exact, In
from django.db.models.sql import Query
from django.db.models.sql.constants import INNER
from django.db.models.sql.where import WhereNode

from cacheadmin.rules.paths import resolve
from cacheadmin.transactions import own_sql

logger = logging.getLogger("cacheadmin")

MOST_ROWS: Final = 500
"""Distinct rows above which nothing is known of them: all tenants."""

Row = dict[str, Any]
T = TypeVar("T")


def guarded(connection: BaseDatabaseWrapper, look: Callable[[], T], *, may_fail: bool = False) -> T | None:
    """
    Return what `look()` finds, None if it cannot be known.

    `may_fail` if that must not end an open transaction: some views can be written, but their rows not locked.
    Raises:  EmptyResultSet if no row can match.
    """
    in_savepoint = may_fail and connection.vendor == "postgresql"
    try:
        with own_sql.savepoint(connection) if in_savepoint else nullcontext():
            return look()
    except EmptyResultSet:
        raise
    except DatabaseError as error:
        if connection.vendor == "postgresql" and not in_savepoint:
            raise
        logger.warning("What a write touches cannot be looked up: %s", error)
    except Exception:
        logger.warning("What a write touches cannot be looked up.", exc_info=True)
    return None


def known_pks(query: Query) -> list[Any] | None:
    """Return the primary keys if a statement's condition is nothing but `pk = x` or `pk IN (x, …)`."""
    node: Any = query.where
    while isinstance(node, WhereNode) and not node.negated and len(node.children) == 1:
        node = node.children[0]
    if not isinstance(node, (Exact, In)) or not isinstance(node.lhs, Col) or hasattr(node.rhs, "as_sql"):
        return None
    column = node.lhs
    if not column.target.primary_key or column.alias != query.get_initial_alias():
        return None
    values = list(node.rhs) if isinstance(node, In) else [node.rhs]
    plain = not any(hasattr(value, "resolve_expression") for value in values)
    return values if plain and len(values) <= MOST_ROWS else None


def can_lock(connection: BaseDatabaseWrapper) -> bool:
    """Whether what is read before a statement still holds when it runs: SQLite has the lock, others can take it."""
    return connection.vendor == "sqlite" or connection.features.has_select_for_update


def _lock_clause(connection: BaseDatabaseWrapper, alias: str, is_delete: bool) -> str:
    if connection.vendor == "sqlite":
        return ""
    if connection.vendor == "postgresql":
        # Not stronger than the statement itself: FOR UPDATE would hold up inserts of rows that refer to these.
        return f" FOR {'UPDATE' if is_delete else 'NO KEY UPDATE'} OF {connection.ops.quote_name(alias)}"
    of = f" OF {connection.ops.quote_name(alias)}" if connection.features.has_select_for_update_of else ""
    return f" FOR UPDATE{of}"


@dataclass(frozen=True, slots=True)
class _Compiled:
    sql: str
    converters: tuple[tuple[int, tuple[Any, ...], Any], ...]


_compiled: dict[tuple[Any, ...], _Compiled] = {}
"""SELECTs by one value, the most frequent: compiling takes the ORM five times as long as running takes SQLite."""

MOST_COMPILED: Final = 1000


def lookup(
    connection: BaseDatabaseWrapper,
    model: type[Model],
    name: str,
    values: Sequence[Any],
    paths: Sequence[str],
    *,
    lock: bool = False,
    is_delete: bool = False,
) -> list[Row]:
    """
    Return `paths` of the rows of a model whose column `name` is among `values`; what leads to a lost row is absent.

    Cost:    one query; one more for each path that leads from a foreign key to nothing.
    """
    if not values:
        return []
    field: Any = model._meta.pk if name == "pk" else model._meta.get_field(name)
    far = {path: resolve(model, path) for path in paths if "__" in path}
    far = {path: (column, rest) for path, (column, rest) in far.items() if rest}
    columns = tuple(dict.fromkeys([*paths, *(column.attname for column, _ in far.values())]))
    key = (connection.alias, connection.vendor, model, name, columns, lock, is_delete)
    single = len(values) == 1 and not getattr(model._meta, "is_composite_pk", False)
    if single and (known := _compiled.get(key)):
        param = field.get_db_prep_value(values[0], connection, prepared=False)
        rows = _rows(connection, known, (param,), columns)
    else:
        asked: QuerySet[Any] = QuerySet(model, using=connection.alias).order_by()
        asked = asked.filter(**{name: values[0]} if single else {f"{name}__in": list(values)})
        found, params = _compile(connection, asked.values_list(*columns).query, lock, is_delete)
        if single and len(params) == 1 and len(_compiled) < MOST_COMPILED:
            _compiled[key] = found
        rows = _rows(connection, found, params, columns)
    for path, (column, rest) in far.items():
        _leave_out_lost(connection, rows, path, column, rest)
    return [{path: row[path] for path in paths if path in row} for row in rows] if far else rows


def _leave_out_lost(connection: BaseDatabaseWrapper, rows: list[Row], path: str, column: Any, rest: str) -> None:
    """
    Leave out values that are NULL because the row they stand in is gone.

    A cascade deletes the row that a nullable foreign key leads to before the one that has the key.
    """
    ends = [row for row in rows if row[path] is None and row[column.attname] is not None]
    if not ends:
        return
    target, name = column.remote_field.model, str(column.target_field.name)
    keys = list(dict.fromkeys(row[column.attname] for row in ends))
    there = {row[name] for row in lookup(connection, target, name, keys, (name, rest)) if rest in row}
    for row in ends:
        if row[column.attname] not in there:
            del row[path]


class Reading:
    """A SELECT of one row by its key that locks it, to be part of another statement."""

    def __init__(self, connection: BaseDatabaseWrapper, model: type[Model], pk: Any, paths: Sequence[str]) -> None:
        self.connection, self.paths = connection, paths
        key = ("reading", connection.alias, model, tuple(paths))
        known = _compiled.get(key)
        if known is None:
            rows: QuerySet[Any] = QuerySet(model, using=connection.alias).order_by().filter(pk=pk).values_list(*paths)
            known, self.params = _compile(connection, rows.query, True, False)
            if len(_compiled) < MOST_COMPILED:
                _compiled[key] = known
        else:
            column: Any = model._meta.pk
            self.params = (column.get_db_prep_value(pk, connection, prepared=False),)
        self.sql, self._how = known.sql, known

    def rows(self, raw: Iterable[tuple[Any, ...]]) -> list[Row]:
        """Return what came back, as the ORM would."""
        return [dict(zip(self.paths, row, strict=True)) for row in _converted(self.connection, self._how, raw)]


def _compile(
    connection: BaseDatabaseWrapper, query: Query, lock: bool, is_delete: bool
) -> tuple[_Compiled, tuple[Any, ...]]:
    joins: dict[str, Any] = query.alias_map
    for alias, join in joins.items():
        if join.join_type == INNER:
            joins[alias] = join.promote()  # a reference may lead nowhere; the row that has it is touched all the same
    compiler: Any = query.get_compiler(connection=connection)
    sql, params = compiler.as_sql()
    if lock:
        sql += _lock_clause(connection, str(query.get_initial_alias()), is_delete)
    fields = [column[0] for column in compiler.select[0 : compiler.col_count]]
    converters = compiler.get_converters(fields)
    return _Compiled(sql, tuple((at, tuple(c), e) for at, (c, e) in converters.items())), tuple(params)


def _rows(
    connection: BaseDatabaseWrapper, compiled: _Compiled, params: Sequence[Any], paths: Sequence[str]
) -> list[Row]:
    raw = own_sql.fetch(connection, compiled.sql, params)
    return [dict(zip(paths, row, strict=False)) for row in _converted(connection, compiled, raw)]


def _converted(
    connection: BaseDatabaseWrapper, compiled: _Compiled, rows: Iterable[tuple[Any, ...]]
) -> Iterable[Sequence[Any]]:
    if not compiled.converters:
        return rows
    result = []
    for row in map(list, rows):
        for at, converters, expression in compiled.converters:
            for converter in converters:
                row[at] = converter(row[at], expression, connection)
        result.append(row)
    return result


@dataclass(frozen=True, slots=True)
class Matched:
    """The rows that a statement's condition matches."""

    rows: list[Row] | None
    """Distinct ones; None where there are too many."""
    count: int | None
    """How many there are in all, where the statement must be seen to touch as many; None where nothing can differ."""


def matched(
    connection: BaseDatabaseWrapper, query: Query, paths: Sequence[str], *, is_delete: bool
) -> Callable[[], Matched]:
    """
    Return a function that reads `paths` of the rows that an UPDATE or DELETE is about to touch.

    The rows are locked, and counted: others than these were touched if the statement reports another number.
    Raises:  EmptyResultSet if no row can match.
    """
    model: Any = query.model
    plain: Any = query.chain(klass=Query)
    plain.select_related = plain.select_for_update = False
    plain.extra = {}
    plain.clear_ordering(force=True)
    plain.clear_limits()
    plain.distinct, plain.distinct_fields = False, ()  # the statement itself ignores limits and DISTINCT ON
    plain.clear_select_clause()
    plain.set_annotation_mask(())
    rows: QuerySet[Any] = QuerySet(model, query=plain, using=connection.alias)
    if plain.group_by is not None:
        plain.add_fields(["pk"])
        rows = QuerySet(model, using=connection.alias).filter(pk__in=plain)
    found = rows.values_list(*paths)
    if connection.vendor == "sqlite":
        distinct, params = _compile(connection, found.distinct()[: MOST_ROWS + 1].query, False, is_delete)
        return lambda: _bounded(_rows(connection, distinct, params, paths), None)
    every, params = _compile(connection, found.query, True, is_delete)
    if connection.vendor == "postgresql":
        names = ", ".join(f"c{at}" for at in range(len(paths)))
        grouped = (
            f"SELECT {names}, COUNT(*) FROM ({every.sql}) AS touched ({names}) "  # noqa: S608
            f"GROUP BY {names} LIMIT {MOST_ROWS + 1}"
        )

        def read() -> Matched:
            raw = own_sql.fetch(connection, grouped, params)
            kept = [dict(zip(paths, row, strict=False)) for row in _converted(connection, every, raw)]
            return _bounded(kept, sum(row[-1] for row in raw))

        return read

    def read_all() -> Matched:
        kept = _rows(connection, every, params, paths)
        return _bounded(kept if len(kept) <= 10 * MOST_ROWS else [{}] * (MOST_ROWS + 1), len(kept))

    return read_all


def _bounded(rows: list[Row], count: int | None) -> Matched:
    return Matched(rows if len(rows) <= MOST_ROWS else None, count)


def is_same(connection: BaseDatabaseWrapper, field: Field[Any, Any], old: Any, new: Any) -> bool:
    """Whether a column's old value and the one that is written are known to be equal."""
    try:
        if hasattr(new, "resolve_expression"):
            return False
        if hasattr(new, "prepare_database_save"):
            new = new.prepare_database_save(field)
        return bool(field.get_db_prep_save(old, connection) == field.get_db_prep_save(new, connection))
    except Exception as error:  # noqa: BLE001 - whatever a custom field does with values: then it has changed
        logger.debug("Values of %s cannot be compared: %s", field, error)
        return False
