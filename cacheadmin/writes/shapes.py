"""How the writes that `quick` notes concern the rules in force: worked out once for each model and set of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import AutoField, BooleanField, CharField, Field, ForeignKey, IntegerField, Model, TextField
from django.db.models.sql.compiler import SQLUpdateCompiler

from cacheadmin.rules import Seen, Snapshot
from cacheadmin.rules.paths import ACTIVE_TENANT, computed_columns, resolve

MOST_SHAPES: Final = 64

_PLACEHOLDERS: Final = ("get_placeholder", "get_placeholder_sql")
"""Methods of a field whose values stand in a statement as more than one parameter."""

_EXACT: Final = frozenset(
    {
        *("AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField"),
        *("PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField", "UUIDField"),
    }
)
"""Columns whose values are equal in the database if and only if they are the same: texts have collations."""


@dataclass(slots=True)
class Update:
    """How an UPDATE of certain columns concerns the one model that rules name. `key` is empty if it does not."""

    fields: list[Field[Any, Any]]
    is_quick: bool = True
    table: str = ""
    """As it is quoted."""
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
    texts: dict[tuple[str | int, ...], tuple[str, bool]] | None = None
    """
    Conditions and places of NULLs -> the statement as Django writes it, and whether NULLs are among its parameters.

    None where the statement may depend on the values.
    """
    unprepared: tuple[type | None, ...] = ()
    """For each field the type of which a value is given to the driver as it is."""


@dataclass(slots=True)
class Insert:
    """How an INSERT concerns the one model that rules name."""

    is_quick: bool = True
    key: tuple[str, str, frozenset[str] | None] | None = None
    paths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    wants_active: bool = False


# --- UPDATE ---------------------------------------------------------------------------------------------------------


def update_shape(
    snapshot: Snapshot, connection: BaseDatabaseWrapper, model: type[Model], fields: list[Any], seens: tuple[Seen, ...]
) -> Update | None:
    """Return how an UPDATE of these columns is noted; None if it has to go the slow way."""
    known = snapshot.memo.setdefault(("update", connection.alias, model), [])
    for shape in known:
        if shape.fields == fields:
            return shape if shape.is_quick else None
    if len(known) >= MOST_SHAPES:
        return None
    written = [*fields, *computed_columns(model)]
    names = frozenset(name for field in written for name in (field.name, field.attname))
    shape = _make(snapshot, connection, model, fields, names, seens) or Update(fields, is_quick=False)
    known.append(shape)
    return shape if shape.is_quick else None


def _make(
    snapshot: Snapshot,
    connection: BaseDatabaseWrapper,
    model: type[Model],
    fields: list[Any],
    names: frozenset[str],
    seens: tuple[Seen, ...],
) -> Update | None:
    concerned = [seen for seen in seens if snapshot.concerns(seen, "update", names)]
    if not concerned:
        return Update(fields)
    seen = concerned[0]
    meta: Any = _concrete(model)
    if len(concerned) > 1 or seen.how != "row" or snapshot.models[seen.label] is not meta.model:
        return None
    watched: frozenset[str] = frozenset().union(*(c.fields for c in snapshot.compiled[seen.label]))
    if not watched.isdisjoint(names):
        return None  # values have to be compared
    quote = connection.ops.quote_name
    table = quote(meta.db_table)
    shape = Update(fields, table=table, key=(seen.label, "update", names))
    keys, still, returned = [], [], []
    for path in snapshot.paths[seen.label]:
        if path == ACTIVE_TENANT:
            shape.wants_active = True
            continue
        column, rest = resolve(meta.model, path)
        name = f"{table}.{quote(str(column.column))}"
        if rest or column not in meta.local_concrete_fields or column.generated:
            return None
        if column in fields:
            if not is_exact(column):
                return None
            still.append((path, (fields.index(column), column), (f"{name} = %s", f"{name} IS NULL")))
        elif column.primary_key and is_exact(column):
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
    if _writes_as_django(connection) and not any(hasattr(field, name) for field in fields for name in _PLACEHOLDERS):
        shape.texts = {}
        shape.unprepared = tuple(unprepared(field, connection) for field in fields)
    if returned:
        shape.returned = tuple(told for *_, told in returned)
        shape.returning = " RETURNING " + ", ".join(name for _, name, _ in returned)
    return shape


def _writes_as_django(connection: BaseDatabaseWrapper) -> bool:
    """Say whether an UPDATE's text is made of its columns and conditions alone: MySQL's may be sorted, too."""
    made: Any = connection.ops.compiler("SQLUpdateCompiler")
    return made.as_sql is SQLUpdateCompiler.as_sql


_PREPARING: Final = ("get_db_prep_save", "get_db_prep_value", "get_prep_value", "to_python")
"""Methods of a field that a value passes on its way into a statement."""

_UNPREPARED: Final[dict[tuple[Any, ...], tuple[type, str]]] = {
    tuple(getattr(field, method) for method in _PREPARING): kept
    for field, kept in {
        CharField: (str, ""),
        TextField: (str, ""),
        BooleanField: (bool, ""),
        IntegerField: (int, "adapt_integerfield_value"),
        AutoField: (int, "validate_autopk_value"),
    }.items()
}
"""Django's own methods -> the type that they leave alone, if the database's operation of that name does nothing."""


def unprepared(field: Any, connection: BaseDatabaseWrapper) -> type | None:
    """Return the type of which Django gives a value to the driver as it is; None if there is none that is known."""
    while type(field).get_db_prep_save is ForeignKey.get_db_prep_save:
        field = field.target_field
    kind = type(field)
    kept, operation = _UNPREPARED.get(tuple(getattr(kind, method) for method in _PREPARING), (None, ""))
    if operation and getattr(type(connection.ops), operation) is not getattr(BaseDatabaseOperations, operation):
        return None
    return kept


def _concrete(model: type[Model]) -> Any:
    concrete: Any = model._meta.concrete_model
    return concrete._meta


def is_exact(column: Any) -> bool:
    """Say whether values of a column that are equal in the database are the same."""
    while isinstance(column, ForeignKey):
        column = column.target_field
    return column.get_internal_type() in _EXACT


def chooses(column: Any) -> bool:
    """Say whether a field of the site's own may write another value into a new row than the instance has."""
    return not type(column).pre_save.__module__.startswith("django.db.")


def _returns(connection: BaseDatabaseWrapper) -> bool:
    return bool(connection.features.can_return_columns_from_insert)  # SQLite 3.35 has it for all three statements


# --- INSERT ---------------------------------------------------------------------------------------------------------


def insert_shape(
    snapshot: Snapshot, connection: BaseDatabaseWrapper, model: type[Model], seens: tuple[Seen, ...]
) -> Insert | None:
    """Return how an INSERT of a model is noted; None if it has to go the slow way."""
    shape: Insert | None = snapshot.memo.get(("create", connection.alias, model))
    if shape is None:
        shape = _make_insert(snapshot, model, seens) or Insert(is_quick=False)
        snapshot.memo["create", connection.alias, model] = shape
    return shape if shape.is_quick else None


def _make_insert(snapshot: Snapshot, model: type[Model], seens: tuple[Seen, ...]) -> Insert | None:
    concerned = [seen for seen in seens if snapshot.concerns(seen, "create", None)]
    if not concerned:
        return Insert()
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
        if rest or column.primary_key or not is_exact(column) or chooses(column):
            return None
        if column not in meta.local_concrete_fields:
            return None
        columns.append((path, column.attname))
    paths, names = zip(*columns, strict=True) if columns else ((), ())
    return Insert(key=(seen.label, "create", None), paths=paths, names=names, wants_active=wants_active)
