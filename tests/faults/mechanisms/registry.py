"""The safety mechanisms by name, and what taking one away needs."""

from __future__ import annotations

import os
from collections.abc import Callable

from cacheadmin.scripts import script

WITHOUT = "FAULTS_WITHOUT"
"""Tells processes that are started, not forked."""

MECHANISMS: dict[str, Callable[[], None]] = {}


def mechanism(without: Callable[[], None]) -> Callable[[], None]:
    """Register what takes a mechanism away, under the function's name."""
    MECHANISMS[without.__name__] = without
    return without


def take_away(name: str) -> None:
    """Run without one mechanism from now on, in this process and those it forks; `faults.web` does the same."""
    MECHANISMS[name]()
    os.environ[WITHOUT] = name


def edit_script(name: str, old: str, new: str) -> None:
    """Change the text of a Lua script. Raises: AssertionError if it does not hold what is to be replaced."""
    lua = script(name)
    assert old in lua.text, f"{name}.lua has no {old!r}: this mutation has to follow it"
    lua.text = lua.text.replace(old, new)
    lua.sha = "0" * 40  # no server knows it, so the text is sent each time
