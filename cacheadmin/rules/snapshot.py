"""The rules as they stand, arranged for the moment of a write: which tables matter, what of a row is wanted. Pure.

A rule that is broken in part fires too widely rather than not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from django.db.models import DO_NOTHING, Model

from cacheadmin.exceptions import InvalidRule
from cacheadmin.rules.paths import ACTIVE_TENANT, column, relations_of, resolve, tenant_path
from cacheadmin.rules.rule import ALL_TENANTS, EVENTS, SHARED_DATA, Event, Rule
from cacheadmin.rules.validation import find_model

logger = logging.getLogger("cacheadmin")


@dataclass(frozen=True, slots=True)
class Compiled:
    """A rule whose names have been looked up."""

    rule: Rule
    label: str
    """Of the concrete model."""
    events: frozenset[str]
    """Those of the rule; all, if one of them is none."""
    tenant: str
    """Path, `*`, `-`, or `@active`."""
    fields: frozenset[str]
    """Watched columns, names and attnames, also of those that say whose a row is and which tags it has; empty: any."""
    relations: frozenset[str]
    """Watched many-to-many relations; empty: any."""
    paths: frozenset[str]
    """What has to be known of a row."""

    def is_hit_by(self, event: str, fields: frozenset[str] | None) -> bool:
        """Whether a write of this kind may concern the rule."""
        if event not in self.events:
            return False
        watched = {"update": self.fields, "m2m": self.relations}.get(event)
        return not watched or fields is None or not watched.isdisjoint(fields)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a write to a table concerns a model that rules name."""

    label: str
    how: Literal["row", "child", "m2m", "cascade"]
    """`row` its own table · `child` an update of a multi-table parent · `m2m` a through table of it · `cascade` a
    delete that the database passes on."""
    via: str = ""
    """For m2m: the column of the through model that points to it. For cascade: the event, `delete` or `update`."""
    names: frozenset[str] = frozenset()
    """For m2m: the relation's name. For cascade: the foreign key's."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All rules at one moment. `version` is the row of the version table they were read under."""

    rules: tuple[Rule, ...] = ()
    """As written, also those switched off; those overridden by the database are left out."""
    replaced: tuple[Rule, ...] = ()
    """Rules in code that one of the same name in the database replaces."""
    compiled: dict[str, tuple[Compiled, ...]] = field(default_factory=dict)
    """Label -> rules in force."""
    tables: dict[str, tuple[Seen, ...]] = field(default_factory=dict)
    """Last part of a table's name, in lower case -> whom a write to it concerns."""
    models: dict[str, type[Model]] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Label -> what has to be known of each touched row."""
    version: int | None = None
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What is worked out from these rules and nothing else, to be forgotten with them. Texts are names of tables."""

    def seens(self, db_table: str) -> tuple[Seen, ...]:
        """Return whom a write to a table concerns."""
        known: tuple[Seen, ...] | None = self.memo.get(db_table)
        if known is None:
            known = self.memo[db_table] = self.tables.get(table_key(db_table), ())
        return known

    def concerns(self, seen: Seen, event: str, fields: frozenset[str] | None) -> bool:
        """Whether a create, update or delete of a table's rows may concern a rule in force in the way that is seen."""
        if seen.how == "m2m":
            return bool(self.concerned(seen.label, "m2m", seen.names))
        if seen.how == "cascade":
            return event == "delete" and bool(self.concerned(seen.label, seen.via, seen.names))
        if seen.how == "child" and event != "update":
            return False
        return bool(self.concerned(seen.label, event, fields))

    def touched_by(self, tables: Iterable[str] | None) -> set[tuple[str, Event]]:
        """Return label and event of all that writes of any kind to some tables may do to rows; None: to any table."""
        if tables is None:
            return {(label, event) for label in self.compiled for event in EVENTS}
        events: dict[str, tuple[Any, ...]] = {"m2m": ("m2m",), "child": ("update",), "row": EVENTS[:3]}
        found = [seen for table in tables for seen in self.tables.get(table_key(table), ())]
        return {(seen.label, event) for seen in found for event in events.get(seen.how, (seen.via,))}

    def concerned(self, label: str, event: str, fields: frozenset[str] | None) -> list[Compiled]:
        """Return the rules in force that a write of this kind may concern."""
        return [c for c in self.compiled.get(label, ()) if c.is_hit_by(event, fields)]


def table_key(db_table: str) -> str:
    """Return how a table is looked up: without schema and quotes, in lower case."""
    return db_table.split(".")[-1].strip('"`[] ').casefold()


