"""
What the cache did for the request at hand, so that each page can say so.

`note` is called for each cached read by the signal `cache_read`, and by hand where the shop reads a shortcut. The
bodies of the cached functions call `costly`, which counts that they really ran: the tests hold the two against
each other.
"""

import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from django.conf import settings

_outcomes = ContextVar("shop_outcomes", default=None)
_computed = ContextVar("shop_computed", default=None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cached read: its group, the alias it lives in, "hit", "stale", "miss" or why neither, and ms of computing."""

    group: str
    alias: str
    result: str
    took_ms: float

    @property
    def is_from_cache(self):
        return self.result in ("hit", "stale")


@contextmanager
def collected():
    """Collect the outcomes of a `with` block; yields the growing list. Blocks of one thread or task may nest."""
    outcomes = []
    token = _outcomes.set(outcomes)
    try:
        yield outcomes
    finally:
        _outcomes.reset(token)


def note(group, alias, result, took_ms=0.0):
    """Add one outcome to the request at hand; outside one it is dropped."""
    outcomes = _outcomes.get()
    if outcomes is not None:
        outcomes.append(Outcome(group, alias, result, took_ms))


def on_cache_read(sender, *, alias, group, result, took_ms, **kwargs):
    """Receive `cacheadmin.signals.cache_read`."""
    note(group, alias, result, took_ms)


@contextmanager
def counting():
    """Count which cached bodies really run in a `with` block; yields the growing list of their names."""
    names = []
    token = _computed.set(names)
    try:
        yield names
    finally:
        _computed.reset(token)


def costly(name):
    """Say that the body called `name` runs, and take SHOP_SLOW_MS longer than its queries do."""
    names = _computed.get()
    if names is not None:
        names.append(name)
    if settings.SHOP_SLOW_MS:
        time.sleep(settings.SHOP_SLOW_MS / 1000)


@contextmanager
def timed(group, alias):
    """Note a miss of `group` that took as long as the `with` block, for values that the shop stores itself."""
    started = time.perf_counter()
    yield
    note(group, alias, "miss", (time.perf_counter() - started) * 1000)
