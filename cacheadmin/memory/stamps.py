"""Stamps that plain reads saw, kept until the `set` that follows: so hand-written cache-aside code is fenced too.

A value computed before an invalidation is stored under the stamp its `get` saw, and is dead on arrival.

A request may run as several tasks and threads: each has a copy of its context, some read and others set. What such a
copy read is its own, so that nobody's later read takes the place of an earlier one; what it did not read itself it may
have got from those that did.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from enum import Enum
from itertools import count
from typing import Final
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.core.signals import request_finished, request_started

from cacheadmin import transactions
from cacheadmin.conf import replicas
from cacheadmin.memory import hits
from cacheadmin.store import Stamp

REMEMBERED: Final = 10_000
"""Keys that one request remembers; forgetting one marks its group."""


class Unknown(Enum):
    """What is remembered where there is no stamp."""

    NOTHING = "no get went before"
    REFUSED = "what is computed now must not be stored"


NOTHING: Final = Unknown.NOTHING
REFUSED: Final = Unknown.REFUSED


class _Family:
    """What all copies of one context share: those of a request."""

    __slots__ = ("has_stamps", "held", "marked", "marks_all", "strands")

    def __init__(self) -> None:
        self.strands: dict[_Strand, None] = {}
        """Those that hold stamps, the oldest first."""
        self.held = 0
        """Stamps held, about: threads do not wait for each other here."""
        self.has_stamps = False
        self.marked: set[str] = set()
        """Groups of which a stamp was forgotten: an unfenced `set` there would be unsafe."""
        self.marks_all = False

    def lent(self, key: str) -> Stamp | Unknown:
        """Return the stamp that others of the family saw; REFUSED if there are several: the older ones are dead."""
        known = [strand for strand in tuple(self.strands) if key in strand.stamps and key not in strand.lent]
        if not known:
            return NOTHING
        found = {strand.stamps.get(key, REFUSED) for strand in known}
        for strand in known:
            strand.lent.add(key)  # once: else one read for whose value nobody waits would refuse all that is set later
        return found.pop() if len(found) == 1 else REFUSED

    def shrink(self) -> None:
        """Forget the oldest stamps until there are few enough, and mark their groups."""
        while self.held > REMEMBERED:
            try:
                strand = next(iter(self.strands), None)
                key = None if strand is None else next(iter(strand.stamps), None)
            except RuntimeError:  # another thread of this request was just there; the next one to come here goes on
                return
            if strand is None:
                self.held = 0
            elif key is None:
                self.strands.pop(strand, None)
            elif strand.pop(key) is not None:
                self.marked.add(_group_of(key))
        if len(self.marked) > REMEMBERED:
            self.marked, self.marks_all = set(), True


class _Strand:
    """What one copy of a context has read."""

    __slots__ = ("family", "lent", "stamps", "steps")

    def __init__(self, family: _Family) -> None:
        self.family = family
        self.stamps: dict[str, Stamp | Unknown] = {}
        self.lent: set[str] = set()
        """Keys whose stamp another one has set a value under."""
        self.steps = count(1)
        """The next number is its owner's; whoever meets another one is a copy of him, or was copied."""

    def pop(self, key: str) -> Stamp | Unknown | None:
        """Return what it has seen of a key, and forget it."""
        found = self.stamps.pop(key, None)
        if found is not None:
            self.family.held -= 1
            if not self.stamps:
                self.family.strands.pop(self, None)
        return found


_mine: ContextVar[tuple[_Strand, int] | None] = ContextVar("cacheadmin_stamps", default=None)
"""The strand of this context, and the number of its last step on it."""

_of_requests: WeakKeyDictionary[ThreadSensitiveContext, _Family] = WeakKeyDictionary()
"""Under ASGI: `request_started` is sent from a task of its own there, whose context ends with it."""
_lock = threading.Lock()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _known() -> _Family | None:
    """Return the family of this context; None while there is none."""
    if (mine := _mine.get()) is not None:
        return mine[0].family
    if (request := SyncToAsync.thread_sensitive_context.get(None)) is None:
        return None
    with _lock:
        if (family := _of_requests.get(request)) is None:
            family = _of_requests[request] = _Family()
        return family


def _strand() -> _Strand:
    """Return this context's own strand, a new one of the same family if a copy of the context has gone on with it."""
    mine = _mine.get()
    if mine is None:
        strand = _Strand(_known() or _Family())
        step = next(strand.steps)
    else:
        strand, last = mine
        step = next(strand.steps)
        if step != last + 1:
            strand = _Strand(strand.family)
            step = next(strand.steps)
    _mine.set((strand, step))
    return strand


def remember(key: str, stamp: Stamp | Unknown) -> None:
    """Keep the stamp that a read of this Redis key saw; a later read by the same one replaces it."""
    strand = _strand()
    family, stamps = strand.family, strand.stamps
    if not stamps:
        family.strands[strand] = None
    if stamps.pop(key, None) is None:
        family.held += 1
    stamps[key] = stamp
    family.has_stamps = True
    if strand.lent:
        strand.lent.discard(key)
    if family.held > REMEMBERED:
        family.shrink()


def _group_of(key: str) -> str:
    """Return what the keys of one group begin with."""
    return key.rsplit(":", 1)[0]


def take(key: str) -> Stamp | Unknown:
    """Return what the last read of this key saw, and forget both; REFUSED if the stamp had to be forgotten before."""
    hits.forget_hit(key)
    if (family := _known()) is None:
        return NOTHING
    strand = _strand()
    if (found := strand.pop(key)) is not None:
        return found
    if family.strands and (lent := family.lent(key)) is not NOTHING:
        return lent
    return REFUSED if family.marks_all or _group_of(key) in family.marked else NOTHING


def forget(key: str) -> None:
    """Forget one key: its own `delete` went between."""
    hits.forget_hit(key)
    if _known() is not None:
        _strand().pop(key)


def clear(**_: object) -> None:
    """Forget everything: a request or task begins or ends. Copies of this context share what is remembered then."""
    _mine.set((_Strand(_Family()), 0))


def refuse_all(database: str) -> None:
    """Let nothing be stored whose `get` went before a query to a replica: what it is computed from may be older."""
    family = _known()
    if family is not None and family.has_stamps and database in replicas():
        family.has_stamps = False
        for strand in tuple(family.strands):
            for key in tuple(strand.stamps):
                strand.stamps[key] = REFUSED


request_started.connect(clear, dispatch_uid="cacheadmin.memory.started")
request_finished.connect(clear, dispatch_uid="cacheadmin.memory.finished")
transactions.on_query(refuse_all)
