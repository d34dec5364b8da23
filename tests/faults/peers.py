"""Other processes of the site, forked from this one, that do what they are told, one thing at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from django.db import connections

ANSWER_SECONDS = 120
END_SECONDS = 30
_fork = multiprocessing.get_context("fork")


class Peer:
    """
    One other process. `ask` and `answer`, or both at once: `tell`.

    `begin()` is called there first. Fork before anything breaks: a child inherits what its parent knows.
    """

    def __init__(self, begin: Callable[[], object] | None = None) -> None:
        connections.close_all()  # a child must not share a connection to SQLite
        self._ours, theirs = _fork.Pipe()
        self._process = _fork.Process(target=_serve, args=(theirs, begin), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, act: Callable[..., Any], *args: Any) -> None:
        """Let it do something; the answer waits until it is fetched."""
        self._ours.send((act, args))

    def answer(self) -> Any:
        """Return what came of it. Raises: what it raised there."""
        assert self._ours.poll(ANSWER_SECONDS), "Another process does not answer."
        is_good, told = self._ours.recv()
        if not is_good:
            raise told
        return told

    def tell(self, act: Callable[..., Any], *args: Any) -> Any:
        """Let it do something now."""
        self.ask(act, *args)
        return self.answer()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        pid = self._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self._process.join(END_SECONDS)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process.is_alive():
            self.kill()
        self._ours.close()


def _serve(pipe: Any, begin: Callable[[], object] | None) -> None:
    if begin is not None:
        begin()
    while True:
        try:
            act, args = pipe.recv()
        except EOFError:
            return
        try:
            told = (True, act(*args))
        except Exception as error:
            told = (False, error)
        pipe.send(told)
