"""What makes an absent, slow or replaced server harmless."""

from __future__ import annotations

import re
import threading
from typing import Any

from cacheadmin.connections import Gate, Link, lines, on_reopen
from cacheadmin.exceptions import CacheAway
from cacheadmin.store.redis import RedisStore

from .registry import mechanism


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
    lines.identity_of = lambda sections: lines.NO_IDENTITY


@mechanism
def half_before_draining() -> None:
    """What waits is delivered while writers still leave more behind: the gate goes from shut to up."""
    go_through, draining = Link._pass, threading.local()

    def late(self: Link, drain: Any, patiently: bool = False) -> bool:
        if not self._is_answered():
            return False
        self._host.retry_at = 0.0
        draining.now = True
        try:
            is_drained = bool(drain(self.alias, self._has_changed))
        finally:
            draining.now = False
        if is_drained:
            with self._lock:
                self._gate, self._retry_at, self._has_changed = Gate.UP, 0.0, False
        return is_drained

    def through(self: Link, *, entries: bool) -> None:
        if not getattr(draining, "now", False):
            go_through(self, entries=entries)

    Link._reopen, Link._pass = late, through


@mechanism
def reign() -> None:
    """A server is told by its run only, not by its reign."""
    identity_of = lines.identity_of

    def of_the_run(sections: Any) -> bytes:
        return identity_of([re.sub(rb"master_replid:\w+", b"", part) for part in sections])

    lines.identity_of = of_the_run


@mechanism
def identity_of_the_stamp() -> None:
    """A value is sealed under the identity of the server that takes it, not of the one that granted its stamp."""
    fill = RedisStore._fill
    RedisStore._fill = lambda self, told: fill(
        self, told._replace(stamp=told.stamp._replace(identity=self.link.identity))
    )


@mechanism
def soft_reads() -> None:
    """A read that has no answer raises, where it should be a miss."""
    read = RedisStore.read

    def hard(self: RedisStore, entry: Any, **options: Any) -> Any:
        try:
            return read(self, entry, **options)
        except CacheAway as error:
            raise RuntimeError("There is no cache.") from error

    RedisStore.read = hard
