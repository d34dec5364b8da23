"""What rules and code did by themselves, and marks: from the counters, summed up by minute and known for 24 hours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from statistics import median_high
from typing import Final

from django.utils.translation import gettext as _

from cacheadmin.admin import formats
from cacheadmin.admin.lines import Line, Wish
from cacheadmin.exceptions import CacheAway, InvalidTarget
from cacheadmin.stats import EVERY_TENANT, Mark
from cacheadmin.stats.counts import OTHER
from cacheadmin.stats.history import DroppedLine, Reader
from cacheadmin.targets import Target
from cacheadmin.tenancy import Everyone

BY_ITSELF: Final = ("rule", "relay", "code")
"""Sources that leave no row: only how many times a minute is known."""

MARKS: Final = ("deploy", "server", "away", "back")
"""Marks that leave no row either."""

SUMMED_SECONDS: Final = 24 * 3600
FOLDED_SECONDS: Final = 3 * 3600
"""How far back the overview's few lines look; it asks every ten seconds."""


Known = tuple[Iterable[DroppedLine], Iterable[Mark]]
"""What was invalidated, and marks, where a page has read them already."""


def by_itself(wish: Wish, since: float, known: Known | None = None) -> list[Line]:
    """
    Return what rules and code did between `since` and the wish's end, one line a rule, tenant and minute.

    Cost:    one round trip, none with `known`; nothing is returned while Redis is away, or where the wish rules it out.
    """
    until = min(wish.until, time.time() + 60)
    since = max(since, until - SUMMED_SECONDS)
    if wish.state not in ("", "done") or wish.source in ("user", "command") or until <= since:
        return []
    try:
        dropped, marks = known or _read(since, until)
    except CacheAway:
        return []
    lines = list(_summed(line for line in dropped if _is_wanted(line, wish)))
    is_narrow = wish.access.is_bound or wish.access.is_restricted
    if not (wish.tenant or wish.who or wish.source or wish.rules is not None or is_narrow):
        lines += [
            Line(mark.at, f"m{mark.kind}", mark.kind, "", _marked(mark.kind, mark.text), tenants=Everyone.EVERYONE)
            for mark in marks
            if mark.kind in MARKS
        ]
    return [line for line in lines if since - 60 <= line.at <= until]


def _read(since: float, until: float) -> Known:
    reader = Reader()
    dropped, marks = reader.dropped(since, until), reader.marks(since, until)
    reader.run()
    return dropped.value, marks.value


def _is_wanted(line: DroppedLine, wish: Wish) -> bool:
    if line.source not in BY_ITSELF or (wish.source and line.source != wish.source):
        return False
    if not wish.access.sees_alias(line.alias):
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
            # One deed drops several things in several aliases, each counted; some twice, and tags differ by row.
            count=median_high(found.counts.values()),
        )


def _whats(whats: Iterable[str]) -> str:
    names = sorted(whats)
    shown, more = ", ".join(map(_what, names[:3])), len(names) - 3
    return _("%(some)s and %(n)s more") % {"some": shown, "n": formats.number(more)} if more > 0 else shown


def _what(what: str) -> str:
    # Thousands of these are made for a page: nothing is translated that is not shown.
    kind, _space, name = what.partition(" ")
    if kind in ("group", "key"):
        return name
    if kind == "prefix":
        return f"{name}…"
    if kind == "tag":
        return _("tag %(name)s") % {"name": name}
    return _("everything") if kind == "tenant" else what


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


def folded(found: Iterable[Line]) -> Iterator[Line]:
    """Put the minutes and tenants of each rule together; what a relay did for a rule is the rule's."""
    by_name: dict[str, list[Line]] = {}
    for line in found:
        by_name.setdefault(line.who if line.source != "code" else "", []).append(line)
    for some in by_name.values():
        some.sort(key=lambda line: line.at)
        whose = {tenant for line in some if not isinstance(line.tenants, Everyone) for tenant in line.tenants}
        is_all = any(isinstance(line.tenants, Everyone) for line in some)
        yield replace(
            some[-1],
            tenants=Everyone.EVERYONE if is_all else tuple(sorted(whose, key=str)),
            targets=some[-1].targets if len(whose) < 2 else (),
            count=sum(line.count for line in some),
            since=some[0].at,
        )
