"""Entries on any other Django cache (locmem, database, memcached), through `get_many`: scopes work, no index.

A lease and scripts need a server of ours. Here an *entry epoch* stands in: it is made with `add` before the value is
computed, belongs to the value's stamp, and is deleted with the entry. Two processes may compute the same value.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from django.core.cache import caches

from ..encoding import digest
from ..keys import Entry, Place
from .base import LONGEST_LEASE_MS, Denied, Drop, Fill, Found, Mode, Seen, Stamp, Store
from .codec import refuse_once

LONGEST_NAME: Final = 200
"""Longest key that is given to the cache as it is; memcached takes 250 bytes, prefix and version included."""


def _name(key: str) -> str:
    return key if len(key) <= LONGEST_NAME else digest(key.encode())


class PortableStore(Store):
    """One alias' entries in a Django cache without Redis."""

    def place(self, tenant: str | None) -> Place:
        """Return the place of a tenant. The cache adds its own prefix to every key."""
        return Place("", self.alias, tenant)

    @property
    def _cache(self) -> Any:
        return caches[self.alias]

    def encode(self, value: Any) -> Any:
        """Return the value: the cache has a serializer of its own."""
        refuse_once(value)
        return value

    def decode(self, sealed: Any) -> Any:
        """Return what was given: nothing is sealed here, so no read asks."""
        return sealed

    def size(self, encoded: Any) -> int:
        """Return 0: not known here."""
        return 0

    def read(self, entry: Entry, *, fenced: bool = False, grace_ms: int = 0) -> Found:
        """Read one entry. Cost: one `get_many`. There is no grace here."""
        with self.acting(entry.group.place.tenant):
            return self._read((entry,))[0]

    def read_many(self, entries: Sequence[Entry], *, fenced: bool = False) -> list[Found]:
        """Read entries, in order. Cost: one `get_many`; one each where a KEY_FUNCTION asks who is active."""
        return [self.read(entry) for entry in entries] if self.follows_tenant else self._read(entries)

    def _read(self, entries: Sequence[Entry]) -> list[Found]:
        names = {name for entry in entries for name in (_name(entry.key), *self._names(entry))}
        held = self._cache.get_many(names)
        return [self._judge(entry, held) for entry in entries]

    def _judge(self, entry: Entry, held: dict[str, Any]) -> Found:
        epochs = tuple(held.get(name) for name in self._names(entry))
        stored = held.get(_name(entry.key))
        if stored is None:
            return Found("miss", reason="absent")
        if None not in epochs and isinstance(stored, tuple) and len(stored) == 2 and stored[0] == epochs:
            return Found("hit", stored[1])
        return Found("miss", reason="invalidated")

    @staticmethod
    def _names(entry: Entry) -> tuple[str, ...]:
        return tuple(map(_name, (*entry.epochs(), entry.lease)))

    def poll(self, entry: Entry) -> tuple[Found, bool]:
        """Read an entry; nobody holds a lease here."""
        return self.read(entry), False

    def open(self, entry: Entry, mode: Mode, *, ttl_ms: int, lease_ms: int, seen: Seen | None = None) -> Stamp | Denied:
        """Make absent epochs with `add`, the entry's own among them. Cost: one `add` an absent one, one `get_many`."""
        with self.acting(entry.group.place.tenant):
            return self._open(self._names(entry), ttl_ms)

    def _open(self, names: tuple[str, ...], ttl_ms: int) -> Stamp:
        held = self._cache.get_many(names)
        timeout = (ttl_ms + LONGEST_LEASE_MS) / 1000 if ttl_ms else None
        for name in names:
            if name in held:
                self._cache.touch(name, timeout)
            else:
                self._cache.add(name, os.urandom(8), timeout)
        held = self._cache.get_many(names)
        epochs = tuple(held.get(name) for name in names)
        return Stamp(b"", tuple(e or b"" for e in epochs), b"", is_leased=False)

    def fill_many(self, fills: Sequence[Fill]) -> list[bool]:
        """Store values with the epochs of their stamps; they are valid only while those stand. Cost: one `set` each."""
        for fill in fills:
            timeout = fill.ttl_ms / 1000 if fill.ttl_ms else None
            with self.acting(fill.entry.group.place.tenant):
                self._cache.set(_name(fill.entry.key), (fill.stamp.epochs, fill.encoded), timeout)
        return [b"" not in fill.stamp.epochs for fill in fills]

    def release(self, entry: Entry, stamp: Stamp) -> None:
        """Do nothing: there is no lease."""

    def drop_many(self, drops: Sequence[Drop]) -> bytes:
        """Delete epochs and entries. Cost: one `delete_many`; one a place where a KEY_FUNCTION asks who is active."""
        names: list[str] = []
        for drop in drops:
            of_place = drop.epochs()
            for entry in drop.entries:
                of_place += (entry.lease, entry.key)
            if self.follows_tenant:
                with self.acting(drop.place.tenant):
                    self._cache.delete_many(map(_name, of_place))
            else:
                names += of_place
        if names:
            self._cache.delete_many(map(_name, names))
        return b""

    def groups_many(self, places: Sequence[Place]) -> list[list[str] | None]:
        """Return None for each: there is no registry, so a prefix widens to the tenant."""
        return [None for _ in places]
