"""What the checks look at, gathered once an examination and shared by all of them. Nothing here writes anything."""

from __future__ import annotations

import datetime as dt
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from django.db import DatabaseError
from django.db.models import Count, Min, Q
from django.utils import timezone

from cacheadmin.conf import cache_settings, config
from cacheadmin.doctor.looking import Database, Key, Server, look
from cacheadmin.exceptions import CacheAway, InvalidRule
from cacheadmin.models import Intent
from cacheadmin.outbox import rows
from cacheadmin.overview import promql
from cacheadmin.overview.fetching import FetchFailed
from cacheadmin.rules import Rule, all_rules, code_rules
from cacheadmin.stats import EVENTS, INDEX, OTHER
from cacheadmin.stats.history import DroppedLine, Group, Numbers, Reader
from cacheadmin.stats.layout import added
from cacheadmin.stats.servers import database, redis_aliases, server_of

HOUR: Final = 3600
DAY: Final = 24 * HOUR

SECONDS: Final = 2.0
"""For so long an examination begins new checks and new looks at keys."""

OVERDUE: Final = dt.timedelta(seconds=60)
"""After so long a relay of some process should have taken a row: it looks every second, 15 after failures."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What the roll-ups tell of the last day."""

    born: float
    """When the site began to count, in seconds since 1970; 0.0 if that is not known."""
    lines: tuple[DroppedLine, ...]
    groups: frozenset[tuple[str, str]]
    """(alias, group) of what was read or dropped."""
    refused_full: dict[str, int]
    """Alias -> values that were not stored because the server was full."""
    by_group: dict[Group, Numbers]
    """(alias, group) -> what it counted; what belongs to no group, and what was not counted apart, left out."""
    was_away: bool
    """Whether a server was found away within the day."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """The rows of one database that are not done."""

    alias: str
    tried: int = 0
    """Waiting rows that a relay tried to deliver, and could not for a minute."""
    untried: int = 0
    """Waiting rows that no relay has touched for a minute."""
    dead: int = 0
    oldest: dt.datetime | None = None
    """When the oldest waiting row was written."""
    oldest_dead: dt.datetime | None = None
    error: str = ""
    """What the last attempt said, or why the rows cannot be read."""
    can_be_read: bool = True


class Facts:
    """
    What is known about the site. Each part is looked up when a check first asks for it.

    `at_start`: neither Redis nor the database is asked; rules are those in code, and lists of servers and rows empty.
    """

    def __init__(self, *, at_start: bool = False, seconds: float = SECONDS, steps: int = 1) -> None:
        self.at_start = at_start
        self.steps = steps
        """Pages of keys that are sampled in each database."""
        self.deadline = time.monotonic() + seconds
        self.is_blind = False
        """Whether a check has asked, since this was set to False, for what a server that is away would know."""

    def has_time(self) -> bool:
        """Say whether there is time left to look at more."""
        return time.monotonic() < self.deadline

    # --- the settings -----------------------------------------------------------------------------------------------

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Each managed Redis alias with its server and the number of its database; unreadable URLs left out."""
        found = {}
        for alias in redis_aliases():
            try:
                found[alias] = (server_of(alias), database(alias))
            except ValueError:
                continue  # E043 says so
        return found

    # --- the servers ------------------------------------------------------------------------------------------------

    @property
    def servers(self) -> tuple[Server, ...]:
        """Ask each server about itself and sample its keys. Cost: two round trips a database, more with `steps`."""
        self.is_blind |= any(server.error is not None for server in self._looked)
        return self._looked

    @cached_property
    def _looked(self) -> tuple[Server, ...]:
        return () if self.at_start else look(self.places, self.steps, self.deadline)

    @property
    def databases(self) -> list[Database]:
        """The databases that could be asked."""
        return [database for server in self.servers for database in server.databases]

    @property
    def sample(self) -> list[Key]:
        """Some keys of every database."""
        return [key for database in self.databases for key in database.sample]

    # --- the counters -----------------------------------------------------------------------------------------------

    @property
    def counted(self) -> Counted | None:
        """Ask the roll-ups; None where they cannot be. Cost: one round trip."""
        self.is_blind |= self._counted is None and not self.at_start and bool(config().aliases)
        return self._counted

    @cached_property
    def _counted(self) -> Counted | None:
        if self.at_start or not config().aliases:
            return None
        server = next((s for s in self._looked if config().stats_alias in s.aliases), None)
        if server is None or server.error is not None:
            return None
        now, reader = time.time(), Reader()
        born, lines = reader.born(), reader.dropped(now - DAY, now)
        groups = reader.groups(range(int(now - DAY) // HOUR * HOUR, int(now) + 1, HOUR), HOUR)
        totals, marks = reader.totals(HOUR, now - DAY, now), reader.marks(now - DAY, now)
        try:
            reader.run()
        except CacheAway:
            return None
        full: dict[str, int] = {}
        for of_alias in totals.value.counts.values():
            for alias, numbers in of_alias.items():
                full[alias] = full.get(alias, 0) + numbers[INDEX["refused_full"]]
        by_group: dict[Group, Numbers] = defaultdict(lambda: [0] * len(EVENTS))
        for bucket in groups.value.values():
            for group, numbers in bucket.items():
                if group[1] != OTHER:
                    by_group[group] = added(by_group[group], numbers)
        was_away = any(mark.kind == "away" for mark in marks.value)
        return Counted(born.value, tuple(lines.value), frozenset(by_group), full, dict(by_group), was_away)

    @cached_property
    def scraped(self) -> int | FetchFailed | None:
        """Series of our counters that Prometheus knows; None without PROMETHEUS_URL. Cost: one HTTP request."""
        if self.at_start or not config().prometheus_url:
            return None
        try:
            return promql.known_series()
        except FetchFailed as error:
            return error

    # --- the rules and the outbox -----------------------------------------------------------------------------------

    @cached_property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that are switched on: at start those in code only. Cost: one query."""
        try:
            found = code_rules() if self.at_start else all_rules()
        except InvalidRule:
            return ()  # E011 says so
        return tuple(rule for rule in found if rule.enabled)

    @cached_property
    def outbox(self) -> tuple[Outbox, ...]:
        """Look at the rows that are not done. Cost: one query a database, one more if some wait."""
        return () if self.at_start else tuple(_outbox(alias) for alias in _databases())


def _databases() -> list[str]:
    try:
        return rows.databases()
    except DatabaseError:
        return []  # the pages that show this need the database themselves


def _outbox(alias: str) -> Outbox:
    states = Intent.State
    late = Q(state=states.PENDING, due__lt=timezone.now() - OVERDUE)
    intents = Intent.objects.using(alias).filter(state__in=(states.PENDING, states.DEAD))
    try:
        seen = intents.aggregate(
            tried=Count("pk", filter=late & Q(attempts__gt=0)),
            untried=Count("pk", filter=late & Q(attempts=0)),
            dead=Count("pk", filter=Q(state=states.DEAD)),
            oldest=Min("created", filter=late),
            oldest_dead=Min("created", filter=Q(state=states.DEAD)),
        )
        error = ""
        if seen["tried"]:
            error = intents.filter(late, attempts__gt=0).order_by("-due").values_list("error", flat=True)[0]
    except DatabaseError as failure:
        return Outbox(alias, error=type(failure).__name__, can_be_read=False)
    return Outbox(alias, error=error, **seen)


def backend_of(alias: str) -> str:
    """Return the dotted path of an alias' backend."""
    return str(cache_settings(alias)["BACKEND"])
