"""Reading the roll-ups back: several questions, one round trip, plain numbers. What they mean is `overview`'s."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from ..conf import config
from ..connections import link
from ..keys import name
from .counts import EVENTS, LATENCY_BOUNDS_US, Mark
from .layout import (
    BOTH,
    DROPPED,
    FREED,
    GROUPS,
    HOUR,
    MINUTE,
    TENANTS,
    TOTALS,
    Kind,
    added,
    born_key,
    bucket_key,
    marks_key,
    numbers_of,
    part_of,
    samples_key,
    shard_of,
    starts,
    tenant_of,
    who,
)
from .servers import INFO_SECTIONS, ServerInfo, redis_aliases, server_info

logger = logging.getLogger("cacheadmin")

BUCKETS = len(LATENCY_BOUNDS_US) + 1
"""Buckets of read latency."""

FEW = 100
"""Tenants up to which it is cheaper to ask for each by its name."""

T = TypeVar("T")
K = TypeVar("K")

Numbers: TypeAlias = list[int]
"""Counts in the order of EVENTS, or of the latency buckets."""

Group: TypeAlias = tuple[str, str]
"""(alias, group)."""

Tenant: TypeAlias = tuple[str, str | None]
"""(alias, tenant)."""

Buckets: TypeAlias = dict[int, dict[K, Numbers]]
"""Beginning of a bucket -> name -> what it counted."""

Command: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a server said about its memory at some minute."""

    at: int
    alias: str
    """The first managed alias of the server."""
    used_bytes: int
    limit_bytes: int
    evicted: int


@dataclass(frozen=True, slots=True)
class DroppedLine:
    """How many times one thing was invalidated in one minute."""

    at: int
    alias: str
    tenant: str | None
    what: str
    source: str
    name: str
    count: int


@dataclass(slots=True)
class Totals:
    """What an alias counted, by bucket and alias."""

    counts: dict[int, dict[str, Numbers]]
    latency: dict[int, dict[str, Numbers]]


class Later(Generic[T]):
    """An answer that is there once `Reader.run` has returned."""

    value: T


