"""Plain `get` and `set` on keys that have a scope, fenced by what the `get` saw: for the backend and the shortcuts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from . import memory, transactions
from .conf import config
from .exceptions import CacheAway, CacheSkipped
from .fragments import stock_fragment
from .keys import Entry, logical, member, split
from .reading import notes
from .stats import recorder
from .store import Fill, Found, RedisStore, Stamp
from .store.redis import Put
from .targets import Kind, Target, of_key
from .tenancy import tenancy

FENCE_TTL_MS = 3_600_000
"""For how long a read without a timeout to go by lets the epochs it makes live."""


class ScopedKeys:
    """The scoped plain keys of one alias. Every call degrades to "nothing is cached" while the server is away."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store

    def entry(self, key: str, version: int | None = None) -> Entry | None:
        """Return the entry of a caller's key, None if the key has no scope. `version`: if not the alias' own."""
        if key.startswith("template.cache.") and (fragment := stock_fragment(key)):
            place = self.store.place(tenancy().current())  # Django's key shows no tenant
            return Entry(place.group(fragment[0]), member(fragment[1], version))
        scoped = split(key)
        if scoped is None:
            return None
        return Entry(self.store.place(scoped.tenant).group(scoped.group), member(scoped.rest, version))

    def target(self, key: str, entry: Entry, is_own_version: bool) -> Target:
        """Return what invalidates the entry of a caller's key later; of another version all of its group."""
        place, group = entry.group.place, entry.group.name
        if not is_own_version:
            kind: Kind = "group" if group else "tenant"
            return Target(kind, group, place.tenant, self.store.alias)
        if fragment := stock_fragment(key):
            return Target("key", logical(None, *fragment), place.tenant, self.store.alias)
        return of_key(key, self.store.alias)

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, entry: Entry) -> Found | None:
        """Read one entry and remember its stamp; None: the cache is not to be used now. Cost: as `get_many`."""
        if not transactions.may_read():
            return self.get_many((entry,))[0][0]
        begun = time.perf_counter_ns()
        try:
            found = self.store.read(entry, fenced=True)
        except CacheAway as error:
            self._away(entry, error)
            return None
        self._counted(entry, found, time.perf_counter_ns() - begun)
        if found.stamp is not None and memory.may_keep(found.stamp):
            memory.remember(entry.key, found.stamp)
        else:
            self._remember((entry,), (found,))
        return found

    def get_many(
        self, entries: Sequence[Entry], names: Sequence[str] = ()
    ) -> tuple[list[Found | None], list[bytes | None]]:
        """
        Read entries, and plain keys by name in the same round trip, and remember the stamps.

        Cost:    1 round trip; 1 more while a group lacks its fence or an epoch.
        Returns: a Found an entry (None: the cache is not to be used now), and the bytes of each name.
        """
        if not entries and not names:
            return [], []
        if not transactions.may_read():
            for entry in entries:
                self._count(entry, "bypassed")
                memory.remember(entry.key, memory.REFUSED)
            return [None] * len(entries), self.plain_many(names)
        try:
            founds, values = self.store.read_mixed(entries, names, fenced=True)
        except CacheAway as error:
            for entry in entries:
                self._away(entry, error)
            return [None] * len(entries), [None] * len(names)
        self._remember(entries, founds)
        for entry, found in zip(entries, founds, strict=True):
            self._counted(entry, found)
        return list(founds), values

    def plain_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Read plain keys by their full names. Cost: 1 round trip, none without names."""
        try:
            return self.store.read_mixed((), names)[1]
        except CacheAway:
            return [None] * len(names)

    def _away(self, entry: Entry, error: CacheAway) -> None:
        self._count(entry, "bypassed" if isinstance(error, CacheSkipped) else "error")
        memory.remember(entry.key, memory.REFUSED)

    def _counted(self, entry: Entry, found: Found, took_ns: int = 0) -> None:
        self._count(entry, found.state, took_ns)
        if found.state == "miss":
            group = entry.group
            recorder.missed(group.place.alias, group.name, group.place.tenant, found.reason)

    @staticmethod
    def _count(entry: Entry, result: str, took_ns: int = 0) -> None:
        group = entry.group
        recorder.read(group.place.alias, group.name, group.place.tenant, result, took_ns)

    def _remember(self, entries: Sequence[Entry], founds: Sequence[Found]) -> None:
        """Keep each stamp; where fence or epochs were absent, make them before the caller reads any data."""
        if not transactions.may_fill(-math.inf):
            for entry in entries:
                memory.remember(entry.key, memory.REFUSED)
            return
        lacking: dict[str, Entry] = {}
        for entry, found in zip(entries, founds, strict=True):
            if found.stamp is None:
                lacking.setdefault(entry.group.fence, entry)
            else:
                self._keep(entry, found.stamp)
        if not lacking:
            return
        try:
            made = self.store.open_many(list(lacking.values()), "fence", ttl_ms=FENCE_TTL_MS)
        except CacheAway:
            made = []
        stamps = dict(zip(lacking, made, strict=False))
        for entry, found in zip(entries, founds, strict=True):
            if found.stamp is None:
                self._keep(entry, stamps.get(entry.group.fence))

    @staticmethod
    def _keep(entry: Entry, stamp: Any) -> None:
        """Keep what a `get` saw, unless this thread's snapshot may be older."""
        may_be_used = isinstance(stamp, Stamp) and memory.may_keep(stamp)
        memory.remember(entry.key, stamp if may_be_used else memory.REFUSED)

    # --- writing ----------------------------------------------------------------------------------------------------

    def set_many(self, values: Iterable[tuple[str, Entry, Any]], ttl_ms: int) -> int:
        """
        Store values, each under the stamp that its `get` saw, else under that of the moment.

        Cost:    1 round trip.
        Returns: how many were stored; a value whose stamp is gone, or that this transaction forbids, is dropped.
        Raises:  UncacheableValue.
        """
        fills, puts = [], []
        for key, entry, payload in [(key, entry, self.store.encode(value)) for key, entry, value in values]:
            stamp = memory.take(entry.key)
            if self.store.size(payload) > config().max_value_bytes:
                self._refused(entry, "size")
            elif not transactions.may_read():
                self._refused(entry, "transaction")
            elif stamp is memory.NOTHING:
                puts.append(Put(entry, payload, ttl_ms, self._about(key, entry)))
            elif not isinstance(stamp, Stamp):
                self._refused(entry, "epoch" if transactions.may_fill() else "transaction")
            elif memory.may_keep(stamp):
                fills.append(Fill(entry, stamp, payload, ttl_ms, self._about(key, entry)))
            else:
                self._refused(entry, "transaction")
        writes: list[Fill | Put] = [*fills, *puts]
        if not writes:
            return 0
        try:
            stored = self.store.write_many(fills, puts)
        except CacheAway:
            return 0
        for write, done in zip(writes, stored, strict=True):
            if done:
                group = write.entry.group
                recorder.filled(group.place.alias, group.name, group.place.tenant, self.store.size(write.encoded))
            else:
                self._refused(write.entry, "epoch")
        return sum(stored)

    @staticmethod
    def _refused(entry: Entry, reason: str) -> None:
        recorder.refused(entry.group.place.alias, entry.group.name, entry.group.place.tenant, reason)

    def add(self, key: str, entry: Entry, value: Any, ttl_ms: int) -> bool:
        """
        Store a value if none is valid, under the stamp that a `get` saw before.

        In a transaction that has written it is stored too, unfenced: people lock with it.
        Cost:    1 round trip.
        """
        payload, about = self.store.encode(value), self._about(key, entry)
        stamp = memory.take(entry.key)
        writes: tuple[tuple[Fill, ...], tuple[Put, ...]]
        if isinstance(stamp, Stamp) and memory.may_keep(stamp):
            writes = ((Fill(entry, stamp, payload, ttl_ms, about, only_if_absent=True),), ())
        elif stamp is memory.NOTHING or not transactions.may_fill():
            writes = ((), (Put(entry, payload, ttl_ms, about, "add"),))
        else:
            self._refused(entry, "epoch")
            return False
        try:
            return self.store.write_many(*writes)[0]
        except CacheAway:
            return False

    def replace(self, key: str, entry: Entry, value: Any, ttl_ms: int) -> bool:
        """Store a value if one is valid now. Cost: 1 round trip."""
        put = Put(entry, self.store.encode(value), ttl_ms, self._about(key, entry), "replace")
        memory.forget(entry.key)
        try:
            return self.store.write_many((), (put,))[0]
        except CacheAway:
            return False

    def delete_many(self, entries: Sequence[Entry], names: Sequence[str] = ()) -> int:
        """
        Delete entries and refuse fills of them under way, and plain keys by name. Cost: 1 round trip.

        Returns: how many held a value.
        Raises:  CacheAway: an invalidation is never dropped silently.
        """
        for entry in entries:
            memory.forget(entry.key)
        return self.store.delete_many(entries, names)

    @staticmethod
    def _about(key: str, entry: Entry) -> dict[str, Any]:
        about = notes(0.0)
        del about["took"]
        return about | ({"key": key} if entry.member.startswith("~") or entry.group.name.startswith("~") else {})
