"""From one ORM statement to what it changed of each model that rules name: planned before it runs, finished after."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from django.apps import apps
from django.db.models.constants import OnConflict
from django.db.models.sql.constants import ROW_COUNT

from cacheadmin.rules import Seen, Snapshot
from cacheadmin.writes.images import guarded
from cacheadmin.writes.inserting import Inserted
from cacheadmin.writes.looks import Found, Look, Statement, Unknown
from cacheadmin.writes.touching import Changed, ChildChanged, Related

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

    def together(
        self, compiler: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[[], Any] | None:
        """Return what runs the statement and reads what was there before in one; None where that cannot be."""
        if len(self.looks) != 1 or not isinstance(look := self.looks[0], Changed):
            return None
        asked = args[0] if args else kwargs.get("result_type", kwargs.get("returning_fields"))
        counts = original.__name__ == "execute_sql"
        if asked != ROW_COUNT if counts else asked:
            return None
        sent = look.together(compiler)
        if sent is None:
            return None
        return sent if counts else lambda: [()] * sent()

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
        if seen.how != "row" and _is_upsert(statement):
            kind = Unknown  # rows that were there are changed too, and nobody says which
        if kind is None or not _concerned(statement, seen, snapshot):
            continue
        ours = snapshot.models[seen.label] if seen.how == "row" else statement.model
        if statement.model is not ours or statement.model._meta.apps is not apps:
            kind = Unknown  # a model of a migration, or another one of the same table
        look = guarded(statement.connection, functools.partial(kind, statement, seen, snapshot))
        found.looks.append(look or Unknown(statement, seen, snapshot))
    return found


def _concerned(statement: Statement, seen: Seen, snapshot: Snapshot) -> bool:
    fields = statement.names if statement.kind == "update" else None
    if snapshot.concerns(seen, statement.kind, fields):
        return True
    return _is_upsert(statement) and snapshot.concerns(seen, "update", None)


def _is_upsert(statement: Statement) -> bool:
    return statement.kind == "create" and statement.query.on_conflict == OnConflict.UPDATE
