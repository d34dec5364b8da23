"""Read an entry or compute it: the miss path of the protocol, once for functions, views and template fragments.

What happens on a miss is written as a generator of steps, so that plain and `async def` callers share it: the sync
driver runs the steps in place, the async one sends I/O to the thread of the ORM and sleeps with asyncio.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from asgiref.sync import sync_to_async

from . import transactions
from .conf import config, rank, replicas
from .exceptions import CacheAway, CacheRefused, CacheSkipped
from .keys import Entry, Place
from .signals import cache_read
from .stats import recorder
from .store import ABSENT, BUSY, Fill, Found, Seen, Stamp, Store
from .store.base import LONGEST_LEASE_MS, Mode

logger = logging.getLogger("cacheadmin")

LONGEST_PATIENCE: Final = 10.0
"""Seconds that anybody waits for another one's computation at most."""

_HOST: Final = socket.gethostname()


@dataclass(frozen=True, slots=True)
class Options:
    """How the entries of one function, view or fragment are kept."""

    timeout_ms: int = 300_000
    """0 for ever, below 0 not at all."""
    grace_ms: int = 0
    single_flight: bool = True
    jitter: float = 0.0
    """Share of the timeout by which it is shortened at random, 0 to 1."""
    cache_none: bool = True
    condition: Callable[[Any], bool] | None = None
    max_value_bytes: int | None = None


class Pace:
    """How long a function takes, as this process has seen it: leases and patience grow with it."""

    __slots__ = ("slowest",)

    def __init__(self) -> None:
        self.slowest = 0.0

    def saw(self, seconds: float) -> None:
        """Note one computation."""
        self.slowest = max(self.slowest, seconds)

    def lease_ms(self) -> int:
        """Return the ms for which one computation may hold the entry."""
        return int(min(max(config().lease_seconds, 4 * self.slowest) * 1000, LONGEST_LEASE_MS))

    def patience(self) -> float:
        """Return the seconds for which the others wait for it."""
        least = config().patience_seconds
        return min(max(least, 1.5 * self.slowest), max(LONGEST_PATIENCE, least)) * random.uniform(0.9, 1.1)


class Call:
    """One read of one entry, on its way."""

    __slots__ = ("about", "compute", "entry", "options", "pace", "sender", "store")

    def __init__(
        self,
        store: Store,
        entry: Entry,
        compute: Callable[[], Any],
        *,
        options: Options,
        pace: Pace,
        about: Callable[[], dict[str, Any]],
        sender: Any,
    ) -> None:
        self.store = store
        self.entry = entry
        self.compute = compute
        self.options = options
        self.pace = pace
        self.about = about
        """Called only when a value is stored."""
        self.sender = sender

    def read(self) -> Found:
        """Read the entry as this call needs it. Cost: 1 round trip."""
        return self.store.read(self.entry, fenced=not self.options.single_flight, grace_ms=self.options.grace_ms)

    def open(self, mode: Mode, seen: Seen | None = None) -> Any:
        """Ask for a lease, or for the fence where there is no single flight. Cost: as `Store.open`."""
        options = self.options
        asked: Mode = mode if options.single_flight or mode == "take" else "fence"
        ttl_ms = options.timeout_ms + options.grace_ms if options.timeout_ms else 0
        return self.store.open(self.entry, asked, ttl_ms=ttl_ms, lease_ms=self.pace.lease_ms(), seen=seen)

    def tell(self, result: str, took_ms: float = 0.0) -> None:
        """Send the signal `cache_read`, if anybody listens."""
        if cache_read.receivers:
            place = self.entry.group.place
            cache_read.send(
                self.sender,
                alias=place.alias,
                tenant=place.tenant,
                group=self.entry.group.name,
                result=result,
                took_ms=took_ms,
            )


# --- nesting --------------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One entry that is being computed right now."""

    place: Place
    key: str


_frames: ContextVar[tuple[Frame, ...]] = ContextVar("cacheadmin_computing", default=())


class Computation:
    """Mark an entry as being computed by this thread or task, for the `with` block."""

    __slots__ = ("_frame", "_token")

    def __init__(self, entry: Entry) -> None:
        self._frame = Frame(entry.group.place, entry.key)

    def __enter__(self) -> None:
        self._token = _frames.set((*_frames.get(), self._frame))

    def __exit__(self, *_: object) -> None:
        _frames.reset(self._token)


