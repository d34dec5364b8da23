"""Run the steps of a read: in this thread, or for a coroutine."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async

from cacheadmin import transactions
from cacheadmin.conf import replicas
from cacheadmin.reading.calls import Call
from cacheadmin.reading.nesting import Computation
from cacheadmin.reading.steps import COMPUTE, Sleep, Steps, attempt, miss
from cacheadmin.store import Found


def run(call: Call, steps: Steps) -> Any:
    """Run steps in this thread; a query to a replica while they run keeps the value from being stored."""
    if not replicas():
        return _run(call, steps)
    with transactions.replica_watch():
        return _run(call, steps)


def _run(call: Call, steps: Steps) -> Any:
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        try:
            step = steps.throw(failure) if failure else steps.send(outcome)
        except StopIteration as end:
            return end.value
        outcome, failure = None, None
        try:
            if step is COMPUTE:
                with Computation(call.entry):
                    outcome = call.compute()
            elif isinstance(step, Sleep):
                time.sleep(step.seconds)
            else:
                outcome = step()
        except BaseException as error:  # noqa: BLE001 - handed into the generator, which ends what it began
            failure = error


async def run_async(call: Call, steps: Steps) -> Any:
    """Run steps for a coroutine: I/O in the thread of the ORM, whose transactions count; waiting without blocking."""
    if not replicas():
        return await _run_async(call, steps)
    with transactions.replica_watch():
        return await _run_async(call, steps)


async def _run_async(call: Call, steps: Steps) -> Any:
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        try:
            step = steps.throw(failure) if failure else steps.send(outcome)
        except StopIteration as end:
            return end.value
        outcome, failure = None, None
        try:
            if step is COMPUTE:
                with Computation(call.entry):
                    outcome = call.compute()
                    if inspect.isawaitable(outcome):
                        outcome = await outcome
            elif isinstance(step, Sleep):
                await asyncio.sleep(step.seconds)
            else:
                outcome = await sync_to_async(step, thread_sensitive=True)()
        except BaseException as error:  # noqa: BLE001 - handed into the generator, which ends what it began
            failure = error


def get(call: Call) -> Any:
    """Return the entry's value, cached or computed. Cost: hit 1 round trip; miss 3, or 2 without single flight."""
    found = attempt(call)
    if found is None:
        return _bypass(call)
    if found.state == "hit":
        return found.value
    return run(call, miss(call, found))


async def attempt_async(make: Callable[[], Call]) -> tuple[Call, Found | None]:
    """
    Make a call and read its entry, for coroutines: both in the thread of the ORM.

    Whose entry it is may be known there alone: django-tenants keeps the tenant on that thread's connection.
    """
    return await sync_to_async(_attempted, thread_sensitive=True)(make)


def _attempted(make: Callable[[], Call]) -> tuple[Call, Found | None]:
    call = make()
    return call, attempt(call)


async def get_async(make: Callable[[], Call]) -> Any:
    """As `get`, for coroutines; `make` is called in the thread of the ORM."""
    call, found = await attempt_async(make)
    if found is None:
        value = _bypass(call)
        return await value if inspect.isawaitable(value) else value
    if found.state == "hit":
        return found.value
    return await run_async(call, miss(call, found))


def _bypass(call: Call) -> Any:
    value = call.compute()
    call.tell("bypassed")
    return value
