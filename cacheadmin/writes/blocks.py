"""Transactions for statements that have none, and SQLite's write lock before our own SELECTs."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from cacheadmin.transactions import is_alone, own_sql
from cacheadmin.transactions.state import State


class block:  # noqa: N801 - used like a function, and a generator costs more
    """
    Open a transaction for a statement that has none, so that what belongs to it is committed with it.

    Its BEGIN and COMMIT do not show in query counts. SQLite's takes the write lock at once.
    """

    __slots__ = ("atomic", "connection")

    def __init__(self, connection: Any, *, is_needed: bool) -> None:
        self.connection = connection
        self.atomic: transaction.Atomic | None = None
        if is_needed and is_alone(connection):
            self.atomic = transaction.atomic(using=connection.alias, savepoint=False)

    def __enter__(self) -> bool:
        """Return whether the transaction is ours."""
        if self.atomic is None:
            return False
        connection = self.connection
        is_deferred = connection.vendor == "sqlite" and connection.transaction_mode is None
        if is_deferred:
            connection.transaction_mode = "IMMEDIATE"
        try:
            with own_sql.quiet():
                self.atomic.__enter__()
        finally:
            if is_deferred:
                connection.transaction_mode = None
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.atomic is not None:
            with own_sql.quiet():
                self.atomic.__exit__(kind, error, traceback)


def lock_first(connection: BaseDatabaseWrapper, state: State, model: type[Model]) -> None:
    """
    Take SQLite's write lock before a SELECT of ours does it in the way of a statement that is about to write.

    A transaction that has read fails at once where another process writes; one that begins with a write waits.
    """
    if connection.vendor != "sqlite" or state.pending.has_written or is_alone(connection):
        return
    quote = connection.ops.quote_name
    concrete: Any = model._meta.concrete_model  # a proxy has no columns of its own
    columns = (field.column for field in concrete._meta.local_concrete_fields if not field.generated)
    table, key = quote(model._meta.db_table), quote(next(columns))
    own_sql.run(connection, f"UPDATE {table} SET {key} = {key} WHERE 0")  # noqa: S608
