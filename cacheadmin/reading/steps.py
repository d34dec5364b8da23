"""
What happens on a miss, as a generator of steps, so that plain and `async def` callers share it.

A driver runs each step that is yielded and sends its outcome back in.
"""

from __future__ import annotations

import enum
import logging
import math
import random
import time
from collections.abc import Callable, Generator
from typing import Any, Final, NamedTuple

from cacheadmin import memory, transactions
from cacheadmin.conf import config
from cacheadmin.exceptions import CacheAway, CacheRefused, CacheSkipped
from cacheadmin.reading import nesting
from cacheadmin.reading.calls import Call, notes, ttl_ms
from cacheadmin.stats import recorder
from cacheadmin.store import ABSENT, BUSY, Fill, Found, Seen, Stamp
from cacheadmin.store.base import Mode

logger = logging.getLogger("cacheadmin")


def attempt(call: Call) -> Found | None:
    """
    Read the entry once and count it.

    Cost:    1 round trip; none inside a transaction that has written, while the server is away, or, with
             `REQUEST_MEMO`, for what this request has read before.
    Returns: what was found; None if the cache is not to be used for this call at all.
    """
    group = call.entry.group
    place = group.place
    is_computing = nesting.is_computing()
    if not transactions.may_read() or (is_computing and not nesting.may_be_part(place)):
        recorder.read(place.alias, group.name, place.tenant, "bypassed")
        return None
    begun = time.perf_counter_ns()
    try:
        found = (None if is_computing else _recalled(call)) or call.read()
    except CacheSkipped:
        recorder.read(place.alias, group.name, place.tenant, "bypassed")
        return None
    except CacheAway:
        recorder.read(place.alias, group.name, place.tenant, "error")
        return None
    if found.state == "hit":
        recorder.read(place.alias, group.name, place.tenant, "hit", time.perf_counter_ns() - begun)
        call.tell("hit")
        if found.sealed is not None:
            memory.keep_hit(place.alias, call.entry.key, found.sealed)
    elif found.state == "miss":
        recorder.read(place.alias, group.name, place.tenant, "miss", time.perf_counter_ns() - begun)
        if found.reason != "absent":  # else `miss` counts it, when it may be known why
            recorder.missed(place.alias, group.name, place.tenant, found.reason)
    return found


def _recalled(call: Call) -> Found | None:
    """Return what this request has read before, decoded anew; None if it has not."""
    sealed = memory.recall(call.entry.group.place.alias, call.entry.key)
    return None if sealed is None else Found("hit", call.store.decode(sealed))


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
        if opened is BUSY and not nesting.computes(entry):
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
    """
    Return the stamp that a miss came with, or ask for one, unless what is computed now may not be stored.

    A transaction with a snapshot of its own takes the group's fence instead of a lease: a lease that is new cannot
    have stood since before the snapshot, a fence can.
    """
    if call.options.timeout_ms < 0 or not transactions.may_fill(-math.inf):
        return FORBIDDEN
    opened = found.stamp or _opened(call, "ask" if transactions.may_fill() else "fence", found.seen)
    return FORBIDDEN if isinstance(opened, Stamp) and not memory.may_keep(opened) else opened


def _opened(call: Call, mode: Mode, seen: Seen | None = None) -> Any:
    try:
        opened = call.open(mode, seen)
    except CacheAway:
        return None
    if not isinstance(opened, Stamp) and opened is not BUSY:
        group = call.entry.group
        recorder.refused(group.place.alias, group.name, group.place.tenant, "full")
    if isinstance(opened, Stamp):
        memory.note_seen(opened)
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
    if not memory.may_keep(stamp):
        recorder.refused(place.alias, group.name, place.tenant, "transaction")
        return False
    encoded = call.store.encode(value)
    size = call.store.size(encoded)
    if size > (options.max_value_bytes or config().max_value_bytes):
        recorder.refused(place.alias, group.name, place.tenant, "size")
        return False
    about = call.about() | notes(took)
    memory.forget_hit(call.entry.key)
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
