"""Which entries an invalidation reaches, and which invalidations wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cacheadmin.exceptions import InvalidTarget
from cacheadmin.models import Intent
from cacheadmin.targets import All, Target, matches

INTENTS_READ: Final = 200
"""Waiting invalidations that a page looks at."""


def waiting_targets() -> list[Target]:
    """Return the targets of the newest invalidations that wait for Redis. Cost: 1 query."""
    rows = Intent.objects.filter(state=Intent.State.PENDING).order_by("-pk").values_list("payload", flat=True)
    found: list[Target] = []
    for payload in rows[:INTENTS_READ]:
        for data in payload.get("targets", ()) if isinstance(payload, dict) else ():
            try:
                found.append(Target.from_json(data))
            except InvalidTarget:
                continue  # a row that cannot be read is the relay's to widen and to report
    return found


def covers(target: Target, alias: str, tenant: str | None, group: str, tags: Sequence[str] = (), key: str = "") -> bool:
    """Say whether an invalidation reaches an entry; `key` is the caller's key without `tenant:<id>:`."""
    if target.alias not in (None, alias) or not (isinstance(target.tenant, All) or target.tenant == tenant):
        return False
    if target.kind == "tenant":
        return True
    if target.kind == "group":
        return target.name == group
    if target.kind == "prefix":
        return group.startswith(target.name)
    if target.kind == "tag":
        return target.name in tags
    if target.kind == "pattern":
        return matches(target.name, key)
    return target.name == key