class Reader:
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

    def totals(self, step: int, since: float, until: float) -> Later[Totals]:
        """Ask what each alias counted in each bucket. `step` is one that TOTALS keeps."""
        buckets = starts(step, since, until)

        def parse(replies: list[Any]) -> Totals:
            found = Totals({}, {})
            for start, reply in zip(buckets, replies, strict=True):
                for field, text in _pairs(reply):
                    alias, _, latency = field.partition(":")
                    into, length = (found.latency, BUCKETS) if latency else (found.counts, len(EVENTS))
                    into.setdefault(start, {})[part_of(alias)] = numbers_of(text, length)
            return found

        return self._ask([("HGETALL", bucket_key(TOTALS, step, start)) for start in buckets], parse)

    def groups(self, buckets: Iterable[int], step: int, only: Collection[Group] | None = None) -> Later[Buckets[Group]]:
        """Ask what each (alias, group) counted in some buckets, or only what some did."""
        if only is None:
            return self._all(GROUPS, buckets, step, lambda alias, group: (part_of(alias), part_of(group)))
        fields: dict[int, dict[str, Group]] = {}
        for alias, group in only:
            fields.setdefault(shard_of(GROUPS, name(group)), {})[f"{name(alias)}:{name(group)}"] = (alias, group)
        return self._some(GROUPS, buckets, step, fields)

    def tenants(
        self, buckets: Iterable[int], step: int, only: Collection[str | None] | None = None
    ) -> Later[Buckets[Tenant]]:
        """Ask what each (alias, tenant) counted in some buckets; `only` some tenants, which costs less for a few."""
        names = None if only is None else {who(tenant) for tenant in only}
        if names is None or len(names) > FEW:

            def read(alias: str, whose: str) -> Tenant | None:
                return (part_of(alias), tenant_of(whose)) if names is None or whose in names else None

            return self._all(TENANTS, buckets, step, read)
        fields: dict[int, dict[str, Tenant]] = {}
        for whose in names:
            of_shard = fields.setdefault(shard_of(TENANTS, whose), {})
            of_shard.update({f"{name(alias)}:{whose}": (alias, tenant_of(whose)) for alias in config().aliases})
        return self._some(TENANTS, buckets, step, fields)

    def _all(
        self, kind: Kind, buckets: Iterable[int], step: int, read: Callable[[str, str], K | None]
    ) -> Later[Buckets[K]]:
        """Ask for whole buckets; `read` turns the two parts of a field into a name, or into None to leave it out."""
        places = [(start, shard) for start in buckets for shard in range(kind.shards)]

        def parse(replies: list[Any]) -> Buckets[K]:
            found: Buckets[K] = {start: {} for start, _ in places}
            for (start, _), reply in zip(places, replies, strict=True):
                for field, text in _pairs(reply):
                    alias, _, other = field.partition(":")
                    key = read(alias, other)
                    if key is not None:
                        _add(found[start], key, numbers_of(text))
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
                        _add(found[start], key, numbers_of(text))
            return found

        commands = [("HMGET", bucket_key(kind, step, start, shard), *fields[shard]) for start, shard in places]
        return self._ask(commands, parse)

    def groups_of(self, tenants: Collection[str | None], buckets: Iterable[int], step: int) -> Later[Buckets[Group]]:
        """Ask what each (alias, group) counted for some tenants. `step` is one that BOTH keeps."""
        names = {who(tenant) for tenant in tenants}
        shards = sorted({shard_of(BOTH, whose) for whose in names})
        places = [(start, shard) for start in buckets for shard in shards]

        def parse(replies: list[Any]) -> Buckets[Group]:
            found: Buckets[Group] = {start: {} for start, _ in places}
            for (start, _), reply in zip(places, replies, strict=True):
                for field, text in _pairs(reply):
                    alias, group, *rest = field.split(":")
                    if rest and rest[0] in names:
                        _add(found[start], (part_of(alias), part_of(group)), numbers_of(text))
            return found

        return self._ask([("HGETALL", bucket_key(BOTH, step, start, shard)) for start, shard in places], parse)

    def also(self, commands: Iterable[Command]) -> Later[list[Any]]:
        """Send other commands along, to the database of the roll-ups; their replies come as they are."""
        return self._ask([*commands], lambda replies: replies)

    def born(self) -> Later[float]:
        """Ask when this site began to count, in seconds since 1970; 0.0 if that is not known."""
        return self._ask([("GET", born_key())], lambda replies: float(replies[0] or 0.0))

    def info(self) -> Later[ServerInfo | None]:
        """Ask the server of the roll-ups about itself; None where the site has no Redis alias."""
        return self._ask(list(INFO_SECTIONS), lambda replies: server_info(replies) if any(replies) else None)

    def samples(self, since: float, until: float) -> Later[list[Sample]]:
        """Ask for the servers' memory, by minute; in order of time."""
        hours = starts(HOUR, since, until)

        def parse(replies: list[Any]) -> list[Sample]:
            found = []
            for reply in replies:
                for field, text in _pairs(reply):
                    minute, _, alias = field.partition(":")
                    if alias and since <= int(minute) * MINUTE <= until:
                        found.append(Sample(int(minute) * MINUTE, part_of(alias), *map(int, text.split())))
            return sorted(found, key=lambda sample: sample.at)

        return self._ask([("HGETALL", samples_key(hour)) for hour in hours], parse)

    def marks(self, since: float, until: float) -> Later[list[Mark]]:
        """Ask for the moments to name on a chart; the same thing of several aliases or processes is one."""

        def parse(replies: list[Any]) -> list[Mark]:
            found: dict[tuple[Any, ...], Mark] = {}
            reply = replies[0] if isinstance(replies[0], list) else []
            for member, score in zip(reply[::2], reply[1::2], strict=True):
                kind, text, tenant, minute = json.loads(member)
                same = (kind, tenant, minute) if kind == "clear" else (kind, text, minute)
                known = found.get(same)
                if known and text not in known.text.split(", "):
                    text = f"{known.text}, {text}"
                found[same] = Mark(kind, text, known.at if known else float(score), tenant)
            return sorted(found.values(), key=lambda mark: mark.at)

        return self._ask([("ZRANGEBYSCORE", marks_key(), since, until, "WITHSCORES")], parse)

    def dropped(self, since: float, until: float) -> Later[list[DroppedLine]]:
        """Ask what was invalidated, one line a minute and thing; newest first. Kept for 24 hours."""
        hours = starts(HOUR, max(since, until - 24 * HOUR), until)

        def parse(replies: list[Any]) -> list[DroppedLine]:
            found = []
            for hour, reply in zip(hours, replies, strict=True):
                for field, text in _pairs(reply):
                    alias, minute, *rest = field.split(":")
                    if len(rest) != 4:
                        found.append(DroppedLine(hour, part_of(alias), None, part_of(minute), "", "", int(text)))
                        continue
                    at, (source, whose, by, what) = hour + int(minute) * MINUTE, rest
                    if since <= at + MINUTE and at <= until:
                        line = (part_of(alias), tenant_of(whose), part_of(what), source, part_of(by), int(text))
                        found.append(DroppedLine(at, *line))
            return sorted(found, key=lambda line: (-line.at, -line.count, line.what))

        return self._ask([("HGETALL", bucket_key(DROPPED, HOUR, hour)) for hour in hours], parse)

    def freed(self, since: float, until: float) -> Later[dict[str, int]]:
        """Ask how many entries were given back for each rule, or for several that fired together; by whole hours."""
        hours = starts(HOUR, max(since, until - 24 * HOUR), until)

        def parse(replies: list[Any]) -> dict[str, int]:
            found: dict[str, int] = {}
            for reply in replies:
                for field, text in _pairs(reply):
                    by = part_of(field.partition(":")[2])
                    found[by] = found.get(by, 0) + int(text)
            return found

        return self._ask([("HGETALL", bucket_key(FREED, HOUR, hour)) for hour in hours], parse)


def _pairs(reply: Any) -> Iterable[tuple[str, bytes]]:
    """Return the fields of an HGETALL; nothing for an absent key or a refused command."""
    if not isinstance(reply, list):
        return ()
    return ((field.decode(), text) for field, text in zip(reply[::2], reply[1::2], strict=True))


def _add(into: dict[Any, Numbers], key: Any, numbers: Numbers) -> None:
    known = into.get(key)
    into[key] = numbers if known is None else added(known, numbers)
