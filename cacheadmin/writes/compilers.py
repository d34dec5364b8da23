"""The hooks on the ORM's own compilers: every save, delete, update(), bulk call, cascade and relation passes here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.sql.compiler import SQLCompiler, SQLDeleteCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import ROW_COUNT

from cacheadmin import outbox, rules, transactions
from cacheadmin.rules import Snapshot, table_key
from cacheadmin.transactions import own_sql
from cacheadmin.transactions.state import State, state_of
from cacheadmin.writes.changes import Plan, plan
from cacheadmin.writes.images import MOST_ROWS
from cacheadmin.writes.looks import Found, Statement

_BUSY: Final = "_cacheadmin_busy"
"""Attribute of a compiler at work: `execute_returning_sql` may call `execute_sql` of the same one."""

RULES_TABLE: Final = "cacheadmin_invalidationrule"


def hook(original: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Return a compiler's method that notes what it writes. `kind` is create, update or delete."""

    @functools.wraps(original)
    def execute(compiler: Any, *args: Any, **kwargs: Any) -> Any:
        connection = compiler.connection
        state = state_of(connection)
        if state.depth or getattr(compiler, _BUSY, False) or connection.needs_rollback:  # Django refuses the last
            return original(compiler, *args, **kwargs)
        model = compiler.query.get_meta().concrete_model
        setattr(compiler, _BUSY, True)
        try:
            return _execute(original, compiler, args, kwargs, connection, state, model, kind)
        finally:
            delattr(compiler, _BUSY)

    return execute


def _execute(
    original: Callable[..., Any],
    compiler: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    connection: BaseDatabaseWrapper,
    state: State,
    model: type[Model],
    kind: str,
) -> Any:
    table = table_key(model._meta.db_table)
    lock_first(connection, state, model)
    snapshot = rules.snapshot()
    seens = snapshot.tables.get(table)
    if seens is None and table != RULES_TABLE:
        transactions.mark_written(connection)
        return _announced(state, original, compiler, args, kwargs)
    returning = (args[0] if args else kwargs.get("returning_fields")) if kind == "create" else None
    statement = Statement(connection, compiler.query, model, kind, tuple(returning or ()))
    try:
        found = plan(statement, seens or (), snapshot)
    except EmptyResultSet:
        return original(compiler, *args, **kwargs)
    edits_rules = table == RULES_TABLE
    if not found.looks and not edits_rules:
        transactions.mark_written(connection)
        return _announced(state, original, compiler, args, kwargs)
    with block(connection, found.reads_first or edits_rules or outbox.keeps_rows(connection)):
        lock_first(connection, state, model, found)
        transactions.mark_written(connection)
        found.before()
        result = _announced(state, original, compiler, args, kwargs)
        count = rows_touched(result, args, kwargs, original.__name__)
        if count != 0:
            note(connection, found.after(result, count), snapshot)
        if edits_rules:
            note_edit(connection, snapshot)
    transactions.settle(connection)
    return result


def _announced(state: State, original: Callable[..., Any], compiler: Any, args: Any, kwargs: Any) -> Any:
    """Run a statement that the hook at the cursor need not look at."""
    state.announced += 1
    try:
        return original(compiler, *args, **kwargs)
    finally:
        state.announced -= 1


def rows_touched(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any], method: str) -> int | None:
    """Return how many rows an UPDATE or DELETE says it touched; None if it does not say (or was an INSERT)."""
    if method == "execute_returning_sql":
        return len(result)
    result_type = args[0] if args else kwargs.get("result_type")
    # An UPDATE that was asked for NO_RESULTS returns 0 whatever it did.
    return result if result_type == ROW_COUNT and isinstance(result, int) and result >= 0 else None


@contextmanager
def block(connection: BaseDatabaseWrapper, is_needed: bool) -> Iterator[None]:
    """
    Open a transaction for a statement that has none, so that what belongs to it is committed with it.

    Its BEGIN and COMMIT do not show in query counts.
    """
    if not is_needed or connection.in_atomic_block or not connection.get_autocommit():
        yield
        return
    atomic = transaction.atomic(using=connection.alias, savepoint=False)
    with own_sql.quiet():
        atomic.__enter__()
    try:
        yield
    except BaseException as error:
        with own_sql.quiet():
            atomic.__exit__(type(error), error, error.__traceback__)
        raise
    with own_sql.quiet():
        atomic.__exit__(None, None, None)


def lock_first(connection: BaseDatabaseWrapper, state: State, model: type[Model], found: Plan | None = None) -> None:
    """
    Take SQLite's write lock before a SELECT of ours does it in the way of a statement that is about to write.

    A transaction that has read fails at once where another process writes; one that begins with a write waits.
    """
    if connection.vendor != "sqlite" or state.pending.has_written:
        return
    if not (connection.in_atomic_block or not connection.get_autocommit()):
        return
    if found.reads_first if found is not None else rules.is_due():
        quote = connection.ops.quote_name
        table, key = quote(model._meta.db_table), quote(str(next(f.column for f in model._meta.local_concrete_fields)))
        own_sql.run(connection, f"UPDATE {table} SET {key} = {key} WHERE 0")  # noqa: S608


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
