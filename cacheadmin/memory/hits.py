"""
The hits of one request, so that reading them again costs no round trip: the setting `REQUEST_MEMO`.

Kept is what Redis answered, not the value: each read decodes it anew, and whoever changes a list changes his own.
A request forgets all of it with the first invalidation that it makes itself; what others invalidate meanwhile it does
not see. Nothing here is read while a value is being computed: that would be stored.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final

from django.core.signals import request_finished, request_started

from cacheadmin.conf import config

MOST_HITS: Final = 1_000
MOST_BYTES: Final = 16 * 1024 * 1024
"""Bounds of what one request keeps; what comes later is read from Redis each time."""


class _Hits:
    __slots__ = ("held", "room")

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, Any]] = {}
        """Redis key -> alias, and what its entry is decoded from."""
        self.room = MOST_BYTES


_hits: ContextVar[_Hits | None] = ContextVar("cacheadmin_hits", default=None)
"""None outside of requests, and where the setting is off."""


def keep_hit(alias: str, key: str, sealed: tuple[int, memoryview, bytes]) -> None:
    """Keep what a hit was decoded from until the request ends."""
    hits = _hits.get()
    if hits is not None and len(sealed[1]) <= hits.room and len(hits.held) < MOST_HITS:
        hits.held[key] = alias, sealed
        hits.room -= len(sealed[1])


def recall(alias: str, key: str) -> Any:
    """Return what an earlier hit of this request was decoded from, or None. Cost: none."""
    hits = _hits.get()
    if hits is None:
        return None
    of_alias, sealed = hits.held.get(key, ("", None))
    return sealed if of_alias == alias else None


def forget_hit(key: str) -> None:
    """Forget the hit of one Redis key: this request writes it."""
    hits = _hits.get()
    if hits is not None:
        hits.held.pop(key, None)


def forget_hits() -> None:
    """Forget all hits: this request has invalidated something."""
    hits = _hits.get()
    if hits is not None:
        hits.held.clear()


def _begin(**_: object) -> None:
    _hits.set(_Hits() if config().request_memo else None)


def _end(**_: object) -> None:
    _hits.set(None)


request_started.connect(_begin, dispatch_uid="cacheadmin.hits.started")
request_finished.connect(_end, dispatch_uid="cacheadmin.hits.finished")
