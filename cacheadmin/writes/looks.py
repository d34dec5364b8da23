"""What a statement means for one model that rules name: the parts that all kinds of statement share."""

from __future__ import annotations

import datetime as dt
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Field, Model

from cacheadmin.rules import Seen, Snapshot
from cacheadmin.rules.paths import ACTIVE_TENANT, computed_columns
from cacheadmin.tenancy import tenancy
from cacheadmin.writes.images import MOST_ROWS, Row, guarded, lookup

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
        """Column -> value or expression of an UPDATE, also of those that the database computes."""
        values = {column: value for column, _, value in getattr(self.query, "values", ())}
        return values | {column: column.expression for column in computed_columns(self.model)} if values else values

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
        """
        Return the wanted paths of the model's rows whose column `name` is among `values`, one for each row.

        A path that cannot be known is absent. None: nothing can be known.
        """
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


_KEPT: Final = frozenset({int, str, bool, uuid.UUID, dt.date, type(None)})
"""Types of values that come back from the database as they went in; one with digits may be rounded, for example."""


def plain(column: Any, value: Any, *, is_key: bool = False) -> Any:
    """Return a value as it will come back from the database; UNKNOWN for all of which that is not sure."""
    if value is UNKNOWN or hasattr(value, "resolve_expression") or (value is None and is_key):
        return UNKNOWN
    try:
        if hasattr(value, "prepare_database_save"):
            value = value.prepare_database_save(column)
        value = column.to_python(value)
        if isinstance(value, str):
            value = str.__str__(value)  # a member of an enumeration, or marked as safe
        elif isinstance(value, int) and type(value) is not bool:
            value = int(value)
        is_kept = type(value) in _KEPT and (type(value) is not str or column.get_prep_value(value) == value)
    except Exception:  # noqa: BLE001 - a value that the column cannot read: the database will say what it is
        return UNKNOWN
    return value if is_kept else UNKNOWN
