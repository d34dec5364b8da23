"""Counting: one recorder a process, whose counts go to Redis roll-ups and to registered sinks every few seconds.

Nothing here may cost a read more than a fraction of a microsecond, and nothing here may raise to a caller.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing.util
import os
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Final, Protocol

from ..conf import config
from .counts import EVENTS, INDEX, LATENCY_BOUNDS_US, OTHER, TIMES, Cell, Delta, Mark, Sink
from .shards import Owner, Shard, take_counts

logger = logging.getLogger("cacheadmin")

CELLS_PER_THREAD: Final = 4096
"""Most (alias, group, tenant) that one thread counts apart between two flushes; the rest is counted under OTHER."""

NAMES_FREED: Final = 500
"""Most rules, or rules that fired together, for which one thread counts what was given back; the rest is OTHER's."""

EVERYTHING_SECONDS: Final = 15.0
"""Seconds between two flushes of everything."""

_BOUNDS_NS: Final = [1000 * bound for bound in LATENCY_BOUNDS_US]
_WAITED, _INVALIDATED = INDEX["waited"], INDEX["invalidated"]
_COMPUTED, _COMPUTE_US = INDEX["computed"], INDEX["compute_us"]
_TIMED, _READ_US = range(len(EVENTS), len(EVENTS) + len(TIMES))
_FILLED, _FILLED_BYTES, _DROPPED = INDEX["filled"], INDEX["filled_bytes"], INDEX["dropped"]


class Keeper(Protocol):
    """Where the counts of all processes come together."""

    def push(self, delta: Delta, *, everything: bool) -> bool:
        """Take a delta; say whether what was to be sent has arrived: `everything`, or only what pages look at first."""
        ...

    def measure(self) -> None:
        """Look at the servers. Called by the flushing thread before each flush."""
        ...

    def reset(self) -> None:
        """Forget what has not arrived."""
        ...


class _Local(threading.local):
    shard: Shard
    counts: dict[Cell | str, list[int]]
    owner: Owner


