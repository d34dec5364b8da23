"""What an UPDATE or DELETE touches: read and locked before it runs, held against what it reports afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models.sql import Query

from cacheadmin.rules import Seen, Snapshot
from cacheadmin.rules.paths import resolve
from cacheadmin.writes.images import Matched, Reading, Row, can_lock, guarded, is_same, known_pks, lookup, matched
from cacheadmin.writes.looks import UNKNOWN, Found, Look, Statement, plain

TOGETHER: Final = "cacheadmin_old"
"""Name that stands at the beginning of a statement which reads what it replaces."""


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
        self.may_be_a_view = not statement.model._meta.managed

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
            found = guarded(self.connection, self.read, may_fail=self.may_be_a_view)
            if found is not None:
                images.rows, images.count = found.rows, found.count
        elif self.pks is not None and can_lock(self.connection):
            images.pks = self.pks
            pks, model = self.pks, self.statement.model
            images.rows = guarded(
                self.connection,
                lambda: lookup(self.connection, model, "pk", pks, paths, lock=True, is_delete=self.is_delete),
                may_fail=self.may_be_a_view,
            )

    def rows_touched(self, count: int | None) -> list[Row] | None:
        """Return the images if they are of the very rows that were touched."""
        images = self.images
        if images.count is not None and count != images.count:
            return None  # between our look and the statement somebody committed a row that matches too
        if images.pks is not None and images.rows is not None and count is not None and count > len(images.rows):
            return None  # the same, of a row by its key
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

    def together(self, compiler: Any) -> Callable[[], int] | None:
        """
        Return what runs an UPDATE of one row and reads it before, in one statement; None where that cannot be.

        PostgreSQL's WITH locks the row as it is, not as the statement's snapshot has it, and the UPDATE waits for that.
        """
        if self.is_delete or not self.reads_first or self.connection.vendor != "postgresql":
            return None
        if self.pks is None or len(self.pks) != 1 or any(rest for _, rest in self.moved.values()):
            return None
        if self.may_be_a_view:
            return None
        pk = self.pks[0]
        return guarded(self.connection, lambda: self._in_one(compiler, pk))

    def _in_one(self, compiler: Any, pk: Any) -> Callable[[], int] | None:
        sql, params = compiler.as_sql()
        model, quote = self.statement.model, self.connection.ops.quote_name
        where = f" WHERE {quote(model._meta.db_table)}.{quote(str(model._meta.pk.column))} = %s"
        if not sql.startswith("UPDATE ") or not sql.endswith(where):
            return None
        reading = Reading(self.connection, model, pk, self.columns)
        names = [f'"c{at}"' for at in range(len(self.columns))]
        before = f'WITH "{TOGETHER}" ({", ".join(names)}) AS ({reading.sql})'
        returning = ", ".join(f'"{TOGETHER}".{name}' for name in names)
        sql = f'{before} {sql.removesuffix(where)} FROM "{TOGETHER}"{where} RETURNING {returning}'

        def run() -> int:
            with self.connection.cursor() as cursor:
                cursor.execute(sql, (*reading.params, *params))
                self.images.rows = reading.rows(cursor.fetchall())
            self.images.pks = self.pks
            return len(self.images.rows)

        return run

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        rows = self.rows_touched(count)
        names = self.statement.names if self.statement.kind == "update" else None
        if rows is None:
            yield self.found(self.statement.kind, names, None)
            return
        if names is not None:
            names -= self._unchanged(rows)
        old = [{path: row[path] for path in self.paths if path in row} for row in rows]
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
            value = UNKNOWN if rest else plain(column, self.statement.written[column])
            if value is not UNKNOWN:
                values[path] = value
        keeps_key = not any(column.primary_key for column in self.statement.written)
        if len(values) < len(self.moved) and self.images.pks is not None and keeps_key:
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
        key: Any = statement.model._meta.pk
        self.key = str(key.name)
        """The parent's key, which the child inherits as a column; it need not be the child's own key."""
        self.prepare(("pk",))

    def _keys(self) -> list[Any] | None:
        return None if self.images.rows is None else [row["pk"] for row in self.images.rows]

    def before(self) -> None:
        self.fetch(("pk",))
        keys = self._keys()
        self.old = None if keys is None else self.look_up(keys, self.key)

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        rows, keys = self.old, self._keys()
        if self.rows_touched(count) is None or rows is None or keys is None:
            yield self.found("update", self.statement.names, None)
            return
        written = set(self.statement.written)
        if any(resolve(self.model, path)[0] in written for path in self.paths):
            now = self.look_up(keys, self.key)
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
        if rows is not None and len(rows) < len(keys or ()) and self.paths:
            rows = None  # not there yet, or no more
        yield self.found("m2m", self.seen.names, rows)

    def _keys(self, count: int | None) -> set[Any] | None:
        written = self.statement.written if self.statement.kind == "update" else {}
        if self.statement.kind == "create":
            values = {plain(self.key, getattr(o, self.key.attname)) for o in self.statement.query.objs}
        else:
            images = self.rows_touched(count)
            if images is None:
                return None
            values = {row[self.key.attname] for row in images}
            if self.key in written:
                values.add(plain(self.key, written[self.key]))
        return None if UNKNOWN in values else values - {None}
