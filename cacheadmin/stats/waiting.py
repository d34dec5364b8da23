"""What waits in the outbox, noted beside the roll-ups by whichever process looks: the most of each minute."""

from __future__ import annotations

import uuid
from collections import defaultdict
from typing import Any, Final

from ..conf import config
from ..connections import link
from ..encoding import name
from .layout import DAY, HOUR, KEEP_SAMPLES, MINUTE, waiting_key
from .servers import redis_aliases

MOST_UNSENT: Final = DAY // MINUTE
"""Minutes, of all databases together, that are kept while the server of the roll-ups is away."""


class WaitingNotes:
    """What one process has seen, until it has arrived. Not thread safe: one thread looks."""

    def __init__(self) -> None:
        self._me = uuid.uuid4().hex[:6]
        self._most: dict[tuple[int, str], tuple[int, int]] = {}
        self._unsent: set[tuple[int, str]] = set()

    def note(self, database: str, count: int, oldest_seconds: float, now: float) -> None:
        """Take what waits in a database at a moment. Cost: none."""
        moment = (int(now) // MINUTE, database)
        known = self._most.get(moment, (-1, -1))
        self._most[moment] = max(known[0], count), max(known[1], round(oldest_seconds * 1000))
        if self._most[moment] != known:
            self._unsent.add(moment)
        for old in [each for each in self._most if each[0] < moment[0] and each not in self._unsent]:
            del self._most[old]
        for old in sorted(self._unsent)[:-MOST_UNSENT]:
            self._unsent.discard(old)
            del self._most[old]

    def send(self) -> None:
        """
        Add what is new to the roll-ups. Adding it again changes nothing, and no other process writes these fields.

        Cost:    one round trip, none if nothing is new.
        Raises:  CacheAway; then it is kept for the next time.
        """
        if not self._unsent or config().stats_alias not in redis_aliases():
            self._unsent.clear()
            return
        by_hour: dict[int, list[Any]] = defaultdict(list)
        for minute, database in self._unsent:
            count, ms = self._most[minute, database]
            pair = (f"{minute}:{name(database)}:{self._me}", f"{count} {ms}")
            by_hour[minute * MINUTE // HOUR * HOUR] += pair
        commands: list[tuple[Any, ...]] = []
        for hour, flat in by_hour.items():
            key = waiting_key(hour)
            commands += [("HSET", key, *flat), ("EXPIRE", key, KEEP_SAMPLES)]
        link(config().stats_alias).call(*commands)
        self._unsent.clear()
