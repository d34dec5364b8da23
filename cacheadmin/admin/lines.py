"""Lines of Activity: what is written in the database, and what rules and code did by themselves, in one order of time.

Rows of the database are kept for good; what happened by itself is summed up by minute and known for 24 hours.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone

from cacheadmin import outbox, progress
from cacheadmin.admin import history, naming, told
from cacheadmin.admin.access import Access
from cacheadmin.models import Activity
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import Everyone


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    at: float
    """Seconds since 1970; of a summed line the minute it began in."""
    key: str
    """Tells lines of one moment apart; the later in the text's order the later it is taken to be."""
    kind: str
    source: str
    what: str
    """What it was about, in words; empty where its targets say it."""
    who: str = ""
    """A user, a command, a rule."""
    tenants: tuple[str | None, ...] | Everyone = ()
    targets: tuple[Target, ...] = ()
    entries: int | None = None
    took_ms: float | None = None
    state: str = "done"
    count: int = 1
    since: float | None = None
    """When the first of them happened, where a line stands for more than a minute."""
    pk: int | None = None

    @property
    def place(self) -> tuple[float, str]:
        """Where it stands in the order of time."""
        return self.at, self.key

    def words(self, labels: told.Labels) -> str:
        """Return what it was about; `labels` name its tenants."""
        return self.what or told.targets_in_words(self.targets, labels)


@dataclass(frozen=True, slots=True)
class Wish:
    """What of it is wanted. An empty text means any."""

    access: Access
    tenant: str | None = ""
    rules: frozenset[str] | None = None
    """Names; None for any."""
    who: str = ""
    source: str = ""
    state: str = ""
    day: dt.date | None = None
    before: tuple[float, str] | None = None

    @property
    def since(self) -> float:
        """The earliest moment wanted."""
        return _midnight(self.day) if self.day else 0.0

    @property
    def until(self) -> float:
        """The latest moment wanted."""
        end = _midnight(self.day + dt.timedelta(days=1)) if self.day else time.time() + 60
        return min(end, self.before[0]) if self.before else end


def _midnight(day: dt.date) -> float:
    return timezone.make_aware(dt.datetime.combine(day, dt.time())).timestamp()


def waiting(wish: Wish, limit: int = 50) -> list[Line]:
    """Return what waits for Redis, oldest first. Cost: one query."""
    rows = rows_for(replace(wish, state=Activity.State.WAITING, before=None)).order_by("at", "pk")
    return [line_of(row, wish.access) for row in rows[:limit]]


def rows_for(wish: Wish) -> QuerySet[Activity]:
    """Return the rows that are wanted, newest first, without those that wait unless they are asked for."""
    rows: Any = Activity.objects.all()
    seen = wish.access.tenants
    if not isinstance(seen, Everyone):
        rows = rows.for_tenants(seen)
    if wish.access.is_restricted:
        rows = rows.filter(alias__in=["", *wish.access.aliases])
    if wish.tenant:
        rows = rows.for_tenants([wish.tenant])
    waiting_rows = Activity.State.WAITING  # listed apart, before the others
    rows = rows.filter(state=wish.state) if wish.state else rows.exclude(state=waiting_rows)
    if wish.source:
        rows = rows.filter(source=wish.source)
    if wish.who:
        rows = rows.filter(who=wish.who)
    if wish.rules is not None:
        rows = rows.filter(source__in=("rule", "relay"), who__in=wish.rules)
    if wish.day:
        rows = rows.filter(at__gte=_moment(wish.since), at__lt=_moment(_midnight(wish.day + dt.timedelta(days=1))))
    if wish.before:
        at, key = wish.before
        rows = rows.filter(at__lte=_moment(at)) if key.startswith("r") else rows.filter(at__lt=_moment(at))
        if key.startswith("r"):
            rows = rows.exclude(at=_moment(at), pk__gte=int(key[1:] or 0))
    return rows.order_by("-at", "-pk")


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def line_of(row: Activity, access: Access) -> Line:
    """Return the line of a row, without what belongs to tenants that the user may not see."""
    tenants: tuple[str | None, ...] | Everyone
    tenants = Everyone.EVERYONE if "*" in row.tenants else tuple(row.tenants) or (None,)
    mine = tenants if isinstance(tenants, Everyone) else tuple(access.only(tenants))
    is_all_mine = mine == tenants and not (access.is_bound and isinstance(tenants, Everyone))
    named = history.targets_of(row)
    mine_named = tuple(target for target in named if may_see(target, access))
    is_told_by_targets = access.is_restricted and len(mine_named) < len(named)
    return Line(
        at=row.at.timestamp(),
        key=f"r{row.pk:020d}",
        kind=row.kind,
        source=row.source,
        what="" if is_told_by_targets else told.own_words(row),
        who=row.who,
        tenants=mine,
        targets=mine_named,
        entries=row.entries if is_all_mine else None,
        took_ms=row.took_ms,
        state=progress.state_of(row, progress.progress_of(row)),
        count=row.count,
        pk=row.pk,
    )


def may_see(target: Target, access: Access) -> bool:
    """Say whether a user may be told of a target: it is of all, or of a tenant and of an alias he sees."""
    if target.alias is not None and not access.sees_alias(target.alias):
        return False
    return target.tenant is None or not isinstance(target.tenant, str) or access.sees(target.tenant)


# --- in words -------------------------------------------------------------------------------------------------------


def count_waiting() -> tuple[int, dt.datetime | None]:
    """
    Return how many invalidations wait to be delivered, in all databases and in this process, and since when.

    Those that are not due yet are on their way: whoever wrote them delivers them right after the commit.
    Cost:    one query a database.
    """
    held = outbox.pending()
    return held.count, timezone.now() - dt.timedelta(seconds=held.oldest_seconds) if held.count else None


def labels_of(lines: Iterable[Line]) -> dict[str | None, str]:
    """Return the names of the tenants that some lines name, looked up together."""
    return naming.tenant_labels(tenant for line in lines for tenant in _named_by(line))


def _named_by(line: Line) -> Iterator[str | None]:
    if not isinstance(line.tenants, Everyone) and len(line.tenants) == 1:  # several are counted
        yield line.tenants[0]
    if not line.what:
        yield from (target.tenant for target in line.targets[: told.SHOWN] if not isinstance(target.tenant, All))
