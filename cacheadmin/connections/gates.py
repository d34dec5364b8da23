"""How far a process trusts a server: when it is left alone, who probes it, what comes before readers do again."""

from __future__ import annotations

import enum
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import redis
from redis.exceptions import AuthorizationError

from ..conf import config
from ..exceptions import CacheAway, CacheSkipped
from .lines import AWAY

logger = logging.getLogger("cacheadmin")

SLOWNESS_CALLS: Final = 30
"""Calls over which the mean latency is taken, with weights that fade."""

WARY: Final = 0.75
"""Share of `SLOW_MS` that the mean begins with when a server comes back that was left alone for being slow."""

_OF_THE_ALIAS: Final = (redis.AuthenticationError, AuthorizationError)
"""What one alias meets, though others at the same server may not."""


def _soon(now: float) -> float:
    """Return when to try again, a little apart from other processes."""
    return now + config().retry_seconds * random.uniform(0.75, 1.0)


def half_a_pause() -> float:
    """Return about half of `RETRY_SECONDS`, another part of it for each process."""
    return config().retry_seconds * random.uniform(0.3, 0.5)


class Gate(enum.IntEnum):
    """How far a process trusts a server."""

    SHUT = 0
    """It did not answer: nobody reads or fills, and writers leave their intents waiting."""
    HALF = 1
    """It answers again: writers deliver, nobody reads yet; what waits is being delivered."""
    UP = 2


