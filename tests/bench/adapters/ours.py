"""cacheadmin, through its backend and its decorators."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from bench.adapters.base import TENANT, Base, Way, fill_group, value_of


class Adapter(Base):
    """Defaults, but for two waits, so that a stalled machine is neither an outage nor reason to compute twice."""

    packages = ("django-prometheus", "django-cacheadmin")
    apps = ("django.contrib.admin", "django.contrib.messages", "django.contrib.sessions", "import_export", "cacheadmin")
    has_rows = True

    def settings(self) -> dict[str, Any]:
        """Return two lines, and what the run asks for."""
        return {
            "CACHES": {"default": self.alias("cacheadmin.backends.RedisCache")},
            "CACHEADMIN": {
                "TENANCY": "bench.app.tenancy.Tenancy",
                "TIMEOUT_MS": int(os.environ.get("BENCH_TIMEOUT_MS", "2000")),
                "PATIENCE_SECONDS": 10,
                "REQUEST_MEMO": bool(os.environ.get("BENCH_REQUEST_MEMO")),
                "OUTBOX": os.environ.get("BENCH_OUTBOX", "durable"),
            },
            "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        }

    def _decorate(self, function: Callable[..., Any], group: str, **options: Any) -> Any:
        from cacheadmin import cache_tenant_query

        return cache_tenant_query(timeout=3600, key_prefix=group, alias="default", **options)(function)

    def way_hit(self, size: int) -> Way:
        """A decorated function of three arguments."""
        value = value_of(size)

        def listed(tenant_id: int, branch_id: int | None = None, year: int = 2024) -> object:
            return value

        cached = self._decorate(listed, f"bench_hit_{size}")
        return lambda: cached(1, 5)

    def way_again(self, size: int) -> Way:
        """The same within one request that has read it before, with `REQUEST_MEMO`."""
        from django.core.signals import request_started

        hit = self.way_hit(size)
        hit()  # stored
        request_started.send(None)
        hit()  # read
        return hit

    def way_backend(self, size: int) -> Way:
        """`cache.get` of a scoped key."""
        from django.core.cache import cache

        cache.set("tenant:1:list:a", value_of(size))
        return lambda: cache.get("tenant:1:list:a")

    def way_miss(self) -> Way:
        """An argument that never was, under a lease."""
        return self._miss("bench_leased")

    def way_miss_unleased(self) -> Way:
        """The same with `single_flight=False`."""
        return self._miss("bench_unleased", single_flight=False)

    def way_miss_backend(self) -> Way:
        """`cache.get`, then `cache.set`, fenced by the stamp that the get remembered."""
        from django.core.cache import cache

        numbers, value = count(), value_of(1_000)

        def miss() -> None:
            key = f"tenant:1:miss:{next(numbers)}"
            if cache.get(key) is None:
                cache.set(key, value)

        return miss

    def _miss(self, group: str, **options: Any) -> Way:
        value, numbers = value_of(1_000), count()

        def listed(tenant_id: int, number: int) -> object:
            return value

        cached = self._decorate(listed, group, **options)
        return lambda: cached(1, next(numbers))

    def way_count(self) -> Way:
        """What one read adds to the counters."""
        from cacheadmin.stats import recorder

        return lambda: recorder.read("default", "bench_hit_1000", "1", "hit", 40_000)

    def way_flush(self) -> Way:
        """A flush of 1,000 counters."""
        from cacheadmin.stats import recorder

        def flush() -> None:
            for number in range(1000):
                recorder.read("default", f"group{number % 20}", str(number // 20), "hit", 40_000)
            recorder.flush()

        return flush

    def cached_names(self) -> list[str]:
        """A decorated function; the rule of `bench.app` drops it."""
        return self._names(TENANT)

    @property
    def _names(self) -> Any:
        if "names" not in self.__dict__.setdefault("_made", {}):
            self._made["names"] = self._decorate(lambda tenant_id: self.names(), "bench_items")
        return self._made["names"]

    def late_names(self, meanwhile: Callable[[], None]) -> list[str]:
        """A decorated function."""

        def names(tenant_id: int) -> list[str]:
            seen = self.names()
            meanwhile()
            return seen

        return self._decorate(names, "bench_late")(TENANT)

    def ask_fill_tenant(self, entries: int) -> int:
        """Store a tenant's entries."""
        cached = self._decorate(lambda tenant_id, number: number, "bench_tenant")
        for number in range(entries):
            cached(77, number)
        return entries

    def way_drop(self) -> Way:
        """Everything of one tenant."""
        from cacheadmin import invalidate_tenant_cache

        return lambda: invalidate_tenant_cache(77)

    def ask_fill_group(self, entries: int) -> int:
        """Store entries of one group."""
        from django.core.cache import cache

        return fill_group(cache.set_many, "tenant:77:bench_group", entries)

    def way_drop_group(self) -> Way:
        """Everything of one group, which is what a decorated function stores for a tenant."""
        cached = self._decorate(lambda tenant_id, number: number, "bench_group")
        return lambda: cached.invalidate_all(77)

    def way_browse(self) -> Way:
        """The first page of 50, with sizes and times to live, as the console asks for it."""
        from cacheadmin import browser

        return lambda: browser.entries("default", "77", "bench_tenant", limit=50)

    def ask_settle(self) -> None:
        """Give memory back now instead of in five seconds, in the middle of something else."""
        from cacheadmin import reclaiming

        reclaiming.run_due(everything=True)

    def way_reclaim(self) -> Way:
        """Give the memory of what was dropped back."""
        from cacheadmin.store import store

        def reclaim() -> None:
            from cacheadmin import reclaiming

            where = store("default")
            reclaiming.reclaim(where, where.place("77").group("bench_tenant"))

        return reclaim

    def ask_fill(self, entries: int, size: int, per_group: int = 100) -> int:
        """Store entries in groups of so many."""
        value = b"x" * size
        cached = self._decorate(lambda tenant_id, number: value, "list")
        for number in range(entries):
            cached(number // per_group, number)
        return entries

    def ask_index_bytes(self, tenant: int) -> int:
        """Return what the index of a tenant's group takes."""
        import redis

        from bench.adapters.base import URL
        from cacheadmin.store import store

        index = store("default").place(str(tenant)).group("list").index
        return int(redis.Redis.from_url(URL).memory_usage(index, samples=0) or 0)  # type: ignore[arg-type]

    def ask_header_bytes(self) -> int:
        """Return what stands before the payload of an entry that `ask_fill` has stored last."""
        import redis

        from bench.adapters.base import URL
        from cacheadmin import envelope

        client = redis.Redis.from_url(URL)
        key = next(key for key in client.scan_iter(match=f"{self.prefix}*") if b":v:" in key)
        header = envelope.parse(client.get(key))  # type: ignore[arg-type]
        assert header is not None
        return header.payload_start

    def slow(self, seconds: float) -> Callable[[Callable[[], None]], object]:
        """One decorated function, cold."""
        tell: list[Callable[[], None]] = []

        def compute(tenant_id: int) -> int:
            tell[-1]()
            time.sleep(seconds)
            return 1

        cached = self._decorate(compute, f"slow{time.monotonic_ns()}")

        def call(computed: Callable[[], None]) -> object:
            tell.append(computed)
            return cached(1)

        return call
