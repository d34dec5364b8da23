"""
Intents of statements that commit by themselves: written before them, and held back while they run.

Delivered before its statement has committed, such a row would be done too early; so it is due only when nobody has
renewed it for a while. A process that is killed renews nothing, and its row goes the way of all others.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

from cacheadmin.outbox import gathering, rows, waking
from cacheadmin.outbox.delivery import Receipt
from cacheadmin.transactions import Pending, is_alone

logger = logging.getLogger("cacheadmin")

HOLD: Final = dt.timedelta(seconds=20)
"""How long a row is held back by its last renewal: within what a relay takes for a clock that is ahead."""
RENEW_SECONDS: Final = 5.0

_lock = threading.Lock()
_rows: Final[set[tuple[str, int]]] = set()
"""Database alias and id of the rows whose statements this process runs now."""


def _forked() -> None:
    """Leave the rows to the parent, which runs their statements: a child would hold them back for ever."""
    global _lock
    _lock = threading.Lock()
    _rows.clear()


os.register_at_fork(after_in_child=_forked)


@contextmanager
def holding(connection: BaseDatabaseWrapper, foreseen: Pending) -> Iterator[Receipt | None]:
    """
    Keep in the database, while a statement runs, what it may have to invalidate; for `settle` after this block.

    Call it outside of transactions: the row is committed at once. A database that refuses it is a warning, since it is
    not even known whether the statement writes.
    Cost:    one statement, uncounted, and one more in 5 s while it runs, by the relay's thread.
    """
    told = gathering.gather(foreseen, connection)
    if told is None:
        yield None
        return
    try:
        receipt = Receipt(told, connection.alias, rows.insert(connection, told, HOLD), is_held=True)
    except DatabaseError as error:
        logger.warning("What a statement may change is not kept in the database while it runs: %s", error)
        yield None
        return
    row = (receipt.alias, receipt.row)
    with _lock:
        _rows.add(row)
    waking.wake(RENEW_SECONDS)
    try:
        yield receipt
    except BaseException:
        waking.wake(HOLD.total_seconds())  # it may go on at the server, so the row stays
        raise
    else:
        if not is_alone(connection):
            waking.wake(HOLD.total_seconds())  # it has begun a transaction, whose end has a row of its own
    finally:
        with _lock:
            _rows.discard(row)


def renew(aliases: Collection[str]) -> bool:
    """
    Hold back for longer what this process holds in some databases.

    Cost:    one statement a database where it holds any.
    Returns: whether there is any to be renewed again.
    """
    with _lock:  # to the end: who lets go of a row may have it delivered by anybody from that moment on
        mine = [row for row in _rows if row[0] in aliases]
        for alias in {alias for alias, _ in mine}:
            rows.change(connections[alias], [pk for of, pk in mine if of == alias], {"due": timezone.now() + HOLD})
    return bool(mine)