class OutsideComputation:
    """Take what happens in the `with` block for nobody's computation, as if another process did it (tests)."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _frames.set(())

    def __exit__(self, *_: object) -> None:
        _frames.reset(self._token)


def may_be_part(place: Place) -> bool:
    """
    Say whether what is being computed may be made of cached values of this place.

    Places are invalidated in order of rank, so a value must be made only of its own place or of lower ones of its
    tenant or shared; else an outer value could outlive the inner one that it was computed from.
    """
    for frame in _frames.get():
        outer = frame.place
        if outer == place:
            continue
        if place.tenant is not None and place.tenant != outer.tenant:
            return False
        if (place.tenant is not None, rank(place.alias)) >= (outer.tenant is not None, rank(outer.alias)):
            return False
    return True


def _computes(entry: Entry) -> bool:
    return any(frame.key == entry.key for frame in _frames.get())


# --- the read -------------------------------------------------------------------------------------------------------


def attempt(call: Call) -> Found | None:
    """
    Read the entry once and count it.

    Cost:    1 round trip; none inside a transaction that has written, or while the server is away.
    Returns: what was found; None if the cache is not to be used for this call at all.
    """
    group = call.entry.group
    place = group.place
    if not transactions.may_read() or (_frames.get() and not may_be_part(place)):
        recorder.read(place.alias, group.name, place.tenant, "bypassed")
        return None
    begun = time.perf_counter_ns()
    try:
        found = call.read()
    except CacheSkipped:
        recorder.read(place.alias, group.name, place.tenant, "bypassed")
        return None
    except CacheAway:
        recorder.read(place.alias, group.name, place.tenant, "error")
        return None
    if found.state == "hit":
        recorder.read(place.alias, group.name, place.tenant, "hit", time.perf_counter_ns() - begun)
        call.tell("hit")
    elif found.state == "miss":
        recorder.read(place.alias, group.name, place.tenant, "miss", time.perf_counter_ns() - begun)
        if found.reason != "absent":  # else `miss` counts it, when it may be known why
            recorder.missed(place.alias, group.name, place.tenant, found.reason)
    return found


class Sleep(NamedTuple):
    """A step that waits."""

    seconds: float


class Computing(enum.Enum):
    """The one step `COMPUTE`: it computes the value."""

    COMPUTE = "compute"


COMPUTE: Final = Computing.COMPUTE

Steps = Generator[Callable[[], Any] | Sleep | Computing, Any, Any]
"""A step that is called talks to the cache or the database."""


def miss(call: Call, found: Found) -> Steps:
    """Compute what was missed or is stale, and store it under a stamp taken before; the generator returns the value."""
    entry, group = call.entry, call.entry.group
    place = group.place
    opened: Any = yield lambda: _allowed(call, found)
    if found.reason == "absent":
        why = opened.why if isinstance(opened, Stamp) else "absent"
        recorder.missed(place.alias, group.name, place.tenant, why)
    if opened is FORBIDDEN:
        recorder.refused(place.alias, group.name, place.tenant, "transaction")
        return (yield from _compute(call, None))
    if found.stamp is None:
        if found.state == "stale" and not isinstance(opened, Stamp):
            recorder.read(place.alias, group.name, place.tenant, "stale")
            call.tell("stale")
            return found.value
        if opened is BUSY and not _computes(entry):
            recorder.waited(place.alias, group.name, place.tenant)
            opened = yield from _wait(call)
            if isinstance(opened, Found):
                return opened.value
        if opened is BUSY:
            opened = yield lambda: _opened(call, "join")
    if found.state == "stale":
        recorder.read(place.alias, group.name, place.tenant, "miss")
        recorder.missed(place.alias, group.name, place.tenant, "expired")
    return (yield from _compute(call, opened if isinstance(opened, Stamp) else None))


def refreshing(call: Call) -> Steps:
    """Compute whatever is cached, under a lease of its own; an invalidation meanwhile still refuses the value."""
    opened: Any = None
    if call.options.timeout_ms >= 0 and (yield transactions.may_fill):
        opened = yield lambda: _opened(call, "take")
    return (yield from _compute(call, opened if isinstance(opened, Stamp) else None))


FORBIDDEN: Final = object()
"""What is computed now may not be stored."""


def _allowed(call: Call, found: Found) -> Any:
    """Return the stamp that a miss came with, or ask for one, unless what is computed now may not be stored."""
    if call.options.timeout_ms < 0 or not transactions.may_fill():
        return FORBIDDEN
    return found.stamp or _opened(call, "ask", found.seen)


def _opened(call: Call, mode: Mode, seen: Seen | None = None) -> Any:
    try:
        opened = call.open(mode, seen)
    except CacheAway:
        return None
    if not isinstance(opened, Stamp) and opened is not BUSY:
        group = call.entry.group
        recorder.refused(group.place.alias, group.name, group.place.tenant, "full")
    return opened


def _wait(call: Call) -> Steps:
    """
    Wait for whoever computes it, with growing pauses.

    Returns: a `Found` with the value; a Stamp if the lease was given back without one; BUSY when patience ends; None
             when the server goes away.
    """
    ends, pause = time.monotonic() + call.pace.patience(), 0.01
    while (left := ends - time.monotonic()) > 0:
        yield Sleep(min(pause * random.uniform(0.7, 1.3), left))
        pause = min(pause * 1.5, 0.1)
        try:
            found, is_held = yield lambda: call.store.poll(call.entry)
        except CacheAway:
            return None
        if found.state == "hit":
            call.tell("hit")
            return found
        if not is_held:
            opened = yield lambda: _opened(call, "ask")
            if opened is not BUSY:
                return opened
    return BUSY


def _compute(call: Call, stamp: Stamp | None) -> Steps:
    group = call.entry.group
    place, begun, stored = group.place, time.perf_counter(), False
    try:
        value = yield COMPUTE
        took = time.perf_counter() - begun
        call.pace.saw(took)
        recorder.computed(place.alias, group.name, place.tenant, took)
        call.tell("miss", took * 1000)
        if stamp is not None:
            stored = yield lambda: keep(call, stamp, value, took)
        return value
    finally:
        if stamp is not None and stamp.is_leased and not stored:
            give_back(call, stamp)


def give_back(call: Call, stamp: Stamp) -> None:
    """Return a lease that leads to no value, so that the next reader need not wait. Never raises."""
    try:
        call.store.release(call.entry, stamp)
    except CacheAway as error:
        logger.debug("A lease was not given back, it ends by itself: %s", error)


def keep(call: Call, stamp: Stamp, value: Any, took: float) -> bool:
    """
    Store a computed value under its stamp, if its options, its size and this thread's transactions allow.

    Cost:    1 round trip.
    Raises:  UncacheableValue.
    """
    group, options = call.entry.group, call.options
    place = group.place
    if (
        value is ABSENT
        or (value is None and not options.cache_none)
        or (options.condition is not None and not options.condition(value))
    ):
        recorder.refused(place.alias, group.name, place.tenant, "condition")
        return False
    if not transactions.may_fill():
        recorder.refused(place.alias, group.name, place.tenant, "transaction")
        return False
    encoded = call.store.encode(value)
    size = call.store.size(encoded)
    if size > (options.max_value_bytes or config().max_value_bytes):
        recorder.refused(place.alias, group.name, place.tenant, "size")
        return False
    about = call.about() | notes(took)
    try:
        stored = call.store.fill(Fill(call.entry, stamp, encoded, ttl_ms(options), about))
    except CacheRefused:
        recorder.refused(place.alias, group.name, place.tenant, "full")
        return False
    except CacheAway:
        return False
    if stored:
        recorder.filled(place.alias, group.name, place.tenant, size)
    else:
        recorder.refused(place.alias, group.name, place.tenant, "epoch")
    return stored


def notes(took: float) -> dict[str, Any]:
    """Return what a header notes about this moment: time, ms, process, release."""
    return {"at": round(time.time(), 3), "took": round(took * 1000, 1), "by": process_name(), "rel": config().release}


@cache
def process_name() -> str:
    """Return host and process id of whoever runs this."""
    return f"{_HOST}:{os.getpid()}"


os.register_at_fork(after_in_child=process_name.cache_clear)


def ttl_ms(options: Options) -> int:
    """Return the ms that a value filled now lives in the store, grace included; 0 for ever."""
    if not options.timeout_ms:
        return 0
    return max(1, int(options.timeout_ms * (1 - options.jitter * random.random()))) + options.grace_ms


# --- drivers --------------------------------------------------------------------------------------------------------


def run(call: Call, steps: Steps) -> Any:
    """Run steps in this thread; a query to a replica while they run keeps the value from being stored."""
    if not replicas():
        return _run(call, steps)
    with transactions.replica_watch():
        return _run(call, steps)


def _run(call: Call, steps: Steps) -> Any:
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        try:
            step = steps.throw(failure) if failure else steps.send(outcome)
        except StopIteration as end:
            return end.value
        outcome, failure = None, None
        try:
            if step is COMPUTE:
                with Computation(call.entry):
                    outcome = call.compute()
            elif isinstance(step, Sleep):
                time.sleep(step.seconds)
            else:
                outcome = step()
        except BaseException as error:  # noqa: BLE001 - handed into the generator, which ends what it began
            failure = error


async def run_async(call: Call, steps: Steps) -> Any:
    """Run steps for a coroutine: I/O in the thread of the ORM, whose transactions count; waiting without blocking."""
    if not replicas():
        return await _run_async(call, steps)
    with transactions.replica_watch():
        return await _run_async(call, steps)


async def _run_async(call: Call, steps: Steps) -> Any:
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        try:
            step = steps.throw(failure) if failure else steps.send(outcome)
        except StopIteration as end:
            return end.value
        outcome, failure = None, None
        try:
            if step is COMPUTE:
                with Computation(call.entry):
                    outcome = call.compute()
                    if inspect.isawaitable(outcome):
                        outcome = await outcome
            elif isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            else:
                outcome = await sync_to_async(step, thread_sensitive=True)()
        except BaseException as error:  # noqa: BLE001 - handed into the generator, which ends what it began
            failure = error


def get(call: Call) -> Any:
    """Return the entry's value, cached or computed. Cost: hit 1 round trip; miss 3, or 2 without single flight."""
    found = attempt(call)
    if found is None:
        return _bypass(call)
    if found.state == "hit":
        return found.value
    return run(call, miss(call, found))


async def get_async(call: Call) -> Any:
    """As `get`, for coroutines."""
    found = await sync_to_async(attempt, thread_sensitive=True)(call)
    if found is None:
        value = _bypass(call)
        return await value if inspect.isawaitable(value) else value
    if found.state == "hit":
        return found.value
    return await run_async(call, miss(call, found))


def _bypass(call: Call) -> Any:
    value = call.compute()
    call.tell("bypassed")
    return value
