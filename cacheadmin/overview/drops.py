"""Marks for whole tenants and aliases that rules and code drop, from what the roll-ups count anyway. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ..stats import Mark
from ..stats.counts import EVERY_TENANT
from ..stats.history import DroppedLine
from ..stats.layout import MINUTE

BY_PEOPLE: Final = ("user", "command")
"""Sources whose marks are kept: the recorder makes them when it counts."""

PAUSE: Final = 5 * MINUTE
"""Least time without a drop after which another one is marked anew."""

MOST: Final = 12
"""Marks of one kind in a range, at most: the pause is at least this part of it."""


@dataclass(frozen=True, slots=True)
class Drop(Mark):
    """The mark of a run of them: `text` names the aliases, `tenant` is the first that was hit."""

    aliases: tuple[str, ...] = ()
    tenants: tuple[str | None, ...] = ()
    by: tuple[tuple[str, str], ...] = ()
    """Who did it: pairs of source and name; the name of several rules together is theirs with commas between."""


@dataclass(slots=True)
class _Run:
    """Drops of which none came later than a pause after the one before."""

    first: int
    last: int
    tenants: dict[str | None, None] = field(default_factory=dict)
    aliases: dict[str, None] = field(default_factory=dict)
    by: dict[tuple[str, str], None] = field(default_factory=dict)

    def add(self, line: DroppedLine) -> None:
        """Take one more."""
        self.last = line.at
        self.tenants[line.tenant] = self.aliases[line.alias] = self.by[line.source, line.name] = None

    @property
    def mark(self) -> Drop:
        """The mark at its beginning."""
        aliases, tenants = tuple(self.aliases), tuple(self.tenants)
        return Drop("drop", ", ".join(aliases), self.first, tenants[0], aliases, tenants, tuple(self.by))


def with_drops(
    marks: Sequence[Mark], lines: Iterable[DroppedLine], since: float, now: float, *, alias: str | None = None
) -> list[Mark]:
    """
    Return marks and those for what dropped a whole tenant or alias by itself, in order of time.

    A rule that drops a tenant with each save has one mark, where it began: 12 for aliases and 12 for tenants at most.
    `lines` are cut to what the viewer may see, and reach back 24 hours, as far as they are kept.
    """
    pause = max(PAUSE, (now - since) / MOST)
    whole = [
        one for one in lines if one.what == "tenant" and one.source not in BY_PEOPLE and alias in (None, one.alias)
    ]
    runs: list[_Run] = []
    for is_wide in (True, False):
        latest: _Run | None = None
        for line in sorted(whole, key=lambda one: one.at):
            if (line.tenant == EVERY_TENANT) is not is_wide or line.at + MINUTE <= since:
                continue
            if latest is None or line.at - latest.last > pause:
                latest = _Run(line.at, line.at)
                runs.append(latest)
            latest.add(line)
    return sorted([*marks, *(run.mark for run in runs)], key=lambda mark: mark.at)
