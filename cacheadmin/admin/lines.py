"""Lines of Activity: what is written in the database, and what rules and code did by themselves, in one order of time.

Rows of the database are kept for good; what happened by itself is summed up by minute and known for 24 hours.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Final

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from cacheadmin.admin import history, naming
from cacheadmin.admin.access import Access
from cacheadmin.exceptions import CacheAway, InvalidTarget
from cacheadmin.models import Activity, Intent
from cacheadmin.stats import EVERY_TENANT
from cacheadmin.stats.counts import OTHER
from cacheadmin.stats.history import DroppedLine, Later, Reader
from cacheadmin.targets import Target
from cacheadmin.tenancy import Everyone

BY_ITSELF: Final = ("rule", "relay", "code")
"""Sources that leave no row: only how many times a minute is known."""

MARKS: Final = ("deploy", "server", "away", "back")
"""Marks that leave no row either."""

SUMMED_SECONDS: Final = 24 * 3600


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
    who: str = ""
    """A user, a command, a rule."""
    tenants: tuple[str | None, ...] | Everyone = ()
    targets: tuple[Target, ...] = ()
    entries: int | None = None
    took_ms: float | None = None
    state: str = "done"
    count: int = 1
    pk: int | None = None

    @property
    def place(self) -> tuple[float, str]:
        """Where it stands in the order of time."""
        return self.at, self.key


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


def newest(wish: Wish, limit: int) -> tuple[list[Line], bool]:
    """
    Return up to `limit` lines, newest first, and whether there are more.

    Cost:    one query and one round trip; while Redis is away only what the database knows.
    """
    rows = [line_of(row, wish.access) for row in _rows(wish)[: limit + 1]]
    since = rows[-1].at if len(rows) > limit else wish.since
    found = [*rows, *(line for line in by_itself(wish, since) if wish.before is None or line.place < wish.before)]
    found.sort(key=lambda line: line.place, reverse=True)
    return found[:limit], len(found) > limit


def waiting(wish: Wish, limit: int = 50) -> list[Line]:
    """Return what waits for Redis, oldest first. Cost: one query."""
    rows = _rows(replace(wish, state=Activity.State.WAITING, before=None)).order_by("at", "pk")
    return [line_of(row, wish.access) for row in rows[:limit]]


def _rows(wish: Wish) -> QuerySet[Activity]:
    rows: Any = Activity.objects.all()
    seen = wish.access.tenants
    if not isinstance(seen, Everyone):
        rows = rows.for_tenants(seen)
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
    return Line(
        at=row.at.timestamp(),
        key=f"r{row.pk:020d}",
        kind=row.kind,
        source=row.source,
        what=row.what,
        who=row.who,
        tenants=mine,
        targets=tuple(target for target in history.targets_of(row) if may_see(target, access)),
        entries=row.entries if is_all_mine else None,
        took_ms=row.took_ms,
        state=row.state,
        count=row.count,
        pk=row.pk,
    )


def may_see(target: Target, access: Access) -> bool:
    """Say whether a user may be told of a target: it is of all, or of one he sees."""
    return target.tenant is None or not isinstance(target.tenant, str) or access.sees(target.tenant)


# --- what happened by itself ----------------------------------------------------------------------------------------


def by_itself(wish: Wish, since: float) -> list[Line]:
    """
    Return what rules and code did between `since` and the wish's end, one line a rule, tenant and minute.

    Cost:    one round trip; nothing is returned while Redis is away, or where the wish rules it out.
    """
    until = min(wish.until, time.time() + 60)
    since = max(since, until - SUMMED_SECONDS)
    if wish.state not in ("", "done") or wish.source in ("user", "command") or until <= since:
        return []
    reader = Reader()
    dropped: Later[list[DroppedLine]] = reader.dropped(since, until)
    marks = reader.marks(since, until)
    try:
        reader.run()
    except CacheAway:
        return []
    lines = list(_summed(line for line in dropped.value if _is_wanted(line, wish)))
    if not (wish.tenant or wish.who or wish.source or wish.rules is not None or wish.access.is_bound):
        lines += [
            Line(mark.at, f"m{mark.kind}", mark.kind, "", _marked(mark.kind, mark.text), tenants=Everyone.EVERYONE)
            for mark in marks.value
            if mark.kind in MARKS
        ]
    return [line for line in lines if since - 60 <= line.at <= until]


def _is_wanted(line: DroppedLine, wish: Wish) -> bool:
    if line.source not in BY_ITSELF or (wish.source and line.source != wish.source):
        return False
    if line.tenant != EVERY_TENANT and (line.tenant == OTHER or not wish.access.sees(line.tenant)):
        return not wish.access.is_bound and not wish.tenant
    if wish.tenant and line.tenant not in (wish.tenant, EVERY_TENANT):
        return False
    if wish.rules is not None and not wish.rules.intersection(line.name.split(", ")):
        return False
    return not wish.who or wish.who == line.name


@dataclass(slots=True)
class _Sum:
    whats: dict[str, None] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)


def _summed(lines: Iterable[DroppedLine]) -> Iterator[Line]:
    sums: dict[tuple[int, str, str, str | None], _Sum] = {}
    for line in lines:
        found = sums.setdefault((line.at, line.source, line.name, line.tenant), _Sum())
        found.whats[line.what] = None
        found.aliases.add(line.alias)
        found.counts[line.alias, line.what] = found.counts.get((line.alias, line.what), 0) + line.count
    for (at, source, name, tenant), found in sums.items():
        digest = blake2b(f"{source}\0{name}\0{tenant}".encode(), digest_size=8).hexdigest()
        is_all = tenant in (EVERY_TENANT, OTHER)
        yield Line(
            at=float(at),
            key=f"a{digest}",
            kind="invalidate",
            source=source,
            what=_whats(found.whats),
            who="" if name == OTHER else name,
            tenants=Everyone.EVERYONE if is_all else (tenant,),
            targets=tuple(_targets(found.whats, None if is_all else tenant, is_all, found.aliases)),
            count=max(found.counts.values()),  # one deed that drops several things, in several aliases, is one time
        )


def _whats(whats: Iterable[str]) -> str:
    names = [_what(what) for what in sorted(whats)]
    return ", ".join(names[:3]) + (_(" and %(n)s more") % {"n": len(names) - 3} if len(names) > 3 else "")


def _what(what: str) -> str:
    kind, _space, name = what.partition(" ")
    words = {"tenant": _("everything"), "group": name, "key": name, "prefix": f"{name}…"}
    return words.get(kind) or (_("tag %(name)s") % {"name": name} if kind == "tag" else what)


def _targets(whats: Iterable[str], tenant: str | None, is_all: bool, aliases: set[str]) -> Iterator[Target]:
    if is_all:
        return
    alias = next(iter(aliases)) if len(aliases) == 1 else None
    for what in sorted(whats):
        kind, _space, name = what.partition(" ")
        try:
            yield Target(kind, name, tenant, alias)  # type: ignore[arg-type]  # checked by Target
        except InvalidTarget:
            continue


def _marked(kind: str, text: str) -> str:
    return {
        "deploy": _("Release %(text)s"),
        "server": _("Another server answers, or the same one restarted (%(text)s)"),
        "away": _("Redis stopped answering (%(text)s)"),
        "back": _("Redis answers again (%(text)s)"),
    }[kind] % {"text": text}


# --- in words -------------------------------------------------------------------------------------------------------


def count_waiting() -> tuple[int, dt.datetime | None]:
    """Return how many invalidations wait to be delivered, and since when. Cost: one query."""
    ages = Intent.objects.filter(state=Intent.State.PENDING).order_by("created").values_list("created", flat=True)
    found = list(ages[:1001])
    return len(found), found[0] if found else None


def labels_of(lines: Iterable[Line]) -> dict[str | None, str]:
    """Return the names of the tenants of some lines, looked up together."""
    return naming.tenant_labels(t for line in lines if not isinstance(line.tenants, Everyone) for t in line.tenants)
