"""From one ORM statement to what it changed of each model that rules name: planned before it runs, finished after."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model
from django.db.models.constants import OnConflict
from django.db.models.sql import Query

from cacheadmin.rules import Compiled, Seen, Snapshot
from cacheadmin.rules.paths import ACTIVE_TENANT, resolve
from cacheadmin.tenancy import tenancy
from cacheadmin.writes.images import (
    MOST_ROWS,
    Matched,
    Row,
    can_lock,
    guarded,
    is_same,
    known_pks,
    lookup,
    matched,
)

UNKNOWN: Final = object()


@dataclass(slots=True)
class Found:
    """What became of one model's rows; `rows` is None where nothing is known of them."""

    label: str
    event: str
    fields: frozenset[str] | None
    rows: list[Row] | None


@dataclass(slots=True)
class Statement:
    """One INSERT, UPDATE or DELETE of the ORM."""

    connection: BaseDatabaseWrapper
    query: Any
    model: type[Model]
    """Concrete; not the registered class in a migration."""
    kind: str
    returning: tuple[Any, ...] = ()

    @property
    def written(self) -> dict[Field[Any, Any], Any]:
        """Column -> value or expression of an UPDATE."""
        return {column: value for column, _, value in getattr(self.query, "values", ())}

    @property
    def names(self) -> frozenset[str]:
        """Names and attnames of what an UPDATE writes."""
        return frozenset(name for column in self.written for name in (column.name, column.attname))


class Look(ABC):
    """How one statement concerns one model that rules name."""

    reads_first = False
    """Whether something has to be read before the statement runs, in the same transaction."""

    def __init__(self, statement: Statement, seen: Seen, snapshot: Snapshot) -> None:
        self.statement, self.seen, self.snapshot = statement, seen, snapshot
        self.connection = statement.connection
        self.model = snapshot.models[seen.label]
        self.paths = tuple(path for path in snapshot.paths[seen.label] if path != ACTIVE_TENANT)
        self.wants_active = ACTIVE_TENANT in snapshot.paths[seen.label]

    def before(self) -> None:
        """Read what must be known before the statement runs; nothing, unless `reads_first`."""
        return

    @abstractmethod
    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        """Yield what has changed. `count` is how many rows the statement reports, None if it does not say."""

    def found(self, event: str, fields: frozenset[str] | None, rows: Iterable[Row] | None) -> Found:
        """Return a finding, the active tenant added to its rows where they do not name their own."""
        if rows is not None and self.wants_active:
            active = tenancy().current()
            rows = [row | {ACTIVE_TENANT: active} for row in rows]
        return Found(self.seen.label, event, fields, None if rows is None else list(rows))

    def look_up(self, values: Iterable[Any], name: str = "pk") -> list[Row] | None:
        """Return the wanted paths of the model's rows whose column `name` is among `values`."""
        distinct: list[Any] = list(dict.fromkeys(values))
        if len(distinct) > MOST_ROWS:
            return None
        if not self.paths:
            return [{}] if distinct else []
        return guarded(self.connection, lambda: lookup(self.connection, self.model, name, distinct, self.paths))


class Unknown(Look):
    """Nothing is known of the rows: a historical model, or rows that the database itself changes."""

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        event = {"cascade": self.seen.via, "m2m": "m2m", "child": "update"}.get(self.seen.how, self.statement.kind)
        fields = self.seen.names or (self.statement.names if self.statement.kind == "update" else None) or None
        yield self.found(event, fields, None)


# --- INSERT ---------------------------------------------------------------------------------------------------------


