"""Where in the site's own code a statement came from, for people who look for it."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Final

_NOT_THE_SITES: Final = ("django", "cacheadmin", "asyncio", "asgiref", "threading", "contextlib", "functools")

MOST: Final = 500
"""Names whose callers are kept."""

raw_sites: dict[str, str] = {}
"""Table, or first word of a statement that could not be read -> who wrote it by raw SQL first in this process."""


def note(name: str) -> None:
    """Keep who runs raw SQL now, the first time for each name. Cost: a look-up; the first time a walk up the stack."""
    if name not in raw_sites and len(raw_sites) < MOST:
        raw_sites[name] = caller()


def caller() -> str:
    """Return module, line and function of the innermost frame that is the site's own; empty if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _NOT_THE_SITES:
            return f"{module}:{frame.f_lineno} ({frame.f_code.co_name})"
        frame = frame.f_back
    return ""
