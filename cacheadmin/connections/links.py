"""The link of one alias to its server: what is called through the gate, on connections that are kept."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from contextlib import suppress
from functools import cached_property
from typing import Final, cast

import redis
from django.core.cache import caches
from redis.exceptions import RedisError

from ..conf import cache_settings, config, managed, on_change
from ..exceptions import CacheSkipped
from . import gates
from .gates import Gate, Gated
from .lending import Lent
from .lines import AWAY, NOT_MASTER, Command, Line, Replies
from .urls import connection_options, server_url

logger = logging.getLogger("cacheadmin")

_TIMEOUTS: Final = (redis.TimeoutError, TimeoutError)


class Link(Gated):
    """
    One alias' link to its server: sends commands, knows who answered, and keeps off for a while after a failure.

    Thread safe; every thread that calls at the same moment has a connection of its own.
    """

    def __init__(self, alias: str) -> None:
        self.pool = redis.ConnectionPool.from_url(server_url(alias), **connection_options(alias))
        """Says how to connect; the connections themselves are ours."""
        self._idle: deque[Line] = deque()
        super().__init__(alias, self.pool.connection_kwargs)
        self.identity = b""
        """The identity seen last by any thread; empty before the first answer."""
        self.heard_at = float("-inf")
        """When the server answered last, on the clock of `time.monotonic`."""

    def forget_lines(self) -> None:
        """Close the idle connections; busy ones are closed by whoever uses them."""
        with suppress(IndexError):  # whoever looks first, another thread may take the last one meanwhile
            while True:
                self._idle.pop().close()

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

    # --- calls ------------------------------------------------------------------------------------------------------

    def call(self, *commands: Command, again: bool = True, entries: bool = False) -> Replies:
        """
        Send commands together and return their replies. Either all of them are `packed` beforehand or none is.

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
        return Lent(self)

    def _call(self, commands: tuple[Command, ...], again: bool) -> Replies:
        try:
            line = self._idle.pop()
        except IndexError:
            return self._call_new(commands)
        if not again and (time.monotonic() - line.used > 0.5) and line.is_dead():
            line.close()
            return self._call_new(commands)
        try:
            replies = self._exchange(line, commands)
        except (*AWAY, *NOT_MASTER) as error:
            line.close()
            if not again or isinstance(error, _TIMEOUTS):
                raise self._failed(error) from error
            return self._call_new(commands)
        except BaseException:
            line.close()  # interrupted halfway: an unread reply must not meet the next caller
            raise
        self._idle.append(line)
        return replies

    def _call_new(self, commands: tuple[Command, ...]) -> Replies:
        line = Line(self.pool.connection_class(**self.pool.connection_kwargs))
        try:
            line.connection.connect()
            self._saw(line.identify())
            replies = self._exchange(line, commands)
        except (*AWAY, RedisError) as error:
            line.close()
            raise self._failed(error) from error
        except BaseException:
            line.close()
            raise
        self._idle.append(line)
        return replies

    def _exchange(self, line: Line, commands: tuple[Command, ...]) -> Replies:
        values = line.exchange(commands, self._saw)
        self.heard_at = line.used
        return Replies(line.identity, values)

    def _is_prompt(self, line: Line) -> bool:
        """Say whether a PING took no longer than reads may take on the mean."""
        begun = time.monotonic()
        self._exchange(line, (("PING",),))
        return (time.monotonic() - begun) * 1000 <= config().slow_ms

    def _is_answered(self, seconds: float | None = None) -> bool:
        """
        Ask the server for a sign of life, on a connection of its own: a prompt one, or it would be left alone again.

        Cost:    2 round trips, 3 if the first was slow, or the timeout.
        """
        kwargs, tries = self.pool.connection_kwargs, 1
        if seconds is not None:
            tries = 2
            kwargs = kwargs | {"socket_timeout": seconds / tries, "socket_connect_timeout": seconds / tries}
        while True:
            line, tries = Line(self.pool.connection_class(**kwargs)), tries - 1
            try:
                line.connection.connect()
                self._saw(line.identify())
                if not self._is_prompt(line) and not self._is_prompt(line):
                    logger.debug("The cache server of alias %r answers slowly.", self.alias)
                    line.close()
                    return False
            except (*AWAY, RedisError) as error:
                line.close()
                if tries and isinstance(error, _TIMEOUTS):
                    continue
                logger.debug("A probe was not answered: %s", self._failed(error))
                return False
            except BaseException:
                line.close()
                raise
            if seconds is None:
                self._idle.append(line)
            else:
                line.close()  # it waits longer than a caller may
            return True


# --- the links of this process --------------------------------------------------------------------------------------

_links = cast("dict[str, Link]", gates.known)


def link(alias: str) -> Link:
    """Return this process' link to the server of a managed Redis alias. Raises: UnknownAlias."""
    try:
        return _links[alias]
    except KeyError:
        managed(alias)
        return _links.setdefault(alias, Link(alias))


def _forked() -> None:
    for each in _links.values():
        each.forked()


os.register_at_fork(after_in_child=_forked)


@on_change
def forget_links() -> None:
    """Close idle connections; new links are made when next asked for (settings changed)."""
    _prefixes.clear()
    gates.hosts.clear()
    while _links:
        _links.popitem()[1].forget_lines()


_prefixes: dict[str, str] = {}


def prefix(alias: str) -> str:
    """
    Return what the alias makes of an empty key, without a trailing colon: `jewelry_shop:1`.

    A KEY_FUNCTION is asked anew each time, because it may read the active tenant (schema-per-tenant sites).
    """
    if (made := _prefixes.get(alias)) is not None:
        return made
    made = caches[alias].make_key("").removesuffix(":")
    if "KEY_FUNCTION" not in cache_settings(alias):
        _prefixes[alias] = made
    return made
