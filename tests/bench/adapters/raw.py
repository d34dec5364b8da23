"""The floor: redis-py alone, and Django's ORM without any cache."""

from __future__ import annotations

import pickle
from itertools import count
from typing import Any

import redis

from bench.adapters.base import URL, Base, Way, pickled, value_of


class Adapter(Base):
    """GET and unpickle; SET and pickle; UNLINK of names that are known."""

    def settings(self) -> dict[str, Any]:
        """Return nothing: no cache is used."""
        self.client = redis.Redis.from_url(URL)
        return {}

    def way_hit(self, size: int) -> Way:
        """GET and unpickle."""
        self.client.set("raw:k", pickled(value_of(size)))
        return lambda: pickle.loads(self.client.get("raw:k"))  # type: ignore[arg-type]

    def way_miss(self) -> Way:
        """GET what is not there, SET it."""
        numbers, value = count(), value_of(1_000)

        def miss() -> None:
            key = f"raw:m:{next(numbers)}"
            if self.client.get(key) is None:
                self.client.set(key, pickled(value), ex=3600)

        return miss

    def ask_fill(self, entries: int, size: int) -> int:
        """Store entries of `size` bytes under names as long as a site's."""
        pipe = self.client.pipeline(transaction=False)
        for number in range(entries):
            pipe.set(f"{self.prefix}:1:tenant:{number // 100}:list:{number:08d}", b"x" * size, ex=3600)
            if number % 1000 == 999:
                pipe.execute()
        pipe.execute()
        return entries

    def ask_learn(self, pattern: str) -> int:
        """Note the names that `way_unlink` removes."""
        self.learnt = list(self.client.scan_iter(pattern, count=1000))
        return len(self.learnt)

    def way_unlink(self) -> Way:
        """Remove names that are known, in one pipeline: the floor of giving memory back."""

        def unlink() -> None:
            pipe = self.client.pipeline(transaction=False)
            for name in self.learnt:
                pipe.unlink(name)
            pipe.execute()

        return unlink