class Inserted(Look):
    """New rows; with `update_conflicts` also existing ones, which keep what the statement does not set."""

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        query = self.statement.query
        rows = self._rows(result)
        yield self.found("create", None, rows)
        if query.on_conflict == OnConflict.UPDATE:
            updated = [self._field(name) for name in query.update_fields]
            names = frozenset(n for f in updated for n in (f.name, f.attname))
            unique = {self._field(name) for name in query.unique_fields or ()}
            yield self.found("update", names, None if rows is None else self._conflicting(rows, set(updated), unique))

    def _field(self, given: Any) -> Any:
        return self.model._meta.get_field(given) if isinstance(given, str) else given

    def _conflicting(self, rows: list[Row], updated: set[Any], unique: set[Any]) -> list[Row]:
        """Images of the rows that were there: the old agree in the unique fields, the new in what was set too."""
        roots = {path: resolve(self.model, path)[0] for path in self.paths}
        old = [{p: v for p, v in row.items() if roots[p] in unique} for row in rows]
        return old + [{p: v for p, v in row.items() if roots[p] in unique | updated} for row in rows]

    def _rows(self, result: Any) -> list[Row] | None:
        objects = self.statement.query.objs
        returned: list[Any] = result if isinstance(result, list) and len(result) == len(objects) else []
        rows: list[Row] = [{} for _ in objects]
        for path in self.paths:
            column, rest = resolve(self.model, path)
            values = [self._value(column, at, objects, returned) for at in range(len(objects))]
            if rest:
                values = self._beyond(column, rest, values)
            for row, value in zip(rows, values, strict=True):
                if value is not UNKNOWN:
                    row[path] = value
        distinct = {tuple(map(repr, row.items())): row for row in rows}
        return list(distinct.values()) if len(distinct) <= MOST_ROWS else None

    def _value(self, column: Any, at: int, objects: list[Any], returned: list[Any]) -> Any:
        if returned and column in self.statement.returning:
            return returned[at][self.statement.returning.index(column)]
        value = getattr(objects[at], column.attname, UNKNOWN)
        return _plain(column, value, is_key=column.primary_key)

    def _beyond(self, column: Any, rest: str, values: list[Any]) -> list[Any]:
        """Follow a foreign key with one query for all; an instance that is loaded may be older than its row."""
        related: dict[Any, Any] = {}
        keys = list({v for v in values if v is not UNKNOWN and v is not None})
        if keys and len(keys) <= MOST_ROWS:
            target, name = column.remote_field.model, str(column.target_field.name)
            rows = guarded(self.connection, lambda: lookup(self.connection, target, name, keys, (name, rest)))
            related = {row[name]: row[rest] for row in rows or ()}
        return [None if value is None else related.get(value, UNKNOWN) for value in values]


def _plain(column: Any, value: Any, *, is_key: bool = False) -> Any:
    """Return a value as it will come back from the database; UNKNOWN for expressions, database defaults, errors."""
    if value is UNKNOWN or hasattr(value, "resolve_expression") or (value is None and is_key):
        return UNKNOWN
    if hasattr(value, "prepare_database_save"):
        value = value.prepare_database_save(column)
    try:
        return column.to_python(value)
    except Exception:  # noqa: BLE001 - a value that the column cannot read: the database will say what it is
        return UNKNOWN


# --- UPDATE and DELETE ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Images:
    """The rows that an UPDATE or DELETE touches, as they were."""

    rows: list[Row] | None = None
    pks: list[Any] | None = None
    count: int | None = None


class Touching(Look):
    """What an UPDATE or DELETE touches of its own table."""

    reads_first = True

    def __init__(self, statement: Statement, seen: Seen, snapshot: Snapshot) -> None:
        super().__init__(statement, seen, snapshot)
        self.is_delete = statement.kind == "delete"
        self.images = _Images()
        self.read: Callable[[], Matched] | None = None
        self.pks = known_pks(statement.query)

    def prepare(self, paths: tuple[str, ...]) -> None:
        """Compile what will be read. Raises: EmptyResultSet if no row can match."""
        if self.pks is None and can_lock(self.connection):
            query: Query = self.statement.query
            self.read = guarded(
                self.connection, lambda: matched(self.connection, query, paths, is_delete=self.is_delete)
            )

    def fetch(self, paths: tuple[str, ...]) -> None:
        """Read and lock the rows that are about to be touched."""
        images = self.images
        if self.read is not None:
            found = guarded(self.connection, self.read)
            if found is not None:
                images.rows, images.count = found.rows, found.count
        elif self.pks is not None and can_lock(self.connection):
            images.pks = self.pks
            pks, model = self.pks, self.statement.model
            images.rows = guarded(
                self.connection,
                lambda: lookup(self.connection, model, "pk", pks, paths, lock=True, is_delete=self.is_delete),
            )

    def rows_touched(self, count: int | None) -> list[Row] | None:
        """Return the images if they are of the very rows that were touched."""
        images = self.images
        if images.count is not None and count != images.count:
            return None  # between our look and the statement somebody committed a row that matches too
        return images.rows


