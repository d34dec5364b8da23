"""Our own connections to the servers behind the cache aliases: short timeouts, known identity, left alone when away.

They never share django-redis' pools: those are cached by URL alone, with the timeouts of whichever alias came first.
"""

from __future__ import annotations

import enum
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import redis
from django.core.cache import caches
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthorizationError,
    BusyLoadingError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from .conf import cache_settings, config, managed, on_change
from .exceptions import CacheAway, CacheSkipped

logger = logging.getLogger("cacheadmin")

IDENTITY_SECONDS: Final = 1.0
"""How long an identity is believed before it is asked again, in the same pipeline as the next command."""

SLOWNESS_CALLS: Final = 30
"""Calls over which the mean latency is taken, with weights that fade."""

NO_IDENTITY: Final = bytes(8)
"""Identity of a server behind a proxy that hides INFO: constant, so a failover goes unnoticed."""

AWAY: Final = (redis.ConnectionError, redis.TimeoutError, OSError)
"""What redis-py raises when there is no answer; our own calls turn it into `CacheAway`."""
_OF_THE_ALIAS: Final = (redis.AuthenticationError, AuthorizationError)
"""What one alias meets, though others at the same server may not."""
_NOT_MASTER: Final = (ReadOnlyError, BusyLoadingError, MasterDownError)
_DROPPED_OPTIONS: Final = (
    "retry",
    "retry_on_timeout",
    "retry_on_error",
    "decode_responses",
    "cache_config",
    "protocol",
)


def _soon(now: float) -> float:
    """Return when to try again, a little apart from other processes."""
    return now + config().retry_seconds * random.uniform(0.75, 1.0)


class Replies(NamedTuple):
    """What came back from one round trip. A refused command stands among the replies as a `ResponseError`."""

    identity: bytes
    """Eight bytes that name the server and its reign, of the connection that carried these replies."""
    values: list[Any]


@dataclass(slots=True)
class _Line:
    """One connection, with what is known about the server at its other end."""

    connection: Any
    identity: bytes = b""
    asked: float = 0.0
    used: float = 0.0


class Gate(enum.IntEnum):
    """How far a process trusts a server."""

    SHUT = 0
    """It did not answer: nobody reads or fills, and writers leave their intents waiting."""
    HALF = 1
    """It answers again: writers deliver, nobody reads yet; what waits is being delivered."""
    UP = 2


