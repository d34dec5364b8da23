"""What a site's own tests need: an empty cache, a look at what was invalidated, and writes that overtake readers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import connections, memory, outbox, reading, rules
from cacheadmin.conf import cache_aliases, cache_settings, config
from cacheadmin.functions import CachedFunction
from cacheadmin.invalidation import Invalidation
from cacheadmin.results import settled
from cacheadmin.signals import invalidated
from cacheadmin.stats import recorder
from cacheadmin.store import ABSENT
from cacheadmin.transactions import own_sql

R = TypeVar("R")


def reset() -> None:
    """Forget what this process remembers: connections, rules, stamps, counts, what waits. Redis is left alone."""
    connections.forget_links()
    memory.clear()
    memory.forget_hits()
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

    Without it values outlive the rollback of the test that cached them. Under `manage.py test --parallel` each worker
    has keys of its own, as it has a database of its own.
    """

    def setUp(self) -> None:
        """Empty the cache and forget what this process remembers of the last test."""
        if multiprocessing.parent_process() is not None:
            apart = _keys_of(multiprocessing.current_process().name)
            apart.enable()
            self.addCleanup(apart.disable)  # type: ignore[attr-defined]
        reset()
        clear()
        super().setUp()  # type: ignore[misc]

    def assertInvalidates(self, function: CachedFunction[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """As `assert_invalidates`."""
        return assert_invalidates(function, *args, **kwargs)

    def assertKeeps(self, function: CachedFunction[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """As `assert_keeps`."""
        return assert_keeps(function, *args, **kwargs)


def _keys_of(worker: str) -> override_settings:
    """Return what gives the managed aliases a prefix of their own. Otherwise workers would read each other's rows."""
    changed = {alias: cache_settings(alias) for alias in cache_aliases()}
    for alias in config().aliases:
        changed[alias] = changed[alias] | {"KEY_PREFIX": f"{changed[alias].get('KEY_PREFIX', '')}_{worker}"}
    return override_settings(CACHES=changed)


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


def assert_invalidates(
    function: CachedFunction[..., Any], *args: Any, **kwargs: Any
) -> AbstractContextManager[list[Invalidation]]:
    """
    Fail unless what is written inside the block makes one call of a cached function be computed anew.

        with assert_invalidates(inventory_list, 12, branch_id=5):
            item.save()

    The call is cached first if it is not; the block gets the list of `captured_invalidations`.
    Raises:  AssertionError, at the end of the block, or at its beginning if the call cannot be cached.
    """
    return _expecting(function, args, kwargs, stays=False)


def assert_keeps(
    function: CachedFunction[..., Any], *args: Any, **kwargs: Any
) -> AbstractContextManager[list[Invalidation]]:
    """Fail if the block invalidates one call of a cached function: another tenant's, for example."""
    return _expecting(function, args, kwargs, stays=True)


@contextmanager
def _expecting(
    function: CachedFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, stays: bool
) -> Iterator[list[Invalidation]]:
    if function.peek(*args, **kwargs) is ABSENT:
        function.warm(*args, **kwargs)
    if function.peek(*args, **kwargs) is ABSENT:
        raise AssertionError(
            f"{_shown(function, args, kwargs)} is not cached before the block: its condition or timeout forbids it, "
            "a transaction that has written is open, or Redis is away."
        )
    with captured_invalidations() as captured:
        yield captured
    if (function.peek(*args, **kwargs) is not ABSENT) is not stays:
        happened = "; ".join(f"{i.source} {i.name}: {', '.join(map(str, i.targets))}" for i in captured) or "nothing"
        raise AssertionError(
            f"{_shown(function, args, kwargs)} is {'no longer' if stays else 'still'} cached. Invalidated: {happened}."
        )


def assert_never_stale(function: CachedFunction[..., R], *args: Any, write: Callable[[], object], **kwargs: Any) -> R:
    """
    Let `write` overtake a computation, and fail if the old value is cached afterwards.

        assert_never_stale(inventory_list, 12, write=lambda: item.delete())

    The function is called with nothing cached; when it has read its data, `write` runs and returns, and only then
    is the value offered to the cache, as if another process had written at the worst moment.
    Returns: what the next caller gets.
    Raises:  AssertionError if nothing that `write` does invalidates this call.
    """
    function.invalidate(*args, **kwargs)
    call: Callable[..., R] = async_to_sync(function) if function.is_async else function  # type: ignore[arg-type]
    original, was_computed = function.function, False

    def overtake() -> None:
        nonlocal was_computed
        was_computed, is_first = True, not was_computed
        if is_first:
            with reading.OutsideComputation():
                write()

    def computed(*given: Any, **named: Any) -> Any:
        value = settled(original(*given, **named))
        overtake()
        return value

    async def computed_async(*given: Any, **named: Any) -> Any:
        value = await original(*given, **named)
        await sync_to_async(overtake, thread_sensitive=True)()
        return value

    function.function = cast(Any, computed_async if function.is_async else computed)
    try:
        call(*args, **kwargs)
    finally:
        function.function = original
    if not was_computed:
        raise AssertionError(f"{_shown(function, args, kwargs)} was served from the cache instead of being computed.")
    if function.peek(*args, **kwargs) is not ABSENT:
        raise AssertionError(
            f"{_shown(function, args, kwargs)} is cached as it was before the write: no rule of the map, and no "
            "invalidation in the code, reaches it from there."
        )
    return call(*args, **kwargs)


def _shown(function: CachedFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return f"{function.name}({', '.join([*map(repr, args), *(f'{k}={v!r}' for k, v in kwargs.items())])})"
