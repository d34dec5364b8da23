"""Before readers come back to a server that was away or replaced: deliver to it everything that waits for it.

Otherwise a process could read, after the outage, the value that its own write of that time has made old.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from typing import Final

from django.db import connections

from cacheadmin import transactions
from cacheadmin.conf import in_tests
from cacheadmin.connections import Gated, half_a_pause, on_reopen
from cacheadmin.outbox import delivery, rows, waking
from cacheadmin.outbox.rows import Delivery
from cacheadmin.targets import Target

logger = logging.getLogger("cacheadmin")

_busy: Final[set[str]] = set()
_lock = threading.Lock()


def _forked() -> None:
    """Begin anew: the threads that were busy are the parent's."""
    global _lock
    _lock = threading.Lock()
    _busy.clear()


os.register_at_fork(after_in_child=_forked)


def reopen(link: Gated) -> None:
    """
    Probe a server and drain what waits for it, in a thread of its own: the caller does not wait.

    Where there can be no thread (tests, a database in memory) it is done at once, but never inside a transaction,
    which might not see the rows of others.
    """
    if _may_have_threads():
        _start(link, 0.0)
    elif not transactions.is_open():
        link.reopen(drain)


def watch(link: Gated) -> None:
    """Have a server that was just found away probed from now on, until it answers, and drained then."""
    if _may_have_threads():
        _start(link, half_a_pause())  # every process found it away at this moment


def _may_have_threads() -> bool:
    return not in_tests() and not any(_is_in_memory(alias) for alias in connections)


def _start(link: Gated, in_seconds: float) -> None:
    with _lock:
        if link.alias in _busy:
            return
        _busy.add(link.alias)
    try:
        threading.Thread(target=_reopen, args=(link, in_seconds), name="cacheadmin-reopen", daemon=True).start()
    except RuntimeError as error:  # the process ends, or may have no more; whoever reads next tries again
        logger.warning("The cache server of alias %r cannot be probed: %s", link.alias, error)
        with _lock:
            _busy.discard(link.alias)


def _is_in_memory(alias: str) -> bool:
    connection = connections[alias]
    return connection.vendor == "sqlite" and bool(getattr(connection, "is_in_memory_db", bool)())


def _reopen(link: Gated, in_seconds: float) -> None:
    try:
        time.sleep(in_seconds)
        while link.is_used and not link.reopen(drain, patiently=True):
            if not link.is_away:
                break  # it answers, but the database does not: whoever reads next tries again
            time.sleep(half_a_pause())
        waking.wake(at_once=True)  # it marks the rows now, not when its pause has ended
    except Exception:
        logger.exception("The cache server of alias %r cannot be trusted again yet.", link.alias)
    finally:
        connections.close_all()
        with _lock:
            _busy.discard(link.alias)
        if link.is_used and link.is_away:
            watch(link)  # found away again while this thread was ending, which kept others from starting one


def drain(alias: str, has_changed: bool) -> bool:
    """
    Deliver to one alias all that waits, whoever wrote it, and after a change of server what only the old one has seen.

    Rows stay as they are: the relay delivers them once more and marks them, which is harmless.
    Cost:    one query a database, one delivery.
    Returns: whether all of it was delivered; False also while a database does not answer.
    """
    targets: dict[Target, None] = dict.fromkeys(delivery.remembered())
    try:
        for database in rows.databases():
            for payload in rows.unseen(connections[database], with_done=has_changed):
                targets.update(dict.fromkeys(rows.read(payload).targets))
    except Exception as error:  # noqa: BLE001 - whatever keeps the database from answering, readers must wait
        logger.warning("What waits for alias %r cannot be read: %s", alias, error)
        return False
    chosen = tuple(dict.fromkeys(replace(t, alias=alias) for t in targets if t.alias in (None, alias)))
    if not chosen:
        return True
    result = delivery.deliver(Delivery(chosen, source="relay"))
    if result is None:  # nobody foresaw how it failed: one target holds up no others
        results = [delivery.deliver_or_widen(Delivery((target,), source="relay")) for target in chosen]
        return all(result is not None and result.is_done for result in results)
    return result.is_done


on_reopen(reopen, watch)
