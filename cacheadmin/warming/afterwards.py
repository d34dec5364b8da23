"""Warm afterwards: what a rule with `warm` has dropped is computed again in the background.

Whoever writes pays one look-up in a dict. A thread of each process warms, a second later at the earliest, so that many
writes cost one computation. What it does not come to is a miss.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from django.db import connections

from .. import outbox, rules
from ..conf import in_tests
from ..functions import CachedFunction, registry
from ..invalidation import Invalidation
from ..outbox import Delivery
from ..rules import RuleTarget
from .runs import Report, plan, run

logger = logging.getLogger("cacheadmin")

GATHER_SECONDS: Final = 1.0
"""How long writes are gathered before what they dropped is warmed."""

MOST_WAITING: Final = 10_000
"""Pairs of rule and tenant that wait; those beyond are left to their readers."""

_lock = threading.Lock()
_waiting: dict[tuple[str, str | None], None] = {}
_wake = threading.Event()
_thread: threading.Thread | None = None
_pid = 0


def install() -> None:
    """Begin to listen to deliveries. Once is enough; more often is harmless."""
    global _is_installed
    if not _is_installed:
        outbox.on_delivered(note)
        _is_installed = True


_is_installed = False


def note(delivery: Delivery, _result: Invalidation) -> None:
    """
    Remember whose caches to warm after a delivery.

    A rule that drops the caches of all tenants warms shared data only: nobody knows which of the others are read.
    """
    if not delivery.warm:
        return
    tenants = {target.tenant if isinstance(target.tenant, str) else None for target in delivery.targets}
    with _lock:
        for name in delivery.warm:
            for tenant in tenants:
                if len(_waiting) < MOST_WAITING:
                    _waiting[name, tenant] = None
    if not in_tests():
        _start()


def run_waiting() -> Report:
    """
    Warm what waits, in this thread. Called by the thread of this process; by hand in tests, where there is none.

    Cost:    as `runs.warm` for each call of each function that the rules' targets reach; 1 round trip for a fresh one.
    """
    with _lock:
        taken = list(_waiting)
        _waiting.clear()
    known = {rule.name: rule.targets for rule in rules.all_rules()}
    by_tenant: dict[str | None, dict[str, CachedFunction[Any, Any]]] = {}
    for name, tenant in taken:
        found = reached(known.get(name, ()))
        by_tenant.setdefault(tenant, {}).update((function.name, function) for function in found)
    steps = (
        step
        for tenant, functions in by_tenant.items()
        for step in plan(functions.values(), () if tenant is None else (tenant,), shared=tenant is None)
    )
    report = run(steps)
    for call, error in report.failures[:3]:
        logger.warning("Warming %s failed: %s", call, error)
    return report


def reached(targets: Iterable[RuleTarget]) -> list[CachedFunction[Any, Any]]:
    """Return the functions with something to warm that targets may drop; one they do not reach is fresh, and cheap."""
    targets = tuple(targets)
    return [f for f in list(registry.values()) if f.warm_with is not None and any(_reaches(t, f) for t in targets)]


def _reaches(target: RuleTarget, function: CachedFunction[Any, Any]) -> bool:
    if target.alias not in (None, function.alias):
        return False
    if target.kind in ("group", "fragment"):
        return target.name == function.group
    if target.kind == "prefix":
        return function.group.startswith(target.name)
    return bool(function.tags) if target.kind == "tag" else True


def _start() -> None:
    global _thread, _pid
    with _lock:
        if _pid != os.getpid() or _thread is None or not _thread.is_alive():
            _pid = os.getpid()
            _thread = threading.Thread(target=_work, name="cacheadmin-warming", daemon=True)
            _thread.start()
    _wake.set()


def _work() -> None:
    while True:
        _wake.wait()
        time.sleep(GATHER_SECONDS)
        _wake.clear()
        try:
            run_waiting()
        except Exception:
            logger.exception("What was to be warmed afterwards is left to its readers.")
        finally:
            connections.close_all()
