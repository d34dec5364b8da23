"""The hooks on the ORM's own compilers: every save, delete, update(), bulk call, cascade and relation passes here."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql.compiler import SQLCompiler, SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import ROW_COUNT

from cacheadmin import outbox, rules, transactions
from cacheadmin.rules import Seen, Snapshot
from cacheadmin.transactions import Pending
from cacheadmin.transactions.state import State, state_of
from cacheadmin.writes import quick
from cacheadmin.writes.blocks import block, lock_first
from cacheadmin.writes.changes import plan
from cacheadmin.writes.images import MOST_ROWS
from cacheadmin.writes.looks import Found, Statement
from cacheadmin.writes.touching import TOGETHER

_BUSY: Final = "_cacheadmin_busy"
"""Attribute of a compiler at work: `execute_returning_sql` may call `execute_sql` of the same one."""

RULES_TABLE: Final = "cacheadmin_invalidationrule"


def hook(original: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Return a compiler's method that notes what it writes. `kind` is create, update or delete."""
    try_quickly = {"create": quick.insert, "update": quick.update}.get(kind)

    @functools.wraps(original)
    def execute(compiler: Any, *args: Any, **kwargs: Any) -> Any:
        connection = compiler.connection
        state = state_of(connection)
        if state.depth or connection.needs_rollback or _BUSY in compiler.__dict__:  # Django refuses the second
            return original(compiler, *args, **kwargs)
        model = compiler.query.model
        snapshot = rules.at_hand()
        if snapshot is None:
            lock_first(connection, state, model)
            snapshot = rules.for_writes()
        table = model._meta.db_table
        seens = snapshot.seens(table)
        compiler.__dict__[_BUSY] = True
        try:
            if not seens and table != RULES_TABLE:
                if not state.pending.has_written:
                    transactions.mark_written(connection)
                return transactions.announced(connection, table, original, compiler, *args, **kwargs)
            if seens and try_quickly is not None:
                result = try_quickly(original, compiler, args, kwargs, state, snapshot, seens)
                if result is not quick.SLOW:
                    return result
            return _execute(original, compiler, args, kwargs, state, snapshot, seens, kind)
        finally:
            del compiler.__dict__[_BUSY]
            if state.pending.has_written:
                note_table(state.pending, table, snapshot)
            elif rules.at_hand() is not snapshot:
                note_late(connection, table, snapshot)

    return execute


def _execute(
    original: Callable[..., Any],
    compiler: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    state: State,
    snapshot: Snapshot,
    seens: tuple[Seen, ...],
    kind: str,
) -> Any:
    connection, model = compiler.connection, compiler.query.get_meta().concrete_model
    table = model._meta.db_table
    returning = (args[0] if args else kwargs.get("returning_fields")) if kind == "create" else None
    statement = Statement(connection, compiler.query, model, kind, tuple(returning or ()))
    try:
        found = plan(statement, seens, snapshot)
    except EmptyResultSet:
        return original(compiler, *args, **kwargs)
    edits_rules = table == RULES_TABLE
    if not found.looks and not edits_rules:
        transactions.mark_written(connection)
        return transactions.announced(connection, table, original, compiler, *args, **kwargs)
    at_once = found.together(compiler, original, args, kwargs) if quick.is_djangos(original) else None
    reads = found.reads_first and at_once is None
    with block(connection, is_needed=reads or edits_rules or outbox.keeps_rows(connection)) as is_ours:
        if reads and not is_ours:
            lock_first(connection, state, model)
        transactions.mark_written(connection)
        if at_once is None:
            found.before()
            result = transactions.announced(connection, table, original, compiler, *args, **kwargs)
        else:
            result = transactions.announced(connection, TOGETHER, at_once)
        count = rows_touched(result, args, kwargs, original.__name__)
        if count != 0:
            note(connection, found.after(result, count), snapshot)
        if edits_rules:
            note_edit(connection, snapshot)
    transactions.settle(connection)
    return result


def rows_touched(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any], method: str) -> int | None:
    """Return how many rows an UPDATE or DELETE says it touched; None if it does not say (or was an INSERT)."""
    if method == "execute_returning_sql":
        return len(result)
    result_type = args[0] if args else kwargs.get("result_type")
    # An UPDATE that was asked for NO_RESULTS returns 0 whatever it did.
    return result if result_type == ROW_COUNT and isinstance(result, int) and result >= 0 else None


def note(connection: BaseDatabaseWrapper, found: list[Found], snapshot: Snapshot) -> None:
    """Add what changed to what is pending, rows of the same kind of change together."""
    pending = transactions.pending(connection).changes
    for part in found:
        if not snapshot.concerned(part.label, part.event, part.fields):
            continue  # the written values proved to be the old ones
        key = (part.label, part.event, part.fields)
        rows = pending.setdefault(key, {})
        if rows is None:
            continue
        if part.rows is None:
            pending[key] = None
            continue
        rows.update((tuple((path, repr(value)) for path, value in row.items()), row) for row in part.rows)
        if len(rows) > MOST_ROWS:
            pending[key] = None


def note_table(pending: Pending, table: str, snapshot: Snapshot) -> None:
    """Note which rules were in force when a table was written: others may be when it is committed."""
    pending.tables.setdefault(table, snapshot)


def note_late(connection: BaseDatabaseWrapper, table: str, snapshot: Snapshot) -> None:
    """Note a statement that ran alone, and maybe for so long that other rules are in force by now."""
    alone = Pending(tables={table: snapshot})
    outbox.reconsider(alone)
    if alone:
        transactions.pending(connection).changes.update(alone.changes)
        transactions.settle(connection)


def note_edit(connection: BaseDatabaseWrapper, snapshot: Snapshot) -> None:
    """Note that rules were written: every process has to read them again."""
    rules.bump_version(connection)
    transactions.pending(connection).changes.setdefault(rules.EDITED, snapshot)


METHODS: Final[tuple[tuple[type[SQLCompiler], str, str], ...]] = (
    (SQLInsertCompiler, "execute_sql", "create"),
    (SQLUpdateCompiler, "execute_sql", "update"),
    (SQLUpdateCompiler, "execute_returning_sql", "update"),
    (SQLDeleteCompiler, "execute_sql", "delete"),
)
"""Class, method, kind. `execute_returning_sql` exists from Django 6.0 on."""
