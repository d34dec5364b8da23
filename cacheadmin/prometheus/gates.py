"""How many processes keep off a cache because its server did not answer them."""

from __future__ import annotations

from ..connections import Gate, link
from ..stats.servers import redis_aliases
from .metrics import BREAKERS_OPEN


def look() -> None:
    """Note for each alias whether this process uses it. Cost: none."""
    for alias in redis_aliases():
        BREAKERS_OPEN.labels(alias).set(link(alias).gate is not Gate.UP)
