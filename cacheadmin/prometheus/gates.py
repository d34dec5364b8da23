"""What each process says of itself: which caches it keeps off, and how long something waits in its memory."""

from __future__ import annotations

from ..connections import Gate, link
from ..outbox import remembered_since
from ..stats.servers import redis_aliases
from .metrics import BREAKERS_OPEN, MEMORY_LAG


def look() -> None:
    """Note for each alias whether this process uses it, and how long it keeps what no database does. Cost: none."""
    MEMORY_LAG.set(remembered_since())
    for alias in redis_aliases():
        BREAKERS_OPEN.labels(alias).set(link(alias).gate is not Gate.UP)
