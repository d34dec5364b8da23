"""django-cache-memoize: a decorator over `cache.get` and `cache.set`."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any

from bench.adapters.base import Base, Way, elsewhere, value_of


class Adapter(Base):
    """`@cache_memoize(timeout)`."""

    packages = ("django-cache-memoize",)

    def _decorate(self, function: Callable[..., Any], prefix: str) -> Any:
        from cache_memoize import cache_memoize

        return cache_memoize(3600, prefix=prefix)(function)

    def way_hit(self, size: int) -> Way:
        """A decorated function of three arguments."""
        value = value_of(size)

        def listed(tenant_id: int, branch_id: int | None = None, year: int = 2024) -> object:
            return value

        cached = self._decorate(listed, f"hit{size}")
        return lambda: cached(1, 5)

    def way_miss(self) -> Way:
        """The same with an argument that never was."""
        value, numbers = value_of(1_000), count()

        def listed(tenant_id: int, number: int) -> object:
            return value

        cached = self._decorate(listed, "miss")
        return lambda: cached(1, next(numbers))

    def ask_late(self) -> str:
        """`invalidate` by the writer."""
        data = ["before"]

        def read() -> str:
            seen = data[0]

            def write() -> None:
                data[0] = "after"
                cached.invalidate()

            if seen == "before":
                elsewhere(write)
            return seen

        cached = self._decorate(read, f"late{time.monotonic_ns()}")
        cached()
        return "fresh" if cached() == "after" else "stale"

    def slow(self, seconds: float) -> Callable[[Callable[[], None]], object]:
        """One decorated function, cold."""
        tell: list[Callable[[], None]] = []

        def compute() -> int:
            tell[-1]()
            time.sleep(seconds)
            return 1

        cached = self._decorate(compute, f"slow{time.monotonic_ns()}")

        def call(computed: Callable[[], None]) -> object:
            tell.append(computed)
            return cached()

        return call
