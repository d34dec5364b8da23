"""Entries on a Redis or Valkey server: the protocol's reads, fills and invalidations, one round trip each."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from redis.exceptions import ResponseError

from .. import connections, envelope
from ..exceptions import CacheRefused
from ..keys import Entry, Place
from ..scripts import Script, run_many, script
from .base import BUSY, LONGEST_LEASE_MS, REFUSED, Denied, Drop, Fill, Found, Mode, Seen, Stamp, Store
from .codec import Codec
from .keyspace import Keyspace, group_field, group_names_in

logger = logging.getLogger("cacheadmin")

CLOCK_SLACK_MS: Final = 5_000
"""How far this host's clock may be behind the server's before what expired looks evicted."""

FENCE_MS: Final = 86_400_000
"""How long the token of a group's unleased fills lives at least."""

_Run = tuple[Script, Sequence[str], Sequence[Any]]


class Put(NamedTuple):
    """One value that is stored under the stamp of the moment."""

    entry: Entry
    encoded: tuple[int, bytes]
    ttl_ms: int
    about: Mapping[str, Any]
    how: Literal["set", "add", "replace"] = "set"
    """`add`: only if absent or not valid · `replace`: only if valid."""


class RedisStore(Keyspace, Store):
    """One alias' entries on its server."""

    keeps_index = True

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.codec = Codec(alias)

    def place(self, tenant: str | None) -> Place:
        """Return the place of a tenant (None: shared data). Cost: none; a KEY_FUNCTION is asked as that tenant."""
        if not self.follows_tenant:
            return Place(connections.prefix(self.alias), self.alias, tenant)
        with self.acting(tenant):
            return Place(connections.prefix(self.alias), self.alias, tenant)

    def encode(self, value: Any) -> tuple[int, bytes]:
        """Return codec and payload. Raises: UncacheableValue."""
        return self.codec.encode(value)

    def decode(self, sealed: tuple[int, memoryview, bytes]) -> Any:
        """Return a value once more."""
        return self.codec.decode(*sealed)

    def size(self, encoded: tuple[int, bytes]) -> int:
        """Return the bytes of a payload."""
        return len(encoded[1])

    # --- reading ----------------------------------------------------------------------------------------------------

    def read(self, entry: Entry, *, fenced: bool = False, grace_ms: int = 0) -> Found:
        """
        Read one entry.

        Cost:    1 round trip: one MGET of the value, its epochs and, if `fenced`, the group's fence; with `grace_ms`
                 one PTTL besides.
        """
        epochs = entry.epochs()
        names = (entry.key, entry.group.fence, *epochs) if fenced else (entry.key, *epochs)
        if not grace_ms:
            identity, values = self.link.call(("MGET", *names), entries=True)
            return self._judge(entry, identity, values[0], fenced)
        identity, values = self.link.call(("MGET", *names), ("PTTL", entry.key), entries=True)
        found = self._judge(entry, identity, values[0], fenced)
        if found.state == "hit" and isinstance(values[1], int) and 0 <= values[1] <= grace_ms:
            found.state = "stale"
        return found

    def poll(self, entry: Entry) -> tuple[Found, bool]:
        """Read an entry that somebody else computes, and say whether the lease is still held. Cost: 1 round trip."""
        identity, values = self.link.call(("MGET", entry.key, *entry.epochs()), ("EXISTS", entry.lease), entries=True)
        return self._judge(entry, identity, values[0], fenced=False), values[1] == 1

    def read_many(self, entries: Sequence[Entry], *, fenced: bool = False) -> list[Found]:
        """Read entries, in order. Cost: 1 round trip, one MGET a place however many groups."""
        return self.read_mixed(entries, (), fenced=fenced)[0]

    def read_mixed(
        self, entries: Sequence[Entry], names: Sequence[str], *, fenced: bool = False
    ) -> tuple[list[Found], list[bytes | None]]:
        """Read entries and, in the same round trip, plain keys by their full names. Cost: one MGET a place, and one."""
        wanted: dict[Place | None, dict[str, None]] = {}
        for entry in entries:
            of_place = wanted.setdefault(entry.group.place, {})
            of_place[entry.key] = None
            if fenced:
                of_place[entry.group.fence] = None
            of_place.update(dict.fromkeys(entry.epochs()))
        if names:
            wanted[None] = dict.fromkeys(names)
        if not wanted:
            return [], []
        identity, replies = self.link.call(*(("MGET", *chosen) for chosen in wanted.values()), entries=True)
        held: dict[str, bytes | None] = {}
        for chosen, reply in zip(wanted.values(), replies, strict=True):
            if isinstance(reply, list) and len(reply) == len(chosen):
                held.update(zip(chosen, reply, strict=True))
            else:
                self._out_of_step(reply)
        founds = []
        for entry in entries:
            asked = (entry.key, entry.group.fence) if fenced else (entry.key,)
            founds.append(self._judge(entry, identity, [held.get(n) for n in (*asked, *entry.epochs())], fenced))
        return founds, [held.get(name) for name in names]

    def _judge(self, entry: Entry, identity: bytes, reply: Any, fenced: bool) -> Found:
        """Turn the reply to one MGET into hit or miss; never raises, whatever is stored."""
        if not _are_values(reply, len(entry.epochs()) + 1 + fenced):
            self._out_of_step(reply)
            return Found("miss", reason="undecodable")
        stored, epochs, stamp = reply[0], tuple(reply[2:] if fenced else reply[1:]), None
        stand = _stand(epochs)
        if fenced and stand and reply[1] is not None and len(reply[1]) == 8:
            stamp = Stamp(identity, epochs, reply[1], is_leased=False)
        seen = Seen(identity, epochs) if stand else None
        if stored is None:
            return Found("miss", stamp=stamp, reason="absent", seen=seen)
        if stand:
            proof = envelope.proof(entry.key, identity, epochs)
            if opened := envelope.open_valid(stored, proof):
                sealed = (*opened, proof)
                try:
                    return Found("hit", self.codec.decode(*sealed), stamp, sealed=sealed)
                except Exception as error:  # noqa: BLE001 - a vanished class, another compressor, foreign bytes: all are misses
                    logger.warning("The value of %s cannot be decoded (%s).", entry.key, type(error).__name__)
                    return Found("miss", stamp=stamp, reason="undecodable", seen=seen)
        if envelope.is_foreign(stored, entry.key):
            logger.error("A read of %s was answered with the value of another key.", entry.key)
            self.link.forget_lines()
            return Found("miss", stamp=stamp, reason="foreign", seen=seen)
        return Found("miss", stamp=stamp, reason="invalidated", seen=seen)

    def _out_of_step(self, reply: Any) -> None:
        """Close the connections after a reply that no question of ours has: the next ones would be shifted too."""
        if not isinstance(reply, ResponseError):
            logger.error("The server of alias %r answered somebody else's call.", self.alias)
            self.link.forget_lines()

    # --- filling ----------------------------------------------------------------------------------------------------

    def open(self, entry: Entry, mode: Mode, *, ttl_ms: int, lease_ms: int, seen: Seen | None = None) -> Stamp | Denied:
        """
        Make absent epochs and ask for the lease or fence.

        Where all epochs were `seen` to stand, a lease is one SET NX under them: seen before, like the lease itself,
        they too stood before the first byte of data is read. If somebody holds it, the script decides. The index says
        along with it why an entry is absent.
        Cost:    1 round trip; 2 if `seen` and the lease is held.
        """
        if mode == "ask" and seen is not None:
            token = os.urandom(8)
            hold_ms = min(lease_ms, LONGEST_LEASE_MS)
            lease = token + b"".join(seen.epochs)
            identity, values = self.link.call(
                ("SET", entry.lease, lease, "NX", "PX", hold_ms),
                ("ZSCORE", entry.group.index, entry.member),
                entries=True,
            )
            if isinstance(values[0], ResponseError):
                return self._stamp(identity, values[0], mode)
            if values[0] is not None and identity == seen.identity:
                return Stamp(identity, seen.epochs, token, is_leased=True, why=_why_absent(values[1]))
        return self.open_many((entry,), mode, ttl_ms=ttl_ms, lease_ms=lease_ms)[0]

    def open_many(
        self, entries: Sequence[Entry], mode: Mode, *, ttl_ms: int, lease_ms: int = LONGEST_LEASE_MS
    ) -> list[Stamp | Denied]:
        """Open several entries. Cost: 1 round trip, one script an entry."""
        calls: list[_Run] = []
        for entry in entries:
            group, (tenant_epoch, group_epoch, *tags) = entry.group, entry.epochs()
            fresh = os.urandom(24 + 8 * len(tags))
            candidates = [fresh[i : i + 8] for i in range(0, len(fresh), 8)]
            hold = group.fence if mode == "fence" else entry.lease
            keys = (tenant_epoch, group_epoch, group.registry, hold, *tags)
            hold_ms = max(FENCE_MS, _life(ttl_ms)) if mode == "fence" else min(lease_ms, LONGEST_LEASE_MS)
            calls.append((script("open"), keys, (mode, _life(ttl_ms), hold_ms, group_field(group.name), *candidates)))
        identity, values = run_many(self.link, calls, entries=True)
        return [self._stamp(identity, value, mode) for value in values]

    def _stamp(self, identity: bytes, value: Any, mode: Mode) -> Stamp | Denied:
        if isinstance(value, ResponseError):
            logger.info("A lease was refused by the server of alias %r: %s", self.alias, value)
            return REFUSED
        if not (isinstance(value, list) and len(value) > 3 and value[0] in (0, 1) and _are_values(value[1:])):
            self._out_of_step(value)
            return REFUSED
        granted, token, *epochs = value
        return Stamp(identity, tuple(epochs), token, mode != "fence") if granted else BUSY

    def fill(self, fill: Fill) -> bool:
        """Store one value under its stamp. Cost: 1 round trip. Raises: CacheRefused, where `fill_many` says False."""
        lua, keys, args = self._fill(fill)
        try:
            return lua.run(self.link, keys, args, again=not fill.only_if_absent, entries=True)[1] == 1
        except ResponseError as error:
            self._done(error)
            raise CacheRefused(f"The server of alias {self.alias!r} refused a value: {error}") from error

    def fill_many(self, fills: Sequence[Fill]) -> list[bool]:
        """Store values under their stamps. Cost: 1 round trip, one script a value."""
        return self.write_many(fills, ())

    def _fill(self, fill: Fill) -> _Run:
        entry, stamp, (codec, payload), ttl_ms, about, only_if_absent = fill
        group = entry.group
        proof = envelope.proof(entry.key, stamp.identity, stamp.epochs)
        hold = entry.lease if stamp.is_leased else group.fence
        keys = (entry.key, hold, group.index, group.registry, *entry.epochs())
        sealed = self.codec.seal(codec, proof, about, payload)
        joined = b"".join(stamp.epochs)
        leased, absent = int(stamp.is_leased), int(only_if_absent)
        args = (sealed, ttl_ms, entry.member, stamp.token, joined, leased, _life(ttl_ms), absent)
        return script("fill"), keys, args

    def _done(self, value: Any) -> bool:
        if isinstance(value, ResponseError):
            logger.info("A value was refused by the server of alias %r: %s", self.alias, value)
            return False
        return value == 1

    def release(self, entry: Entry, stamp: Stamp) -> None:
        """Give a lease back if it is still held. Cost: 1 round trip."""
        if stamp.is_leased:
            self._run("release", (entry.lease,), (stamp.token,))

    def _run(self, name: str, keys: Sequence[str], args: Sequence[Any], **how: bool) -> Any:
        """Run a script and return its result. Cost: 1 round trip. Raises: CacheRefused, also where it may not run."""
        try:
            return script(name).run(self.link, keys, args, **how)[1]
        except ResponseError as error:
            raise CacheRefused(f"The server of alias {self.alias!r} refused: {error}") from error

    # --- plain keys -------------------------------------------------------------------------------------------------

    def write_many(self, fills: Sequence[Fill], puts: Sequence[Put]) -> list[bool]:
        """
        Store values under their stamps, and others under the stamp of the moment; fills come first in the answer.

        Cost:    1 round trip, one script a value. An `add` is never sent twice: it could answer itself.
        """
        calls = [*map(self._fill, fills), *map(self._put, puts)]
        again = all(put.how == "set" for put in puts) and not any(fill.only_if_absent for fill in fills)
        return [self._done(value) for value in run_many(self.link, calls, again=again, entries=True).values]

    def _put(self, put: Put) -> _Run:
        entry, (codec, payload), ttl_ms, about, how = put
        group = entry.group
        # Sealed under epochs that nothing has; the script puts the standing ones in their place.
        proof = envelope.proof(entry.key, self._identity(), (bytes(8), bytes(16)))
        sealed = self.codec.seal(codec, proof, about, payload)
        fresh = os.urandom(16)
        keys = (entry.key, entry.lease, group.index, group.registry, group.tenant_epoch, group.epoch)
        name, life = group_field(group.name), _life(ttl_ms)
        args = (how, sealed[:27], sealed[51:], ttl_ms, entry.member, name, life, fresh[:8], fresh[8:])
        return script("put"), keys, args

    def touch(self, entry: Entry, ttl_ms: int) -> bool:
        """Give a valid entry a new timeout (0: none). Cost: 1 round trip."""
        group = entry.group
        keys = (entry.key, group.index, group.registry, group.tenant_epoch, group.epoch)
        args = (self._mine(entry), ttl_ms, entry.member, _life(ttl_ms))
        return bool(self._run("touch", keys, args, entries=True) == 1)

    def incr(self, entry: Entry, delta: int) -> int | str | None:
        """
        Add to an integer atomically.

        Returns: the new value; None if absent; "other" if the value is no integer of 64 bits.
        Raises:  OverflowError beyond 64 bits; CacheAway.
        """
        group = entry.group
        try:
            keys = (entry.key, group.tenant_epoch, group.epoch)
            value = self._run("incr", keys, (self._mine(entry), delta), again=False, entries=True)
        except CacheRefused as error:
            if "overflow" in str(error) or "out of range" in str(error):
                raise OverflowError(f"{entry.key} cannot be changed by {delta}: it would leave 64 bits.") from error
            raise
        if value is None:
            return None
        if not (isinstance(value, bytes) and (value == b"other" or value.removeprefix(b"-").isdigit())):
            self._out_of_step(value)
            return None
        return "other" if value == b"other" else int(value)

    def remaining_ms(self, entry: Entry) -> int | None:
        """Return the ms until a valid entry expires, -1 if never, None if there is none. Cost: 1 round trip."""
        names = (entry.key, *entry.epochs())
        identity, values = self.link.call(("MGET", *names), ("PTTL", entry.key), entries=True)
        if not (_are_values(values[0], len(names)) and isinstance(values[1], int)):
            self._out_of_step(values[0])
            return None
        stored, *epochs = values[0]
        proof = envelope.proof(entry.key, identity, tuple(epochs)) if _stand(tuple(epochs)) else b""
        if stored is None or not proof or envelope.open_valid(stored, proof) is None:
            return None
        return int(values[1])

    def _mine(self, entry: Entry) -> bytes:
        return envelope.key_digest(entry.key) + self._identity()

    def _identity(self) -> bytes:
        """Return the identity of the server, asked for if nobody in this process has yet."""
        return self.link.identity or self.link.call(("PING",)).identity

    # --- invalidating -----------------------------------------------------------------------------------------------

    def drop_many(self, drops: Sequence[Drop]) -> bytes:
        """
        Invalidate scopes and entries, all of one place at once.

        Cost:    1 round trip, one UNLINK a place, however many entries are below. Allowed when the server is full.
        Returns: the identity of the server that answered.
        """
        commands: list[bytes] = []
        unlisted: list[bytes] = []
        for drop in drops:
            names = drop.epochs()
            if not drop.entries:
                if names:
                    commands.append(_unlinking_all(tuple(names)))
                continue
            for entry in drop.entries:
                names += (entry.key, entry.lease, entry.group.fence)
                unlisted.append(connections.packed(_unlisting(entry)))
            commands.append(connections.packed(("UNLINK", *dict.fromkeys(names))))
        if not commands:
            return self.link.identity
        nonce = os.urandom(8)  # its echo proves that the whole conversation was ours, and complete
        identity, values = self.link.call(*commands, *unlisted, b"*2\r\n$4\r\nECHO\r\n$8\r\n%b\r\n" % nonce)
        self._accepted(values[: len(commands)])
        self._proved(values, nonce)
        return identity

    def _proved(self, values: Sequence[Any], nonce: bytes) -> None:
        """Raise CacheAway if the replies are not those of the call that ended with the echo of `nonce`."""
        if values[-1] != nonce:
            raise self._out_of_turn()

    def delete_many(self, entries: Sequence[Entry], names: Sequence[str] = ()) -> int:
        """
        Delete entries and refuse fills of them under way; delete plain keys by their full names as well.

        Cost:    1 round trip; one UNLINK a place.
        Returns: how many of them held a value.
        """
        of_place: dict[Place, list[str]] = {}
        for entry in entries:
            of_place.setdefault(entry.group.place, []).extend((entry.key, entry.lease, entry.group.fence))
        if not of_place and not names:
            return 0
        asks = [("EXISTS", entry.key) for entry in entries]
        drops = [("UNLINK", *dict.fromkeys(targets)) for targets in of_place.values()]
        nonce, deletions = os.urandom(8), [*asks, *map(_unlinking, names), *drops]
        values = self.link.call(*deletions, *map(_unlisting, entries), ("ECHO", nonce)).values
        self._accepted(values[: len(deletions)])
        self._proved(values, nonce)
        return int(sum(values[: len(asks) + len(names)]))

    def groups_many(self, places: Sequence[Place]) -> list[list[str] | None]:
        """Return the names of each place's groups, None where the registry cannot be trusted. Cost: 1 round trip."""
        calls = [(script("groups"), (place.tenant_epoch(), place.registry()), ()) for place in places]
        return [
            group_names_in(fields) if isinstance(fields, list) else None for fields in run_many(self.link, calls).values
        ]


