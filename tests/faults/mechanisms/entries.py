"""What keeps one entry honest: leases, fences, stamps, headers, grace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cacheadmin import envelope, memory
from cacheadmin.reading import COMPUTE, steps
from cacheadmin.store import BUSY
from cacheadmin.store import redis as redis_store
from cacheadmin.store.redis import RedisStore

from .registry import edit_script, mechanism


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
        value = yield COMPUTE
        late = yield lambda: steps._opened(call, "take")
        if isinstance(late, redis_store.Stamp):
            yield lambda: steps.keep(call, late, value, 0.0)
        return value

    steps._compute = compute


@mechanism
def remembered_stamp() -> None:
    """A plain `set` is stored under the stamp of its own moment."""
    memory.take = lambda key: memory.NOTHING


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
def digest() -> None:
    """Nobody looks for which key a value was stored."""
    envelope = redis_store.envelope
    envelope.key_digest = lambda full_key: bytes(16)


@mechanism
def epochs_made_at_fill() -> None:
    """A fill that finds an epoch gone makes it anew, instead of being refused."""
    made = """if not held[i] then
    local from = (i == 2 and 1) or (i == 3 and 9) or (25 + 8 * (i - 4))
    held[i] = string.sub(ARGV[5], from, from + (i == 3 and 15 or 7))
    redis.call('SET', KEYS[i + 3], held[i])
  end"""
    edit_script("fill", "if not held[i] then return 0 end", made)


@mechanism
def epoch_check_at_fill() -> None:
    """A fill does not look at its epochs. Nothing gets stale of it: what it stores is dead by its own header."""
    edit_script("fill", "if not held[i] then return 0 end", "held[i] = held[i] or ''")
    edit_script("fill", "if epochs ~= ARGV[5] then return 0 end", "")


def _open(changed: Callable[[str], Any]) -> None:
    """Let `changed(mode)` say in which mode an entry is opened, or what to answer instead."""
    opened = RedisStore.open

    def otherwise(self: RedisStore, entry: Any, mode: Any, **options: Any) -> Any:
        chosen = changed(mode)
        return opened(self, entry, chosen, **options) if isinstance(chosen, str) else chosen

    RedisStore.open = otherwise


@mechanism
def single_flight() -> None:
    """Whoever asks for a lease gets one, and computes."""
    _open(lambda mode: "take" if mode in ("ask", "join") else mode)


@mechanism
def join() -> None:
    """Whose patience ends computes without a share in the lease: only its holder may store."""
    _open(lambda mode: BUSY if mode == "join" else mode)


@mechanism
def size_limit() -> None:
    """No value is too big."""
    RedisStore.size = lambda self, encoded: 0


@mechanism
def signature() -> None:
    """A signature is not checked."""
    envelope.verified = lambda signed, proof, key: signed[envelope.SIGNATURE_BYTES :]
