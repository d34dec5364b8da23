"""Each safety mechanism, and how to take it away: patches from outside, so that production code has no such switch."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cacheadmin import connections, invalidation, memory, outbox, reading, transactions
from cacheadmin.connections import Link, on_reopen
from cacheadmin.outbox import delivery, rows
from cacheadmin.reading import Compute, Io
from cacheadmin.scripts import script
from cacheadmin.store import redis as redis_store
from cacheadmin.store.base import Drop
from cacheadmin.store.redis import RedisStore
from cacheadmin.transactions import ends

MECHANISMS: dict[str, Callable[[], None]] = {}


def mechanism(without: Callable[[], None]) -> Callable[[], None]:
    """Register what takes a mechanism away, under the function's name."""
    MECHANISMS[without.__name__] = without
    return without


def take_away(name: str) -> None:
    """Run without one mechanism from now on, in this process and those it forks."""
    MECHANISMS[name]()


def edit_script(name: str, old: str, new: str) -> None:
    """Change the text of a Lua script. Raises: AssertionError if it does not hold what is to be replaced."""
    lua = script(name)
    assert old in lua.text, f"{name}.lua has no {old!r}: this mutation has to follow it"
    lua.text = lua.text.replace(old, new)
    lua.sha = "0" * 40  # no server knows it, so the text is sent each time


@mechanism
def lease() -> None:
    """A fill asks neither for the lease nor for the fence."""
    edit_script("fill", "if not held[1] or string.sub(held[1], 1, 8) ~= ARGV[4] then return 0 end", "")


def _unlink_of_entries(names: Callable[[Any], tuple[str, ...]]) -> None:
    drop_many = RedisStore.drop_many

    def drop(self: RedisStore, drops: Any) -> bytes:
        doomed = [name for drop in drops for entry in drop.entries for name in names(entry)]
        if doomed:
            self.link.call(("UNLINK", *doomed))
        return drop_many(self, [drop._replace(entries=()) for drop in drops]) or self.link.identity

    RedisStore.drop_many = drop


@mechanism
def entry_delete() -> None:
    """Deleting an entry deletes its value only."""
    _unlink_of_entries(lambda entry: (entry.key,))


@mechanism
def fence() -> None:
    """Deleting an entry leaves the fence of its group's unleased fills."""
    _unlink_of_entries(lambda entry: (entry.key, entry.lease))


@mechanism
def open_first() -> None:
    """The stamp is taken when the value has been computed."""

    def compute(call: Any, stamp: Any) -> Any:
        value = yield Compute()
        late = yield Io(lambda: reading._opened(call, "take"))
        if isinstance(late, redis_store.Stamp):
            yield Io(lambda: reading.keep(call, late, value, 0.0))
        return value

    reading._compute = compute