class Recorder:
    """
    Counts reads, fills and invalidations of this process.

    Each thread adds to lists of its own, without a lock, and nobody ever sets them back: a flush takes the difference
    to what it saw last. So no count is lost and none is counted twice, whichever moment a thread is interrupted at.
    """

    def __init__(self) -> None:
        self.sinks: list[Sink] = []
        self.keeper: Keeper | None = None
        """Set by `stats`."""
        self.watchers: list[Callable[[], None]] = []
        """Called by the flushing thread before each flush, under its lock: quick ones, that no fork may interrupt."""
        self.visitors: list[Callable[[], None]] = []
        """The same outside the lock: they may wait, for a database."""
        self._start()
        atexit.register(self.flush)
        if hasattr(os, "register_at_fork"):
            # A fork waits for a running flush, so that no lock or connection is inherited in the middle of its use.
            os.register_at_fork(
                before=lambda: self._lock.acquire(),
                after_in_parent=lambda: self._lock.release(),
                after_in_child=self._start,
            )

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._starting = threading.Lock()
        self._local = _Local()
        self._shards: list[Shard] = []
        self._marks: list[Mark] = []
        self._window = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    # --- counting ---------------------------------------------------------------------------------------------------

    def read(self, alias: str, group: str, tenant: str | None, result: str, took_ns: int = 0) -> None:
        """Count one read that ended as one of RESULTS; `took_ns` above 0 is its latency. Cost: about 0.4 us, no I/O."""
        local = self._local
        try:
            cell = local.counts[alias, group, tenant]
            cell[INDEX[result]] += 1
            if took_ns > 0:
                cell[_TIMED] += 1
                cell[_READ_US] += (took_ns + 500) // 1000
                local.counts[alias][bisect_left(_BOUNDS_NS, took_ns)] += 1
        except (AttributeError, KeyError):
            self._read_new(alias, group, tenant, result, took_ns)

    def _read_new(self, alias: str, group: str, tenant: str | None, result: str, took_ns: int) -> None:
        """Count a read of which the cell, or only the alias' latency, is new in this thread."""
        counted = (alias, group, tenant) in getattr(self._local, "counts", ())
        if not counted:
            cell = self._cell(alias, group, tenant)
            cell[INDEX[result]] += 1
            if took_ns > 0:
                cell[_TIMED] += 1
                cell[_READ_US] += (took_ns + 500) // 1000
        if took_ns > 0:
            counts = self._local.counts
            counts.setdefault(alias, [0] * (len(_BOUNDS_NS) + 1))[bisect_left(_BOUNDS_NS, took_ns)] += 1

    def missed(self, alias: str, group: str, tenant: str | None, reason: str) -> None:
        """Count why a read missed, one of MISS_REASONS; the read itself is counted by `read`."""
        self._cell(alias, group, tenant)[INDEX[f"missed_{reason}"]] += 1

    def computed(self, alias: str, group: str, tenant: str | None, seconds: float) -> None:
        """Count one computation of a value and the seconds it took."""
        cell = self._cell(alias, group, tenant)
        cell[_COMPUTED] += 1
        cell[_COMPUTE_US] += round(seconds * 1_000_000)

    def filled(self, alias: str, group: str, tenant: str | None, size_bytes: int) -> None:
        """Count one stored value and its size."""
        cell = self._cell(alias, group, tenant)
        cell[_FILLED] += 1
        cell[_FILLED_BYTES] += size_bytes

    def refused(self, alias: str, group: str, tenant: str | None, reason: str) -> None:
        """Count one value that was not stored, for one of REFUSE_REASONS."""
        self._cell(alias, group, tenant)[INDEX[f"refused_{reason}"]] += 1

    def waited(self, alias: str, group: str, tenant: str | None) -> None:
        """Count one wait for another caller's computation."""
        self._cell(alias, group, tenant)[_WAITED] += 1

    def dropped(self, alias: str, group: str, tenant: str | None, entries: int) -> None:
        """Count entries that an invalidation has removed: at once those it names, later those it left unreadable."""
        if entries:
            self._cell(alias, group, tenant)[_DROPPED] += entries

    def freed(self, name: str, entries: int) -> None:
        """Count entries given back for what a rule invalidated, or several that fired together; seconds later."""
        if entries and name:
            self._cell(config().stats_alias, "", None)  # makes sure that there is a shard, and a flush
            freed = self._local.shard.freed
            name = name if name in freed or len(freed) < NAMES_FREED else OTHER
            freed[name] = freed.get(name, 0) + entries

    def invalidated(
        self, alias: str, tenant: str | None, what: str, source: str, name: str, *, is_first: bool = True
    ) -> None:
        """
        Count what one delivery dropped: `what` ("group inventory_list", "tag branch:5", "tenant"), by one of SOURCES.

        A delivery that drops several things of one alias and tenant is one invalidation of it: `is_first` says which.

        `tenant` is EVERY_TENANT where all were reached. `name` is the rule's or the person's. A whole tenant or alias
        that a person drops, in the console or by a command, is also marked on the charts.
        """
        group = what[6:] if what.startswith("group ") else ""
        self._cell(alias, group, tenant)[_INVALIDATED] += is_first
        shard = self._local.shard
        shard.sources[alias, source] = shard.sources.get((alias, source), 0) + is_first
        kind = (alias, tenant, what, source, name)
        if kind not in shard.dropped and len(shard.dropped) >= CELLS_PER_THREAD:
            if shard.born != self._window:
                shard = self._new_shard()
            else:
                kind = (alias, OTHER, OTHER, source, OTHER)
        shard.dropped[kind] = shard.dropped.get(kind, 0) + 1
        if what == "tenant" and source in ("user", "command"):
            self.mark(Mark("clear", alias, time.time(), tenant))

    def mark(self, mark: Mark) -> None:
        """Name a moment on the charts: a clear, an edited rule. At most 100 between two flushes are kept."""
        if len(self._marks) < 100:
            self._marks.append(mark)
        self._cell(config().stats_alias, "", None)  # makes sure that a flush follows

    def _cell(self, alias: str, group: str, tenant: str | None) -> list[int]:
        """Return this thread's numbers of a cell."""
        try:
            return self._local.counts[alias, group, tenant]
        except (AttributeError, KeyError):
            return self._new_cell((alias, group, tenant))

    def _new_cell(self, cell: Cell) -> list[int]:
        shard = getattr(self._local, "shard", None)
        if shard is None or (len(shard.counts) >= CELLS_PER_THREAD and shard.born != self._window):
            shard = self._new_shard()
        if len(shard.counts) >= CELLS_PER_THREAD:
            cell = (cell[0], OTHER, OTHER)
        return shard.counts.setdefault(cell, [0] * (len(EVENTS) + len(TIMES)))

    def _new_shard(self) -> Shard:
        """Give this thread an empty shard; a full one is left to the next flush, which then forgets it."""
        owner = Owner()
        shard = Shard(self._window, owner)
        self._shards.append(shard)
        with self._starting:  # not the lock of a flush: that one may be waiting for Redis
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, args=(self._wake, config().flush_seconds), name="cacheadmin-stats", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError as error:  # the process ends, or may have no more; the next shard tries again
                    logger.debug("Counts wait for a flush by hand: %s", error)
                    self._thread = None
                else:
                    self._flush_at_the_end_of_a_child()
        # Last: the old owner's death says that nobody adds to its shard any more.
        self._local.shard, self._local.counts, self._local.owner = shard, shard.counts, owner
        return shard

    def _flush_at_the_end_of_a_child(self) -> None:
        """
        Have `multiprocessing` or Celery flush: their children end by `os._exit`, which leaves out what `atexit` says.

        Those of Celery's prefork pool are `billiard`'s, which `multiprocessing` does not know. Where they are, its
        signals were imported before.
        """
        if multiprocessing.parent_process() is not None:
            multiprocessing.util.Finalize(None, self.flush, exitpriority=0)
        signals = sys.modules.get("celery.signals")
        if signals is not None:
            signals.worker_process_shutdown.connect(self._flush_at_last, weak=False, dispatch_uid="cacheadmin.stats")

    def _flush_at_last(self, **_: object) -> None:
        self.flush()

    # --- flushing ---------------------------------------------------------------------------------------------------

    def _run(self, stop: threading.Event, seconds: float) -> None:
        everything_at = time.monotonic()
        while not stop.wait(seconds):
            self._call(self.visitors)
            # Everything under the lock: a child forked while this thread imports a module could never import it.
            with self._lock:
                seconds = config().flush_seconds
                try:
                    if self.keeper is not None:
                        self.keeper.measure()
                except Exception:
                    logger.exception("The cache servers could not be measured.")
                self._call(self.watchers)
                is_due = time.monotonic() >= everything_at
                if is_due:
                    everything_at = time.monotonic() + EVERYTHING_SECONDS
                self.flush(everything=is_due)

    @staticmethod
    def _call(some: list[Callable[[], None]]) -> None:
        for each in some:
            try:
                each()
            except Exception:
                logger.exception("What looks on before each flush failed.")

    def flush(self, *, everything: bool = True) -> bool:
        """
        Hand what was counted to the sinks and to the roll-ups.

        Cost:    one round trip, none if nothing was counted. Not `everything` is a fifth of the work for Redis: the
                 minutes of aliases, groups and tenants; hours, and groups of one tenant, wait for the next flush.
        Returns: whether Redis has everything; if not, it is kept and tried again with the next flush.
        """
        with self._lock:
            delta = self._take()
            for sink in self.sinks if delta else ():
                try:
                    sink(delta)
                except Exception:
                    logger.exception("A sink of the recorder failed.")
            try:
                return self.keeper is None or self.keeper.push(delta, everything=everything)
            except Exception:
                logger.exception("Counts could not be kept.")
                return False

    def _take(self) -> Delta:
        delta = Delta()
        self._window += 1
        taken = len(self._marks)
        delta.marks, self._marks[:taken] = self._marks[:taken], []
        for shard in list(self._shards):
            has_ended = shard.owner() is None  # asked before its numbers are read
            take_counts(shard, delta)
            if has_ended:
                self._shards.remove(shard)
        return delta

    def reset(self) -> None:
        """Forget what was counted and not flushed, and end the flushing thread (tests)."""
        with self._lock:
            self._wake.set()
            if self.keeper is not None:
                self.keeper.reset()
        self._start()


recorder: Final = Recorder()
