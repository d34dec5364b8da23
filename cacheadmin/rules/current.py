"""The rules in force in this process: those in code, found once, and those in the database, looked at once a second.

An edit reaches this process at once and every other within two seconds of a write.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any, Final

from django.apps import apps
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.constants import OnConflict
from django.utils.module_loading import module_has_submodule

from cacheadmin import transactions
from cacheadmin.conf import on_change
from cacheadmin.exceptions import InvalidRule
from cacheadmin.keys import tenant_text
from cacheadmin.rules.matching import targets_of_rules
from cacheadmin.rules.rule import EVENTS, Problem, Rule, RuleTarget
from cacheadmin.rules.snapshot import Compiled, Snapshot, build
from cacheadmin.rules.validation import find_model, validate
from cacheadmin.targets import ALL, All, Target
from cacheadmin.transactions import own_sql

logger = logging.getLogger("cacheadmin")

LOOK_EVERY_SECONDS: Final = 1.0

EDITED: Final = "rules"
"""Key among the changes of a transaction that has written rules."""

_lock = threading.Lock()


def _forked() -> None:
    """Leave the lock to the parent's thread that looks."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)

_current: Snapshot | None = None
_looked_at = float("-inf")
_failed_at = float("-inf")
_code: tuple[Rule, ...] | None = None


def code_rules() -> tuple[Rule, ...]:
    """
    Return the rules that apps declare as `rules` in their module `cache_rules`. Imports those modules once.

    Raises:  InvalidRule if one cannot be imported or its `rules` is no list of rules.
    """
    global _code
    if _code is None:
        found: list[Rule] = []
        for config in apps.get_app_configs():
            if config.module is not None and module_has_submodule(config.module, "cache_rules"):
                found += _rules_of(f"{config.name}.cache_rules")
        _code = tuple(found)
    return _code


def _rules_of(module: str) -> list[Rule]:
    try:
        given = getattr(import_module(module), "rules", None)
    except Exception as error:
        raise InvalidRule(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(given, (list, tuple)) or not all(isinstance(rule, Rule) for rule in given):
        raise InvalidRule(f"{module} must have a list `rules` of cacheadmin.Rule, not {given!r:.100}.")
    return [_from_module(rule, module) for rule in given]


def _from_module(rule: Rule, module: str) -> Rule:
    values = {name: getattr(rule, name) for name in Rule.__slots__}
    return Rule(**(values | {"source": f"code:{module}"}))


def from_row(row: Mapping[str, Any]) -> Rule:
    """
    Return the rule that a row of InvalidationRule means. `row` maps its fields to their values.

    A row damaged by hand fires too widely: unreadable events are all events, unreadable targets everything.
    """
    name = str(row["name"]) or "(no name)"
    try:
        if not isinstance(row["targets"], (list, tuple)):
            raise InvalidRule(f"{row['targets']!r:.200} is no list.")
        targets = tuple(RuleTarget.parse(target) for target in row["targets"])
    except InvalidRule:
        logger.error("The targets of rule %r cannot be read; it drops everything of the tenant.", name)
        targets = (RuleTarget("tenant"),)
    return Rule(
        name=name,
        model=str(row["model"]),
        targets=targets,
        events=_texts(row["events"]) or EVENTS,
        fields=_texts(row["fields"]) or (),
        tenant=str(row.get("tenant") or ""),
        warm=bool(row.get("warm")),
        enabled=bool(row.get("enabled", True)),
        note=str(row.get("note") or ""),
        source="database",
    )


def _texts(value: Any) -> tuple[str, ...] | None:
    fits = isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value)
    return tuple(value) if fits else None


# --- freshness ------------------------------------------------------------------------------------------------------


def at_hand() -> Snapshot | None:
    """Return the rules in force; None if `snapshot` would look into the database now."""
    return _current if time.monotonic() - _looked_at < LOOK_EVERY_SECONDS else None


