"""How transactions end: an intent before the COMMIT, delivery right after it, nothing after a rollback.

Not by `on_commit`: another app's callback that raises drops those behind it, and `captureOnCommitCallbacks` would count
ours in a site's tests.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, Final

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic, get_connection

from cacheadmin.transactions import own_sql
from cacheadmin.transactions.own_sql import unseen
from cacheadmin.transactions.state import (
    ATTRIBUTE,
    IDLE,
    Pending,
    State,
    in_transaction,
    is_alone,
    is_lost,
    mark_written,
    note_autocommit,
    note_begun,
    state_of,
    watch_autocommit,
)

logger = logging.getLogger("cacheadmin")

Before = Callable[[BaseDatabaseWrapper, Pending], Any]
"""`before(connection, pending) -> receipt`: runs inside a real transaction, right before its COMMIT."""
After = Callable[[Pending, Any], None]
"""`after(pending, receipt)`: runs when it is committed; the receipt is None where `before` did not run."""

_UNKNOWN: Final = 4
"""What the drivers of PostgreSQL say of a connection that is lost."""

_before: Before | None = None
_after: After | None = None
_reconsider: Callable[[Pending], None] | None = None


def on_end(before: Before | None, after: After | None) -> None:
    """Set who writes the intent before a COMMIT and who delivers after it."""
    global _before, _after
    _before, _after = before, after


def on_written(reconsider: Callable[[Pending], None] | None) -> None:
    """Set who looks once more, before a transaction ends well, at the tables that it has written."""
    global _reconsider
    _reconsider = reconsider


def settle(connection: BaseDatabaseWrapper, receipt: Any = None) -> None:
    """Deliver what is pending at once, unless a real transaction is open, which delivers when it ends."""
    state = state_of(connection)
    taken = state.pending
    if taken and not in_transaction(connection):
        state.forget()
        _deliver(taken, receipt)


def _deliver(taken: Pending, receipt: Any) -> None:
    if _after is None:
        return
    try:
        _after(taken, receipt)
    except Exception:
        # The data is committed: an error now would only tell the caller something untrue.
        logger.exception("An invalidation could not be delivered after its commit.")


def _deliver_committed(state: State) -> None:
    if state.committed is not None:
        taken, receipt = state.committed, state.receipt
        state.committed = state.receipt = None
        _deliver(taken, receipt)


# --- hooks ----------------------------------------------------------------------------------------------------------


def _commit(original: Callable[..., Any], self: BaseDatabaseWrapper) -> Any:
    state: State | None = getattr(self, ATTRIBUTE, None)
    if state is None or self.in_atomic_block:  # in a block Django refuses to commit
        return original(self)
    return _committing(self, state, lambda: original(self), self.rollback)


def _committing(
    connection: BaseDatabaseWrapper, state: State, commit: Callable[[], Any], rollback: Callable[[], Any]
) -> Any:
    receipt = _prepare(connection, state, rollback)
    try:
        result = commit()
    except BaseException as error:
        if state.pending and not isinstance(error, IntegrityError):
            _deliver(state.pending, None)  # it may have been committed all the same; one miss more is no harm
        raise
    taken = state.pending
    state.forget()
    if taken:
        state.committed, state.receipt = taken, receipt
        if not state.exiting:
            _deliver_committed(state)  # manual mode: nothing comes after the commit
    return result


def _prepare(connection: BaseDatabaseWrapper, state: State, rollback: Callable[[], Any]) -> Any:
    """Write the intent of what is pending, and return its receipt."""
    _look_again(state)
    if state.pending and is_lost(connection):
        state.forget()
    if not state.pending or _before is None:
        return None
    try:
        with unseen(connection):
            return _before(connection, state.pending)
    except BaseException:
        # Whatever else is raised here, SQLite would commit and PostgreSQL stay in the transaction.
        state.forget()
        rollback()
        raise


def _look_again(state: State) -> None:
    if state.pending.tables and _reconsider is not None:
        _reconsider(state.pending)


def by_hand(connection: BaseDatabaseWrapper, word: str, run: Callable[[], Any]) -> Any:
    """Run a BEGIN, COMMIT or ROLLBACK that somebody sends as SQL; `word` is the first of it."""
    if word in ("begin", "start"):
        result = run()
        note_begun(connection)
        return result
    state = state_of(connection)
    if word in ("commit", "end"):
        return _committing(connection, state, run, lambda: own_sql.run(connection, "ROLLBACK"))
    state.forget()
    return run()


def several(connection: BaseDatabaseWrapper, word: str, run: Callable[[], Any]) -> Any:
    """
    Run several statements that are sent at once and may begin and end transactions; `word` is the last that does.

    Which transaction they ended is not known. So what is pending is delivered when they have returned and, if one is
    open then, at its end once more.
    """
    state, receipt = state_of(connection), None
    if not is_alone(connection):
        receipt = _prepare(connection, state, lambda: own_sql.run(connection, "ROLLBACK"))
    taken = state.pending
    try:
        return run()
    finally:
        state.forget()
        if _is_begun(connection, word):
            note_begun(connection)
            state.asked_at = -math.inf
        if taken:
            if in_transaction(connection):
                state.pending = taken
                mark_written(connection)
            _deliver(taken, receipt)


def _is_begun(connection: BaseDatabaseWrapper, word: str) -> bool:
    """Whether a transaction is open at the server, as far as the driver knows; else as the last word says."""
    driver: Any = connection.connection
    if connection.vendor == "sqlite":
        return bool(driver is not None and driver.in_transaction)
    status = getattr(getattr(driver, "info", None), "transaction_status", None)
    if connection.vendor != "postgresql" or status is None:
        return word in ("begin", "start")
    return status not in (IDLE, _UNKNOWN)


def _rollback(original: Callable[..., Any], self: BaseDatabaseWrapper) -> Any:
    result = original(self)  # which Django refuses in a block, and to other threads: then the transaction goes on
    _forget(self)
    return result


def _close(original: Callable[..., Any], self: BaseDatabaseWrapper) -> Any:
    try:
        return original(self)
    finally:
        if self.connection is None or self.closed_in_transaction:  # not if another thread was refused it
            _forget(self)


def _forget(connection: BaseDatabaseWrapper) -> None:
    if (state := getattr(connection, ATTRIBUTE, None)) is not None:
        state.forget()


def _set_autocommit(original: Callable[..., Any], self: BaseDatabaseWrapper, *args: Any, **kwargs: Any) -> Any:
    state = state_of(self)
    state.depth += 1  # SQLite's BEGIN is sent through a cursor
    try:
        result = original(self, *args, **kwargs)
    except BaseException:
        if not state.by_hand:  # else that transaction goes on
            note_autocommit(self)
        raise
    finally:
        state.depth -= 1
    note_autocommit(self)
    if not state.exiting and self.autocommit and not self.in_atomic_block:
        _look_again(state)
        taken = state.pending
        if taken or state.by_hand:
            state.forget()  # SQLite and MySQL have committed what was open, without a commit of Django's
        if taken:
            _deliver(taken, None)
    return result


def _run_and_clear_commit_hooks(original: Callable[..., Any], self: BaseDatabaseWrapper) -> Any:
    # Before all callbacks of others. Autocommit is on again by now, so that delivering may query, for example the
    # list of tenants.
    if (state := getattr(self, ATTRIBUTE, None)) is not None:
        _deliver_committed(state)
    return original(self)


def _exit(original: Callable[..., Any], self: Atomic, exc_type: Any, exc_value: Any, traceback: Any) -> Any:
    connection = get_connection(self.using)
    state: State | None = getattr(connection, ATTRIBUTE, None)
    if state is None:
        return original(self, exc_type, exc_value, traceback)
    is_good = exc_type is None and not connection.needs_rollback
    state.exiting += 1
    try:
        return original(self, exc_type, exc_value, traceback)
    except BaseException:
        is_good = False
        raise
    finally:
        state.exiting -= 1
        _deliver_committed(state)  # normally done by now; not if the connection broke right after its commit
        if connection.in_atomic_block and not in_transaction(connection):
            _look_again(state)
            taken = state.pending
            state.forget()
            if taken and is_good and not getattr(self, "_from_testcase", False):
                _deliver(taken, None)


_HOOKS: Final = (
    (BaseDatabaseWrapper, "commit", _commit),
    (BaseDatabaseWrapper, "rollback", _rollback),
    (BaseDatabaseWrapper, "close", _close),
    (BaseDatabaseWrapper, "set_autocommit", _set_autocommit),
    (BaseDatabaseWrapper, "run_and_clear_commit_hooks", _run_and_clear_commit_hooks),
    (Atomic, "__exit__", _exit),
)
_originals: dict[tuple[type, str], Callable[..., Any]] = {}


def install() -> None:
    """Begin to notice how transactions end. Once is enough; more often is harmless."""
    for owner, name, hook in _HOOKS:
        if (owner, name) not in _originals:
            original = _originals[owner, name] = getattr(owner, name)
            setattr(owner, name, _hooked(original, hook))
    watch_autocommit(begin=True)


def _hooked(original: Callable[..., Any], hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        return hook(original, self, *args, **kwargs)

    return hooked


def uninstall() -> None:
    """Undo `install`."""
    watch_autocommit(begin=False)
    while _originals:
        (owner, name), original = _originals.popitem()
        setattr(owner, name, original)
