"""How the roll-ups are laid out in Redis: kinds, steps, keys and fields, written and read back. Pure.

They live on the server of `CACHEADMIN["STATS_ALIAS"]`, under `<KEY_PREFIX>:{cacheadmin}:`, which no clearing of an
alias touches. A hash of at most 512 small fields is kept compact by Redis, hence the shards. What is beyond a bound on
names is added to the name OTHER, so that sums stay exact.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from operator import add
from typing import Final, TypeAlias
from zlib import crc32

from ..conf import cache_settings, config
from ..encoding import name, unescape
from .counts import EVENTS, EVERY_TENANT, Delta

MINUTE: Final = 60
TEN_MINUTES: Final = 600
HOUR: Final = 3600
DAY: Final = 86_400


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One way to add counts up."""

    letter: str
    shards: int
    """Hashes of one bucket."""
    keep: dict[int, int]
    """Step of the buckets in seconds -> seconds for which they are kept."""


TOTALS: Final = Kind("a", 1, {MINUTE: 25 * HOUR, HOUR: 30 * DAY})
"""Fields `<alias>`, and `<alias>:l` for the counts of its latency buckets."""
GROUPS: Final = Kind("g", 2, {MINUTE: 25 * HOUR, TEN_MINUTES: 25 * HOUR, HOUR: 30 * DAY})
"""Fields `<alias>:<group>`."""
TENANTS: Final = Kind("t", 8, {MINUTE: 4 * HOUR, TEN_MINUTES: 25 * HOUR, HOUR: 8 * DAY})
"""Fields `<alias>:<tenant>`."""
BOTH: Final = Kind("b", 64, {TEN_MINUTES: 4 * HOUR, HOUR: 25 * HOUR})
"""Fields `<alias>:<group>:<tenant>`; a tenant's are in one shard."""
GROUP_TIMES: Final = Kind("h", 1, {TEN_MINUTES: 25 * HOUR, HOUR: 8 * DAY})
"""Fields `<alias>:<group>`: how many reads were timed, and how long they took together. Apart from GROUPS and TENANTS,
because their fields would grow beyond 64 bytes, from which on Redis takes three times the memory."""
TENANT_TIMES: Final = Kind("u", 1, {TEN_MINUTES: 25 * HOUR, HOUR: 8 * DAY})
"""Fields `<alias>:<tenant>`: the same."""
DROPPED: Final = Kind("d", 1, {HOUR: 25 * HOUR})
"""Fields `<alias>:<minute>:<source>:<tenant>:<name>:<what>`, one number: how many times it was invalidated."""

FREED: Final = Kind("f", 1, {HOUR: 25 * HOUR})
"""Fields `r:<name>`, of a rule or of several that fired together; one number: entries given back for it."""

FIELDS_A_HASH: Final = 500
"""Names that one hash keeps apart: with an OTHER for each of a dozen aliases it is still compact."""
DROPPED_A_HASH: Final = 4096
KEEP_SAMPLES: Final = 8 * DAY


def base() -> str:
    """Return what every key of the numbers begins with. Not by KEY_FUNCTION: that may depend on the active tenant."""
    prefix = str(cache_settings(config().stats_alias).get("KEY_PREFIX", ""))
    return prefix.replace("%", "%25").replace("{", "%7B").replace("}", "%7D") + ":{cacheadmin}:"


def bucket_key(kind: Kind, step: int, start: int, shard: int = 0) -> str:
    """Return the HASH of one bucket, or of one shard of it; `start` in seconds since 1970."""
    return f"{base()}{kind.letter}:{step}:{start // step}:{shard}"


def shard_of(kind: Kind, part: str) -> int:
    """Return the shard of a group or tenant, given as it stands in the field."""
    return crc32(part.encode()) % kind.shards if kind.shards > 1 else 0


def who(tenant: str | None) -> str:
    """Return a tenant as it stands in a field: `-` for shared data, `*` for every tenant."""
    if tenant is None:
        return "-"
    return "*" if tenant == EVERY_TENANT else "%2D" if tenant == "-" else name(tenant)


def marks_key() -> str:
    """ZSET: a mark as JSON, score its time in seconds."""
    return base() + "k"


