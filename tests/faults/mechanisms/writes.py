"""What sees writes, and whom they touch."""

from __future__ import annotations

from cacheadmin.writes import compilers, cursors, images, inserting, looks, quick, touching
from cacheadmin.writes.statements import Statement

from .registry import mechanism


@mechanism
def net_at_the_cursor() -> None:
    """Only the ORM's compilers are looked at: text that reaches a cursor is not read."""
    cursors.statement = lambda sql, connection=None: Statement()


@mechanism
def both_tenants() -> None:
    """A row that moves is invalidated where it comes from, and not where it goes to."""
    quick._key = lambda *_: None  # each UPDATE goes the slow way
    touching.Changed._new = lambda self, old: []


@mechanism
def collapsing() -> None:
    """However many rows a transaction writes, each is known one by one."""
    for module in (compilers, images, inserting, looks, quick):
        module.MOST_ROWS = 10**9
