"""What rules and code did by themselves, and marks: from the counters, summed up by minute and known for 24 hours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from statistics import median_high
from typing import Final, NamedTuple

from django.utils.translation import gettext as _

from cacheadmin.admin import formats, naming
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
    sums, marks = _sums(wish, since, known)
    return [*(_line(deed, some) for deed, some in sums.items()), *marks]


def by_rule(wish: Wish, since: float, known: Known | None = None) -> list[Line]:
    """Return the same, the minutes and tenants of each rule put together; what a relay did for a rule is the rule's."""
    sums, marks = _sums(wish, since, known)
    by_name: dict[str, list[_Deed]] = {}
    for deed in sums:
        by_name.setdefault(deed.who if deed.source != "code" else "", []).append(deed)
    return [*(_folded(sorted(deeds, key=lambda deed: deed.at), sums) for deeds in by_name.values()), *marks]


def _sums(wish: Wish, since: float, known: Known | None) -> tuple[dict[_Deed, _Sum], list[Line]]:
    """Return what was invalidated, summed up, and the marks that the wish wants."""
    until = min(wish.until, time.time() + 60)
    since = max(since, until - SUMMED_SECONDS)
    if wish.state not in ("", "done") or wish.source in ("user", "command") or until <= since:
        return {}, []
    try:
        dropped, marks = known or _read(since, until)
    except CacheAway:
        return {}, []
    sums = _summed(line for line in dropped if since - 60 <= line.at <= until and _is_wanted(line, wish))
    is_narrow = wish.access.is_bound or wish.access.is_restricted
    if wish.tenant or wish.who or wish.source or wish.rules is not None or is_narrow:
        return sums, []
    return sums, [
        Line(mark.at, f"m{mark.kind}", mark.kind, "", _marked(mark.kind, mark.text), tenants=Everyone.EVERYONE)
        for mark in marks
        if mark.kind in MARKS and since - 60 <= mark.at <= until
    ]


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


class _Deed(NamedTuple):
    """What one rule, or code, did to one tenant in one minute."""

    at: int
    source: str
    name: str
    tenant: str | None

    @property
    def who(self) -> str:
        return "" if self.name == OTHER else self.name

    @property
    def is_of_all(self) -> bool:
        return self.tenant in (EVERY_TENANT, OTHER)


@dataclass(slots=True)
class _Sum:
    whats: dict[str, None] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        # One deed drops several things in several aliases, each counted; some twice, and tags differ by row.
        return median_high(self.counts.values())


def _summed(lines: Iterable[DroppedLine]) -> dict[_Deed, _Sum]:
    sums: dict[_Deed, _Sum] = {}
    for line in lines:
        found = sums.setdefault(_Deed(line.at, line.source, line.name, line.tenant), _Sum())
        found.whats[line.what] = None
        found.aliases.add(line.alias)
        found.counts[line.alias, line.what] = found.counts.get((line.alias, line.what), 0) + line.count
    return sums


def _line(deed: _Deed, some: _Sum) -> Line:
    digest = blake2b(f"{deed.source}\0{deed.name}\0{deed.tenant}".encode(), digest_size=8).hexdigest()
    return Line(
        at=float(deed.at),
        key=f"a{digest}",
        kind="invalidate",
        source=deed.source,
        what=_whats(some.whats),
        who=deed.who,
        tenants=Everyone.EVERYONE if deed.is_of_all else (deed.tenant,),
        targets=() if deed.is_of_all else tuple(_targets(some, deed.tenant)),
        count=some.count,
    )


def _folded(deeds: list[_Deed], sums: dict[_Deed, _Sum]) -> Line:
    """Return one line for deeds in order of time: thousands a page, of which only the last is put into words."""
    last = _line(deeds[-1], sums[deeds[-1]])
    whose = {deed.tenant for deed in deeds if not deed.is_of_all}
    is_all = any(deed.is_of_all for deed in deeds)
    return replace(
        last,
        tenants=Everyone.EVERYONE if is_all else tuple(sorted(whose, key=str)),
        targets=last.targets if len(whose) < 2 else (),
        count=sum(sums[deed].count for deed in deeds),
        since=float(deeds[0].at),
    )


def _whats(whats: Iterable[str]) -> str:
    names = sorted(whats)
    shown, more = ", ".join(map(_what, names[:3])), len(names) - 3
    return _("%(some)s and %(n)s more") % {"some": shown, "n": formats.number(more)} if more > 0 else shown


def _what(what: str) -> str:
    kind, _space, name = what.partition(" ")
    return naming.shortly(kind, name)


def _targets(some: _Sum, tenant: str | None) -> Iterator[Target]:
    alias = next(iter(some.aliases)) if len(some.aliases) == 1 else None
    for what in sorted(some.whats):
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
