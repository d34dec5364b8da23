"""What is known about each connection, kept on the connection object.

A task's write joins whatever transaction its thread has open, so neither a context variable nor the task can tell.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from cacheadmin.conf import replicas
from cacheadmin.targets import Target

logger = logging.getLogger("cacheadmin")

T = TypeVar("T")

IDLE: Final = 0
"""What the drivers of PostgreSQL call a connection that has sent nothing since its last transaction ended."""
_IN_ERROR: Final = 3
"""What they call a transaction in which a statement has failed."""

ATTRIBUTE: Final = "_cacheadmin"
"""Of a connection object; it survives `close()`."""


@dataclass(slots=True)
class Pending:
    """What one transaction will have to invalidate once it is committed."""

    changes: dict[Any, Any] = field(default_factory=dict)
    """What the hooks on writes saw; kept by them, opaque here."""
    explicit: dict[tuple[str, str], dict[Target, None]] = field(default_factory=dict)
    """(source, name) -> targets that code or a person asked for."""
    has_written: bool = False
    """Whether a statement of this transaction was seen to write."""
    tables: dict[str, Any] = field(default_factory=dict)
    """Table that was written ("" for any) -> the rules that were in force at the first time; opaque here."""

    def __bool__(self) -> bool:
        return bool(self.changes or self.explicit)


class State:
    """What is known about one connection. Belongs to the thread that owns the connection."""

    __slots__ = (
        "announced",
        "asked_at",
        "by_hand",
        "committed",
        "depth",
        "exiting",
        "isolation",
        "isolation_was_set",
        "pending",
        "physical",
        "receipt",
    )

    def __init__(self) -> None:
        self.pending = Pending()
        self.committed: Pending | None = None
        """Committed, but not delivered yet: the connection has still to return to autocommit."""
        self.receipt: Any = None
        self.depth = 0
        """Above zero while our own statements run, which no hook looks at."""
        self.announced = ""
        """Table, as it is quoted, of the statement that runs and that a hook above the cursor knows; else empty."""
        self.by_hand = False
        """Whether a transaction is open that somebody began by SQL, while Django believes in autocommit."""
        self.exiting = 0
        """Above zero while an `atomic` block is being left: autocommit comes back after its commit, then we deliver."""
        self.physical: Any = None
        self.isolation: str | None = None
        """What the server said about `physical`; asked again after it changed or was set by hand."""
        self.isolation_was_set = False
        self.asked_at: float | None = None
        """When the first statement of this transaction began (time.monotonic): its snapshot is no older than that."""

    def forget(self) -> None:
        """Begin anew: the transaction has ended."""
        self.pending = Pending()
        self.asked_at = None
        _writing.discard(id(self))
        if self.by_hand:
            self.by_hand = False
            _begun.discard(id(self))
        if self.isolation_was_set or self.isolation != "read committed":
            self.isolation, self.isolation_was_set = None, False

    def __del__(self) -> None:
        _writing.discard(id(self))
        _begun.discard(id(self))


_writing: set[int] = set()
"""Ids of the states whose transaction has written, of all threads: while it is empty, a read asks nothing else."""
_begun: set[int] = {0}
"""Ids of the states whose connection is not in autocommit, of all threads: while it is empty, a fill asks nothing else.