class Changed(Touching):
    """Rows of the model's own table, updated or deleted."""

    def __init__(self, statement: Statement, seen: Seen, snapshot: Snapshot) -> None:
        super().__init__(statement, seen, snapshot)
        written = statement.written if statement.kind == "update" else {}
        watched: set[str] = set()
        for rule in snapshot.compiled[seen.label]:
            watched |= rule.fields
        self.compared = tuple(f for f in written if f.name in watched) if self.pks is not None else ()
        roots = {path: resolve(self.model, path) for path in self.paths}
        self.moved = {path: root for path, root in roots.items() if root[0] in written}
        self.reads_first = bool(self.paths or self.compared)
        if self.reads_first:
            self.columns = tuple(dict.fromkeys([*self.paths, *(f.attname for f in self.compared)]))
            self.prepare(self.columns)

    def before(self) -> None:
        if self.reads_first:
            self.fetch(self.columns)
        else:
            self.images.rows = [{}]

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        rows = self.rows_touched(count)
        names = self.statement.names if self.statement.kind == "update" else None
        if rows is None:
            yield self.found(self.statement.kind, names, None)
            return
        if names is not None:
            names -= self._unchanged(rows)
        old = [{path: row[path] for path in self.paths} for row in rows]
        yield self.found(self.statement.kind, names, old + self._new(old))

    def _unchanged(self, rows: list[Row]) -> frozenset[str]:
        same = [
            column
            for column in self.compared
            if all(
                is_same(self.connection, column, row[column.attname], self.statement.written[column]) for row in rows
            )
        ]
        return frozenset(name for column in same for name in (column.name, column.attname))

    def _new(self, old: list[Row]) -> list[Row]:
        """Images of the rows as they are now, where something that is wanted was written."""
        if not self.moved:
            return []
        values: Row = {}
        for path, (column, rest) in self.moved.items():
            value = UNKNOWN if rest else _plain(column, self.statement.written[column])
            if value is not UNKNOWN:
                values[path] = value
        if len(values) < len(self.moved) and self.images.pks is not None:
            now = self.look_up(self.images.pks)
            if now is not None:
                return now
        kept = [{path: v for path, v in row.items() if path not in self.moved} for row in old]
        return [row | values for row in kept]


class ChildChanged(Touching):
    """Rows of a multi-table child whose parent's table is updated."""

    def __init__(self, statement: Statement, seen: Seen, snapshot: Snapshot) -> None:
        super().__init__(statement, seen, snapshot)
        self.old: list[Row] | None = None
        self.prepare(("pk",))

    def _keys(self) -> list[Any] | None:
        return None if self.images.rows is None else [row["pk"] for row in self.images.rows]

    def before(self) -> None:
        self.fetch(("pk",))
        keys = self._keys()
        self.old = None if keys is None else self.look_up(keys)

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        rows, keys = self.old, self._keys()
        if self.rows_touched(count) is None or rows is None or keys is None:
            yield self.found("update", self.statement.names, None)
            return
        written = set(self.statement.written)
        if any(resolve(self.model, path)[0] in written for path in self.paths):
            now = self.look_up(keys)
            rows = None if now is None else rows + now
        yield self.found("update", self.statement.names, rows)