class _Host:
    """
    What the links to one server share, so that a hung one costs a process one timeout, and not one an alias.

    While the server does not answer one link probes it for all; when it answers, the others follow at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.retry_at = 0.0
        """When it may be probed next (time.monotonic)."""
        self.links: WeakSet[Link] = WeakSet()


_hosts: dict[tuple[Any, ...], _Host] = {}


def _host(kwargs: dict[str, Any]) -> _Host:
    where = tuple(kwargs.get(name) for name in ("host", "port", "path"))
    return _hosts.setdefault(where, _Host())


Reopener = Callable[["Link"], None]
_reopener: Reopener | None = None


def on_reopen(reopener: Reopener | None) -> None:
    """Set who reopens a link: `reopener(link)` calls `link.reopen(drain)`, here or in a thread of its own."""
    global _reopener
    _reopener = reopener


class Link:
    """
    One alias' link to its server: sends commands, knows who answered, and keeps off for a while after a failure.

    Thread safe; every thread that calls at the same moment has a connection of its own.
    """

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self._pool = redis.ConnectionPool.from_url(server_url(alias), **_connection_options(alias))
        self._idle: deque[_Line] = deque()
        self._lock = threading.Lock()
        self._reopening = threading.Lock()
        self._host = _host(self._pool.connection_kwargs)
        self._host.links.add(self)
        self._retry_at = 0.0
        self._gate = Gate.UP
        self._away_since = 0.0
        self._has_changed = False
        self._mean_ms = 0.0
        self.failure: BaseException | None = None
        """What a call failed with last, for the doctor."""
        self.identity = b""
        """The identity seen last by any thread; empty before the first answer."""
        self.heard_at = float("-inf")
        """When the server answered last, on the clock of `time.monotonic`."""

    # --- the gate ---------------------------------------------------------------------------------------------------

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
        self._shut(why)
        if isinstance(error, AWAY) and not isinstance(error, _OF_THE_ALIAS):
            self._host.retry_at = self._retry_at
            for other in tuple(self._host.links):
                if other is not self:
                    other._shut(why)
        else:
            self._host.retry_at = 0.0  # what is wrong with this alias alone holds no other up
        return CacheAway(f"The cache server of alias {self.alias!r} does not answer: {why}.")

    def _shut(self, why: str) -> None:
        with self._lock:
            self._retry_at = _soon(time.monotonic())
            self._mean_ms = 0.0
            if self._gate is not Gate.SHUT:
                self._gate, self._away_since = Gate.SHUT, time.time()
                logger.warning("The cache server of alias %r does not answer (%s).", self.alias, why)
        self.forget_lines()

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
        for other in tuple(self._host.links):
            if other.is_away and _links.get(other.alias) is other and _reopener is not None:
                _reopener(other)
        if not drain(self.alias, self._has_changed):
            return False
        with self._lock:
            if self._gate is Gate.HALF:
                logger.warning("The cache server of alias %r answers again.", self.alias)
                self._gate, self._retry_at, self._has_changed = Gate.UP, 0.0, False
        return self._gate is Gate.UP

    def _is_answered(self, seconds: float | None = None) -> bool:
        """Ask the server for a sign of life, on a connection of its own. Cost: 2 round trips, or the timeout."""
        kwargs = self._pool.connection_kwargs
        if seconds is not None:
            kwargs = kwargs | {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        line = _Line(self._pool.connection_class(**kwargs))
        try:
            line.connection.connect()
            self._ask_identity(line)
            self._exchange(line, (("PING",),))
        except (*AWAY, RedisError) as error:
            logger.debug("A probe was not answered: %s", self._failed(error))
            self._close(line)
            return False
        except BaseException:
            self._close(line)
            raise
        if seconds is None:
            self._idle.append(line)
        else:
            self._close(line)  # it waits longer than a caller may
        return True

    def _is_answered_in_time(self) -> bool:
        """
        Probe until the server answers or this link is not used any more: about once a second, listening meanwhile.

        A server that was hung answers the probe that waits in its socket the moment it goes on.
        """
        while _links.get(self.alias) is self:
            pause = config().retry_seconds
            began = time.monotonic()
            self._retry_at = self._host.retry_at = began + 2 * pause  # nobody else need try
            if self._is_answered(pause):
                return True
            time.sleep(max(0.0, began + pause * random.uniform(0.6, 0.85) - time.monotonic()))
        return False

    def forget_lines(self) -> None:
        """Close the idle connections; busy ones are closed by whoever uses them."""
        while self._idle:
            self._close(self._idle.pop())

    def forked(self) -> None:
        """Leave the parent's sockets and locks to it; closing the sockets here would end its conversations."""
        self._idle, self._lock, self._reopening = deque(), threading.Lock(), threading.Lock()
        self._host.lock = threading.Lock()
        self._retry_at = self._host.retry_at = 0.0  # whoever probes, does so in the parent

    def reset(self) -> None:
        """Forget connections and failures, as a new process would (tests)."""
        self.forget_lines()
        self._host.retry_at = 0.0
        self._gate, self._retry_at, self._has_changed, self.identity = Gate.UP, 0.0, False, b""

    @staticmethod
    def _close(line: _Line) -> None:
        try:
            line.connection.disconnect()
        except AWAY as error:
            logger.debug("Closing a broken connection failed too: %s", error)

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(self, *commands: tuple[Any, ...], again: bool = True, entries: bool = False) -> Replies:
        """
        Send commands together and return their replies.

        `entries`: they read or fill entries, so the gate must be up, not only half open.
        Cost:    one round trip; once a second two INFO sections ride along. While the server is away: none.
        Returns: the identity of the connection that answered, and one reply a command.
        Raises:  CacheAway if there is no (complete) answer in time, or the server is not a master that can write.
                 With `again=False` a command is never sent twice, not even on a connection that proved dead.
        """
        if self._gate is not Gate.UP:
            self._pass(entries=entries)
        begun = time.monotonic()
        replies = self._call(commands, again)
        if entries:
            if self._gate is not Gate.UP:
                raise CacheSkipped(f"The cache server of alias {self.alias!r} was replaced.")
            self._took((time.monotonic() - begun) * 1000)
        return replies

    @cached_property
    def lent(self) -> redis.Redis:
        """A client for code of others that sends what it is told through this link: its lines, timeouts and gate."""
        return _Lent(self)

    def _took(self, ms: float) -> None:
        """Note how long reading took: a server that is slow every time is left alone like one that is away."""
        self._mean_ms += (ms - self._mean_ms) / SLOWNESS_CALLS
        if self._mean_ms > config().slow_ms:
            self._shut(f"{self._mean_ms:.0f} ms a call")

    def _call(self, commands: tuple[tuple[Any, ...], ...], again: bool) -> Replies:
        try:
            line = self._idle.pop()
        except IndexError:
            return self._call_new(commands)
        if not again and (time.monotonic() - line.used > 0.5) and self._is_dead(line):
            self._close(line)
            return self._call_new(commands)
        try:
            replies = self._exchange(line, commands)
        except AWAY as error:
            self._close(line)
            if not again or isinstance(error, (redis.TimeoutError, TimeoutError)):
                raise self._failed(error) from error
            return self._call_new(commands)
        except BaseException:
            self._close(line)  # interrupted halfway: an unread reply must not meet the next caller
            raise
        self._idle.append(line)
        return replies

    def _is_dead(self, line: _Line) -> bool:
        try:
            return bool(line.connection.can_read(0))
        except AWAY:
            return True

    def _call_new(self, commands: tuple[tuple[Any, ...], ...]) -> Replies:
        line = _Line(self._pool.connection_class(**self._pool.connection_kwargs))
        try:
            line.connection.connect()
            self._ask_identity(line)
            replies = self._exchange(line, commands)
        except (*AWAY, RedisError) as error:
            self._close(line)
            raise self._failed(error) from error
        except BaseException:
            self._close(line)
            raise
        self._idle.append(line)
        return replies

    def _ask_identity(self, line: _Line) -> None:
        line.connection.send_packed_command(line.connection.pack_commands(_INFO))
        self._note_identity(line, [self._read(line.connection) for _ in _INFO])

    def _note_identity(self, line: _Line, sections: list[Any]) -> None:
        line.identity = identity_of(sections)
        line.asked = time.monotonic()
        if line.identity != self.identity:
            with self._lock:
                if self.identity and self._gate is not Gate.SHUT:
                    logger.warning("The cache server of alias %r was replaced.", self.alias)
                    self._gate, self._retry_at = Gate.HALF, 0.0
                self._has_changed |= bool(self.identity)
                self.identity = line.identity

    def _exchange(self, line: _Line, commands: tuple[tuple[Any, ...], ...]) -> Replies:
        connection = line.connection
        asks = time.monotonic() - line.asked > IDENTITY_SECONDS
        if asks:
            connection.send_packed_command(connection.pack_commands((*_INFO, *commands)))
            self._note_identity(line, [self._read(connection) for _ in _INFO])
        elif len(commands) == 1:
            connection.send_packed_command(connection.pack_command(*commands[0]))
        else:
            connection.send_packed_command(connection.pack_commands(commands))
        values = [self._read(connection) for _ in commands]
        for value in values:
            if isinstance(value, _NOT_MASTER):
                raise value
        line.used = self.heard_at = time.monotonic()
        return Replies(line.identity, values)

    @staticmethod
    def _read(connection: Any) -> Any:
        try:
            return connection.read_response()
        except AWAY:
            raise
        except ResponseError as error:
            return error


