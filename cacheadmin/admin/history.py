"""What happened to a scope: the newest known invalidations of a tenant and of its groups."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from django.utils import timezone

from cacheadmin.conf import managed
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.models import Activity
from cacheadmin.targets import All, Target

from . import figures

ROWS_READ: Final = 200
DAYS: Final = 7

ANY: Final = ""
"""In the place of a group: everything of the tenant."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The newest invalidation that is known of something."""

    at: float
    """Seconds since 1970."""
    by: str
    source: str = ""
    pk: int | None = None
    """Of the line of Activity, where there is one."""


def last_dropped(span: figures.Span, tenant: str | None) -> dict[tuple[str, str], Dropped]:
    """
    Return the newest known invalidation of each (alias, group) of a tenant; under (alias, "") those of all its groups.

    Cost: 1 query, 200 rows of the last 7 days.
    """
    found: dict[tuple[str, str], Dropped] = {}
    for row in recent(tenant):
        for target in targets_of(row):
            if isinstance(target.tenant, All) or target.tenant == tenant:
                made = Dropped(row.at.timestamp(), row.who, row.source, row.pk)
                for alias in managed(target.alias) if target.alias in (None, *managed(None)) else ():
                    if target.kind in ("tenant", "group"):
                        found.setdefault((alias, target.name), made)
    return found


def of_group(dropped: Mapping[tuple[str, str], Dropped], alias: str, group: str) -> Dropped | None:
    """Return the newest known invalidation of a group, its tenant's included."""
    known = [dropped[key] for key in ((alias, group), (alias, ANY)) if key in dropped]
    return max(known, key=lambda made: made.at, default=None)


def newest(dropped: Mapping[tuple[str, str], Dropped]) -> Dropped | None:
    """Return the newest of some invalidations."""
    return max(dropped.values(), key=lambda made: made.at, default=None)


def recent(tenant: str | None, days: int = DAYS) -> list[Activity]:
    """Return the newest lines of Activity that may concern a tenant. Cost: 1 query."""
    since = timezone.now() - dt.timedelta(days=days)
    kinds = (Activity.Kind.INVALIDATE, Activity.Kind.CLEAR)
    rows = Activity.objects.filter(at__gte=since, kind__in=kinds).exclude(state=Activity.State.FAILED)
    rows = rows.order_by("-at", "-pk")
    if tenant is not None:
        rows = rows.for_tenants([tenant])
    return list(rows[:ROWS_READ])


def targets_of(row: Activity) -> list[Target]:
    """Return the targets of a line of Activity; those that cannot be read are left out."""
    found = []
    for data in row.targets if isinstance(row.targets, list) else ():
        try:
            found.append(Target.from_json(data))
        except CacheAdminError:
            continue
    return found
