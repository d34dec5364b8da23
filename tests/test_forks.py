"""A process that is forked while another thread holds one of our locks, as servers and `multiprocessing` do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from cacheadmin import ALL, Target, memory, reclaiming, rules
from cacheadmin.connections import link
from cacheadmin.keys import Place
from cacheadmin.memory import stamps
from cacheadmin.outbox import delivery, marking, relay, reopening


def wake() -> None:
    relay._thread.wake(60.0)


def delivered() -> None:
    marking.flush("no such database")


def remembered() -> None:
    delivery.forget_remembered((Target("tenant", tenant=ALL),))


def probe() -> None:
    reopening._start(link("query"), 60.0)


def shut() -> None:
    link("query")._shut("on purpose")


def note() -> None:
    reclaiming.note(Place("p", "query", "1"), ["group"])


def read() -> None:
    SyncToAsync.thread_sensitive_context.set(ThreadSensitiveContext())  # as under ASGI
    memory.take("key")


def look() -> None:
    rules.forget()
    rules.snapshot()


LOCKS: dict[str, tuple[Callable[[], threading.Lock], Callable[[], None]]] = {
    "starting the relay": (lambda: relay._thread._starting, wake),
    "rows that were delivered": (lambda: marking._lock, delivered),
    "what waits in memory": (lambda: delivery._lock, remembered),
    "who probes": (lambda: reopening._lock, probe),
    "a link": (lambda: link("query")._lock, shut),
    "orphans": (lambda: reclaiming._lock, note),
    "requests": (lambda: stamps._lock, read),
    "rules": (lambda: rules.current._lock, look),
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_child_does_not_wait_for_a_thread_that_it_does_not_have(what: str) -> None:
    lock, act = LOCKS[what]
    with lock():
        child = os.fork()
        if not child:
            has_acted = threading.Event()
            threading.Thread(target=lambda: (act(), has_acted.set()), daemon=True).start()
            os._exit(0 if has_acted.wait(60) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_leaves_to_its_parent_what_that_has_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(marking._done, ("default", "[]"), [1])
    child = os.fork()
    if not child:
        os._exit(len(marking._done))
    assert os.waitpid(child, 0)[1] == 0
    assert marking._done == {("default", "[]"): [1]}
