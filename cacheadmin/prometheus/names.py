"""Which groups and tenants have series of their own. prometheus_client never frees a series, so both are bounded."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Final

from ..conf import config
from ..exceptions import CacheAway
from ..stats import OTHER
from ..stats.agreeing import busiest, first_groups
from ..stats.history import Group
from ..texts import shown

logger = logging.getLogger("cacheadmin")

MOST_GROUPS: Final = 20
"""(alias, group) pairs that have series of their own, the site's first ones; later ones are group `other`."""

REST: Final = "other"
"""What is not counted apart."""

NOBODY: Final = "-"
"""No group (a whole tenant), no tenant (shared data)."""

REFRESH_SECONDS: Final = 600.0

LONGEST: Final = 100
"""Characters of a tenant's id that a label shows."""


class Groups:
    """The groups with series of their own: the same in all processes, since workers' series are added up."""

    def __init__(self) -> None:
        self.named: set[Group] = set()
        self._is_full = False

    def learn(self, met: Collection[Group]) -> None:
        """Name groups that are new here. Cost: one round trip; none if all are known, or the list is full."""
        new = {(alias, group) for alias, group in met if group and group != OTHER} - self.named
        if not new or self._is_full:
            return
        try:
            found = first_groups(new, MOST_GROUPS)
        except CacheAway as error:
            logger.debug("New groups are `other` for now: %s", error)
            return
        for group in found:
            if len(self.named) < MOST_GROUPS:
                self.named.add(group)
        self._is_full = max(len(found), len(self.named)) >= MOST_GROUPS

    def label(self, alias: str, group: str) -> str:
        """Return the label of a group; a page of metrics with half a character in it cannot be sent at all."""
        if not group:
            return NOBODY
        return shown(group) if (alias, group) in self.named else REST


class Tenants:
    """The tenants with series of their own; none unless METRICS_TENANTS asks for some."""

    def __init__(self) -> None:
        self.named: dict[str, None] = {}
        self._due = float("-inf")

    def refresh(self) -> None:
        """Ask now and then who is busy. Cost: one round trip in ten minutes, none without METRICS_TENANTS."""
        most, now = config().metrics_tenants, time.monotonic()
        if not most or now < self._due:
            return
        self._due = now + REFRESH_SECONDS
        try:
            found = busiest(most)
        except CacheAway as error:
            logger.debug("The busiest tenants are not known: %s", error)
            return
        if len(found) < most:
            self._due = now + REFRESH_SECONDS / 60
        for tenant in found:
            if len(self.named) < most + most // 2:  # who was busy once keeps his series: it could not be freed
                self.named[tenant] = None

    def label(self, tenant: str | None) -> str:
        """Return the label of a tenant."""
        if tenant is None:
            return NOBODY
        return shown(tenant[:LONGEST]) if tenant in self.named else REST


groups: Final = Groups()
tenants: Final = Tenants()