Holds a 0, so that connections are looked at one by one, until the hooks that keep it are there.
"""


def watch_autocommit(*, begin: bool) -> None:
    """Rely on `note_autocommit` being called from now on, or no more."""
    if not begin:
        _begun.add(0)
        return
    for connection in connections.all(initialized_only=True):
        note_autocommit(connection)
        state_of(connection).asked_at = -math.inf  # nobody looked until now
    _begun.discard(0)


def note_autocommit(connection: BaseDatabaseWrapper) -> None:
    """Note that a connection has entered or left autocommit. Each `atomic` block begins and ends with that."""
    if connection.autocommit:
        _begun.discard(id(getattr(connection, ATTRIBUTE, None)))
        return
    state = state_of(connection)
    if id(state) not in _begun:
        state.asked_at = None
        _begun.add(id(state))


def any_begun() -> bool:
    """Whether any thread of this process may be in a transaction. Cost: a look at a set."""
    return bool(_begun)


def state_of(connection: BaseDatabaseWrapper) -> State:
    """Return what is known about a connection."""
    state: State | None = getattr(connection, ATTRIBUTE, None)
    if state is None:
        state = State()
        setattr(connection, ATTRIBUTE, state)
    return state


def in_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether a real transaction is open on this connection: one that is not all `TestCase`'s own."""
    if connection.in_atomic_block:
        return any(not getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    if connection.autocommit:
        state: State | None = getattr(connection, ATTRIBUTE, None)
        return state is not None and state.by_hand
    return connection.connection is not None


def is_alone(connection: BaseDatabaseWrapper) -> bool:
    """Whether a statement on this connection would commit by itself."""
    return not connection.in_atomic_block and connection.get_autocommit() and not state_of(connection).by_hand


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Whether a statement has failed that nobody minded: PostgreSQL answers COMMIT with a rollback then."""
    info = getattr(connection.connection, "info", None)
    return connection.vendor == "postgresql" and getattr(info, "transaction_status", None) == _IN_ERROR


def _open() -> list[BaseDatabaseWrapper]:
    if not _begun:
        return []
    return [c for c in connections.all(initialized_only=True) if in_transaction(c)]


def is_open() -> bool:
    """Whether an explicit invalidation must wait for a commit of this thread."""
    return bool(_open())


# --- what the cache asks --------------------------------------------------------------------------------------------


def may_read() -> bool:
    """
    Whether this thread may be served from the cache: not while a transaction of its own has written.

    Cost:    a look at an empty set while no thread of the process is in such a transaction.
    """
    if not _writing:
        return True
    return not any(id(getattr(c, ATTRIBUTE, None)) in _writing for c in connections.all(initialized_only=True))


def may_fill(since: float = math.inf) -> bool:
    """
    Whether what this thread reads may be stored under a stamp that is known to stand since then (time.monotonic).

    Its snapshot must be younger than that; if it is not said since when, there must be none yet. False where `may_read`
    is; in any real transaction that is not READ COMMITTED and whose first statement began before; and after a query to
    a replica inside `replica_watch`.
    Cost:    a look at an empty set while no thread of the process is in a transaction; on PostgreSQL one SHOW a
             physical connection, the first time it is asked inside one.
    """
    watch = _watch.get()
    if watch is not None and watch.was_asked:
        return False
    return not _begun or (may_read() and all(_is_younger(c, since) or _is_read_committed(c) for c in _open()))


def _is_younger(connection: BaseDatabaseWrapper, since: float) -> bool:
    """Whether the snapshot of this connection's transaction is surely younger than a moment, or still to be taken."""
    if 0 in _begun:
        return False
    asked_at = state_of(connection).asked_at
    if asked_at is None:
        return _is_untouched(connection)
    return asked_at > since  # not in the same tick: some clocks have few


def _is_untouched(connection: BaseDatabaseWrapper) -> bool:
    """
    Whether no statement of this transaction passed our hooks, as the driver's own do. Only drivers of PostgreSQL tell.

    Cost:    none, the driver knows.
    """
    if connection.vendor != "postgresql":
        return True
    info = getattr(connection.connection, "info", None)
    return info is None or info.transaction_status == IDLE


def _is_read_committed(connection: BaseDatabaseWrapper) -> bool:
    if connection.vendor != "postgresql" or connection.connection is None:
        return False
    state = state_of(connection)
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
    """Let `may_fill` know inside this block, and in those around it, whether a replica was queried."""
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


def defer(targets: Sequence[Target], source: str, name: str) -> bool:
    """
    Record an explicit invalidation with each open real transaction of this thread.

    Returns: True if it waits for a commit; False if nothing is open, then the caller delivers at once.
    """
    waiting = _open()
    for connection in waiting:
        state_of(connection).pending.explicit.setdefault((source, name), {}).update(dict.fromkeys(targets))
    return bool(waiting)


# --- what the hooks on statements tell ------------------------------------------------------------------------------


def announced(connection: BaseDatabaseWrapper, table: str, run: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run what sends a statement that the hook at the cursor need not look at: it writes this table, and is known."""
    state = state_of(connection)
    before, state.announced = state.announced, connection.ops.quote_name(table)
    try:
        return run(*args, **kwargs)
    finally:
        state.announced = before


Queried = Callable[[str], None]
_queried: Queried | None = None


def on_query(queried: Queried) -> None:
    """Set who is told the alias of each database that is asked, before it is: what follows a plain read."""
    global _queried
    _queried = queried


def note_asked(connection: BaseDatabaseWrapper) -> None:
    """Note that a statement begins: if it is the first one, the transaction's snapshot is taken now."""
    if _begun and id(state := state_of(connection)) in _begun and state.asked_at is None:
        state.asked_at = time.monotonic() if _is_untouched(connection) else -math.inf


def note_query(connection: BaseDatabaseWrapper) -> None:
    """Note that a statement of the site begins. Cost: a look at a set and two context variables."""
    note_asked(connection)
    watch = _watch.get()
    if watch is not None and connection.alias in watch.replicas:
        watch.was_asked = True
    if _queried is not None:
        _queried(connection.alias)


def note_isolation(connection: BaseDatabaseWrapper) -> None:
    """Note that a statement may have changed the isolation level, or chosen an older snapshot."""
    state = state_of(connection)
    state.isolation, state.isolation_was_set = None, True
    state.asked_at = -math.inf


def mark_written(connection: BaseDatabaseWrapper) -> None:
    """Note that this connection's transaction is about to write. Nothing to note outside a real one."""
    if connection.connection is None:
        connection.ensure_connection()  # the settings may have it begin a transaction
    if in_transaction(connection):
        state = state_of(connection)
        state.pending.has_written = True
        _writing.add(id(state))


def note_begun(connection: BaseDatabaseWrapper) -> None:
    """Note that a transaction was begun by SQL."""
    if connection.autocommit and not connection.in_atomic_block:
        state = state_of(connection)
        state.by_hand = True
        _begun.add(id(state))


def pending(connection: BaseDatabaseWrapper) -> Pending:
    """Return what this connection has to invalidate after its commit, to add to it. Call `settle` afterwards."""
    return state_of(connection).pending
