"""Template fragments as entries: the group is the fragment's name. Pure.

Ours and Django's builtin tag are told apart by their names, so that one never serves the other's output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .encoding import fingerprint
from .keys import Entry, Place, member

_LABEL: Final = "frag!"
_STOCK: Final = re.compile(r"template\.cache\.(?P<name>.+)\.(?P<digest>[0-9a-f]{32})", re.DOTALL)


def fragment_entry(place: Place, name: str, values: Sequence[str]) -> Entry:
    """Return the entry of our tag's fragment that varies on these values."""
    return Entry(place.group(name), member(_LABEL + fingerprint(tuple(values), {}, 26)))


def stock_fragment(key: str) -> tuple[str, str] | None:
    """Return fragment name and rest of a key that Django's own `{% cache %}` made; None for any other key."""
    match = _STOCK.fullmatch(key)
    return (match["name"], f"stock!{match['digest']}") if match else None
