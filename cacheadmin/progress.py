"""How far a run is: kept on its line of Activity, the only state, so that every process can show it and change it."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.db import DatabaseError

from .dispatch import Stop, Turns
from .models import Activity

logger = logging.getLogger("cacheadmin")

PACES: Final[dict[str, float | None]] = {"fast": None, "normal": 20.0, "slow": 2.0}
"""Steps a second at most that a person may choose, before and while a run goes on; None for as many as it can.

A step is a call to warm, or a page of about 1,000 keys to clear or to search.
"""

TELL_SECONDS: Final = 1.0
"""How often a run writes down how far it is."""

SILENT_SECONDS: Final = 60.0
"""Silence after which a run is taken for dead."""

STEPS_KEPT: Final = 20
FAILURES_KEPT: Final = 20


@dataclass(slots=True)
class Progress:
    """How far a run is, as it stands in Activity."""

    total: int | None = None
    done: int = 0
    results: dict[str, int] = field(default_factory=dict)
    """Steps by result: warmed, fresh, refused, failed."""
    failures: list[list[str]] = field(default_factory=list)
    """Pairs of step and error."""
    steps: list[str] = field(default_factory=list)
    """The last steps, newest first."""
    told_at: float = 0.0
    """Seconds since 1970."""
    found: int | None = None
    """What a sweep has found and deleted: `done` and `total` are then keys passed, about. None for other runs."""


def progress_of(row: Activity) -> Progress | None:
    """Return how far a run is; None for a line of Activity that is no run."""
    for item in row.targets if isinstance(row.targets, list) else ():
        if isinstance(item, dict) and isinstance(item.get("run"), dict):
            known = {name: item["run"][name] for name in Progress.__slots__ if name in item["run"]}
            return Progress(**known)
    return None


def state_of(row: Activity, progress: Progress | None) -> str:
    """Return a run's state; one that has been silent for a minute has failed, whatever it said last."""
    told_at = max(progress.told_at, row.at.timestamp()) if progress is not None else float("inf")
    is_silent = row.state == Activity.State.RUNNING and time.time() - told_at > SILENT_SECONDS
    return str(Activity.State.FAILED if is_silent else row.state)


class Teller:
    """Writes a run's progress to its line, at most once a second, and hears what somebody wants: its end, a pace."""

    def __init__(self, row: Activity, total: int | None = None, stop: Stop | None = None) -> None:
        self.row = row
        self.stop = Stop() if stop is None else stop
        self.pace = row.pace
        self._turns = Turns(self.per_second, self.stop)
        self.progress = Progress(total=total)
        self._kept = [item for item in row.targets if "run" not in item]
        self._steps: deque[str] = deque(maxlen=STEPS_KEPT)
        self._begun = time.monotonic()
        self._told = float("-inf")

    def step(self, text: str, result: str, error: str = "") -> None:
        """Note one step."""
        progress = self.progress
        progress.done += 1
        progress.results[result] = progress.results.get(result, 0) + 1
        self._steps.appendleft(text)
        if error and len(progress.failures) < FAILURES_KEPT:
            progress.failures.append([text, error])
        self._tell_in_time()

    def count(self, done: int) -> None:
        """Note that so many more of many small things are done."""
        self.progress.done += done
        self._tell_in_time()

    def looked(self, seen: int, total: int, found: int) -> None:
        """Note how far a search is."""
        self.progress.done, self.progress.found = seen, found
        self.progress.total = max(seen, total)
        self._tell_in_time()

    def per_second(self) -> float | None:
        """Return how many steps a second are allowed now."""
        return PACES.get(self.pace)

    def goes_on(self) -> bool:
        """Wait for the turn of the next page of keys, and say whether to take it."""
        return self._turns.wait()

    def _tell_in_time(self) -> None:
        if time.monotonic() - self._told >= TELL_SECONDS:
            self.tell()

    def tell(self, state: str | None = None, error: str = "") -> None:
        """Write the line. Cost: 2 queries."""
        self._told = time.monotonic()
        self.progress.told_at = time.time()
        self.progress.steps = list(self._steps)
        values: dict[str, Any] = {
            "targets": [*self._kept, {"run": asdict(self.progress)}],
            "entries": self.progress.done if self.progress.found is None else self.progress.found,
            "took_ms": (time.monotonic() - self._begun) * 1000,
        }
        mine = Activity.objects.filter(pk=self.row.pk)
        try:
            wanted, self.pace = mine.values_list("state", "pace").first() or (Activity.State.CANCELLED, self.pace)
            if wanted == Activity.State.CANCELLED:
                self.stop.set()
                state = None
            mine.update(**values, **({"state": state, "error": error} if state else {}))
        except DatabaseError as failure:  # locked or away for a moment: the run goes on, the next second tells again
            logger.warning("The progress of run %s could not be written: %s", self.row.pk, failure)