def build(code: Iterable[Rule], database: Iterable[Rule], version: int | None) -> Snapshot:
    """Arrange rules; one of the database replaces those of the same name in code."""
    stored = tuple(database)
    names = {rule.name for rule in stored}
    code = tuple(code)
    rules = (*(rule for rule in code if rule.name not in names), *stored)
    compiled: dict[str, list[Compiled]] = {}
    models: dict[str, type[Model]] = {}
    for rule in rules:
        if not rule.enabled:
            continue
        try:
            model = find_model(rule.model)._meta.concrete_model
        except InvalidRule as error:
            logger.error("Rule %r never fires: %s", rule.name, error)
            continue
        assert model is not None
        models[model._meta.label] = model
        compiled.setdefault(model._meta.label, []).append(_compile(rule, model))
    return Snapshot(
        rules=rules,
        replaced=tuple(rule for rule in code if rule.name in names),
        compiled={label: tuple(found) for label, found in compiled.items()},
        tables=_tables(models, compiled),
        models=models,
        paths={label: tuple(sorted(set().union(*(c.paths for c in found)))) for label, found in compiled.items()},
        version=version,
    )


def _compile(rule: Rule, model: type[Model]) -> Compiled:
    relations = relations_of(model)
    columns: set[str] = set()
    for name in rule.fields:
        found = column(model, name)
        if found is not None:
            columns |= {found.name, found.attname}
        elif name not in relations:
            columns = set()  # a name that does not exist: watch every field rather than none
            break
    tenant = tenant_path(model, rule.tenant)
    paths = {path for target in rule.targets for path in target.placeholders if _leads(model, path)}
    if any(target.tenant == "same" for target in rule.targets) and tenant not in (ALL_TENANTS, SHARED_DATA):
        if tenant == ACTIVE_TENANT or _leads(model, tenant):
            paths.add(tenant)
        else:
            tenant = ALL_TENANTS
    if columns:  # a row that moves leaves one tenant's, or one tag's, entries and enters another's
        roots = (resolve(model, path)[0] for path in paths if path != ACTIVE_TENANT)
        columns |= {name for root in roots for name in (root.name, root.attname)}
    return Compiled(
        rule=rule,
        label=model._meta.label,
        events=frozenset(rule.events if set(rule.events) <= set(EVENTS) else EVENTS),
        tenant=tenant,
        fields=frozenset(columns),
        relations=frozenset(name for name in rule.fields if name in relations),
        paths=frozenset(paths),
    )


def _leads(model: type[Model], path: str) -> bool:
    try:
        resolve(model, path)
    except InvalidRule as error:
        logger.error("A rule fires for all: %s", error)
        return False
    return True


_COLUMN_EVENTS: Final = frozenset({"create", "update", "delete"})


def _tables(models: dict[str, type[Model]], compiled: dict[str, list[Compiled]]) -> dict[str, tuple[Seen, ...]]:
    tables: dict[str, dict[Seen, None]] = {}

    def see(model: type[Model], seen: Seen) -> None:
        tables.setdefault(table_key(model._meta.db_table), {})[seen] = None

    for label, model in models.items():
        events = frozenset().union(*(c.events for c in compiled[label]))
        if events & _COLUMN_EVENTS:
            see(model, Seen(label, "row"))
        if "update" in events:
            for parent in model._meta.get_parent_list():
                see(parent, Seen(label, "child"))
        if "m2m" in events:
            for through, via, name in _through(model):
                see(through, Seen(label, "m2m", via, frozenset({name})))
        for ancestor, event, names in _database_cascades(model):
            if event in events:
                see(ancestor, Seen(label, "cascade", event, names))
    return {table: tuple(seen) for table, seen in tables.items()}


def _through(model: type[Model]) -> Iterator[tuple[type[Model], str, str]]:
    """Yield each relation's through model, its column that points here, and the relation's name."""
    for name, relation in relations_of(model).items():
        field = getattr(relation, "field", relation)
        is_forward = relation is field
        through = field.remote_field.through
        via = field.m2m_field_name() if is_forward else field.m2m_reverse_field_name()
        yield through, via, name
        if is_forward and field.remote_field.symmetrical:
            yield through, field.m2m_reverse_field_name(), name


def _database_cascades(model: type[Model]) -> Iterator[tuple[type[Model], Event, frozenset[str]]]:
    """
    Yield the models whose deletion the database passes on to this one (Django 6.1: DB_CASCADE and its like).

    DO_NOTHING is one of them: where a constraint lets the deletion pass, the database may have been told what to do.
    """
    seen: set[type[Any]] = {model}
    waiting: list[type[Any]] = [model]
    while waiting:
        current = waiting.pop()
        for key in current._meta.concrete_fields:
            on_delete = getattr(key.remote_field, "on_delete", None)
            is_anybodys = on_delete is DO_NOTHING and key.db_constraint
            operation = "CASCADE or SET" if is_anybodys else str(getattr(on_delete, "operation", "")).upper()
            if not operation:
                continue
            parent = key.remote_field.model._meta.concrete_model
            if "CASCADE" in operation:
                yield parent, "delete", frozenset({key.name, key.attname})
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
            if "SET" in operation and current is model:
                yield parent, "update", frozenset({key.name, key.attname})
