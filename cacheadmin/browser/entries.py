"""One page of a group's entries, from its index and their headers; no payload is read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from cacheadmin import envelope
from cacheadmin.encoding import unescape
from cacheadmin.functions import registry
from cacheadmin.keys import Group
from cacheadmin.scripts import run_many, script
from cacheadmin.store import RedisStore, store
from cacheadmin.targets import Target

from .counts import kind_of
from .reach import covers

State = Literal["live", "stale", "waiting", "orphan"]
Order = Literal["expires", "-expires", "size", "-size"]

STATES: Final[tuple[State, ...]] = ("live", "stale", "waiting", "orphan")

WHOLE: Final = 1000
"""Groups up to this size are read whole to be sorted by size, which no index knows."""

PART: Final = 500
"""
Groups up to this size are read whole in any order, so that their counts are exact.

No command returns more rows of a group that is read whole: the server is busy for about a millisecond.
"""

WINDOW: Final = 1000
"""Headers read at once while searching a large group."""

SEARCH_SECONDS: Final = 1.0

HEADER_BYTES: Final = envelope.header_bytes_limit(tags=16)


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry as a list shows it."""

    member: str
    arguments: str
    """For people: what tells it from the others of its group."""
    key: str
    """The caller's key without `tenant:<id>:`; empty where only a digest of it is known."""
    state: State
    expires_in: float | None
    """Seconds until it is gone, or, while it is stale, of grace left; None for never."""
    grace: float
    """Seconds of grace that follow `expires_in` of a live entry."""
    size_bytes: int
    """Stored bytes, header included."""
    computed_at: float | None
    took: float | None
    """Seconds that computing it took."""
    tags: tuple[str, ...]
    function: str
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some entries of a group, and how they were found."""

    rows: tuple[EntryRow, ...]
    total: int
    """Entries of the group that match: exact if `is_whole`, else members of the index."""
    counts: dict[State, int]
    """Entries by state: of the whole group, or of what was read."""
    is_whole: bool
    """Whether the whole group was read."""
    has_next: bool
    searched: int
    """Entries looked at so far, those of earlier pages included."""
    next_offset: int | None
    """Where to continue a search that ran out of time or filled its page."""
    took: float
    round_trips: int


def entries(
    alias: str,
    tenant: str | None,
    group: str,
    *,
    offset: int = 0,
    limit: int = 25,
    order: Order = "expires",
    state: State | None = None,
    search: str = "",
    waiting: Sequence[Target] = (),
    is_brief: bool = False,
) -> EntryPage:
    """
    Return entries of a group, soonest to expire first unless asked otherwise.

    A group of up to 500 is read whole, so it can be filtered and searched at will; to be sorted by size, one of up to
    1,000. A larger one is read in the order of its index; with `state` or `search` in windows of 1,000, for at most a
    second, and `next_offset` says where to go on. `waiting` are targets of invalidations that are not done yet.
    `is_brief` leaves states untold.
    Cost:    2 round trips, 1 if brief or if no entry has a tag, no SCAN; a search in a large group 2 for each window.
    Raises:  CacheAway; UnknownAlias.
    """
    begun = time.perf_counter()
    where = store(alias)
    if not isinstance(where, RedisStore):
        return EntryPage((), 0, dict.fromkeys(STATES, 0), True, False, 0, None, 0.0, 0)
    reader = _Reader(where, where.place(tenant).group(group), waiting, is_brief=is_brief)
    is_filtered = bool(state or search)
    window = reader.read(offset, WINDOW if is_filtered else limit, order)
    if window.is_whole:
        matching = [row for _, row in window.rows if _fits(row, state, search)]
        if order.endswith("size"):
            matching.sort(key=lambda row: row.size_bytes, reverse=order.startswith("-"))
        return EntryPage(
            rows=tuple(matching[offset : offset + limit]),
            total=len(matching),
            counts=_counts(row for _, row in window.rows if _fits(row, None, search)),
            is_whole=True,
            has_next=offset + limit < len(matching),
            searched=len(window.rows),
            next_offset=None,
            took=time.perf_counter() - begun,
            round_trips=reader.round_trips,
        )
    found: list[EntryRow] = []
    read: list[EntryRow] = []
    at = offset
    while True:
        for position, row in window.rows:
            read.append(row)
            if _fits(row, state, search):
                found.append(row)
                if len(found) == limit:
                    at = position + 1
                    break
        else:
            at += window.members
        is_full = len(found) == limit or not is_filtered
        if is_full or not window.members or at >= window.total or time.perf_counter() - begun > SEARCH_SECONDS:
            break
        window = reader.read(at, WINDOW, order)
    has_next = bool(window.members) and at < window.total
    return EntryPage(
        rows=tuple(found),
        total=window.total,
        counts=_counts(read),
        is_whole=False,
        has_next=has_next,
        searched=at,
        next_offset=at if has_next else None,
        took=time.perf_counter() - begun,
        round_trips=reader.round_trips,
    )


def _fits(row: EntryRow, state: State | None, search: str) -> bool:
    if state is not None and row.state != state:
        return False
    text = search.casefold()
    return not text or text in row.arguments.casefold() or any(text in tag.casefold() for tag in row.tags)


def _counts(rows: Iterable[EntryRow]) -> dict[State, int]:
    counts: dict[State, int] = dict.fromkeys(STATES, 0)
    for row in rows:
        counts[row.state] += 1
    return counts


@dataclass(frozen=True, slots=True)
class _Window:
    """Part of an index, judged."""

    rows: list[tuple[int, EntryRow]]
    """Entries that are there, with their positions in the index."""
    members: int
    """Members of the index that were looked at; some may have no value any more."""
    total: int
    is_whole: bool


class _Reader:
    """Reads windows of one group's index and judges what it finds."""

    def __init__(self, where: RedisStore, names: Group, waiting: Sequence[Target], *, is_brief: bool = False) -> None:
        self.where, self.is_brief = where, is_brief
        self.alias, self.tenant = names.place.alias, names.place.tenant
        self.names = names
        self.waiting = waiting
        self.round_trips = 0
        self.is_first = True

    def read(self, offset: int, limit: int, order: Order) -> _Window:
        """Read one window. Cost: 2 round trips, 1 if no entry has a tag."""
        names = self.names
        direction = "desc" if order == "-expires" else "asc"
        keys = (names.index, names.tenant_epoch, names.epoch)
        whole = WHOLE if order.endswith("size") else PART
        args = (names.values, offset, limit, direction, whole, HEADER_BYTES)
        starts = range(0, whole, PART) if self.is_first else (0,)
        calls = [(script("browse"), keys, (*args, start, PART)) for start in starts]
        identity, replies = run_many(self.where.link, calls)
        self.round_trips += 1
        self.is_first = False
        for reply in replies:
            if not isinstance(reply, list):
                raise reply
        now, total, tenant_epoch, group_epoch, is_whole, *_first = replies[0]
        flat = [part for reply in replies for part in reply[5:]]
        found = []
        for i, (member, score, size, stored) in enumerate(_fours(flat), 0 if is_whole else offset):
            if size:
                found.append((i, member.decode("utf-8", "replace"), float(score), size, envelope.parse(stored)))
        tags = self._tag_epochs([] if self.is_brief else [header for *_, header in found if header is not None])
        standing = (tenant_epoch, group_epoch)
        judge = partial(self._row, now=float(now), identity=identity, standing=standing, tag_epochs=tags)
        rows = [(i, judge(name, score, size, header)) for i, name, score, size, header in found]
        return _Window(rows, len(flat) // 4, total, bool(is_whole))

    def _tag_epochs(self, headers: Sequence[envelope.Header]) -> dict[str, bytes | None]:
        """Return the standing epochs of all tags that some entries carry. Cost: 1 round trip if there are any."""
        tags = list(dict.fromkeys(tag for header in headers for tag in tags_of(header)))
        if not tags:
            return {}
        place = self.names.place
        values = self.where.link.call(("MGET", *map(place.tag_epoch, tags))).values[0]
        self.round_trips += 1
        return dict(zip(tags, values, strict=True)) if isinstance(values, list) else {}

    def _row(
        self,
        name: str,
        score: float,
        size: int,
        header: envelope.Header | None,
        *,
        now: float,
        identity: bytes,
        standing: tuple[bytes | None, bytes | None],
        tag_epochs: dict[str, bytes | None],
    ) -> EntryRow:
        about = dict(header.about) if header is not None else {}
        tags = tags_of(header) if header is not None else ()
        function = str(about.get("fn", ""))
        grace = registry[function].grace if function in registry else 0.0
        left = None if score == float("inf") else max(0.0, (score - now) / 1000)
        key = key_of(self.names.name, name)
        state: State
        if header is None or not stands(header, identity, standing, [tag_epochs.get(tag) for tag in tags]):
            state = "orphan"
        elif any(covers(t, self.alias, self.tenant, self.names.name, tags, key) for t in self.waiting):
            state = "waiting"
        elif left is not None and left <= grace:
            state = "stale"
        else:
            state = "live"
        if left is not None and state != "stale" and left > grace:
            left -= grace
        took = about.get("took")
        at = about.get("at")
        return EntryRow(
            member=name,
            arguments=arguments_of(name, about),
            key=key,
            state=state,
            expires_in=left,
            grace=grace,
            size_bytes=size,
            computed_at=float(at) if isinstance(at, (int, float)) else None,
            took=took / 1000 if isinstance(took, (int, float)) else None,
            tags=tags,
            function=function,
            about=about,
        )


def _fours(flat: Sequence[Any]) -> Iterable[tuple[bytes, bytes, int, bytes]]:
    return zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True)


