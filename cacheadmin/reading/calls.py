"""One read of one entry on its way, how its value is kept, and how long its function takes."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from cacheadmin.conf import config
from cacheadmin.keys import Entry
from cacheadmin.signals import cache_read
from cacheadmin.store import Found, Seen, Store
from cacheadmin.store.base import LONGEST_LEASE_MS, Mode

LONGEST_PATIENCE: Final = 10.0
"""Seconds that anybody waits for another one's computation at most."""

_HOST: Final = socket.gethostname()


@dataclass(frozen=True, slots=True)
class Options:
    """How the entries of one function, view or fragment are kept."""

    timeout_ms: int = 300_000
    """0 for ever, below 0 not at all."""
    grace_ms: int = 0
    single_flight: bool = True
    jitter: float = 0.0
    """Share of the timeout by which it is shortened at random, 0 to 1."""
    cache_none: bool = True
    condition: Callable[[Any], bool] | None = None
    max_value_bytes: int | None = None


class Pace:
    """How long a function takes, as this process has seen it: leases and patience grow with it."""

    __slots__ = ("slowest",)

    def __init__(self) -> None:
        self.slowest = 0.0

    def saw(self, seconds: float) -> None:
        """Note one computation."""
        self.slowest = max(self.slowest, seconds)

    def lease_ms(self) -> int:
        """Return the ms for which one computation may hold the entry."""
        return int(min(max(config().lease_seconds, 4 * self.slowest) * 1000, LONGEST_LEASE_MS))

    def patience(self) -> float:
        """Return the seconds for which the others wait for it."""
        least = config().patience_seconds
        return min(max(least, 1.5 * self.slowest), max(LONGEST_PATIENCE, least)) * random.uniform(0.9, 1.1)


class Call:
    """One read of one entry, on its way."""

    __slots__ = ("about", "compute", "entry", "options", "pace", "sender", "store")

    def __init__(
        self,
        store: Store,
        entry: Entry,
        compute: Callable[[], Any],
        *,
        options: Options,
        pace: Pace,
        about: Callable[[], dict[str, Any]],
        sender: Any,
    ) -> None:
        self.store = store
        self.entry = entry
        self.compute = compute
        self.options = options
        self.pace = pace
        self.about = about
        """Called only when a value is stored."""
        self.sender = sender

    def read(self) -> Found:
        """Read the entry as this call needs it. Cost: 1 round trip."""
        return self.store.read(self.entry, fenced=not self.options.single_flight, grace_ms=self.options.grace_ms)

    def open(self, mode: Mode, seen: Seen | None = None) -> Any:
        """Ask for a lease, or for the fence where there is no single flight. Cost: as `Store.open`."""
        options = self.options
        asked: Mode = mode if options.single_flight or mode == "take" else "fence"
        ttl_ms = options.timeout_ms + options.grace_ms if options.timeout_ms else 0
        return self.store.open(self.entry, asked, ttl_ms=ttl_ms, lease_ms=self.pace.lease_ms(), seen=seen)

    def tell(self, result: str, took_ms: float = 0.0) -> None:
        """Send the signal `cache_read`, if anybody listens."""
        if cache_read.receivers:
            place = self.entry.group.place
            cache_read.send(
                self.sender,
                alias=place.alias,
                tenant=place.tenant,
                group=self.entry.group.name,
                result=result,
                took_ms=took_ms,
            )


def notes(took: float) -> dict[str, Any]:
    """Return what a header notes about this moment: time, ms, process, release."""
    return {"at": round(time.time(), 3), "took": round(took * 1000, 1), "by": process_name(), "rel": config().release}


@cache
def process_name() -> str:
    """Return host and process id of whoever runs this."""
    return f"{_HOST}:{os.getpid()}"


os.register_at_fork(after_in_child=process_name.cache_clear)


def ttl_ms(options: Options) -> int:
    """Return the ms that a value filled now lives in the store, grace included; 0 for ever."""
    if not options.timeout_ms:
        return 0
    return max(1, int(options.timeout_ms * (1 - options.jitter * random.random()))) + options.grace_ms
