"""Sending counts to the roll-ups: what all processes of a site counted, added up in Redis.

Buckets are named by the clock of the host that flushes, at the moment of its flush, so a count may stand up to
`FLUSH_SECONDS` late.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import OutOfMemoryError, ResponseError

from ..conf import config, is_configured
from ..connections import Link, link
from ..encoding import name
from ..exceptions import CacheAway
from ..scripts import run_many, script
from .counts import OTHER, Delta, Mark
from .layout import (
    COARSE,
    DAY,
    DROPPED,
    DROPPED_A_HASH,
    FIELDS_A_HASH,
    FINE,
    HOUR,
    HOURLY,
    KEEP_SAMPLES,
    MINUTE,
    TEN_MINUTES,
    base,
    born_key,
    bucket_key,
    marks_key,
    numbers_text,
    samples_key,
    sums,
)
from .servers import info, redis_aliases, servers

logger = logging.getLogger("cacheadmin")

MARKS: Final = 200

CELLS_A_SCRIPT: Final = 100
"""Fields that one script adds to, so that none holds Redis for a millisecond."""

WAITING_CELLS: Final = 20_000
"""Cells kept while Redis is away; what comes beyond is counted under OTHER."""

MARKS_WAITING: Final = 100
REMEMBER_BATCHES: Final = HOUR


@dataclass(slots=True)
class Chunk:
    """What one script adds. Sent again under the same number, it is added once."""

    number: int
    keys: list[str]
    args: list[Any]
    cells: int = 0


def _cells(start: int, delta: Delta, *, coarse: bool) -> Iterator[tuple[str, int, int, list[str]]]:
    """Yield (key, seconds to live, most fields, [field, numbers, …]) in pieces that fit a script."""
    for (kind, shard), fields in sums(start, delta, COARSE if coarse else FINE).items():
        steps = {step: keep for step, keep in kind.keep.items() if kind in HOURLY or coarse is (step > MINUTE)}
        flat = [text for field, numbers in fields.items() for text in (field, numbers_text(numbers))]
        most = DROPPED_A_HASH if kind is DROPPED else FIELDS_A_HASH
        for step, keep in steps.items():
            key = bucket_key(kind, step, start, shard)
            for at in range(0, len(flat), 2 * CELLS_A_SCRIPT):
                yield key, keep, most, flat[at : at + 2 * CELLS_A_SCRIPT]


def merge(into: Delta, delta: Delta) -> None:
    """Add a delta to another, its cells beyond WAITING_CELLS under OTHER."""
    for cell, numbers in delta.counts.items():
        if cell not in into.counts and len(into.counts) >= WAITING_CELLS:
            cell = (cell[0], OTHER, OTHER)
        known = into.counts.get(cell)
        into.counts[cell] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
    for cell, numbers in delta.times.items():
        if cell not in into.times and len(into.times) >= WAITING_CELLS:
            cell = (cell[0], OTHER, OTHER)
        known = into.times.get(cell)
        into.times[cell] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
    for alias, numbers in delta.latency.items():
        known = into.latency.get(alias)
        into.latency[alias] = numbers if known is None else [a + b for a, b in zip(known, numbers, strict=True)]
    for kind, count in delta.dropped.items():
        if kind not in into.dropped and len(into.dropped) >= WAITING_CELLS:
            kind = (kind[0], OTHER, OTHER, kind[3], OTHER)
        into.dropped[kind] = into.dropped.get(kind, 0) + count
    for by, count in delta.freed.items():
        by = by if by in into.freed or len(into.freed) < FIELDS_A_HASH else OTHER
        into.freed[by] = into.freed.get(by, 0) + count


# --- sending --------------------------------------------------------------------------------------------------------


class Rollups:
    """This process' counts on their way to Redis: kept until they have arrived, added exactly once."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)  # what the parent has not sent is the parent's

    def reset(self) -> None:
        """Forget what has not arrived (tests, a forked child)."""
        self._process = uuid.uuid4().hex
        self._number = 0
        self._sent: list[Chunk] = []
        self._minutes: dict[int, Delta] = {}
        self._coarse: dict[int, Delta] = {}
        """By ten minutes, for the buckets above a minute; they are sent less often."""
        self._marks: list[Mark] = []
        self._release = ""
        self._identities: dict[str, set[bytes]] = {}
        self._away: set[str] = set()
        self._measured = 0

    def push(self, delta: Delta, *, everything: bool = True) -> bool:
        """
        Add a delta to the roll-ups; called by the recorder, one call at a time.

        Cost:    one round trip, none if there is nothing to add; one more if there are marks.
        Returns: whether everything has arrived. If not it waits for the next call, at most 24 hours of it.
        """
        if not is_configured() or config().stats_alias not in redis_aliases():
            return True
        self._keep(delta, time.time())
        to = link(config().stats_alias)
        try:
            has_arrived = self._send(to, everything)
            self._send_marks(to)
        except CacheAway as error:
            logger.debug("The counts wait: %s", error)
            return False
        return has_arrived

    def _keep(self, delta: Delta, now: float) -> None:
        minute = int(now) // MINUTE * MINUTE
        self._marks = (self._marks + delta.marks)[:MARKS_WAITING]
        if delta.counts or delta.latency or delta.dropped or delta.freed:
            merge(self._minutes.setdefault(minute, Delta()), delta)
            merge(self._coarse.setdefault(minute // TEN_MINUTES * TEN_MINUTES, Delta()), delta)
        for waiting in (self._minutes, self._coarse):
            for old in [start for start in waiting if start < minute - DAY]:
                del waiting[old]

    def _send(self, to: Link, everything: bool) -> bool:
        while self._sent or self._minutes or (everything and self._coarse):
            if not self._sent:
                self._sent, self._minutes = self._chunks(everything), {}
                if everything:
                    self._coarse = {}
            # Without an answer it is not known whether they were added: the same chunks go again, with nothing new.
            tally = script("tally")
            replies = run_many(to, [(tally, c.keys, c.args) for c in self._sent], again=False).values
            full = [c for c, r in zip(self._sent, replies, strict=True) if isinstance(r, OutOfMemoryError)]
            for reply in replies:
                if isinstance(reply, ResponseError) and not isinstance(reply, OutOfMemoryError):
                    logger.error("Counts were refused by Redis and are lost: %s", reply)
            self._sent = [self._numbered(c.keys[1:], c.args[2:], c.cells) for c in full]
            if full:
                return False
        return True

    def _chunks(self, everything: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        fine = (cells for start, delta in self._minutes.items() for cells in _cells(start, delta, coarse=False))
        coarse = (cells for start, delta in self._coarse.items() for cells in _cells(start, delta, coarse=True))
        for key, keep, most, flat in (*fine, *(coarse if everything else ())):
            if not chunks or chunks[-1].cells + len(flat) // 2 > CELLS_A_SCRIPT:
                chunks.append(self._numbered([], [], 0))
            chunks[-1].keys.append(key)
            chunks[-1].args += [keep, most, len(flat) // 2, *flat]
            chunks[-1].cells += len(flat) // 2
        return chunks

    def _numbered(self, keys: list[str], args: list[Any], cells: int) -> Chunk:
        self._number += 1
        number_key = f"{base()}n:{self._process}"
        return Chunk(self._number, [number_key, *keys], [self._number, REMEMBER_BATCHES, *args], cells)

    # --- marks and memory -------------------------------------------------------------------------------------------

    def measure(self) -> None:
        """
        Note what changed (release, servers), and once a minute, by whichever process asks first, the servers' memory.

        Cost:    one round trip a minute; the first process' one more, and one to each server.
        """
        if config().stats_alias not in redis_aliases():
            return
        now = time.time()
        self._marks = (self._marks + self._watch(now))[:MARKS_WAITING]
        if int(now) // MINUTE == self._measured:
            return
        try:
            self._measure(link(config().stats_alias), now)
        except CacheAway as error:
            logger.debug("The memory of the cache servers is not known: %s", error)

    def _watch(self, now: float) -> list[Mark]:
        """Return what changed since the last flush: the release, a server's identity, whether it answers."""
        found = []
        release = config().release
        if release and release != self._release:
            self._release = release
            found.append(Mark("deploy", release, now))
        for where, aliases in servers().items():
            links, text = [link(alias) for alias in aliases], ", ".join(aliases)
            seen = self._identities.setdefault(where, set())
            new = {each.identity for each in links if each.identity} - seen
            if new and seen:
                found.append(Mark("server", text, now))
            seen |= new
            since = [each.away_since for each in links if each.is_away]
            if since and where not in self._away:
                self._away.add(where)
                found.append(Mark("away", text, min(since)))
            elif not since and where in self._away:
                self._away.discard(where)
                found.append(Mark("back", text, now))
        return found

    def _send_marks(self, to: Link) -> None:
        if not self._marks:
            return
        pairs: list[Any] = []
        for mark in self._marks:
            # One mark a minute, however many processes report it; a release is marked where it was seen first.
            minute = 0 if mark.kind == "deploy" else int(mark.at) // MINUTE
            pairs += [mark.at, json.dumps([mark.kind, mark.text[:200], mark.tenant, minute])]
        key = marks_key()
        to.call(("ZADD", key, "NX", *pairs), ("ZREMRANGEBYRANK", key, 0, -MARKS - 1), ("EXPIRE", key, 30 * DAY))
        self._marks = []

    def _measure(self, to: Link, now: float) -> None:
        key, minute = samples_key(int(now)), int(now) // MINUTE
        is_first, *_ = to.call(
            ("HSETNX", key, minute, ""),
            ("EXPIRE", key, KEEP_SAMPLES),
            ("SET", born_key(), int(now), "NX"),
            ("EXPIRE", born_key(), 31 * DAY),
        ).values
        self._measured = minute
        if is_first != 1:
            return
        pairs: list[Any] = []
        for aliases in servers().values():
            try:
                seen = info(aliases[0])
            except CacheAway:
                continue  # no number for this minute: a gap in the chart
            pairs += [f"{minute}:{name(aliases[0])}", f"{seen.used_bytes} {seen.limit_bytes} {seen.evicted}"]
        if pairs:
            to.call(("HSET", key, *pairs))


rollups: Final = Rollups()
