"""What keeps transactions and their invalidations together."""

from __future__ import annotations

import datetime as dt
import math
from contextlib import nullcontext
from typing import Any

from cacheadmin import outbox, transactions
from cacheadmin.memory import seen
from cacheadmin.outbox import delivery, gathering, held, rows
from cacheadmin.store import redis as redis_store
from cacheadmin.store.redis import RedisStore
from cacheadmin.transactions import ends, state

from .registry import mechanism


@mechanism
def after_the_commit() -> None:
    """What a transaction changed is invalidated before its COMMIT only."""
    before = ends._before

    def too_early(connection: Any, pending: Any) -> Any:
        receipt = before(connection, pending)
        outbox.after_commit(pending, receipt)
        return receipt

    transactions.on_end(too_early, lambda pending, receipt: None)


@mechanism
def no_hit_after_a_write() -> None:
    """A transaction that has written is served from the cache."""
    transactions.may_read = lambda: True


@mechanism
def no_fill_after_a_write() -> None:
    """A transaction that has written stores what it computes; it is still served nothing."""
    may_read, read = transactions.may_read, RedisStore.read

    def computing(self: RedisStore, entry: Any, **options: Any) -> Any:
        found = read(self, entry, **options)
        return found if may_read() else redis_store.Found("miss", stamp=found.stamp, reason="absent", seen=found.seen)

    RedisStore.read = computing
    transactions.may_read = transactions.may_fill = lambda *_: True


@mechanism
def no_fill_of_snapshots() -> None:
    """What was read of a snapshot is stored, however old the snapshot is."""
    transactions.may_fill = lambda *_: transactions.may_read()


@mechanism
def stamp_before_the_snapshot() -> None:
    """Any stamp is taken for older than the snapshot."""
    seen.note_seen = lambda stamp: -math.inf


@mechanism
def isolation_asked() -> None:
    """The settings say what a transaction sees, and nobody asks the server."""
    state._is_read_committed = lambda connection: connection.isolation_level.name == "READ_COMMITTED"


@mechanism
def isolation_noted() -> None:
    """Nobody notices a statement that sets the isolation level."""
    transactions.note_isolation = lambda connection: None


@mechanism
def outbox_row() -> None:
    """No invalidation is written to the database."""
    rows.keeps_rows = lambda connection, setting=(): False


@mechanism
def intent_with_its_write() -> None:
    """The intent is written when the data is committed, in a transaction of its own."""

    def nothing_yet(connection: Any, pending: Any) -> Any:
        return connection, gathering.gather(pending, connection)

    def then_the_intent(pending: Any, receipt: Any) -> None:
        if receipt is None or receipt[1] is None:
            outbox.after_commit(pending, None)
            return
        connection, found = receipt
        outbox.after_commit(pending, delivery.Receipt(found, connection.alias, rows.insert(connection, found)))

    transactions.on_end(nothing_yet, then_the_intent)


@mechanism
def intent_of_what_commits_by_itself() -> None:
    """A statement that commits by itself leaves nothing behind while it runs."""
    outbox.holding = lambda connection, foreseen: nullcontext()


@mechanism
def held_while_it_runs() -> None:
    """The intent of a statement that commits by itself is any relay's at once, and done before the statement is."""
    insert = rows.insert

    def now(connection: Any, found: Any, delay: dt.timedelta = rows.DUE_AFTER) -> int:
        row = insert(connection, found, dt.timedelta())
        if delay == held.HOLD:
            outbox.relay_once()
        return row

    rows.insert = now


@mechanism
def done_after_the_delivery() -> None:
    """A relay marks the rows that it takes as done before it delivers them."""
    take = rows.take

    def taken(connection: Any, limit: int) -> Any:
        found = take(connection, limit)
        rows.change(connection, [pk for pk, *_ in found], {"state": outbox.rows.Intent.State.DONE})
        return found

    rows.take = taken


@mechanism
def what_waits() -> None:
    """What cannot be delivered is kept neither in the database nor in memory."""
    outbox_row()
    delivery.remember = lambda found: True
