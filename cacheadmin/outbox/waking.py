"""How those who leave something waiting reach the thread that looks after it: it stands below them all."""

from __future__ import annotations

from typing import Any, Protocol

from cacheadmin.conf import in_tests


class Wakeable(Protocol):
    """The thread, as it is seen from here."""

    def wake(self, in_seconds: float | None, *, at_once: bool = False) -> None:
        """Look after what waits, in some seconds; None: once what was written now is due."""


_thread: Wakeable | None = None


def set_thread(thread: Wakeable) -> None:
    """Set who is woken."""
    global _thread
    _thread = thread


def wake(in_seconds: float | None = None, *, at_once: bool = False) -> None:
    """
    Let this process' relay look after what waits, unless tests run.

    Rows are left to their writer at first: without `in_seconds` those of this moment are looked after a little later.
    """
    if _thread is not None and not in_tests():
        _thread.wake(in_seconds, at_once=at_once)


def has_thread(connection: Any) -> bool:
    """Say whether the relay's thread sees what waits in a database: one in memory is another one in each thread."""
    if in_tests():
        return False
    return not (connection.vendor == "sqlite" and connection.is_in_memory_db())
