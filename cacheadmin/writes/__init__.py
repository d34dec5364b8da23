"""Every way to write to the database is seen here: hooks on the ORM's compilers, and a net at the cursor for the rest.

No signals: `update()`, `bulk_*`, raw SQL and fast deletes send none, and a receiver for deletes would make Django fetch
every row it deletes. Not seen: functions of the database that write when a SELECT calls them, triggers, the driver's
own connection and cursor (`connection.connection`, `cursor.cursor`), other programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.backends.utils import CursorWrapper

from cacheadmin import invalidation, outbox, transactions
from cacheadmin.writes import compilers, cursors
from cacheadmin.writes.callers import raw_sites
from cacheadmin.writes.cursors import unknown_statements

__all__ = ["install", "is_installed", "raw_sites", "uninstall", "unknown_statements"]

_ABSENT: Any = object()
_replaced: list[tuple[type, str, Any]] = []
_placed: list[tuple[type, str, Any]] = []
"""What stands in the place of each of `_replaced`."""


def _replace(owner: type, name: str, value: Any) -> None:
    _replaced.append((owner, name, owner.__dict__.get(name, _ABSENT)))
    _placed.append((owner, name, value))
    setattr(owner, name, value)


def install() -> None:
    """Begin to see writes and to deliver what follows from them. Once is enough; more often is harmless."""
    if _replaced:
        return
    transactions.install()
    transactions.on_end(outbox.before_commit, outbox.after_commit)
    transactions.on_written(outbox.reconsider)
    invalidation.on_failure(outbox.keep)
    for owner, name, kind in compilers.METHODS:
        original: Callable[..., Any] | None = getattr(owner, name, None)
        if original is not None:
            _replace(owner, name, compilers.hook(original, kind))
    for name in ("execute", "executemany"):
        _replace(CursorWrapper, name, cursors.hook(getattr(CursorWrapper, name)))
    _replace(CursorWrapper, "callproc", cursors.hook_procedure(CursorWrapper.callproc))
    for name in cursors.PASSED_ON:
        _replace(CursorWrapper, name, cursors.passed_on(name))


def is_installed() -> bool:
    """Say whether writes are seen: each hook stands where it was put, maybe below that of somebody who wrapped it."""
    return bool(_placed) and all(_leads_to(owner.__dict__.get(name), hook) for owner, name, hook in _placed)


def _leads_to(found: Any, hook: Any) -> bool:
    while found is not None and found is not hook:
        found = getattr(found, "__wrapped__", None)
    return found is hook


def uninstall() -> None:
    """Undo `install`."""
    _placed.clear()
    while _replaced:
        owner, name, value = _replaced.pop()
        if value is _ABSENT:
            delattr(owner, name)  # Django's class inherits it
        else:
            setattr(owner, name, value)
    transactions.uninstall()
    transactions.on_end(None, None)
    transactions.on_written(None)
    invalidation.on_failure(None)
