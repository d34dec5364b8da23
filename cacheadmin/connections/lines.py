"""One connection to a server: what is sent and read on it, and who is at its other end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import redis
from redis.exceptions import BusyLoadingError, MasterDownError, ReadOnlyError, ResponseError

logger = logging.getLogger("cacheadmin")

IDENTITY_SECONDS: Final = 1.0
"""How long an identity is believed before it is asked again, in the same pipeline as the next command."""

NO_IDENTITY: Final = bytes(8)
"""Identity of a server behind a proxy that hides INFO: constant, so a failover goes unnoticed."""

AWAY: Final = (redis.ConnectionError, redis.TimeoutError, OSError)
"""What redis-py raises when there is no answer; our own calls turn it into `CacheAway`."""
NOT_MASTER: Final = (ReadOnlyError, BusyLoadingError, MasterDownError)


Command = tuple[Any, ...] | bytes
"""Name and arguments, or what `packed` made of them."""


def packed(command: tuple[Any, ...]) -> bytes:
    """Return the bytes in which a command is sent, for one that is sent again and again."""
    return b"".join(_packer().pack_command(*command))


@cache
def _packer() -> Any:
    connection: Any = redis.Connection  # never connected; what it writes is the same on all of ours
    return connection()


class Replies(NamedTuple):
    """What came back from one round trip. A refused command stands among the replies as a `ResponseError`."""

    identity: bytes
    """Eight bytes that name the server and its reign, of the connection that carried these replies."""
    values: list[Any]


@dataclass(slots=True)
class Line:
    """One connection, with what is known about the server at its other end."""

    connection: Any
    identity: bytes = b""
    asked: float = 0.0
    used: float = 0.0

    def close(self) -> None:
        """Close it. Never raises."""
        try:
            self.connection.disconnect()
        except AWAY as error:
            logger.debug("Closing a broken connection failed too: %s", error)

    def is_dead(self) -> bool:
        """Whether the server has closed it, or sent what nobody asked for. Cost: a look at the socket."""
        try:
            return bool(self.connection.can_read(0))
        except Exception:  # noqa: BLE001 - it is closed, or what was sent is no reply of Redis
            return True

    def identify(self) -> bytes:
        """Ask who is there. Cost: 1 round trip. Raises: NotMaster, and what stands in AWAY."""
        self.connection.send_packed_command(self.connection.pack_commands(_INFO))
        return self._identified()

    def _identified(self) -> bytes:
        self.identity = identity_of(self._read(len(_INFO)))
        self.asked = time.monotonic()
        return self.identity

    def exchange(self, commands: Sequence[Command], saw: Callable[[bytes], object]) -> list[Any]:
        """
        Send commands together and return the replies; `saw(identity)` is called when it was asked for again.

        Either all of them are packed beforehand or none is.
        Cost:    1 round trip.
        Raises:  NotMaster, what stands in AWAY, and the refusals of a server that is no master.
        """
        connection = self.connection
        asks = time.monotonic() - self.asked > IDENTITY_SECONDS
        if type(commands[0]) is bytes:
            ready = cast("Sequence[bytes]", commands)
            data = [b"".join((*map(packed, _INFO), *ready) if asks else ready)]
        elif asks or len(commands) > 1:
            data = connection.pack_commands((*_INFO, *commands) if asks else commands)
        else:
            data = connection.pack_command(*commands[0])
        connection.send_packed_command(data, check_health=False)
        if asks:
            saw(self._identified())
        values = self._read(len(commands))
        for value in values:
            if isinstance(value, NOT_MASTER):
                raise value
        self.used = time.monotonic()
        return values

    def _read(self, count: int) -> list[Any]:
        read, values = self.connection.read_response, []
        for _ in range(count):
            try:
                values.append(read())
            except AWAY:
                raise
            except ResponseError as error:
                values.append(error)
            except Exception as error:
                # Whatever redis-py raises for bytes that are no reply: a proxy's page, the rest of another reply.
                raise redis.ConnectionError(f"No reply of Redis: {error!r:.200}") from error
        return values


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
