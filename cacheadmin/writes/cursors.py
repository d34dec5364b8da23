"""The net below the ORM's hooks: statements that reach a cursor unannounced are read as text and widened."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final

from django.db import DatabaseError
from django.db.backends.utils import CursorWrapper

from cacheadmin import outbox, rules, transactions
from cacheadmin.rules import Event, Snapshot
from cacheadmin.transactions import own_sql
from cacheadmin.transactions.state import state_of
from cacheadmin.writes import callers
from cacheadmin.writes.blocks import block
from cacheadmin.writes.compilers import RULES_TABLE, note_edit, note_table
from cacheadmin.writes.fetched import Fetched
from cacheadmin.writes.statements import Statement, statement

logger = logging.getLogger("cacheadmin")

unknown_statements: dict[str, int] = {}
"""First words of statements that we could not read -> how often they came; all tables were taken for written."""

MOST_UNKNOWN: Final = 100

HEAD: Final = 80
"""Characters at the beginning of a statement of the ORM among which its table's name begins."""

INTENTS_TABLE: Final = "cacheadmin_intent"

OWN_TABLES: Final = "cacheadmin_"


def hook(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `execute` or `executemany` of a cursor that notes writes nobody announced."""

    @functools.wraps(original)
    def execute(cursor: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
        connection = cursor.db
        transactions.note_query(connection)
        state = state_of(connection)
        if state.depth or (state.announced and _is_announced(sql, state.announced)):
            return original(cursor, sql, *args, **kwargs)
        told = statement(sql, connection.connection)
        if told.sets_isolation:
            transactions.note_isolation(connection)
        run = functools.partial(original, cursor, sql, *args, **kwargs)
        if told.is_several:
            return _several(connection, told, sql, run)
        if told.control:
            return transactions.by_hand(connection, told.control, run)
        if told.tables is not None and not told.tables:
            return run()
        if told.returns_rows and connection.vendor != "postgresql" and transactions.is_alone(connection):
            return write(connection, told, sql, lambda: _with_rows(cursor, run))
        return write(connection, told, sql, run, may_stop_midway=original.__name__ == "executemany")

    return execute


def _is_announced(sql: Any, table: str) -> bool:
    """Whether this is the statement that was announced: others may be sent meanwhile, by fields and by wrappers."""
    return isinstance(sql, str) and table in sql[: HEAD + len(table)]


def _with_rows(cursor: Any, run: Callable[[], Any]) -> Any:
    """Run a statement and fetch its rows, while it is not committed: drivers of PostgreSQL do that by themselves."""
    result, driver = run(), cursor.cursor
    if driver.description is None:
        return result
    with cursor.db.wrap_database_errors:
        cursor.cursor = Fetched(driver)
    return cursor.cursor if result is driver else result


def hook_procedure(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `callproc` of a cursor that takes every table for written."""

    @functools.wraps(original)
    def callproc(cursor: Any, procname: str, *args: Any, **kwargs: Any) -> Any:
        transactions.note_query(cursor.db)
        return write(cursor.db, Statement(None), procname, lambda: original(cursor, procname, *args, **kwargs))

    return callproc


def write(connection: Any, told: Statement, sql: Any, run: Callable[[], Any], *, may_stop_midway: bool = False) -> Any:
    """Run a statement that writes some tables, or any, and note it. What fails midway may have written all the same."""
    if not told.is_known:
        _count_unknown(sql)
    for table in told.tables or ():
        callers.note(table)
    transactions.mark_written(connection)
    if not told.may_be_wrapped and _needs_an_intent(connection, told):
        return _write_on_its_own(connection, told, run)
    with block(connection, is_needed=told.may_be_wrapped and _needs_an_intent(connection, told)) as is_ours:
        try:
            result = run()
        except Exception:
            if (may_stop_midway or not told.may_be_wrapped) and not is_ours:
                _note_what_stands(connection, told)
            raise
        note(connection, told)
    transactions.settle(connection)
    return result


def _several(connection: Any, told: Statement, sql: Any, run: Callable[[], Any]) -> Any:
    """Run several statements, of which some begin or end transactions."""
    moving = functools.partial(transactions.several, connection, told.control, run)
    if told.tables is not None and not told.tables:
        return moving()
    if transactions.is_alone(connection):
        result = write(connection, told, sql, moving)
        transactions.mark_written(connection)  # one may be open by now
        return result
    transactions.mark_written(connection)
    note(connection, told)
    return moving()


def _write_on_its_own(connection: Any, told: Statement, run: Callable[[], Any]) -> Any:
    """
    Run a statement that may commit by itself, after the intent of all that it may write.

    The intent is held back from relays until the statement has returned; if this process dies meanwhile, or it is not
    known how the statement ended, nobody holds it any longer and a relay delivers it.
    """
    foreseen = transactions.Pending(_changes(told, rules.for_writes()))
    if INTENTS_TABLE in (told.tables or ()):
        foreseen = transactions.Pending()  # it may be about to change, or to go
    with outbox.holding(connection, foreseen) as receipt:
        try:
            result = run()
        except Exception:
            _note_what_stands(connection, told)
            raise
    note(connection, told)
    transactions.settle(connection, receipt)
    return result


def _note_what_stands(connection: Any, told: Statement) -> None:
    """Note a write that has failed, maybe at its second row, where that does not undo the first by itself."""
    if connection.vendor == "postgresql" and not transactions.is_alone(connection):
        return
    try:
        note(connection, told)
        transactions.settle(connection)
    except DatabaseError:
        logger.exception("A statement failed, and so did noting what it may have written before.")


def _needs_an_intent(connection: Any, told: Statement) -> bool:
    """Whether a statement is about to run alone and may change what a rule names."""
    if not transactions.is_alone(connection):
        return False  # and SQLite fails a transaction at once that reads, as a look at the rules does, before it writes
    may_concern = _concerned(told, rules.for_writes()) or RULES_TABLE in (told.tables or ())
    return bool(may_concern) and outbox.keeps_rows(connection)


def note(connection: Any, told: Statement) -> None:
    """Note that rows nobody knows were written: every rule of the tables' models fires for all tenants."""
    if any(table.startswith(OWN_TABLES) for table in told.tables or ()):
        own_sql.forget_tables()  # it may be gone, as when the app is migrated to zero
    snapshot = rules.for_writes()
    if told.tables is None or told.reaches_others or RULES_TABLE in told.tables:
        note_edit(connection, snapshot)
    pending = transactions.pending(connection)
    if INTENTS_TABLE in (told.tables or ()):
        pending.changes[outbox.EMPTIED] = None
    pending.changes.update(_changes(told, snapshot))
    for table in _tables(told) or ("",):
        note_table(pending, table, snapshot)


def _changes(told: Statement, snapshot: Snapshot) -> dict[Any, Any]:
    return {(label, event, None): None for label, event in _concerned(told, snapshot)}


def _concerned(told: Statement, snapshot: Snapshot) -> set[tuple[str, Event]]:
    return snapshot.touched_by(_tables(told))


def _tables(told: Statement) -> frozenset[str] | None:
    return None if told.reaches_others else told.tables


def _count_unknown(sql: Any) -> None:
    word = str(sql).split(maxsplit=1)[0][:40].lower() if str(sql).strip() else ""
    if word not in unknown_statements:
        callers.note(word)
        logger.warning(
            "A statement that begins with %r is not known; every table counts as written. It came from %s.",
            word,
            callers.raw_sites.get(word) or "outside of the site's code",
        )
    if word in unknown_statements or len(unknown_statements) < MOST_UNKNOWN:
        unknown_statements[word] = unknown_statements.get(word, 0) + 1


# --- what the driver's cursor has and Django's passes on ------------------------------------------------------------


PASSED_ON: Final = {
    "copy": "statement",
    "copy_expert": "sql",
    "copy_from": "table",
    "executescript": "sql_script",
    "stream": "query",
}
"""Methods of drivers' cursors that run SQL, and what they call it, or the table."""


def passed_on(name: str) -> property:
    """Return a property for one of the methods `PASSED_ON`."""

    def get(cursor: CursorWrapper) -> Callable[..., Any]:
        method = getattr(cursor.cursor, name)  # AttributeError where the driver has none, as without us
        place = 1 if name == "copy_from" else 0

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            connection: Any = cursor.db
            transactions.note_query(connection)
            sql = args[place] if len(args) > place else kwargs.get(PASSED_ON[name], "")
            told = _into(sql) if name == "copy_from" else statement(sql, connection.connection)
            if told.sets_isolation:
                transactions.note_isolation(connection)
            run = functools.partial(method, *args, **kwargs)
            if name == "executescript":  # its first deed is to commit
                told = replace(told, control=told.control or "commit", may_be_wrapped=False)
                return _several(connection, told, sql, run)
            if told.tables is not None and not told.tables:
                return run()
            if name == "copy":
                return _copying(connection, told, run())
            if name == "stream":
                return _streaming(connection, told, sql, run)
            return write(connection, told, sql, run)

        return call

    return property(get)


def _into(table: str) -> Statement:
    """Return what `copy_from` does; older drivers take a schema before the name."""
    name = table.casefold()
    return Statement(frozenset({name, name.rpartition(".")[2].strip('"')}), may_be_wrapped=True)


def _streaming(connection: Any, told: Statement, sql: Any, run: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Run a write when its first row is asked for, as the driver does, but to its end: it is committed only then."""
    yield from write(connection, told, sql, lambda: list(run()))


@contextmanager
def _copying(connection: Any, told: Statement, copy: AbstractContextManager[Any]) -> Iterator[Any]:
    with block(connection, is_needed=_needs_an_intent(connection, told)):
        transactions.mark_written(connection)
        with copy as opened:
            yield opened
        note(connection, told)  # not before: the server takes no query while it copies
    transactions.settle(connection)
