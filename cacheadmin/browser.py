"""What is in the cache: tenants, groups, entries, plain keys. The only place that asks Redis for lists.

Nothing here unpickles, and nothing here decides who may see what: callers pass tenants they have checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .conf import managed
from .connections import link
from .exceptions import CacheAway


@dataclass(frozen=True, slots=True)
class Away:
    """An alias whose server does not answer."""

    alias: str
    since: float
    """Seconds since 1970 at which this process found out."""


def away(aliases: Sequence[str] | None = None) -> list[Away]:
    """
    Return the managed aliases whose server does not answer now.

    Cost: one PING an alias; while a server is away at most one call a second waits for its timeout.
    """
    found = []
    for alias in managed(None) if aliases is None else aliases:
        try:
            link(alias).call(("PING",))
        except CacheAway:
            found.append(Away(alias, link(alias).away_since))
    return found
