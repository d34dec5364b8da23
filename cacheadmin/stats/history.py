"""Reading the roll-ups back: several questions, one round trip, plain numbers. What they mean is `overview`'s."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..conf import config
from ..encoding import name
from .asking import Asking, Buckets, Command, Later, Numbers, add_to, pairs
from .counts import EVENTS, LATENCY_BOUNDS_US, TIMES, Mark
from .layout import (
    BOTH,
    DROPPED,
    FREED,
    GROUP_TIMES,
    GROUPS,
    HOUR,
    MINUTE,
    TENANT_TIMES,
    TENANTS,
    TOTALS,
    born_key,
    bucket_key,
    marks_key,
    numbers_of,
    part_of,
    samples_key,
    shard_of,
    starts,
    tenant_of,
    waiting_key,
    who,
)
from .servers import INFO_SECTIONS, ServerInfo, server_info

__all__ = [
    "BUCKETS",
    "Buckets",
    "Command",
    "DroppedLine",
    "Group",
    "Later",
    "Numbers",
    "Reader",
    "Sample",
    "Tenant",
    "Totals",
    "WaitingSample",
]

BUCKETS = len(LATENCY_BOUNDS_US) + 1
"""Buckets of read latency."""

FEW = 100
"""Tenants up to which it is cheaper to ask for each by its name."""

Group: TypeAlias = tuple[str, str]
"""(alias, group)."""

Tenant: TypeAlias = tuple[str, str | None]
"""(alias, tenant)."""


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
class WaitingSample:
    """The most that was seen to wait in one database's outbox in one minute."""

    at: int
    database: str
    """Django's alias."""
    count: int
    oldest_seconds: float


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


class Reader(Asking):
    """What can be asked."""

    def totals(self, step: int, since: float, until: float) -> Later[Totals]:
        """Ask what each alias counted in each bucket. `step` is one that TOTALS keeps."""
        buckets = starts(step, since, until)

        def parse(replies: list[Any]) -> Totals:
            found = Totals({}, {})
            for start, reply in zip(buckets, replies, strict=True):
                for field, text in pairs(reply):
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

    def group_times(self, buckets: Iterable[int], step: int) -> Later[Buckets[Group]]:
        """Ask how many reads of each (alias, group) were timed, for how long. `step`: one that GROUP_TIMES keeps."""

        def read(alias: str, group: str) -> Group:
            return part_of(alias), part_of(group)

        return self._all(GROUP_TIMES, buckets, step, read, length=len(TIMES))

    def tenant_times(
        self, buckets: Iterable[int], step: int, only: Collection[str | None] | None = None
    ) -> Later[Buckets[Tenant]]:
        """Ask the same of each (alias, tenant), or of some."""
        names = None if only is None else {who(tenant) for tenant in only}

        def read(alias: str, whose: str) -> Tenant | None:
            return (part_of(alias), tenant_of(whose)) if names is None or whose in names else None

        return self._all(TENANT_TIMES, buckets, step, read, length=len(TIMES))

    def groups_of(self, tenants: Collection[str | None], buckets: Iterable[int], step: int) -> Later[Buckets[Group]]:
        """Ask what each (alias, group) counted for some tenants. `step` is one that BOTH keeps."""
        names = {who(tenant) for tenant in tenants}
        shards = sorted({shard_of(BOTH, whose) for whose in names})
        places = [(start, shard) for start in buckets for shard in shards]

        def parse(replies: list[Any]) -> Buckets[Group]:
            found: Buckets[Group] = {start: {} for start, _ in places}
            for (start, _), reply in zip(places, replies, strict=True):
                for field, text in pairs(reply):
                    alias, group, *rest = field.split(":")
                    if rest and rest[0] in names:
                        add_to(found[start], (part_of(alias), part_of(group)), numbers_of(text))
            return found

        return self._ask([("HGETALL", bucket_key(BOTH, step, start, shard)) for start, shard in places], parse)

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
                for field, text in pairs(reply):
                    minute, _, alias = field.partition(":")
                    if alias and since <= int(minute) * MINUTE <= until:
                        found.append(Sample(int(minute) * MINUTE, part_of(alias), *map(int, text.split())))
            return sorted(found, key=lambda sample: sample.at)

        return self._ask([("HGETALL", samples_key(hour)) for hour in hours], parse)

    def waiting(self, since: float, until: float) -> Later[list[WaitingSample]]:
        """Ask what waited in the outbox, by minute and database; in order of time. Kept for eight days."""
        hours = starts(HOUR, since, until)

        def parse(replies: list[Any]) -> list[WaitingSample]:
            most: dict[tuple[int, str], tuple[int, int]] = {}
            for reply in replies:
                for field, text in pairs(reply):
                    minute, database, _ = field.split(":")
                    if since - MINUTE < int(minute) * MINUTE <= until:
                        count, ms = map(int, text.split())
                        known = most.get((int(minute), database), (0, 0))
                        most[int(minute), database] = max(known[0], count), max(known[1], ms)
            return [
                WaitingSample(minute * MINUTE, part_of(database), count, ms / 1000)
                for (minute, database), (count, ms) in sorted(most.items())
            ]

        return self._ask([("HGETALL", waiting_key(hour)) for hour in hours], parse)

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
                for field, text in pairs(reply):
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
                for field, text in pairs(reply):
                    by = part_of(field.partition(":")[2])
                    found[by] = found.get(by, 0) + int(text)
            return found

        return self._ask([("HGETALL", bucket_key(FREED, HOUR, hour)) for hour in hours], parse)
