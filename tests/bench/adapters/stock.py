"""django-redis: `cache.get`, `cache.set`, `delete_pattern`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count, islice
from typing import Any

from django.core.cache import cache

from bench.adapters.base import Base, Way, elsewhere, fill_group, value_of


class Adapter(Base):
    """The cache-aside code that a site writes by hand."""

    def settings(self) -> dict[str, Any]:
        """Return the defaults, or what its documentation recommends against outages."""
        if "BENCH_SOCKET_TIMEOUT" not in os.environ:
            return super().settings()
        seconds = float(os.environ["BENCH_SOCKET_TIMEOUT"])
        options = {"SOCKET_TIMEOUT": seconds, "SOCKET_CONNECT_TIMEOUT": seconds, "IGNORE_EXCEPTIONS": True}
        return {"CACHES": {"default": self.alias("django_redis.cache.RedisCache", OPTIONS=options)}}

    def way_hit(self, size: int) -> Way:
        """`cache.get`."""
        cache.set("tenant:1:list:a", value_of(size))
        return lambda: cache.get("tenant:1:list:a")

    def way_miss(self) -> Way:
        """`cache.get`, then `cache.set`."""
        numbers, value = count(), value_of(1_000)

        def miss() -> None:
            key = f"tenant:1:miss:{next(numbers)}"
            if cache.get(key) is None:
                cache.set(key, value)

        return miss

    def ask_late(self) -> str:
        """`get_or_set` by the reader, `delete` by the writer: one process' memory stands for the data."""
        data = ["before"]
        cache.delete("late")

        def compute() -> str:
            seen = data[0]

            def write() -> None:
                data[0] = "after"
                cache.delete("late")

            elsewhere(write)
            return seen

        cache.get_or_set("late", compute)
        return "fresh" if cache.get("late", data[0]) == "after" else "stale"

    def ask_fill_tenant(self, entries: int) -> int:
        """Store a tenant's entries."""
        cache.set_many({f"tenant:{1}:list:{number}": 1 for number in range(entries)})
        return entries

    def way_drop(self, itersize: int = 1000) -> Way:
        """`delete_pattern`."""
        return lambda: cache.delete_pattern("tenant:1:*", itersize=itersize)  # type: ignore[attr-defined]

    def ask_fill_group(self, entries: int) -> int:
        """Store entries whose keys begin alike."""
        return fill_group(cache.set_many, "tenant:1:bench_group", entries)

    def way_drop_group(self, itersize: int = 1000) -> Way:
        """`delete_pattern`."""
        return lambda: cache.delete_pattern("tenant:1:bench_group:*", itersize=itersize)  # type: ignore[attr-defined]

    def way_browse(self) -> Way:
        """The first 50 keys by `iter_keys`, their values' sizes unknown."""
        return lambda: list(islice(cache.iter_keys("tenant:1:*", itersize=1000), 50))  # type: ignore[attr-defined]

    def ask_fill(self, entries: int, size: int) -> int:
        """Store entries by `cache.set_many`."""
        value = b"x" * size
        for start in range(0, entries, 1000):
            cache.set_many({f"tenant:{n // 100}:list:{n:08d}": value for n in range(start, min(start + 1000, entries))})
        return entries

    def slow(self, seconds: float) -> Callable[[Callable[[], None]], object]:
        """`get_or_set`."""
        key = f"slow:{time.monotonic_ns()}"

        def call(computed: Callable[[], None]) -> Any:
            def compute() -> int:
                computed()
                time.sleep(seconds)
                return 1

            return cache.get_or_set(key, compute)

        return call
