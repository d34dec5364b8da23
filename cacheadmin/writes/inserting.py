"""What an INSERT adds, and with `update_conflicts` changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models.constants import OnConflict

from cacheadmin.rules.paths import resolve
from cacheadmin.writes.images import MOST_ROWS, Row, guarded, lookup
from cacheadmin.writes.looks import UNKNOWN, Found, Look, plain
from cacheadmin.writes.shapes import chooses, is_exact


class Inserted(Look):
    """New rows; with `update_conflicts` also existing ones, which keep what the statement does not set."""

    def after(self, result: Any, count: int | None) -> Iterable[Found]:
        query = self.statement.query
        rows = self._rows(result)
        yield self.found("create", None, rows)
        if query.on_conflict == OnConflict.UPDATE:
            updated = [self._field(name) for name in query.update_fields]
            names = frozenset(n for f in updated for n in (f.name, f.attname))
            unique = {field for name in query.unique_fields or () if is_exact(field := self._field(name))}
            yield self.found("update", names, None if rows is None else self._conflicting(rows, set(updated), unique))

    def _field(self, given: Any) -> Any:
        return self.model._meta.get_field(given) if isinstance(given, str) else given

    def _conflicting(self, rows: list[Row], updated: set[Any], unique: set[Any]) -> list[Row]:
        """Images of the rows that were there: the old are the same in unique fields, the new in what was set too."""
        roots = {path: resolve(self.model, path)[0] for path in self.paths}
        old = [{p: v for p, v in row.items() if roots[p] in unique} for row in rows]
        return old + [{p: v for p, v in row.items() if roots[p] in unique | updated} for row in rows]

    def _rows(self, result: Any) -> list[Row] | None:
        objects = self.statement.query.objs
        own = self.model._meta.local_concrete_fields
        if any(resolve(self.model, path)[0] not in own for path in self.paths):
            keys = [one.pk for one in objects]  # a child that comes from a fixture does not know its parent's columns
            return None if None in keys else self.look_up(keys)
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
        # What is not in the instance would be asked for by a query.
        value = UNKNOWN if chooses(column) else objects[at].__dict__.get(column.attname, UNKNOWN)
        return plain(column, value, is_key=column.primary_key)

    def _beyond(self, column: Any, rest: str, values: list[Any]) -> list[Any]:
        """Follow a foreign key with one query for all; an instance that is loaded may be older than its row."""
        related: dict[Any, Any] = {}
        keys = list({v for v in values if v is not UNKNOWN and v is not None})
        if keys and len(keys) <= MOST_ROWS:
            target, name = column.remote_field.model, str(column.target_field.name)
            rows = guarded(self.connection, lambda: lookup(self.connection, target, name, keys, (name, rest)))
            related = {row[name]: row.get(rest, UNKNOWN) for row in rows or ()}
        return [None if value is None else related.get(value, UNKNOWN) for value in values]
