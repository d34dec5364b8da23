"""What happened to an entry and to the scopes it stands on, newest first, with the gaps between."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser
from cacheadmin.exceptions import CacheAdminError, CacheAway
from cacheadmin.models import Activity
from cacheadmin.stats import EVERY_TENANT, OTHER, Mark
from cacheadmin.stats.history import DroppedLine, Reader
from cacheadmin.stats.layout import DAY
from cacheadmin.targets import ALL, Target

from . import formats, history, naming
from .pages import Page

LINES: Final = 12
GAP_SECONDS: Final = 60.0

FOLDED_SECONDS: Final = 120.0
"""Most time between two invalidations of one cause that are told as one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The entry whose history is told."""

    alias: str
    tenant: str | None
    group: str
    key: str = ""
    tags: tuple[str, ...] = ()

    def is_hit_by(self, target: Target) -> bool:
        """Say whether an invalidation reached it."""
        return browser.covers(target, self.alias, self.tenant, self.group, self.tags, self.key)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history. A gap has no time of its own."""

    text: str
    sign: str
    """`computed`, `dropped`, `deploy` or `gap`."""
    at: float | None = None
    url: str = ""
    cause: tuple[str, str] = ("", "")
    """What was dropped, and by whom, where it happened by itself."""
    count: int = 1
    since: float | None = None
    """When the first of them happened, where it stands for several."""


@dataclass(frozen=True, slots=True)
class Story:
    """What the counters know of the last 24 hours."""

    lines: Sequence[DroppedLine] = ()
    marks: Sequence[Mark] = field(default_factory=tuple)


def read() -> Story:
    """Return what the counters know of the last day; nothing while Redis is away. Cost: 1 round trip."""
    now, reader = time.time(), Reader()
    lines, marks = reader.dropped(now - DAY, now), reader.marks(now - DAY, now)
    try:
        reader.run()
    except CacheAway:
        return Story()
    return Story(lines.value, marks.value)


def target_of(line: DroppedLine) -> Target | None:
    """Return what a line of the counters says was invalidated; None if it names nothing that could be."""
    kind, _space, name = line.what.partition(" ")
    try:
        whose = ALL if line.tenant in (EVERY_TENANT, OTHER) else line.tenant
        return Target(kind, name, whose, line.alias)  # type: ignore[arg-type]  # checked by Target
    except CacheAdminError:
        return None


def what_of(target: Target) -> str:
    """Return the beginning of a sentence: `Group inventory_list`, `Tag branch:2`, "Everything"."""
    words = {
        "tenant": _("Everything of the tenant"),
        "key": _("This entry"),
        "prefix": _("All groups that begin with %(name)s"),
    }
    return words.get(target.kind, capfirst(naming.named(target.kind, "%(name)s"))) % {"name": target.name}


def events(
    page: Page, subject: Subject, rows: Iterable[Activity], told: Story, computed: tuple[float, str] | None
) -> list[Event]:
    """
    Return the history of an entry, at most 12 events. `computed` is when and how its value was made.

    Cost: none; `rows` and `told` were read before.
    """
    found: list[Event] = [Event(computed[1], "computed", computed[0])] if computed else []
    for row in rows:
        if hits := [target for target in history.targets_of(row) if subject.is_hit_by(target)]:
            text = _("%(what)s invalidated by %(who)s.") % {"what": what_of(hits[0]), "who": row.who}
            found.append(Event(text, "dropped", row.at.timestamp(), page.url("cacheadmin_activity_detail", row.pk)))
    found += _automatic(page, subject, told.lines)
    found += (
        Event(_("Release %(name)s.") % {"name": m.text}, "deploy", m.at) for m in told.marks if m.kind == "deploy"
    )
    found.sort(key=lambda event: -(event.at or 0))
    return list(_with_gaps(_folded(found)[:LINES]))


def _automatic(page: Page, subject: Subject, lines: Iterable[DroppedLine]) -> Iterable[Event]:
    """Yield one event for each minute and cause: what rules and code dropped; the first of its rules is a link away."""
    seen: dict[tuple[int, str, str], tuple[Target, int]] = {}
    for line in lines:
        target = target_of(line) if line.source != "user" else None
        if target is not None and subject.is_hit_by(target):
            known = seen.get((line.at, line.source, line.name))
            if known is None or known[1] < line.count:
                seen[line.at, line.source, line.name] = (target, line.count)
    for (at, source, name), (target, count) in seen.items():
        what, who = what_of(target), history.by_label(source, name)
        first = name.partition(", ")[0]
        is_rule = source in ("rule", "relay") and first not in ("", OTHER) and not first.startswith("~")
        url = page.rules_url(first) if is_rule else ""
        yield Event(_told(what, who, count), "dropped", float(at), url, (what, who), count)


def _told(what: str, who: str, count: int, since: float | None = None) -> str:
    words = {"what": what, "who": who, "n": formats.number(count), "time": formats.clock(since)[:5]}
    if since is not None:
        return _("%(what)s invalidated by %(who)s, %(n)s times since %(time)s.") % words
    return ngettext("%(what)s invalidated by %(who)s.", "%(what)s invalidated by %(who)s, %(n)s times.", count) % words


def _folded(found: Iterable[Event]) -> list[Event]:
    """
    Return events, newest first, with what one cause did minute after minute as one: busy rules fill no page.

    What a person did, a release and the computation stay between what was before and after them.
    """
    folded: list[Event] = []
    latest: dict[tuple[str, str], int] = {}
    for event in found:
        if event.cause == ("", ""):
            latest.clear()
        elif (place := latest.get(event.cause)) is not None and _is_next(folded[place], event):
            count = folded[place].count + event.count
            text = _told(*event.cause, count, event.at)
            folded[place] = replace(folded[place], text=text, count=count, since=event.at)
            continue
        latest[event.cause] = len(folded)
        folded.append(event)
    return folded


def _is_next(later: Event, event: Event) -> bool:
    begun = later.at if later.since is None else later.since
    return begun is not None and event.at is not None and begun - event.at <= FOLDED_SECONDS


def _with_gaps(found: Sequence[Event]) -> Iterable[Event]:
    """Yield events with a line for each quiet time of more than a minute between them, up to now."""
    later = time.time()
    for event in found:
        at = event.at or later
        if later - at > GAP_SECONDS:
            text = _("%(time)s, no invalidation") % {"time": formats.duration((later - at) // 60 * 60)}
            yield Event(text, "gap")
        yield event
        later = min(later, at if event.since is None else event.since)


def since(
    scope: browser.Scope, subject: Subject, rows: Iterable[Activity], lines: Iterable[DroppedLine]
) -> float | None:
    """Return when a scope was invalidated last, as far as is known; None if it is not."""
    found = []
    for row in rows:
        if any(_is_scope(target, scope, subject) for target in history.targets_of(row)):
            found.append(row.at.timestamp())
            break
    for line in lines:
        target = target_of(line)
        if target is not None and _is_scope(target, scope, subject):
            found.append(float(line.at))
            break
    return max(found, default=None)


def _is_scope(target: Target, scope: browser.Scope, subject: Subject) -> bool:
    if target.alias not in (None, subject.alias) or target.tenant not in (ALL, subject.tenant):
        return False
    if scope.kind == "tenant":
        return target.kind == "tenant"
    if scope.kind == "tag":
        return target.kind == "tag" and target.name == scope.name
    return (target.kind == "group" and target.name == scope.name) or (
        target.kind == "prefix" and scope.name.startswith(target.name)
    )
