"""How the roll-ups are asked: several questions in one round trip, and what they are answered with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from ..conf import config
from ..connections import link
from .counts import EVENTS
from .layout import Kind, added, bucket_key, numbers_of
from .servers import redis_aliases

T = TypeVar("T")
K = TypeVar("K")

Numbers: TypeAlias = list[int]
"""Counts in the order of EVENTS, of TIMES, or of the latency buckets."""

Buckets: TypeAlias = dict[int, dict[K, Numbers]]
"""Beginning of a bucket -> name -> what it counted."""

Command: TypeAlias = tuple[Any, ...]


class Later(Generic[T]):
    """An answer that is there once `Reader.run` has returned."""

    value: T


class Asking:
    """Questions to the roll-ups. Ask, `run`, then look at the answers."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._parse: list[tuple[int, Callable[[list[Any]], None]]] = []

    def run(self) -> None:
        """
        Ask everything at once.

        Cost:    one round trip; grows with the number of buckets and of the names in them.
        Raises:  CacheAway. A site without any Redis alias gets empty answers.
        """
        replies: list[Any] = [None] * len(self._commands)
        if self._commands and config().stats_alias in redis_aliases():
            replies = link(config().stats_alias).call(*self._commands).values
        at = 0
        for length, parse in self._parse:
            parse(replies[at : at + length])
            at += length

    def _ask(self, commands: list[Command], parse: Callable[[list[Any]], T]) -> Later[T]:
        later: Later[T] = Later()

        def keep(replies: list[Any]) -> None:
            later.value = parse(replies)

        self._commands += commands
        self._parse.append((len(commands), keep))
        return later

    def also(self, commands: Iterable[Command]) -> Later[list[Any]]:
        """Send other commands along, to the database of the roll-ups; their replies come as they are."""
        return self._ask([*commands], lambda replies: replies)

    def _all(
        self,
        kind: Kind,
        buckets: Iterable[int],
        step: int,
        read: Callable[[str, str], K | None],
        *,
        length: int = len(EVENTS),
    ) -> Later[Buckets[K]]:
        """Ask for whole buckets; `read` turns the two parts of a field into a name, or into None to leave it out."""
        places = [(start, shard) for start in buckets for shard in range(kind.shards)]

        def parse(replies: list[Any]) -> Buckets[K]:
            found: Buckets[K] = {start: {} for start, _ in places}
            for (start, _), reply in zip(places, replies, strict=True):
                for field, text in pairs(reply):
                    alias, _, other = field.partition(":")
                    key = read(alias, other)
                    if key is not None:
                        add_to(found[start], key, numbers_of(text, length))
            return found

        return self._ask([("HGETALL", bucket_key(kind, step, start, shard)) for start, shard in places], parse)

    def _some(
        self, kind: Kind, buckets: Iterable[int], step: int, fields: Mapping[int, Mapping[str, K]]
    ) -> Later[Buckets[K]]:
        """Ask for some fields of some shards; `fields` gives the names they stand for."""
        starts_ = list(buckets)
        places = [(start, shard) for start in starts_ for shard in fields]

        def parse(replies: list[Any]) -> Buckets[K]:
            found: Buckets[K] = {start: {} for start in starts_}
            for (start, shard), reply in zip(places, replies, strict=True):
                texts = reply if isinstance(reply, list) else [None] * len(fields[shard])
                for key, text in zip(fields[shard].values(), texts, strict=True):
                    if text is not None:
                        add_to(found[start], key, numbers_of(text))
            return found

        commands = [("HMGET", bucket_key(kind, step, start, shard), *fields[shard]) for start, shard in places]
        return self._ask(commands, parse)


def pairs(reply: Any) -> Iterable[tuple[str, bytes]]:
    """Return the fields of an HGETALL; nothing for an absent key or a refused command."""
    if not isinstance(reply, list):
        return ()
    return ((field.decode(), text) for field, text in zip(reply[::2], reply[1::2], strict=True))


def add_to(into: dict[Any, Numbers], key: Any, numbers: Numbers) -> None:
    known = into.get(key)
    into[key] = numbers if known is None else added(known, numbers)
