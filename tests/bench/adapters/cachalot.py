"""django-cachalot: every query is cached, every write to a table drops what was read from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.adapters.base import HIT_ROWS, TENANT, Base, Way


class Adapter(Base):
    """Nothing to decorate: its figures are of querysets."""

    packages = ("django-cachalot",)
    apps = ("cachalot",)
    has_rows = True

    def settings(self) -> dict[str, Any]:
        """Return django-redis beneath it."""
        return {"CACHES": {"default": self.alias("django_redis.cache.RedisCache")}}

    def way_queryset(self, size: int) -> Way:
        """A queryset of so many rows."""
        return lambda: list(self.Item.objects.filter(tenant_id=TENANT, branch_id=HIT_ROWS[size]))

    def cached_names(self) -> list[str]:
        """A cached queryset."""
        return self.names()

    def late_names(self, meanwhile: Callable[[], None]) -> list[str]:
        """A queryset whose rows are read, then a writer comes, then it is stored: the query's own execution stalls."""
        from django.db import connection

        def stall(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            result = execute(sql, params, many, context)
            if sql.startswith("SELECT"):
                rows = context["cursor"].cursor.fetchall()
                meanwhile()
                context["cursor"].cursor = Replayed(context["cursor"].cursor, rows)
            return result

        with connection.execute_wrapper(stall):
            return self.names()

    def ask_fill_tenant(self, entries: int) -> int:
        """One query of a tenant's rows each."""
        for number in range(entries):
            list(self.Item.objects.filter(tenant_id=77, quantity=number))
        return entries

    def way_drop(self) -> Way:
        """Its only way: all that was read from the table, of all tenants."""
        from cachalot.api import invalidate

        return lambda: invalidate("app_item")

    def ask_fill(self, entries: int, size: int) -> int:
        """One row of `size` bytes, queried in so many ways."""
        self.Item.objects.create(tenant_id=9, sku="m", name="x" * size)
        for number in range(entries):
            list(self.Item.objects.filter(tenant_id=9, quantity__lt=number + 1).values_list("name"))
        return entries

    def slow(self, seconds: float) -> Callable[[Callable[[], None]], object]:
        """A query that takes so long."""
        from django.db import connection

        mark = time.monotonic_ns() % 2**31

        def call(computed: Callable[[], None]) -> object:
            def stall(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
                if sql.startswith("SELECT"):
                    computed()
                    time.sleep(seconds)
                return execute(sql, params, many, context)

            with connection.execute_wrapper(stall):
                return list(self.Item.objects.filter(branch_id=8, quantity=mark))

        return call


class Replayed:
    """A cursor whose rows were already fetched."""

    def __init__(self, cursor: Any, rows: list[Any]) -> None:
        self._cursor, self._rows = cursor, rows

    def fetchmany(self, size: int = 1) -> list[Any]:
        """Return the next rows."""
        taken, self._rows = self._rows[:size], self._rows[size:]
        return taken

    def fetchone(self) -> Any:
        """Return the next row."""
        taken = self.fetchmany(1)
        return taken[0] if taken else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)
