"""django-cacheops: cached querysets and `@cached_as`, dropped by signals of the rows' models."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from bench.adapters.base import HIT_ROWS, TENANT, URL, Base, Way, value_of


class Adapter(Base):
    """Queries are cached automatically; functions by the queryset they depend on."""

    packages = ("django-cacheops",)
    apps = ("cacheops",)
    has_rows = True

    def settings(self) -> dict[str, Any]:
        """Return what its README asks for."""
        return {"CACHEOPS_REDIS": URL, "CACHEOPS": {"app.item": {"ops": {"fetch", "get"}, "timeout": 3600}}}

    def way_hit(self, size: int) -> Way:
        """A function that depends on a tenant's items."""
        from cacheops import cached_as

        value = value_of(size)

        @cached_as(self.Item.objects.filter(tenant_id=TENANT), timeout=3600, extra=size)
        def listed(tenant_id: int, branch_id: int | None = None, year: int = 2024) -> object:
            return value

        return lambda: listed(1, 5)

    def way_queryset(self, size: int) -> Way:
        """A queryset of so many rows."""
        return lambda: list(self.Item.objects.filter(tenant_id=TENANT, branch_id=HIT_ROWS[size]))

    def way_miss(self) -> Way:
        """The same with an argument that never was."""
        from cacheops import cached_as

        value, numbers = value_of(1_000), count()

        @cached_as(self.Item.objects.filter(tenant_id=TENANT), timeout=3600)
        def listed(tenant_id: int, number: int) -> object:
            return value

        return lambda: listed(1, next(numbers))

    def cached_names(self) -> list[str]:
        """A cached queryset."""
        return [item.name for item in self.Item.objects.filter(branch_id=7)]

    def late_names(self, meanwhile: Callable[[], None]) -> list[str]:
        """A function over a queryset."""
        from cacheops import cached_as

        @cached_as(self.Item.objects.filter(branch_id=7), timeout=3600, extra="late")
        def names() -> list[str]:
            seen = [item.name for item in self.Item.objects.filter(branch_id=7).nocache()]
            meanwhile()
            return seen

        return names()

    def ask_fill_tenant(self, entries: int) -> int:
        """Entries that depend on exactly the tenant."""
        from cacheops import cached_as

        @cached_as(self.Item.objects.filter(tenant_id=77), timeout=3600)
        def listed(number: int) -> int:
            return number

        for number in range(entries):
            listed(number)
        return entries

    def way_drop(self) -> Way:
        """What the save of a row of that tenant does: it has no operation on a tenant."""
        from cacheops import invalidate_obj

        item = self.Item(pk=1, tenant_id=77, sku="x", name="x")
        return lambda: invalidate_obj(item)

    def ask_fill(self, entries: int, size: int) -> int:
        """Entries that depend on a tenant, 100 each."""
        from cacheops import cached_as

        value = b"x" * size
        for tenant in range(entries // 100):

            @cached_as(self.Item.objects.filter(tenant_id=1000 + tenant), timeout=3600)
            def listed(number: int) -> bytes:
                return value

            for number in range(100):
                listed(number)
        return entries

    def slow(self, seconds: float) -> Callable[[Callable[[], None]], object]:
        """A function over a queryset, as it is by default: `lock=True` would be asked for."""
        from cacheops import cached_as

        tell: list[Callable[[], None]] = []
        mark = str(time.monotonic_ns())

        @cached_as(self.Item.objects.filter(branch_id=8), timeout=3600, extra=mark)
        def compute() -> int:
            tell[-1]()
            time.sleep(seconds)
            return 1

        def call(computed: Callable[[], None]) -> object:
            tell.append(computed)
            return compute()

        return call