def snapshot() -> Snapshot:
    """
    Return the rules in force.

    Cost:    a look at the clock; at most once a second one row is read, past query counts and logs.
    Raises:  InvalidRule if a `cache_rules` module cannot be imported.
    """
    if (current := at_hand()) is not None:
        return current
    current = _current
    if current is not None and not _lock.acquire(blocking=False):
        return current  # another thread is looking
    if current is None:
        _lock.acquire()
    try:
        return _look()
    finally:
        _lock.release()


def for_writes() -> Snapshot:
    """Return what `snapshot` does; while a module of rules cannot be imported, rules by which each write drops all."""
    global _failed_at
    if time.monotonic() - _failed_at >= LOOK_EVERY_SECONDS:
        try:
            return snapshot()
        except InvalidRule as error:
            logger.error("Every write drops everything, until this is put right: %s", error)
            _failed_at = time.monotonic()
    return _widest()


@cache
def _widest() -> Snapshot:
    models = [model for model in apps.get_models(include_auto_created=True) if model._meta.app_label != "cacheadmin"]
    return build(
        (Rule(m._meta.label, m._meta.label, (RuleTarget("tenant"),), EVENTS, tenant="*") for m in models), (), None
    )


def _look() -> Snapshot:
    global _current, _looked_at
    code, connection = code_rules(), _connection()
    try:
        if EDITED in transactions.pending(connection).changes:
            # What this thread has not committed is nobody else's business.
            return _current or build(code, stored_rules(connection), None)
        version = _version(connection)
        if _current is None or _is_other(version, _current.version, connection):
            _current = build(code, stored_rules(connection), version)
        _looked_at = time.monotonic()
    except Exception as error:  # noqa: BLE001 - a blocked, missing or broken database must not break a caller
        logger.warning("The rules in the database cannot be read now: %s", error)
        if _current is None:
            return build(code, (), None)
    return _current


def _is_other(version: int | None, known: int | None, connection: BaseDatabaseWrapper) -> bool:
    """Whether the rules are others than known; an older version seen by a transaction is its snapshot's, not news."""
    is_older = version is not None and known is not None and version < known
    return version != known and not (is_older and transactions.in_transaction(connection))


def _connection() -> BaseDatabaseWrapper:
    return connections[router.db_for_write(_table("InvalidationRule"))]


def _table(name: str) -> type[Model]:
    return apps.get_model("cacheadmin", name)


def _version(connection: BaseDatabaseWrapper) -> int | None:
    table = _table("RuleVersion")._meta.db_table
    if connection.needs_rollback or not own_sql.has_table(connection, table):
        return None
    rows = own_sql.fetch(connection, f"SELECT version FROM {own_sql.name_of(connection, table)} WHERE id = 1")  # noqa: S608
    return int(rows[0][0]) if rows else 0


_COLUMNS: Final = ("name", "model", "events", "fields", "tenant", "targets", "warm", "enabled", "note")


def stored_rules(connection: BaseDatabaseWrapper | None = None) -> list[Rule]:
    """Return the rules of the database, by name; none if the table does not exist. Cost: one query, not counted."""
    connection = connection or _connection()
    table = _table("InvalidationRule")._meta.db_table
    if connection.needs_rollback or not own_sql.has_table(connection, table):
        return []
    quote = connection.ops.quote_name
    columns = ", ".join(quote(name) for name in _COLUMNS)
    sql = f"SELECT {columns} FROM {own_sql.name_of(connection, table)} ORDER BY {quote('name')}"  # noqa: S608
    rows = (dict(zip(_COLUMNS, row, strict=True)) for row in own_sql.fetch(connection, sql))
    return [from_row(row | {name: _json(row[name]) for name in ("events", "fields", "targets")}) for row in rows]


def _json(value: Any) -> Any:
    """Read a JSON column: psycopg may have decoded it already, other drivers give text."""
    try:
        return json.loads(value) if isinstance(value, (str, bytes)) else value
    except ValueError:
        return None


