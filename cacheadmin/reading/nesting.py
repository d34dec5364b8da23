"""Entries that are being computed right now, and what they may be made of."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple

from cacheadmin.conf import rank
from cacheadmin.keys import Entry, Place


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


def is_computing() -> bool:
    """Say whether this thread or task computes anything that is to be cached."""
    return bool(_frames.get())


def computes(entry: Entry) -> bool:
    """Say whether this thread or task computes this very entry: a function that calls itself."""
    return any(frame.key == entry.key for frame in _frames.get())
