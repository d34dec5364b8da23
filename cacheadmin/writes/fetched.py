"""Rows that a write returns, fetched before it is committed, and served from here."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

_NEW_RESULT: Final = frozenset(["execute", "executemany", "executescript", "callproc", "nextset"])


class Fetched:
    """
    A driver's cursor whose rows have been taken out already; all else is the cursor's own.

    SQLite commits an `UPDATE … RETURNING` outside a transaction when its last row is fetched, whenever that is: what
    follows from the write must not be done before.
    """

    __slots__ = ("_cursor", "_rows")

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._rows = deque(cursor.fetchall())

    def __getattr__(self, name: str) -> Any:
        if name in _NEW_RESULT:
            self._rows.clear()
        return getattr(self._cursor, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Fetched.__slots__:
            object.__setattr__(self, name, value)
        else:
            setattr(self._cursor, name, value)

    def __iter__(self) -> Iterator[Any]:
        while (row := self.fetchone()) is not None:
            yield row

    def fetchone(self) -> Any:
        """Return the next row; None after the last."""
        return self._rows.popleft() if self._rows else self._cursor.fetchone()

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows, at most as many; none after the last."""
        if not self._rows:
            return list(self._cursor.fetchmany() if size is None else self._cursor.fetchmany(size))
        wanted = self._cursor.arraysize if size is None else size
        return [self._rows.popleft() for _ in range(min(wanted, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows = [*self._rows, *self._cursor.fetchall()]
        self._rows.clear()
        return rows

    def close(self) -> None:
        """Close the driver's cursor, and with it these rows."""
        self._rows.clear()
        self._cursor.close()
