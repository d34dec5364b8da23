"""Since when each stamp is known to stand, so that a transaction with a snapshot of its own may store what it read.

Epochs and fences are random and never come back: a stamp that this process saw before a snapshot was taken, and sees
again, stood all the time between. No write that the snapshot lacks was invalidated before the second look.
"""

from __future__ import annotations

import math
import time
from functools import lru_cache
from typing import Final

from cacheadmin import transactions
from cacheadmin.store import Stamp

KNOWN: Final = 10_000
"""Stamps of which a process remembers when it saw them first; one that it forgets is new to it."""


@lru_cache(KNOWN)
def _first_seen(identity: bytes, epochs: tuple[bytes, ...], token: bytes) -> float:  # noqa: ARG001 - remembered by
    return time.monotonic()


def note_seen(stamp: Stamp) -> float:
    """
    Remember a stamp as soon as it is known.

    Returns: since when it is known to stand (time.monotonic); outside transactions inf: nobody needs to know.
    """
    if not transactions.is_open():
        return math.inf
    try:
        return _first_seen(stamp.identity, stamp.epochs, stamp.token)
    except TypeError:  # somebody keeps lists, say, under our names in a cache that takes them
        return math.inf


def may_keep(stamp: Stamp) -> bool:
    """
    Whether what this thread reads may be stored under a stamp.

    Cost:    two looks at an empty set while no thread of the process is in a transaction: each hit on a plain key asks.
    """
    return transactions.may_fill(note_seen(stamp) if transactions.any_begun() else math.inf)