class _Lent(redis.Redis):
    """A client without connections of its own. No command is sent twice; it raises CacheAway and ResponseError."""

    def __init__(self, link: Link) -> None:
        super().__init__(connection_pool=link._pool)
        self._link = link

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command. Cost: one round trip."""
        return self._told(args, options, self._link.call(args, again=False).values[0])

    def _told(self, args: tuple[Any, ...], options: dict[str, Any], value: Any) -> Any:
        if isinstance(value, ResponseError):
            raise value
        callbacks: dict[str, Any] = self.response_callbacks
        meant = callbacks.get(args[0])
        options = {name: given for name, given in options.items() if name not in ("keys", "NEVER_DECODE")}
        return value if meant is None else meant(value, **options)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        """Return a client whose commands are sent together by `execute`."""
        return _LentPipeline(self._link)


class _LentPipeline(_Lent):
    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._commands: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Note one command."""
        self._commands.append((args, options))
        return self

    def execute(self) -> list[Any]:
        """Send what was noted. Cost: one round trip."""
        noted, self._commands = self._commands, []
        values = self._link.call(*(args for args, _ in noted), again=False).values if noted else []
        return [self._told(*command, value) for command, value in zip(noted, values, strict=True)]


_INFO: Final = (("INFO", "server"), ("INFO", "replication"))


