"""What a store can do, and the words for what it found. No I/O here."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal, NamedTuple

from ..conf import cache_settings
from ..keys import Entry, Place
from ..tenancy import tenancy

State = Literal["hit", "stale", "miss"]
Mode = Literal["ask", "join", "take", "fence"]
"""How to ask for a lease: `ask` (or hear that it is busy), `join` the holder, `take` a new one; `fence` needs none."""

LONGEST_LEASE_MS: Final = 3_600_000
"""No lease is longer; what an entry stands on outlives the entry by this much."""


class Absent(enum.Enum):
    """The one value `ABSENT`: nothing is cached. None is a value that people cache."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


class Denied(enum.Enum):
    """Why `open` granted no stamp."""

    BUSY = "busy"
    """Somebody else is computing this entry."""
    REFUSED = "refused"
    """The server is full or does not run our scripts: compute, store nothing."""


BUSY: Final = Denied.BUSY
REFUSED: Final = Denied.REFUSED


class Stamp(NamedTuple):
    """What stood before the first byte of a value's data was read. A value may be stored only under its stamp."""

    identity: bytes
    epochs: tuple[bytes, ...]
    token: bytes
    is_leased: bool
    why: str = "absent"
    """Why the entry was absent, where the store was asked and can tell: cold, expired, evicted."""


class Seen(NamedTuple):
    """What stood when an entry was read and missed: a lease may be granted under it."""

    identity: bytes
    epochs: tuple[bytes, ...]


class Found:
    """The outcome of one read. `value` is ABSENT unless the state is hit or stale."""

    __slots__ = ("reason", "sealed", "seen", "stamp", "state", "value")

    def __init__(
        self,
        state: State,
        value: Any = ABSENT,
        stamp: Stamp | None = None,
        reason: str = "",
        seen: Seen | None = None,
        sealed: Any = None,
    ) -> None:
        self.state = state
        """`stale`: valid, but past its timeout and within its grace."""
        self.value = value
        self.stamp = stamp
        """Of an unleased read: the stamp, if the fence and all epochs stood; a fill may follow without `open`."""
        self.reason = reason
        """Why it missed: absent (the stamp of `open` may know more), invalidated, undecodable, foreign."""
        self.seen = seen
        """Of a miss: identity and epochs, if all of them stood."""
        self.sealed = sealed
        """Of a hit: what `Store.decode` makes the value of once more; None where a store cannot."""


class Fill(NamedTuple):
    """One value on its way into the store."""

    entry: Entry
    stamp: Stamp
    encoded: Any
    """What the store's own `encode` returned."""
    ttl_ms: int
    """Timeout and grace together; 0 for ever."""
    about: Mapping[str, Any]
    """Notes for people, see `envelope.Header.about`."""
    only_if_absent: bool = False
    """Whether a valid value stays (`add`)."""


class Drop(NamedTuple):
    """What is invalidated in one place."""

    place: Place
    tenant: bool = False
    groups: Iterable[str] = ()
    tags: Iterable[str] = ()
    entries: Iterable[Entry] = ()

    def epochs(self) -> list[str]:
        """The Redis keys of the epochs that go."""
        names = [self.place.tenant_epoch()] if self.tenant else []
        names += (self.place.group(group).epoch for group in self.groups)
        names += (self.place.tag_epoch(tag) for tag in self.tags)
        return names


class Store(ABC):
    """The entries of one alias. All methods raise `CacheAway` when the server is."""

    keeps_index = False
    """Whether the store keeps an index that pages can read."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.follows_tenant = "KEY_FUNCTION" in cache_settings(alias)
        """Whether the names of its keys may depend on the active tenant, as with one schema a tenant."""

    def acting(self, tenant: str | None) -> AbstractContextManager[None]:
        """Be a tenant for a `with` block, if names depend on it; None: whoever is active."""
        if not self.follows_tenant or tenant is None or tenant == tenancy().current():
            return nullcontext()
        return tenancy().activate(tenant)

    @abstractmethod
    def place(self, tenant: str | None) -> Place:
        """Return the place of a tenant (None: shared data). Cost: none."""

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Return the value as `Fill.encoded` wants it. Raises: UncacheableValue."""

    @abstractmethod
    def decode(self, sealed: Any) -> Any:
        """Return the value of `Found.sealed` once more, an object of its own. Cost: no round trip."""

    @abstractmethod
    def size(self, encoded: Any) -> int:
        """Return the bytes of an encoded value; 0 where the store cannot tell."""

    @abstractmethod
    def read_many(self, entries: Sequence[Entry], *, fenced: bool = False) -> list[Found]:
        """Read entries, in order; `fenced` also asks for the stamps. Cost: 1 round trip, one MGET a place."""

    @abstractmethod
    def read(self, entry: Entry, *, fenced: bool = False, grace_ms: int = 0) -> Found:
        """Read one entry. Cost: 1 round trip, one MGET; with `grace_ms` one PTTL in the same."""

    @abstractmethod
    def poll(self, entry: Entry) -> tuple[Found, bool]:
        """Read an entry that somebody else computes, and say whether the lease is still held. Cost: 1 round trip."""

    @abstractmethod
    def open(self, entry: Entry, mode: Mode, *, ttl_ms: int, lease_ms: int, seen: Seen | None = None) -> Stamp | Denied:
        """Make absent epochs and ask for the lease or fence. Cost: 1 round trip; 2 if `seen` and somebody holds it."""

    @abstractmethod
    def fill_many(self, fills: Sequence[Fill]) -> list[bool]:
        """Store values under their stamps; False where one is gone, or the server is full. Cost: 1 round trip."""

    def fill(self, fill: Fill) -> bool:
        """Store one value under its stamp. Cost: 1 round trip."""
        return self.fill_many((fill,))[0]

    @abstractmethod
    def release(self, entry: Entry, stamp: Stamp) -> None:
        """Give a lease back if it is still held. Cost: 1 round trip."""

    @abstractmethod
    def drop_many(self, drops: Sequence[Drop]) -> bytes:
        """
        Invalidate scopes and entries, all of one place at once.

        Cost:    1 round trip, one UNLINK a place, whatever the number of entries below.
        Returns: the identity of the server that answered.
        """

    @abstractmethod
    def groups_many(self, places: Sequence[Place]) -> list[list[str] | None]:
        """
        Return the names of each place's groups; None where they are not surely all, so the caller must widen.

        Cost:    1 round trip.
        """
