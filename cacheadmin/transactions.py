"""What this thread's database transactions mean for the cache, and what is to be done when they end.

State lives on the connection object: a task's write joins whatever transaction its thread has open, so neither a
context variable nor the task can tell. No models, no rules, no Redis in here: those who do something at the end of a
transaction register with `on_end`.

A transaction is *real* unless every block around it is a `TestCase`'s own. Leaving the outermost real block inside a
`TestCase` counts as its commit.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import IntegrityError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic, get_connection

from .conf import replicas
from .targets import Target

logger = logging.getLogger("cacheadmin")

_STATE: Final = "_cacheadmin"
"""Attribute of a connection object; it survives `close()`."""


@dataclass(slots=True)
class Pending:
    """What one transaction will have to invalidate once it is committed."""

    changes: dict[Any, Any] = field(default_factory=dict)
    """What the hooks on writes saw; kept by them, opaque here."""
    explicit: dict[tuple[str, str], dict[Target, None]] = field(default_factory=dict)
    """(source, name) -> targets that code or a person asked for."""
    has_written: bool = False
    """Whether a statement of this transaction was seen to write."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.explicit)


class _State:
    """What is known about one connection. Belongs to the thread that owns the connection."""

    __slots__ = ("committed", "depth", "exiting", "isolation", "isolation_was_set", "pending", "physical", "receipt")

    def __init__(self) -> None:
        self.pending = Pending()
        self.committed: Pending | None = None
        """Committed, but not delivered yet: the connection has still to return to autocommit."""
        self.receipt: Any = None
        self.depth = 0
        """Above zero while our own statements run, which no hook looks at."""
        self.exiting = 0
        """Above zero while an `atomic` block is being left: autocommit comes back after its commit, then we deliver."""
        self.physical: Any = None
        self.isolation: str | None = None
        """What the server said about `physical`; asked again after it changed or was set by hand."""
        self.isolation_was_set = False

    def forget(self) -> None:
        """Begin anew: the transaction has ended."""
        self.pending = Pending()
        _writing.discard(id(self))
        if self.isolation_was_set or self.isolation != "read committed":
            self.isolation, self.isolation_was_set = None, False

    def __del__(self) -> None:
        _writing.discard(id(self))


_writing: set[int] = set()
"""Ids of the states whose transaction has written, of all threads: while it is empty, a read asks nothing else."""

Before = Callable[[BaseDatabaseWrapper, Pending], Any]
"""`before(connection, pending) -> receipt`: runs inside a real transaction, right before its COMMIT."""
After = Callable[[Pending, Any], None]
"""`after(pending, receipt)`: runs when it is committed; the receipt is None where `before` did not run."""

_before: Before | None = None
_after: After | None = None


def on_end(before: Before | None, after: After | None) -> None:
    """Set who writes the intent before a COMMIT and who delivers after it."""
    global _before, _after
    _before, _after = before, after


def _state(connection: BaseDatabaseWrapper) -> _State:
    state: _State | None = getattr(connection, _STATE, None)
    if state is None:
        state = _State()
        setattr(connection, _STATE, state)
    return state


# --- questions ------------------------------------------------------------------------------------------------------


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a real transaction is open on this connection."""
    if connection.in_atomic_block:
        return any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    return not connection.autocommit and connection.connection is not None


def _open() -> list[BaseDatabaseWrapper]:
    return [c for c in connections.all(initialized_only=True) if in_transaction(c)]


def is_open() -> bool:
    """Whether an explicit invalidation must wait for a commit of this thread."""
    return bool(_open())


def may_read() -> bool:
    """
    Whether this thread may be served from the cache: not while a transaction of its own has written.

    Cost:    a look at an empty set while no thread of the process is in such a transaction.
    """
    if not _writing:
        return True
    return not any(id(getattr(c, _STATE, None)) in _writing for c in connections.all(initialized_only=True))


def may_fill() -> bool:
    """
    Whether what this thread read last may be stored: its snapshot must not be older than now.

    False where `may_read` is, in any real transaction that is not READ COMMITTED, and after a query to a replica
    inside `replica_watch`.
    Cost:    on PostgreSQL one SHOW a physical connection, the first time it is asked inside a transaction.
    """
    watch = _watch.get()
    if watch is not None and watch.was_asked:
        return False
    return may_read() and all(map(_is_read_committed, _open()))


def _is_read_committed(connection: BaseDatabaseWrapper) -> bool:
    if connection.vendor != "postgresql" or connection.connection is None:
        return False
    state = _state(connection)
    if state.physical is not connection.connection or state.isolation is None:
        try:
            with connection.wrap_database_errors, connection.create_cursor() as cursor:
                cursor.execute("SHOW transaction_isolation")
                level = str(cursor.fetchone()[0])
        except Exception as error:  # noqa: BLE001 - a broken transaction cannot answer; it must not fill either
            logger.debug("The isolation level of %r is not known: %s", connection.alias, error)
            return False
        state.physical, state.isolation = connection.connection, level
    return state.isolation == "read committed"


@dataclass(slots=True)
class _Watch:
    replicas: frozenset[str]
    was_asked: bool = False


_watch: ContextVar[_Watch | None] = ContextVar("cacheadmin_replica_watch", default=None)


@contextmanager
def replica_watch() -> Iterator[None]:
    """Let `may_fill` know inside this block whether a replica was queried since its beginning."""
    lagging = replicas()
    if not lagging:
        yield
        return
    outer, watch = _watch.get(), _Watch(lagging)
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
        if outer is not None:
            outer.was_asked |= watch.was_asked


# --- what the hooks on statements tell ------------------------------------------------------------------------------


def note_query(connection: BaseDatabaseWrapper) -> None:
    """Note that a statement runs on this connection. Cost: a look at a context variable."""
    watch = _watch.get()
    if watch is not None and connection.alias in watch.replicas:
        watch.was_asked = True


def note_isolation(connection: BaseDatabaseWrapper) -> None:
    """Note that a statement may have changed the isolation level."""
    state = _state(connection)
    state.isolation, state.isolation_was_set = None, True


def mark_written(connection: BaseDatabaseWrapper) -> None:
    """Note that this connection's transaction writes. Nothing to note outside a real one."""
    if in_transaction(connection):
        state = _state(connection)
        state.pending.has_written = True
        _writing.add(id(state))


