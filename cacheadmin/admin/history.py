"""What happened to a scope: the newest known invalidations of a tenant and of its groups."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.conf import config
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.models import Activity
from cacheadmin.stats import EVERY_TENANT, OTHER
from cacheadmin.stats.history import DroppedLine
from cacheadmin.targets import All, Target

ROWS_READ: Final = 200
DAYS: Final = 7

SCOPES: Final = ("tenant", "group", "prefix")
"""Kinds of targets that reach whole groups."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The newest invalidation that is known of something."""

    at: float
    """Seconds since 1970."""
    by: str
    source: str = ""
    pk: int | None = None
    """Of the line of Activity, where there is one."""


class DroppedMap:
    """The newest known invalidation of each scope of one tenant."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Dropped] = {}

    def note(self, alias: str, kind: str, name: str, made: Dropped) -> None:
        """Take in one invalidation of a tenant, group or prefix."""
        known = self._found.get((alias, kind, name))
        if known is None or made.at > known.at:
            self._found[alias, kind, name] = made

    def of(self, alias: str, group: str) -> Dropped | None:
        """Return the newest one that reached a group: its own, one of a prefix of it, or of its whole tenant."""
        hits = (
            made
            for (where, kind, name), made in self._found.items()
            if where == alias and (kind == "tenant" or name == group or (kind == "prefix" and group.startswith(name)))
        )
        return max(hits, key=lambda made: made.at, default=None)

    def newest(self) -> Dropped | None:
        """Return the newest one of any scope."""
        return max(self._found.values(), key=lambda made: made.at, default=None)


def last_dropped(tenant: str | None, rows: Sequence[Activity], lines: Sequence[DroppedLine] = ()) -> DroppedMap:
    """
    Return the newest known invalidations of a tenant's scopes.

    `rows` are what `recent` returned, `lines` what the counters know of the last day (to the minute). Cost: none.
    """
    found = DroppedMap()
    for row in rows:
        for target in targets_of(row):
            if target.kind in SCOPES and (isinstance(target.tenant, All) or target.tenant == tenant):
                for alias in config().aliases if target.alias is None else (target.alias,):
                    made = Dropped(row.at.timestamp(), row.who, row.source, row.pk)
                    found.note(alias, target.kind, target.name, made)
    for line in lines:
        kind, _blank, name = line.what.partition(" ")
        if line.source != "user" and kind in SCOPES and line.tenant in (tenant, EVERY_TENANT):
            made = Dropped(float(line.at), by_label(line.source, line.name), line.source)
            found.note(line.alias, kind, name, made)
    return found


def by_label(source: str, name: str) -> str:
    """Return who dropped something by itself: a rule's name, "sales and 2 more", "code"."""
    first, *more = name.split(", ") if name and name != OTHER else [""]
    if source not in ("rule", "relay") or not first:
        words = {"code": _("code"), "command": _("a command"), "relay": _("the relay"), "rule": _("a rule")}
        return first or words.get(source, source)
    if first.startswith("~"):  # so many names that the counters keep only a digest of them
        return _("several rules")
    if not more:
        return first
    return ngettext("%(name)s and %(n)s more", "%(name)s and %(n)s more", len(more)) % {
        "name": first,
        "n": len(more),
    }


def last_by(rule: str, lines: Sequence[DroppedLine]) -> float | None:
    """Return when a rule fired last, to the minute; None if not within what the lines tell."""
    return next((float(line.at) for line in lines if rule in line.name.split(", ")), None)


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
