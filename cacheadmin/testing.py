"""What a site's own tests need: a cache that is empty at the start of each test, and a look at what was invalidated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.cache import caches

from cacheadmin import connections, memory, outbox, rules
from cacheadmin.conf import config
from cacheadmin.invalidation import Invalidation
from cacheadmin.signals import invalidated
from cacheadmin.stats import recorder
from cacheadmin.transactions import own_sql


def reset() -> None:
    """Forget what this process remembers: connections, rules, stamps, counts, what waits. Redis is left alone."""
    connections.forget_links()
    memory.clear()
    outbox.reset()
    own_sql.forget_tables()
    recorder.reset()
    rules.forget()


def clear() -> None:
    """Drop all that the managed aliases hold, each by its own prefix. Cost: a SCAN an alias."""
    for alias in config().aliases:
        caches[alias].clear()


class CacheTestMixin:
    """
    For a Django test case: the cache is empty when a test begins, as the database is.

        class InventoryTests(CacheTestMixin, TestCase):
            ...

    Without it values outlive the rollback of the test that cached them.
    """

    def setUp(self) -> None:
        """Empty the cache and forget what this process remembers of the last test."""
        reset()
        clear()
        super().setUp()  # type: ignore[misc]


@contextmanager
def captured_invalidations() -> Iterator[list[Invalidation]]:
    """
    List what is invalidated inside a block, whoever asked for it: rules, code, commands, people.

        with captured_invalidations() as dropped:
            item.save()
        assert [target.name for target in dropped[0].targets] == ["inventory", "dashboard"]

    What waits for a commit appears when it is delivered; inside a `TestCase` that is at the end of the outermost
    `atomic` block of the tested code.
    """
    captured: list[Invalidation] = []

    def note(*, invalidation: Invalidation, **_: Any) -> None:
        captured.append(invalidation)

    invalidated.connect(note, weak=False)
    try:
        yield captured
    finally:
        invalidated.disconnect(note)