def stands(
    header: envelope.Header,
    identity: bytes,
    standing: tuple[bytes | None, bytes | None],
    tags: Sequence[bytes | None],
) -> bool:
    """Say whether the next read is a hit: this server, and all epochs that are known."""
    if header.identity != identity or header.epochs[:2] != standing:
        return False
    # Notes may have lost their tags to the limit of 512 bytes; then only tenant and group can be compared.
    return len(tags) != len(header.epochs) - 2 or all(a == b for a, b in zip(header.epochs[2:], tags, strict=True))


def tags_of(header: envelope.Header) -> tuple[str, ...]:
    """Return the tags that an entry's notes name; they are for people, and may be cut short."""
    tags = header.about.get("tags")
    return tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()


def arguments_of(member: str, about: dict[str, Any]) -> str:
    """Return what tells an entry from the others of its group, for people."""
    if args := about.get("args"):
        return str(args)
    if key := about.get("key"):
        return str(key)
    rest = member.partition("!")[2] if kind_of(member) != "plain" else member
    return "" if rest == "-" else rest if rest.startswith("~") else unescape(rest)


def key_of(group: str, member: str) -> str:
    """Return the caller's key of an entry without `tenant:<id>:`; empty where only its digest is known."""
    if not member.startswith("~"):
        rest = unescape(member)
        return f"{group}:{rest}" if group else rest
    return ""
