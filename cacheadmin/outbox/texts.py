"""Texts that not every database keeps, made fit for a payload and back. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

_SUSPECT: Final = re.compile(r"\\u0000|[\ud800-\udfff]")
"""In JSON: what PostgreSQL's jsonb refuses, NUL and halves of a pair; two halves that meet would come back as one."""

_TO_ESCAPE: Final = re.compile(r"[\0\ud800-\udfff\\]")
_ESCAPE: Final = re.compile(r"\\([0-9a-f]{4})")

ESCAPED: Final = "escaped"
"""Set in a payload where a backslash and four digits stand for one character, be it the backslash itself."""


def storable(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload as any database takes it; mostly as it is. `restored` undoes it."""
    if not _SUSPECT.search(json.dumps(payload, ensure_ascii=False)):
        return payload
    escaped = _with_texts(payload, lambda text: _TO_ESCAPE.sub(lambda match: f"\\{ord(match[0]):04x}", text))
    return {**escaped, ESCAPED: True}


def restored(payload: Any) -> Any:
    """Return what `storable` was given: from the text of a column, or from what that text says. Raises: ValueError."""
    data = json.loads(payload) if isinstance(payload, (str, bytes)) else payload
    if not isinstance(data, dict) or data.get(ESCAPED) is not True:
        return data
    plain = _with_texts(data, lambda text: _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text))
    del plain[ESCAPED]
    return plain


def _with_texts(data: Any, change: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return change(data)
    if isinstance(data, dict):
        return {name: _with_texts(value, change) for name, value in data.items()}
    return [_with_texts(value, change) for value in data] if isinstance(data, list) else data