@mechanism
def random_epochs() -> None:
    """Epochs are counters that begin at 1 again where they were lost; tokens stay random."""

    def urandom(length: int) -> bytes:
        one = bytes(7) + b"\1"
        return (one * 2 + os.urandom(8) + one * (length // 8))[:length] if length >= 24 else os.urandom(length)

    redis_store.os = SimpleNamespace(urandom=urandom)


@mechanism
def remembered_stamp() -> None:
    """A plain `set` is stored under the stamp of its own moment."""
    memory.take = lambda key: memory.NOTHING


@mechanism
def epoch_of_the_tenant() -> None:
    """A group's epoch is not bound to the tenant's epoch under which it was born."""
    bound = " or string.sub(group, 1, 8) ~= tenant"
    edit_script("open", bound, "")
    stand = redis_store._stand

    def unbound(epochs: tuple[bytes | None, ...]) -> bool:
        tenant, group, *tags = epochs
        return tenant is not None and group is not None and stand((tenant, tenant + group[8:], *tags))

    redis_store._stand = unbound


@mechanism
def widening() -> None:
    """A prefix whose registry is lost reaches the groups that are known: none."""
    groups_many = RedisStore.groups_many
    RedisStore.groups_many = lambda self, places: [known or [] for known in groups_many(self, places)]


@mechanism
def marker() -> None:
    """A registry that was lost is begun anew as if it had always been there."""
    edit_script(
        "open",
        "if standing() then redis.call('HSET', KEYS[3], 'g:' .. ARGV[4], '') end",
        "redis.call('HSET', KEYS[3], 'e', tenant, 'g:' .. ARGV[4], '')",
    )


@mechanism
def grace() -> None:
    """A value past its time is served during a computation without a look at its epochs."""
    read = RedisStore.read

    def lenient(self: RedisStore, entry: Any, *, fenced: bool = False, grace_ms: int = 0) -> Any:
        found = read(self, entry, fenced=fenced, grace_ms=grace_ms)
        if grace_ms and found.state == "miss" and found.reason == "invalidated":
            stored = self.link.call(("GET", entry.key)).values[0]
            if stored and (header := redis_store.envelope.parse(stored)):
                payload = memoryview(stored)[header.payload_start :]
                found.state, found.value = "stale", self.codec.decode(header.codec, payload, stored[2:])
        return found

    RedisStore.read = lenient


@mechanism
def two_passes() -> None:
    """A pattern deletes the values that it finds, and leaves leases and fences."""
    scan_parsed = RedisStore.scan_parsed

    def values_only(self: RedisStore, kinds: str) -> Any:
        return itertools.chain() if kinds == "lf" else scan_parsed(self, kinds)

    RedisStore.scan_parsed = values_only


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
    transactions.may_read = transactions.may_fill = lambda: True


@mechanism
def no_fill_of_snapshots() -> None:
    """What was read of a snapshot is stored, however old the snapshot is."""
    transactions.may_fill = transactions.may_read


@mechanism
def order_of_places() -> None:
    """What is computed of others is invalidated before them."""
    rank = invalidation.rank
    invalidation.rank = lambda alias: -rank(alias)


@mechanism
def one_unlink() -> None:
    """Each group of a place is dropped by a command of its own."""
    drop_many = RedisStore.drop_many

    def one_by_one(self: RedisStore, drops: Any) -> bytes:
        identity = b""
        for drop in drops:
            for group in sorted(drop.groups, reverse=True):
                identity = drop_many(self, [Drop(drop.place, groups={group})])
            identity = drop_many(self, [drop._replace(groups=())]) or identity
        return identity

    RedisStore.drop_many = one_by_one


@mechanism
def nesting_rank() -> None:
    """A value may be made of any other cached value."""
    reading.may_be_part = lambda place: True


@mechanism
def digest() -> None:
    """Nobody looks for which key a value was stored."""
    envelope = redis_store.envelope
    envelope.key_digest = lambda full_key: bytes(16)


@mechanism
def outbox_row() -> None:
    """No invalidation is written to the database."""
    rows.keeps_rows = lambda connection, setting=(): False


@mechanism
def intent_with_its_write() -> None:
    """The intent is written when the data is committed, in a transaction of its own."""

    def nothing_yet(connection: Any, pending: Any) -> Any:
        return connection, delivery.gather(pending, connection)

    def then_the_intent(pending: Any, receipt: Any) -> None:
        if receipt is None or receipt[1] is None:
            outbox.after_commit(pending, None)
            return
        connection, found = receipt
        outbox.after_commit(pending, delivery.Receipt(found, connection.alias, rows.insert(connection, found)))

    transactions.on_end(nothing_yet, then_the_intent)


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


@mechanism
def breaker() -> None:
    """Each call tries a server that has just not answered."""
    Link._pass = lambda self, *, entries: None


@mechanism
def drain_before_reading() -> None:
    """A server that answers again is read before what waits was delivered."""
    on_reopen(lambda link: link.reopen(lambda alias, has_changed: True))


@mechanism
def identity() -> None:
    """All servers are one: nobody looks at who answers."""
    connections.identity_of = lambda sections: connections.NO_IDENTITY