def bump_version(connection: BaseDatabaseWrapper) -> None:
    """Count the version up on this connection, so that every process reads the rules again after its commit."""
    table = _table("RuleVersion")._meta.db_table
    if not own_sql.has_table(connection, table):
        return
    name, ops = own_sql.name_of(connection, table), connection.ops
    update = f"UPDATE {name} SET version = version + 1 WHERE id = 1"  # noqa: S608
    if own_sql.run(connection, update) == 0:
        insert = ops.insert_statement(on_conflict=OnConflict.IGNORE)
        unless_there = ops.on_conflict_suffix_sql([], OnConflict.IGNORE, [], [])
        own_sql.run(connection, f"{insert} {name} (id, version) VALUES (1, 0) {unless_there}")
        own_sql.run(connection, update)


def edited(before: Snapshot, connection: BaseDatabaseWrapper | None = None) -> tuple[Compiled, ...]:
    """Return the rules in force, as this connection sees them, that `before` did not have as they are."""
    after = build(code_rules(), stored_rules(connection), None)
    known = {c.rule for found in before.compiled.values() for c in found}
    return tuple(c for found in after.compiled.values() for c in found if c.rule not in known)


def differences(before: Snapshot) -> tuple[str, ...]:
    """Return the names of the rules in force that are new, other or gone since `before`, sorted. Cost: one query."""
    after = build(code_rules(), stored_rules(), None)
    was, now = (
        {replace(c.rule, note="") for found in rules.compiled.values() for c in found} for rules in (before, after)
    )
    return tuple(sorted({rule.name for rule in was ^ now}))


def forget() -> None:
    """Read the rules anew when next asked, whatever the version says."""
    global _current, _looked_at, _failed_at
    _current, _looked_at, _failed_at = None, float("-inf"), float("-inf")


@on_change
def forget_all() -> None:
    """Forget the rules in code too: settings changed."""
    global _code
    _code = None
    _widest.cache_clear()
    forget()


# --- questions ------------------------------------------------------------------------------------------------------


def all_rules() -> tuple[Rule, ...]:
    """Return every rule, also those switched off; one in code that the database replaces is left out."""
    return snapshot().rules


def for_model(model: str | type[Model]) -> tuple[Rule, ...]:
    """Return the rules in force for a model. Raises: InvalidRule if there is no such model."""
    label = find_model(model)._meta.concrete_model._meta.label  # type: ignore[union-attr]
    return tuple(c.rule for c in snapshot().compiled.get(label, ()))


def problems(*, stored: bool = True) -> list[tuple[Rule, Problem]]:
    """
    Return what is wrong with the rules, each with its rule; `stored=False` leaves the database alone.

    Raises:  InvalidRule if a module cannot be imported.
    """
    found: list[tuple[Rule, Problem]] = []
    for rules in (code_rules(), tuple(stored_rules()) if stored else ()):
        names: set[str] = set()
        for rule in rules:
            found += [(rule, problem) for problem in validate(rule, names)]
            names.add(rule.name)
    return found


def model_targets(model: str | type[Model], tenant: Any = ALL) -> list[Target]:
    """
    Return what `invalidate_model_cache` drops: all that the model's rules can drop, and groups named after the model.

    `tenant` is an id, ALL, or None for shared data. What depends on a row, such as a tag, widens to the tenant.
    Raises:  InvalidRule if there is no such model, or several; InvalidTenant.
    """
    found = find_model(model)
    concrete = found._meta.concrete_model
    assert concrete is not None
    whose = tenant if tenant is None or isinstance(tenant, All) else tenant_text(tenant)
    targets = targets_of_rules(snapshot().compiled.get(concrete._meta.label, ()), whose)
    names = dict.fromkeys(m._meta.object_name or "" for m in (found, concrete))
    return list(dict.fromkeys([*targets, *(Target("prefix", name.lower(), whose) for name in names)]))
