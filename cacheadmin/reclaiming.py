"""Give back the memory of entries that nobody can read any more: later, paced, beside the work of the site.

Correctness needs none of it: an orphan is unreadable and dies with its timeout. What is noted here is lost when the
process ends; the same holds then.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from .conf import in_tests
from .exceptions import CacheAway
from .keys import Group, Place
from .stats import recorder
from .store import RedisStore, store

logger = logging.getLogger("cacheadmin")

GATHER_SECONDS: Final = 5.0
"""How long an invalidated group is left alone: invalidated again meanwhile, it is reclaimed once."""
CHUNK: Final = 100
"""Entries that one command looks at: it takes the server 0.3 ms, and whoever asks meanwhile waits no longer."""
BURST: Final = 20
"""Chunks between two pauses. One alone after each pause costs up to twice as much: the server's caches are cold."""
PAUSE_SECONDS: Final = 0.1
"""Between two bursts: reclaiming takes at most a few percent of a server's time."""
SWEEP_PAUSE_SECONDS: Final = 0.005
"""Between two pages of a sweep, which somebody may be waiting for."""
MOST_NOTED: Final = 10_000
LINGER_SECONDS: Final = 60.0
"""How long the thread waits for more: starting one takes longer than an invalidation."""

_lock = threading.Lock()
_noted: OrderedDict[tuple[Place, str | None], tuple[float, str]] = OrderedDict()
"""(place, group, or None for all of its groups) -> when it may be reclaimed (time.monotonic), and the rule's name."""


def note(place: Place, groups: list[str] | None, by: str = "") -> None:
    """
    Have groups of a place (None: all) looked through in some seconds; beyond 10,000 the oldest is let go.

    `by`: the rule, or the rules, for which it is counted; of several in these seconds the first, which left the most.
    """
    if place.tenant is not None and place.tenant.startswith("~"):
        return  # known by its digest only: its names cannot be built again
    due, is_new = time.monotonic() + GATHER_SECONDS, False
    with _lock:
        for group in [None] if groups is None else groups:
            if (what := (place, group)) not in _noted:
                _noted[what], is_new = (due, by), True
        while len(_noted) > MOST_NOTED:
            _noted.popitem(last=False)
    if is_new:  # else the thread that somebody started for it is still there
        _thread.start()


def _forked() -> None:
    """Leave to the parent what it noted; its thread is not in this process, and its lock may be held for ever."""
    global _lock
    _lock = threading.Lock()
    _noted.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def run_due(*, everything: bool = False) -> int:
    """
    Reclaim what is due, or everything that is noted.

    Cost:    for each group 2 round trips, and 1 more for every 100 entries.
    Returns: how many values were freed.
    """
    freed = 0
    while (taken := _take(everything)) is not None:
        place, group, by = taken
        where = store(place.alias)
        if not isinstance(where, RedisStore):
            continue
        try:
            names = where.known_groups(place) if group is None else [group]
            for name in names:
                gone = reclaim(where, place.group(name))
                recorder.dropped(place.alias, name, place.tenant, gone)
                recorder.freed(by, gone)
                freed += gone
        except CacheAway as error:
            logger.debug("Orphans stay until they expire: %s", error)
    return freed


def reclaim(where: RedisStore, group: Group) -> int:
    """Free the orphans of one group, chunk by chunk; what is valid stays. Returns: how many values were freed."""
    aside = where.set_aside(group)
    return 0 if aside is None else _empty(where, group, aside)


def _empty(where: RedisStore, group: Group, aside: str) -> int:
    freed = start = chunks = 0
    while True:
        gone, start = where.reclaim(group, aside, start, CHUNK)
        freed += gone
        chunks += 1
        if not start:
            return freed
        if chunks % BURST == 0:
            time.sleep(PAUSE_SECONDS)


class Swept(NamedTuple):
    """What a sweep of one alias found."""

    seen: int
    """Values looked at."""
    orphans: int
    """Values that nobody could read any more; freed, unless it only looked."""


def sweep(alias: str, *, only_look: bool = False) -> Iterator[Swept]:
    """
    Free all that nobody can read any more in one alias: what no process noted, or whose process ended before its turn.

    Yields:  the sums so far, page by page, with a pause after each.
    Cost:    two SCANs; 2 round trips more for every 1,000 values.
    Raises:  CacheAway; UnknownAlias.
    """
    where = store(alias)
    if not isinstance(where, RedisStore):
        yield Swept(0, 0)
        return
    seen = orphans = 0
    for group, aside in () if only_look else where.scan_asides():
        orphans += _empty(where, group, aside)
    for looked_at, found in where.scan_orphans():
        seen += looked_at
        orphans += len(found) if only_look else where.unlink(found)
        yield Swept(seen, orphans)
        time.sleep(SWEEP_PAUSE_SECONDS)


def _take(everything: bool) -> tuple[Place, str | None, str] | None:
    with _lock:
        for key, (due, by) in _noted.items():
            if everything or due <= time.monotonic():
                del _noted[key]
                return (*key, by)
            return None  # in order of time
    return None


def forget() -> None:
    """Forget what is noted (tests)."""
    with _lock:
        _noted.clear()


class _Thread:
    """One daemon thread a process, started with the first note, ended when nothing was noted for a minute."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._ends_at = 0.0

    def start(self) -> None:
        """Start it unless it runs, or tests do: they call `run_due` themselves."""
        if in_tests() or (self._pid == os.getpid() and self._thread is not None and self._thread.is_alive()):
            return
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="cacheadmin-reclaim", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # the process ends, or may have no more; whoever invalidates next tries again
            logger.debug("Orphans stay until they expire: %s", error)

    def _run(self) -> None:
        self._ends_at = time.monotonic() + LINGER_SECONDS
        while self._is_needed():
            time.sleep(1.0)
            try:
                run_due()
            except Exception:
                logger.exception("Orphans could not be reclaimed.")

    def _is_needed(self) -> bool:
        now = time.monotonic()
        with _lock:
            if _noted:
                self._ends_at = now + LINGER_SECONDS
            elif now >= self._ends_at:
                self._thread = None  # what is noted from now on starts another one
                return False
        return True


_thread: Final = _Thread()
