"""
Faults on purpose: each scenario breaks something and counts what a reader would have noticed.

    PYTHONPATH=tests python -m faults stale_set --count 10000 --seed 1
    PYTHONPATH=tests python -m faults key_loss --without widening
    PYTHONPATH=tests python -m faults race --database postgres
    PYTHONPATH=tests python -m faults all --short

A scenario is red when it counts a violation. `--without` takes one safety mechanism away, patched from here: a scenario
that stays green without the mechanism that it is meant to watch proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

OF_A_BUSY_MACHINE = frozenset({"exceptions", "late", "no_pressure", "storm", "too_slow"})
"""Violations that are no proof that a mechanism is missing: without it another one must be seen."""


@dataclass(slots=True)
class Outcome:
    """What one run of a scenario counted."""

    figures: dict[str, float] = field(default_factory=dict)
    """For people, in the order in which they were first counted."""
    violations: list[str] = field(default_factory=list)
    """What must never be: each ends in red."""
    kinds: set[str] = field(default_factory=set)
    """The figures that they are counted by."""

    def count(self, name: str, by: float = 1) -> None:
        """Add to a figure."""
        self.figures[name] = self.figures.get(name, 0) + by

    def violate(self, name: str, what: str) -> None:
        """Count a violation, and keep the first ones for people to read."""
        self.count(name)
        self.kinds.add(name)
        self.violations.append(what)

    @property
    def is_green(self) -> bool:
        """Whether nothing was violated."""
        return not self.violations

    @property
    def is_broken(self) -> bool:
        """Whether a promise was broken in a way that a busy machine cannot bring about by itself."""
        return bool(self.kinds - OF_A_BUSY_MACHINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """What whoever runs a scenario asked for."""

    count: int
    seed: int
    url: str
    """Of the server, without a database number at its end."""
    stops_at_first: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of fault."""

    name: str
    run: Callable[[Asked], Outcome]
    short: int
    """The count of the form that CI runs."""
    long: int
    must: tuple[str, ...]
    """Figures that are printed even when nothing counted them: the violations that it looks for."""
    watches: tuple[str, ...] = ()
    """The mechanisms without which it goes red."""
    databases: tuple[str, ...] = ("sqlite",)
    """Where it runs; both, if the database makes a difference."""
