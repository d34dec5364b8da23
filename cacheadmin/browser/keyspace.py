"""Which raw keys of an alias are plain ones of a tenant, and about how many there are."""

from __future__ import annotations

from typing import Any, Final

from cacheadmin import connections
from cacheadmin.exceptions import InvalidKey
from cacheadmin.keys import alias_base, split

SCAN_COUNT: Final = 1000

SAMPLE: Final[tuple[tuple[Any, ...], ...]] = (("SCAN", 0, "COUNT", SCAN_COUNT), ("DBSIZE",))
"""The commands whose replies `estimate` takes."""


def is_of(key: str, tenant: str | None) -> bool:
    """Say whether a caller's key belongs to a tenant; one whose tenant cannot be told is nobody's."""
    try:
        scoped = split(key)
    except InvalidKey:
        return tenant is None
    return (scoped.tenant if scoped else None) == tenant


def estimate(alias: str, tenant: str | None, scanned: Any, total: Any) -> int:
    """Return about how many plain keys a tenant has, from the replies to SAMPLE."""
    if not isinstance(scanned, list) or not isinstance(total, int):
        return 0
    prefix = connections.prefix(alias) + ":"
    ours = alias_base(prefix[:-1], alias)
    names = [name.decode("utf-8", "surrogateescape") for name in scanned[1]]
    plain = [name[len(prefix) :] for name in names if name.startswith(prefix) and not name.startswith(ours)]
    found = sum(is_of(key, tenant) for key in plain)
    return found if int(scanned[0]) == 0 else round(found / max(1, len(names)) * total)
