"""Do many small things, here or in a few threads, until told to stop. Knows nothing of caches."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from django.db import connections

T = TypeVar("T")
R = TypeVar("R")

Rate = float | None | Callable[[], float | None]
"""Steps a second at most, None for as many as it can; or what tells it anew before each step."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether it is time to stop, and a wait that ends early when it is."""

    def __init__(self) -> None:
        # No Event: a signal handler that sets one while this thread is inside its `wait` waits for itself.
        self._bar = threading.Lock()
        self._bar.acquire()
        self.is_set = False
        self.signal: signal.Signals | None = None
        """Which signal asked for it, if one did."""

    def set(self) -> None:
        """Ask to stop. A second time changes nothing."""
        if not self.is_set:
            self.is_set = True
            self._bar.release()

    def wait(self, seconds: float) -> bool:
        """Wait, at most until somebody asks to stop; return whether somebody did."""
        if self._bar.acquire(timeout=max(0.0, seconds)):
            self._bar.release()
        return self.is_set


@contextmanager
def stopping() -> Iterator[Stop]:
    """
    Yield a `Stop` that the first SIGINT or SIGTERM sets; a second one does what it did before.

    Outside the main thread, where Python allows no handlers, nothing sets it.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: Any) -> None:
        restore()
        stop.signal = signal.Signals(number)
        stop.set()

    # None: a handler that was not installed from Python, which Python cannot put back.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


def spread(
    work: Callable[[T], R], items: Iterable[T], *, workers: int = 1, per_second: Rate = None, stop: Stop
) -> Iterator[R]:
    """
    Yield `work(item)` for each item, in the order in which they end.

    One worker means this thread, with its database connections and transactions. More are threads with connections of
    their own, which they close when they end. Items are taken one by one, when a worker is free and at most
    `per_second`; once `stop` is set no more are, and those under way are waited for.
    What `work` raises ends it all and is raised here.
    """
    paced = _paced(items, per_second, stop)
    if workers == 1:
        for item in paced:
            yield work(item)
        return
    inbox: SimpleQueue[T | None] = SimpleQueue()
    outbox: SimpleQueue[R | _Raised] = SimpleQueue()
    threads = [
        threading.Thread(target=_worker, args=(work, inbox, outbox), name=f"cacheadmin-worker-{i + 1}")
        for i in range(workers)
    ]
    for thread in threads:
        thread.start()
    running = 0
    try:
        for item in paced:
            inbox.put(item)
            running += 1
            if running == workers:
                running -= 1
                yield _result(outbox.get())
        while running:
            running -= 1
            yield _result(outbox.get())
    finally:
        for _ in threads:
            inbox.put(None)
        for thread in threads:
            thread.join()


def _paced(items: Iterable[T], per_second: Rate, stop: Stop) -> Iterator[T]:
    turns = Turns(per_second, stop)
    for item in items:
        if not turns.wait():
            return
        yield item


class Turns:
    """Keeps steps apart: at most so many a second, until it is time to stop."""

    def __init__(self, per_second: Rate, stop: Stop) -> None:
        self._rate = per_second
        self._stop = stop
        self._due = time.monotonic()

    def wait(self) -> bool:
        """Wait for the turn of the next step; return whether to take it. The rate is asked for each time."""
        rate = self._rate() if callable(self._rate) else self._rate
        if rate and not self._stop.is_set:
            self._stop.wait(self._due - time.monotonic())
            self._due = max(self._due, time.monotonic() - 1) + 1 / rate
        return not self._stop.is_set


class _Raised:
    """Stands for a result where there is none."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _result(result: R | _Raised) -> R:
    if isinstance(result, _Raised):
        raise result.error
    return result


def _worker(work: Callable[[Any], Any], inbox: SimpleQueue[Any], outbox: SimpleQueue[Any]) -> None:
    try:
        while (item := inbox.get()) is not None:
            try:
                outbox.put(work(item))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
                outbox.put(_Raised(error))
                return
    finally:
        connections.close_all()