class Host:
    """
    What the links to one server share, so that a hung one costs a process one timeout, and not one an alias.

    While the server does not answer one link probes it for all; when it answers, the others follow at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.retry_at = 0.0
        """When it may be probed next (time.monotonic)."""


known: dict[str, Gated] = {}
"""Alias -> the link in use; one that was replaced is not probed any more."""
hosts: dict[tuple[Any, ...], Host] = {}


def host_of(kwargs: dict[str, Any]) -> Host:
    """Return what is shared by all links whose connections are made with the same host, port or socket."""
    where = tuple(kwargs.get(name) for name in ("host", "port", "path"))
    return hosts.setdefault(where, Host())


Reopener = Callable[["Gated"], None]
_reopener: Reopener | None = None
_watcher: Reopener | None = None


def on_reopen(reopener: Reopener | None, watcher: Reopener | None = None) -> None:
    """
    Set who reopens a link: `reopener(link)` calls `link.reopen(drain)`, here or in a thread of its own.

    `watcher(link)` is called when a server was just found away, by whoever found it: it returns at once, and has the
    server probed until it answers. So nobody has to ask for anything before what waits is delivered.
    """
    global _reopener, _watcher
    _reopener, _watcher = reopener, watcher


class Gated(ABC):
    """The gate before one alias' server; `links.Link` is what talks through it. Thread safe."""

    identity: bytes

    def __init__(self, alias: str, kwargs: dict[str, Any]) -> None:
        self.alias = alias
        self.failure: BaseException | None = None
        """Why the server was last left alone."""
        self._host = host_of(kwargs)
        self._lock = threading.Lock()
        self._reopening = threading.Lock()
        self._retry_at = 0.0
        self._gate = Gate.UP
        self._away_since = 0.0
        self._has_changed = False
        self._mean_ms = 0.0

    @abstractmethod
    def _is_answered(self, seconds: float | None = None) -> bool:
        """
        Ask the server for a sign of life.

        `seconds` to listen instead of the alias' timeout; after half of them it is asked once more, because a packet
        that was lost on the way is not sent again before a second has passed.
        Cost:    2 round trips, or the timeout.
        """

    @abstractmethod
    def forget_lines(self) -> None:
        """Close the idle connections."""

    @property
    def gate(self) -> Gate:
        """How far this process trusts the server now."""
        return self._gate

    @property
    def is_away(self) -> bool:
        """Whether the server did not answer, and no probe has been answered since."""
        return self._gate is Gate.SHUT

    @property
    def away_since(self) -> float:
        """Seconds (time.time) at which the server was first found away; 0.0 if it is not."""
        return self._away_since if self.is_away else 0.0

    def _may_try(self) -> bool:
        """While the gate is not up let one caller of the process through at a time: at most one waits in vain."""
        now, host = time.monotonic(), self._host
        with host.lock:
            if now < self._retry_at or (self._gate is Gate.SHUT and now < host.retry_at):
                return False
            self._retry_at = _soon(now)
            if self._gate is Gate.SHUT:
                host.retry_at = self._retry_at
            return True

    def _failed(self, error: BaseException) -> CacheAway:
        self.failure = error
        why = type(error).__name__
        is_news = self._shut(why)
        if isinstance(error, AWAY) and not isinstance(error, _OF_THE_ALIAS):
            self._host.retry_at = self._retry_at
            for other in self._siblings():
                other._shut(why)
        else:
            self._host.retry_at = 0.0  # what is wrong with this alias alone holds no other up
        if is_news and _watcher is not None:
            _watcher(self)  # one for all at this server: the others were shut above
        return CacheAway(f"The cache server of alias {self.alias!r} does not answer: {why}.")

    def _siblings(self) -> list[Gated]:
        """Return the other links in use to the same server."""
        return [link for link in tuple(known.values()) if link is not self and link._host is self._host]

    def _shut(self, why: str) -> bool:
        """Leave the server alone; return whether it was not already."""
        with self._lock:
            self._retry_at = _soon(time.monotonic())
            self._mean_ms = 0.0
            is_news = self._gate is not Gate.SHUT
            if is_news:
                self._gate, self._away_since = Gate.SHUT, time.time()
                logger.warning("The cache server of alias %r does not answer (%s).", self.alias, why)
        self.forget_lines()
        return is_news

    @property
    def is_used(self) -> bool:
        """Whether this is still the link of its alias: settings may have changed."""
        return known.get(self.alias) is self

    def _pass(self, *, entries: bool) -> None:
        """Go through the gate, reopening it if it is time to. Raises: CacheSkipped."""
        if self._gate is Gate.SHUT or entries:
            if self._may_try():
                if _reopener is None:
                    self.reopen(lambda *_: True)
                else:
                    _reopener(self)
            if self._gate is Gate.SHUT or (entries and self._gate is not Gate.UP):
                raise CacheSkipped(f"The cache server of alias {self.alias!r} is away.")

    def reopen(self, drain: Callable[[str, bool], bool], *, patiently: bool = False) -> bool:
        """
        Probe the server; if it answers let writers deliver, then have what waits delivered, then let readers in.

        `patiently`: nobody waits for this, so the probe listens for a second, and goes on until it was answered.
        `drain(alias, has_changed)` delivers every intent that waits for the alias, and, after the server was replaced,
        those that only the old one has seen; it returns whether nothing waits any more.
        Returns: whether the gate is up; False at once while somebody else does all this.
        """
        if not self._reopening.acquire(blocking=False):
            return False
        try:
            return self._reopen(drain, patiently)
        finally:
            self._reopening.release()

    def _reopen(self, drain: Callable[[str, bool], bool], patiently: bool = False) -> bool:
        if not (self._is_answered_in_time() if patiently else self._is_answered()):
            return False
        self._host.retry_at = 0.0
        with self._lock:
            self._retry_at = _soon(time.monotonic())
            if self._gate is Gate.SHUT:
                self._gate = Gate.HALF
        for other in self._siblings():
            if other.is_away and _reopener is not None:
                _reopener(other)
        answered = self.identity
        if not drain(self.alias, self._has_changed):
            return False
        with self._lock:
            # Replaced while it was drained, the server that answers now was not told: that takes another round.
            if self._gate is Gate.HALF and self.identity == answered:
                logger.warning("The cache server of alias %r answers again.", self.alias)
                self._gate, self._retry_at, self._has_changed = Gate.UP, 0.0, False
        return self._gate is Gate.UP

    def _is_answered_in_time(self) -> bool:
        """
        Probe until the server answers or this link is not used any more: each probe listens for a second.

        A server that was hung answers the probe that waits in its socket the moment it goes on. What fails at once is
        tried again after half that time. So what waits is delivered well within a second after the server is back.
        """
        while self.is_used:
            pause = config().retry_seconds
            began = time.monotonic()
            self._retry_at = self._host.retry_at = began + 2 * pause  # nobody else need try
            if self._is_answered(pause):
                return True
            time.sleep(max(0.0, began + half_a_pause() - time.monotonic()))
        return False

    def _took(self, ms: float) -> None:
        """Note how long reading took: a server that is slow every time is left alone like one that is away."""
        self._mean_ms += (ms - self._mean_ms) / SLOWNESS_CALLS
        if self._mean_ms > config().slow_ms:
            self._shut(f"{self._mean_ms:.0f} ms a call")
            self._mean_ms = WARY * config().slow_ms

    def _saw(self, identity: bytes) -> None:
        """Note who answered; another one than before is trusted only when it was told what the old one knew."""
        if identity != self.identity:
            with self._lock:
                if self.identity and self._gate is not Gate.SHUT:
                    logger.warning("The cache server of alias %r was replaced.", self.alias)
                    self._gate, self._retry_at = Gate.HALF, 0.0
                self._has_changed |= bool(self.identity)
                self.identity = identity