def born_key() -> str:
    """STRING: when this site began to count, in seconds since 1970."""
    return base() + "born"


def samples_key(start: int) -> str:
    """HASH of an hour: `<minute>:<server>` -> "used limit evicted"; `<minute>` alone says that somebody measures."""
    return f"{base()}s:{start // HOUR}"


def waiting_key(start: int) -> str:
    """HASH of an hour: `<minute>:<database>:<who looked>` -> "count milliseconds", the most that was seen to wait."""
    return f"{base()}w:{start // HOUR}"


# --- fields ---------------------------------------------------------------------------------------------------------

Fields: TypeAlias = dict[str, list[int]]
"""A field of a HASH -> the numbers to add to it."""


FINE: Final = (TOTALS, GROUPS, TENANTS, DROPPED, FREED)
"""Kinds with buckets of a minute, or that have no coarser ones."""

HOURLY: Final = (DROPPED, FREED)
"""Those of them that are kept by the hour all the same."""

COARSE: Final = (TOTALS, GROUPS, TENANTS, BOTH, GROUP_TIMES, TENANT_TIMES)
"""Kinds with buckets above a minute."""


def sums(minute: int, delta: Delta, kinds: Collection[Kind]) -> dict[tuple[Kind, int], Fields]:
    """Add a delta up for some kinds of roll-ups and their shards. Pure."""
    found: dict[tuple[Kind, int], Fields] = {}

    def put(kind: Kind, shard: int, field: str, numbers: list[int]) -> None:
        if kind not in kinds:
            return
        fields = found.setdefault((kind, shard), {})
        known = fields.get(field)
        fields[field] = numbers if known is None else added(known, numbers)

    for (alias, group, tenant), numbers in delta.counts.items():
        of, what, whose = name(alias), name(group), who(tenant)
        put(TOTALS, 0, of, numbers)
        put(TENANTS, shard_of(TENANTS, whose), f"{of}:{whose}", numbers)
        if group:
            put(GROUPS, shard_of(GROUPS, what), f"{of}:{what}", numbers)
            put(BOTH, shard_of(BOTH, whose), f"{of}:{what}:{whose}", numbers)
    for (alias, group, tenant), numbers in delta.times.items():
        put(TENANT_TIMES, 0, f"{name(alias)}:{who(tenant)}", numbers)
        if group:
            put(GROUP_TIMES, 0, f"{name(alias)}:{name(group)}", numbers)
    for alias, numbers in delta.latency.items():
        put(TOTALS, 0, f"{name(alias)}:l", numbers)
    for (alias, tenant, target, source, by), count in delta.dropped.items():
        at = minute % HOUR // MINUTE
        put(DROPPED, 0, f"{name(alias)}:{at}:{source}:{who(tenant)}:{name(by)}:{name(target)}", [count])
    for by, count in delta.freed.items():
        put(FREED, 0, f"r:{name(by)}", [count])
    return found


def numbers_text(numbers: list[int]) -> str:
    """Return numbers as they stand in a field: by spaces, without the zeros at the end."""
    last = max((i for i, number in enumerate(numbers) if number), default=0)
    return " ".join(map(str, numbers[: last + 1]))


def numbers_of(text: bytes, length: int = len(EVENTS)) -> list[int]:
    """Undo `numbers_text`, with the zeros at the end."""
    numbers = list(map(int, text.split()))
    return numbers + [0] * (length - len(numbers))


def added(some: list[int], others: list[int]) -> list[int]:
    """Return the sums of two lists of one length. A page adds up ten thousand: `map` takes half the time of a loop."""
    return list(map(add, some, others))


@lru_cache(maxsize=32_768)
def part_of(part: str) -> str:
    """Undo `encoding.name` for a group, an alias, a rule."""
    return unescape(part)


def tenant_of(part: str) -> str | None:
    """Undo `who`."""
    return None if part == "-" else part_of(part)


def starts(step: int, since: float, until: float) -> range:
    """Return the beginnings of the buckets that touch a span of time, the last one's included."""
    return range(int(since) // step * step, int(until) + 1, step)
