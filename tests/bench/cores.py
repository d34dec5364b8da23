"""The cores of this machine as comparing needs them: awake, the server's apart from the peers'."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while os.getppid() == int(sys.argv[2]):
    for _ in range(1_000_000):
        pass
"""
"""Works on one core whenever nobody else wants it, and ends with whoever started it."""


@contextmanager
def awake() -> Iterator[list[int]]:
    """
    Keep every core from going to sleep.

    A core that has nothing to do for 50 µs halts, and a virtual one takes longer to wake up than a command takes:
    whose pauses are just longer than that seems to be three times slower than whose are not.

    Yields the process ids of those who do it.
    """
    spinning = []
    if sys.platform == "linux":
        command = [sys.executable, "-S", "-c", SPIN]
        spinning = [
            subprocess.Popen([*command, str(core), str(os.getpid())]) for core in sorted(os.sched_getaffinity(0))
        ]
    try:
        yield [process.pid for process in spinning]
    finally:
        for process in spinning:
            process.kill()
            process.wait()


@contextmanager
def apart(start: Callable[[], T]) -> Iterator[T]:
    """Yield what is started on the first core; all that is started inside runs on the others, if there are others."""
    cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if len(cores) < 2:
        yield start()
        return
    try:
        os.sched_setaffinity(0, cores[:1])
        started = start()
        os.sched_setaffinity(0, cores[1:])
        yield started
    finally:
        os.sched_setaffinity(0, cores)