def _are_values(reply: Any, length: int | None = None) -> bool:
    """Say whether a reply is a list of values, of this length, as MGET and the scripts give."""
    if not isinstance(reply, list) or (length is not None and len(reply) != length):
        return False
    return all(value is None or isinstance(value, bytes) for value in reply)


def _unlisting(entry: Entry) -> tuple[str, ...]:
    """Return the command that takes a deleted entry out of the index, for sight only: else it would look evicted."""
    return ("ZREM", entry.group.index, entry.member)


def _why_absent(score: Any) -> str:
    """Say why an entry is absent, by its score in the index: the ms at which it was to expire."""
    if score is None:
        return "cold"
    try:
        expires_ms = float(score)
    except (TypeError, ValueError):
        return "absent"
    return "evicted" if expires_ms > time.time() * 1000 + CLOCK_SLACK_MS else "expired"


@lru_cache(maxsize=4096)
def _unlinking_all(names: tuple[str, ...]) -> bytes:
    """Return the command that removes some epochs: a page's tenth save sends the same again."""
    return connections.packed(("UNLINK", *dict.fromkeys(names)))


def _unlinking(name: str) -> tuple[str, bytes]:
    return "UNLINK", name.encode("utf-8", "surrogatepass")  # what no text can hold names no key, and is no error


def _stand(epochs: tuple[bytes | None, ...]) -> bool:
    """Say whether epochs are all there, the group's born under the tenant's."""
    tenant, group = epochs[0], epochs[1]
    if tenant is None or group is None or len(group) != 16 or group[:8] != tenant:
        return False
    return len(epochs) == 2 or all(tag is not None and len(tag) == 8 for tag in epochs[2:])


def _life(ttl_ms: int) -> int:
    """
    Return the ms that what an entry stands on must live: longer than the entry and any lease; 0 for ever.

    One lease more than needed: the scripts extend it only when that hour is used up, so that not every call writes.
    """
    return ttl_ms + 2 * LONGEST_LEASE_MS if ttl_ms else 0