class NotMaster(redis.ConnectionError):
    """The server at the other end is a replica."""


def identity_of(sections: list[Any]) -> bytes:
    """
    Return 8 bytes for a server and its reign: of `run_id` and `master_replid` together.

    `run_id` alone is not enough: after a switch to B and back to A it is A's old one again.
    Raises:  NotMaster if the server says that it is a replica.
    """
    facts: dict[str, str] = {}
    for section in sections:
        if isinstance(section, bytes):
            lines = section.decode("utf-8", "replace").splitlines()
            facts.update((name, value) for name, colon, value in (line.partition(":") for line in lines) if colon)
    if facts.get("role", "master") != "master":
        raise NotMaster("The server is a replica.")
    if "run_id" not in facts:
        return NO_IDENTITY
    return blake2b(f"{facts['run_id']}/{facts.get('master_replid', '')}".encode(), digest_size=8).digest()


def server_url(alias: str) -> str:
    """Return the URL of an alias' server, the first (the master) where LOCATION lists several. Holds the password."""
    location = cache_settings(alias)["LOCATION"]
    if not isinstance(location, str):
        location = location[0]
    return location.split(",")[0].split(";")[0].strip()


def _connection_options(alias: str) -> dict[str, Any]:
    options = cache_settings(alias).get("OPTIONS", {})
    kwargs = dict(options.get("CONNECTION_POOL_KWARGS", {}))
    for theirs, ours in (("USERNAME", "username"), ("PASSWORD", "password")):
        if options.get(theirs):
            kwargs[ours] = options[theirs]
    kwargs.update(
        {key: value for key, value in options.items() if key.islower() and key not in ("parser_class", "pool_class")}
    )
    for name in _DROPPED_OPTIONS:
        kwargs.pop(name, None)
    seconds = config().timeout_ms / 1000
    return kwargs | {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "decode_responses": False,
    }


_links: dict[str, Link] = {}


def _forked() -> None:
    for known in _links.values():
        known.forked()


os.register_at_fork(after_in_child=_forked)


def link(alias: str) -> Link:
    """Return this process' link to the server of a managed Redis alias. Raises: UnknownAlias."""
    try:
        return _links[alias]
    except KeyError:
        managed(alias)
        return _links.setdefault(alias, Link(alias))


@on_change
def forget_links() -> None:
    """Close idle connections; new links are made when next asked for (settings changed)."""
    _prefixes.clear()
    _hosts.clear()
    while _links:
        _links.popitem()[1].forget_lines()


_prefixes: dict[str, str] = {}


def prefix(alias: str) -> str:
    """
    Return what the alias makes of an empty key, without a trailing colon: `jewelry_shop:1`.

    A KEY_FUNCTION is asked anew each time, because it may read the active tenant (schema-per-tenant sites).
    """
    if (known := _prefixes.get(alias)) is not None:
        return known
    made: str = caches[alias].make_key("").removesuffix(":")
    if "KEY_FUNCTION" not in cache_settings(alias):
        _prefixes[alias] = made
    return made
