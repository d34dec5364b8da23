"""Stamps that plain reads saw, kept until the `set` that follows: so hand-written cache-aside code is fenced too.

A value computed before an invalidation is stored under the stamp its `get` saw, and is dead on arrival.
"""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from enum import Enum
from typing import Final

from django.core.signals import request_finished, request_started

from cacheadmin.memory import hits
from cacheadmin.store import Stamp

REMEMBERED: Final = 10_000
"""Keys that one request or task remembers; forgetting one marks its group."""


class Unknown(Enum):
    """What is remembered where there is no stamp."""

    NOTHING = "no get went before"
    REFUSED = "what is computed now must not be stored"


NOTHING: Final = Unknown.NOTHING
REFUSED: Final = Unknown.REFUSED


class _Memory:
    __slots__ = ("marked", "stamps")

    def __init__(self) -> None:
        self.stamps: dict[tuple[int, str], Stamp | Unknown] = {}
        self.marked: set[str] = set()
        """Groups of which a stamp was forgotten: an unfenced `set` there would be unsafe."""


_memory: ContextVar[_Memory | None] = ContextVar("cacheadmin_stamps", default=None)
_task: ContextVar[int] = ContextVar("cacheadmin_task", default=0)


def enter_task() -> None:
    """Note which asyncio task is calling, before its cache call goes to the thread that all tasks share."""
    _task.set(id(asyncio.current_task()))


def _owner() -> int:
    return _task.get() or threading.get_ident()


def remember(key: str, stamp: Stamp | Unknown) -> None:
    """Keep the stamp that a read of this Redis key saw; a later read of the same task replaces it."""
    memory = _memory.get()
    if memory is None:
        memory = _Memory()
        _memory.set(memory)
    stamps = memory.stamps
    stamps.pop((_owner(), key), None)
    stamps[_owner(), key] = stamp
    if len(stamps) > REMEMBERED:
        forgotten = next(iter(stamps))
        del stamps[forgotten]
        memory.marked.add(_group_of(forgotten[1]))


def _group_of(key: str) -> str:
    """Return what the keys of one group begin with."""
    return key.rsplit(":", 1)[0]


def take(key: str) -> Stamp | Unknown:
    """Return what the last read of this key saw, and forget both; REFUSED if the stamp had to be forgotten before."""
    hits.forget_hit(key)
    memory = _memory.get()
    if memory is None:
        return NOTHING
    found = memory.stamps.pop((_owner(), key), NOTHING)
    return REFUSED if found is NOTHING and _group_of(key) in memory.marked else found


def forget(key: str) -> None:
    """Forget one key: its own `delete` went between."""
    hits.forget_hit(key)
    if (memory := _memory.get()) is not None:
        memory.stamps.pop((_owner(), key), None)


def clear(**_: object) -> None:
    """Forget everything: a request or task begins or ends."""
    _memory.set(None)


request_started.connect(clear, dispatch_uid="cacheadmin.memory.started")
request_finished.connect(clear, dispatch_uid="cacheadmin.memory.finished")
