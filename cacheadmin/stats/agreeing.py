"""What the processes of a site agree on for Prometheus: which names have series, and who speaks of the servers.

All of it is kept beside the roll-ups and may be lost at any time: it is agreed on anew.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Mapping
from typing import Any, Final

from ..conf import config
from ..connections import Link, link
from ..encoding import name
from .counts import EVERY_TENANT, INDEX, OTHER, RESULTS
from .history import Group, Numbers, Reader
from .layout import DAY, HOUR, base, part_of, starts
from .servers import redis_aliases

TURN_SECONDS: Final = 60
"""How long a turn lasts that is not taken again: what a process that was killed leaves unsaid."""

YOUNG_SECONDS: Final = 10
"""How long a choice holds that has room for more."""

STAYS: Final = 1.5
"""How many times as many reads it takes to push a busy tenant out."""

HOURS_LOOKED_AT: Final = range(0, 24, 3)
"""Of the last day, those whose reads say which tenants are busy."""


def _home() -> Link | None:
    """Return the link to the roll-ups' server; None for a site without Redis."""
    return link(config().stats_alias) if config().stats_alias in redis_aliases() else None


def first_groups(met: Collection[Group], most: int) -> list[Group]:
    """
    Offer groups that this process has met and return the site's first ones, at most `most`, the same for everybody.

    Keys:    a ZSET of a week: `<alias>:<group>` by the time it was first met.
    Cost:    one round trip.
    Raises:  CacheAway. A site without Redis gets back the first of its own.
    """
    home, key = _home(), f"{base()}named"
    if home is None:
        return sorted(met)[:most]
    now = time.time()
    pairs: list[Any] = [part for alias, group in sorted(met) for part in (now, f"{name(alias)}:{name(group)}")]
    offered = [("ZADD", key, "NX", *pairs)] if pairs else []
    replies = home.call(
        *offered,
        ("ZREMRANGEBYRANK", key, most, -1),
        ("ZRANGE", key, 0, most - 1),
        ("TTL", key),
    ).values
    found, ttl = replies[-2], replies[-1]
    if ttl == -1:
        home.call(("EXPIRE", key, 7 * DAY))
    parts = (member.decode().partition(":") for member in found) if isinstance(found, list) else ()
    return [(part_of(alias), part_of(group)) for alias, _, group in parts]


def busiest(most: int) -> list[str]:
    """
    Return the site's busiest tenants by their reads of a day, the same for everybody, chosen anew once a day.

    A site with fewer tenants than that chooses whenever it is asked, though not within ten seconds.

    Who is among them stays unless another one has half as many reads again, so that series do not come and go.
    Cost:    one round trip; for the process that chooses three, and it reads eight hours' tenants.
    Raises:  CacheAway.
    """
    home, key = _home(), f"{base()}tops"
    if home is None:
        return []
    before, is_fresh = home.call(("GET", key), ("EXISTS", f"{key}:fresh")).values
    known = _texts(before)
    if is_fresh == 1:
        return known[:most]
    found = _chosen(known, _reads_of_tenants(), most)
    fresh_for = DAY if len(found) >= most else YOUNG_SECONDS
    home.call(("SET", key, json.dumps(found), "EX", 2 * DAY), ("SET", f"{key}:fresh", "", "EX", fresh_for))
    return found


def _texts(reply: Any) -> list[str]:
    return [str(text) for text in json.loads(reply)] if isinstance(reply, bytes) else []


def _chosen(known: list[str], reads: Mapping[str, int], most: int) -> list[str]:
    weights = {tenant: count * (STAYS if tenant in known else 1.0) for tenant, count in reads.items()}
    return sorted(weights, key=lambda tenant: (-weights[tenant], tenant))[:most]


def _reads_of_tenants() -> dict[str, int]:
    now = time.time()
    reader = Reader()
    asked = reader.tenants([starts(HOUR, now - h * HOUR, now - h * HOUR)[0] for h in HOURS_LOOKED_AT], HOUR)
    reader.run()
    reads: dict[str, int] = {}
    for names in asked.value.values():
        for (_alias, tenant), numbers in names.items():
            if tenant is not None and tenant not in (EVERY_TENANT, OTHER):
                reads[tenant] = reads.get(tenant, 0) + _reads(numbers)
    return reads


def _reads(numbers: Numbers) -> int:
    return sum(numbers[INDEX[result]] for result in RESULTS)


class Turn:
    """Whose turn it is to speak of the servers: one process of the site, until it ends."""

    def __init__(self) -> None:
        self.me = uuid.uuid4().hex

    def is_mine(self) -> bool:
        """
        Take the turn if nobody has it, keep it if it is this process', and say whether it is.

        Cost:    one round trip, the holder one more.
        Raises:  CacheAway.
        """
        home, key = _home(), f"{base()}turn"
        if home is None:
            return False
        _, holder = home.call(("SET", key, self.me, "NX", "EX", TURN_SECONDS), ("GET", key)).values
        if holder != self.me.encode():
            return False
        home.call(("EXPIRE", key, TURN_SECONDS))
        return True

    def give_up(self) -> None:
        """Let the next process have it at once. Raises: CacheAway."""
        home, key = _home(), f"{base()}turn"
        if home is not None and home.call(("GET", key)).values[0] == self.me.encode():
            home.call(("UNLINK", key))


def more_evicted(counts: Mapping[str, int]) -> dict[str, int]:
    """
    Return how many keys each server has evicted since anybody asked last; 0 where nobody has.

    `counts` are the servers' own, by the name of the server; one that fell began again with a restart.
    Cost:    two round trips.
    Raises:  CacheAway.
    """
    home, key = _home(), f"{base()}evicted"
    if home is None or not counts:
        return {}
    names = {server: name(server) for server in counts}
    [before] = home.call(("HMGET", key, *names.values())).values
    home.call(
        ("HSET", key, *(part for server, count in counts.items() for part in (names[server], count))),
        ("EXPIRE", key, 31 * DAY),
    )
    if not isinstance(before, list):
        return {}
    found = {}
    for (server, now), text in zip(counts.items(), before, strict=True):
        last = int(text) if text is not None else now
        found[server] = now - last if now >= last else now
    return found
