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

NAMES: Final = 2
"""Rules that a mark names."""


@dataclass(slots=True)
class _Run:
    """Drops of which none came later than a pause after the one before."""

    first: int
    last: int
    tenants: dict[str | None, None] = field(default_factory=dict)
    aliases: dict[str, None] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)

    def add(self, line: DroppedLine) -> None:
        """Take one more."""
        self.last = line.at
        self.tenants[line.tenant] = self.aliases[line.alias] = self.names[line.name or line.source] = None

    @property
    def mark(self) -> Mark:
        """The mark at its beginning."""
        names = [*self.names]
        by = ", ".join(names[:NAMES]) + (" …" if len(names) > NAMES else "")
        return Mark("drop", f"{', '.join(self.aliases)} ({by})", self.first, next(iter(self.tenants)))


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
