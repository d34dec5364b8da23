"""Texts that not every database keeps, made fit for its columns and, in JSON, back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

_SUSPECT: Final = re.compile(r"\\u0000|[\ud800-\udfff]")
"""In JSON: what PostgreSQL's jsonb refuses, NUL and halves of a pair; two halves that meet would come back as one."""

_REFUSED: Final = re.compile(r"[\0\ud800-\udfff]")
_TO_ESCAPE: Final = re.compile(r"[\0\ud800-\udfff\\]")
_ESCAPE: Final = re.compile(r"\\([0-9a-f]{4})")

ESCAPED: Final = "escaped"
"""Set in an object where a backslash and four digits stand for one character, be it the backslash itself."""

WHOLE: Final = "\\"
"""The one key where what was escaped is no object: a text that is escaped never looks like it."""


def storable(data: Any) -> Any:
    """Return what stands in a JSON column as any database takes it; mostly as it is. `restored` undoes it."""
    is_taken = isinstance(data, dict) and set(data) == {WHOLE}
    if not is_taken and not _SUSPECT.search(json.dumps(data, ensure_ascii=False)):
        return data
    found = _with_texts(data, escaped)
    return {**found, ESCAPED: True} if isinstance(data, dict) else {WHOLE: found}


def escaped(text: str) -> str:
    """Return a text as it stands in what `storable` had to change."""
    return _TO_ESCAPE.sub(lambda match: f"\\{ord(match[0]):04x}", text)


def shown(text: str) -> str:
    """Return a text for people as any database takes it: what it would refuse is spelled as Python does."""
    return _REFUSED.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def restored(payload: Any) -> Any:
    """Return what `storable` was given: from the text of a column, or from what that text says. Raises: ValueError."""
    data = json.loads(payload) if isinstance(payload, (str, bytes)) else payload
    if not isinstance(data, dict) or (data.get(ESCAPED) is not True and set(data) != {WHOLE}):
        return data
    plain = _with_texts(data, lambda text: _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text))
    return {name: value for name, value in plain.items() if name != ESCAPED} if ESCAPED in plain else plain[WHOLE]


def _with_texts(data: Any, change: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return change(data)
    if isinstance(data, dict):
        return {name: _with_texts(value, change) for name, value in data.items()}
    return [_with_texts(value, change) for value in data] if isinstance(data, list) else data