class Related(Touching):
    """Rows of a model whose many-to-many relation is changed, by a write to its through table."""

    def __init__(self, statement: Statement, seen: Seen, snapshot: Snapshot) -> None:
        super().__init__(statement, seen, snapshot)
        field: Any = statement.model._meta.get_field(seen.via)
        self.key = field
        self.reads_first = statement.kind != "create"
        if self.reads_first:
            self.prepare((self.key.attname,))

    def before(self) -> None:
        if self.reads_first:
            self.fetch((self.key.attname,))

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        rows: list[Row] | None = None
        keys = self._keys(count)
        if keys is not None:
            rows = self.look_up(keys, str(self.key.target_field.name))
        yield self.found("m2m", self.seen.names, rows)

    def _keys(self, count: int | None) -> set[Any] | None:
        written = self.statement.written if self.statement.kind == "update" else {}
        if self.statement.kind == "create":
            values = {_plain(self.key, getattr(o, self.key.attname)) for o in self.statement.query.objs}
        else:
            images = self.rows_touched(count)
            if images is None:
                return None
            values = {row[self.key.attname] for row in images}
            if self.key in written:
                values.add(_plain(self.key, written[self.key]))
        return None if UNKNOWN in values else values - {None}


# --- which of them --------------------------------------------------------------------------------------------------

_LOOKS: Final[Mapping[tuple[str, str], type[Look]]] = {
    ("create", "row"): Inserted,
    ("create", "m2m"): Related,
    ("update", "row"): Changed,
    ("update", "child"): ChildChanged,
    ("update", "m2m"): Related,
    ("delete", "row"): Changed,
    ("delete", "m2m"): Related,
    ("delete", "cascade"): Unknown,
}


@dataclass(slots=True)
class Plan:
    """All that has to be found out about one statement."""

    looks: list[Look] = field(default_factory=list)

    @property
    def reads_first(self) -> bool:
        """Whether something has to be read before the statement runs."""
        return any(look.reads_first for look in self.looks)

    def before(self) -> None:
        """Read it."""
        for look in self.looks:
            look.before()

    def after(self, result: Any, count: int | None) -> list[Found]:
        """Return what has changed; nothing for models of which no row was touched."""
        changed: list[Found] = []
        for look in self.looks:
            found = guarded(look.connection, lambda look=look: list(look.after(result, count)))  # type: ignore[misc]
            if found is None:
                found = list(Unknown(look.statement, look.seen, look.snapshot).after(result, count))
            changed += [part for part in found if part.rows is None or part.rows]
        return changed


def plan(statement: Statement, seens: Iterable[Seen], snapshot: Snapshot) -> Plan:
    """
    Plan what to find out about a statement; nothing where no rule in force is concerned.

    Raises:  EmptyResultSet if the statement can touch no row.
    """
    found = Plan()
    for seen in seens:
        kind = _LOOKS.get((statement.kind, seen.how))
        if kind is None or not _concerned(statement, seen, snapshot):
            continue
        ours = snapshot.models[seen.label] if seen.how == "row" else statement.model
        if statement.model is not ours or statement.model._meta.apps is not apps:
            kind = Unknown  # a model of a migration, or another one of the same table
        look = guarded(statement.connection, functools.partial(kind, statement, seen, snapshot))
        found.looks.append(look or Unknown(statement, seen, snapshot))
    return found


def _concerned(statement: Statement, seen: Seen, snapshot: Snapshot) -> list[Compiled]:
    if seen.how == "m2m":
        return snapshot.concerned(seen.label, "m2m", seen.names)
    if seen.how == "cascade":
        return snapshot.concerned(seen.label, seen.via, seen.names)
    found = snapshot.concerned(seen.label, statement.kind, statement.names if statement.kind == "update" else None)
    if statement.kind == "create" and statement.query.on_conflict == OnConflict.UPDATE:
        found += snapshot.concerned(seen.label, "update", None)
    return found