def is_suspended(connection: BaseDatabaseWrapper) -> bool:
    """Whether the statements that run now are our own."""
    state = getattr(connection, _STATE, None)
    return state is not None and state.depth > 0


@contextmanager
def suspended(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let the hooks ignore the statements of this block."""
    state = _state(connection)
    state.depth += 1
    try:
        yield
    finally:
        state.depth -= 1


def pending(connection: BaseDatabaseWrapper) -> Pending:
    """Return what this connection has to invalidate after its commit, to add to it. Call `settle` afterwards."""
    return _state(connection).pending


def settle(connection: BaseDatabaseWrapper) -> None:
    """Deliver what is pending at once, unless a real transaction is open, which delivers when it ends."""
    state = _state(connection)
    if state.pending and not in_transaction(connection):
        taken = state.pending
        state.forget()
        _deliver(taken, None)


def defer(targets: Sequence[Target], source: str, name: str) -> bool:
    """
    Record an explicit invalidation with each open real transaction of this thread.

    Returns: True if it waits for a commit; False if nothing is open, then the caller delivers at once.
    """
    waiting = _open()
    for connection in waiting:
        _state(connection).pending.explicit.setdefault((source, name), {}).update(dict.fromkeys(targets))
    return bool(waiting)


@contextmanager
def quiet() -> Iterator[None]:
    """Take the statements of this block out of this thread's query logs: `assertNumQueries` does not count ours."""
    logs = [(c.queries_log, len(c.queries_log)) for c in connections.all(initialized_only=True) if c.queries_logged]
    try:
        yield
    finally:
        for log, length in logs:
            while len(log) > length:
                log.pop()


def _deliver(taken: Pending, receipt: Any) -> None:
    if _after is None:
        return
    try:
        with quiet():
            _after(taken, receipt)
    except Exception:
        # The data is committed: an error now would only tell the caller something untrue.
        logger.exception("An invalidation could not be delivered after its commit.")


def _deliver_committed(state: _State) -> None:
    if state.committed is not None:
        taken, receipt = state.committed, state.receipt
        state.committed = state.receipt = None
        _deliver(taken, receipt)


# --- hooks ----------------------------------------------------------------------------------------------------------


def _commit(original: Callable[..., Any], self: BaseDatabaseWrapper) -> None:
    state: _State | None = getattr(self, _STATE, None)
    if state is None or self.in_atomic_block:  # in a block Django refuses to commit
        return original(self)
    receipt = None
    if state.pending and _before is not None:
        try:
            with suspended(self), quiet():
                receipt = _before(self, state.pending)
        except BaseException:
            # Whatever else is raised here, SQLite would commit and PostgreSQL stay in the transaction.
            state.forget()
            self.rollback()
            raise
    try:
        original(self)
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
    return None


def _rollback(original: Callable[..., Any], self: BaseDatabaseWrapper) -> None:
    if (state := getattr(self, _STATE, None)) is not None:
        state.forget()
    return original(self)


def _run_and_clear_commit_hooks(original: Callable[..., Any], self: BaseDatabaseWrapper) -> None:
    # Before all callbacks of others: one that raises drops those behind it. Autocommit is on again by now, so that
    # delivering may query, for example the list of tenants.
    if (state := getattr(self, _STATE, None)) is not None:
        _deliver_committed(state)
    return original(self)


def _exit(original: Callable[..., Any], self: Atomic, exc_type: Any, exc_value: Any, traceback: Any) -> Any:
    connection = get_connection(self.using)
    state: _State | None = getattr(connection, _STATE, None)
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
            taken = state.pending
            state.forget()
            if taken and is_good and not self._from_testcase:
                _deliver(taken, None)


_HOOKS: Final = (
    (BaseDatabaseWrapper, "commit", _commit),
    (BaseDatabaseWrapper, "rollback", _rollback),
    (BaseDatabaseWrapper, "close", _rollback),
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


def _hooked(original: Callable[..., Any], hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        return hook(original, self, *args, **kwargs)

    return hooked


def uninstall() -> None:
    """Undo `install`."""
    while _originals:
        (owner, name), original = _originals.popitem()
        setattr(owner, name, original)
