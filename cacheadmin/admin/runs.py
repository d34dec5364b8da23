"""Long deeds of a person, done in a thread of this process and followed on a line of Activity.

The line is the only state: its `targets` hold `{"run": …}`, so that every process can show it, and its `state` is
changed to `cancelled` by whoever stops it. A run whose process ended says nothing any more and is shown as failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from django.db import DatabaseError, connections
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _

from cacheadmin import browser, invalidation, warming
from cacheadmin.conf import managed
from cacheadmin.dispatch import Stop
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.models import Activity
from cacheadmin.store import RedisStore, store
from cacheadmin.targets import ALL, Target

from . import acts, told
from .warmable import steps_for

logger = logging.getLogger("cacheadmin")

TELL_SECONDS: Final = 1.0
"""How often a run writes down how far it is."""

SILENT_SECONDS: Final = 60.0
"""Silence after which a run is taken for dead."""

STEPS_COUNTED: Final = 1000
"""Calls that are counted before a warm run begins; a longer one has no total."""

PACES: Final[dict[str, float | None]] = {"fast": None, "normal": 20.0, "slow": 2.0}
"""Steps a second at most that a person may choose; None for as many as it can."""

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
    """Writes a run's progress to its line, at most once a second, and hears whether somebody cancelled it."""

    def __init__(self, row: Activity, total: int | None = None) -> None:
        self.row = row
        self.stop = Stop()
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

    def goes_on(self) -> bool:
        """Say whether the run goes on: asked after each page of keys."""
        return not self.stop.is_set

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
            if mine.filter(state=Activity.State.CANCELLED).exists():
                self.stop.set()
                state = None
            mine.update(**values, **({"state": state, "error": error} if state else {}))
        except DatabaseError as failure:  # locked or away for a moment: the run goes on, the next second tells again
            logger.warning("The progress of run %s could not be written: %s", self.row.pk, failure)


Work = Callable[[Teller], None]


def _in_thread(job: Callable[[], None]) -> None:
    threading.Thread(target=job, name="cacheadmin-run", daemon=True).start()


launch: Callable[[Callable[[], None]], None] = _in_thread
"""How a run is started. Tests that look at it inside a transaction start it in place."""


def start(
    request: HttpRequest,
    work: Work,
    *,
    kind: str,
    what: str,
    tenants: Any,
    alias: str = "",
    reason: str = "",
    total: int | None = None,
    said: told.Said | None = None,
    targets: Sequence[Target] = (),
) -> Activity:
    """
    Begin a run for the user of a request. Runs that died unheard are written down as failed first.

    `said` is what it does, as data, so that each reader gets it in his language, `targets` what it hits. `total` is how
    many steps there are, if that is known: its page shows a bar from the beginning.
    Cost:    two queries.
    Returns: its line of Activity.
    """
    forget_silent()
    user: Any = request.user
    row = Activity.objects.create(
        kind=kind,
        source=Activity.Source.USER,
        who=user.get_username()[:200],
        user=user,
        tenants=tenants,
        alias=alias,
        what=what[:300],
        reason=reason[:1000],
        targets=[
            *([said] if said else ()),
            *(t.to_json() for t in targets[: acts.SHOWN_TARGETS]),
            {"run": asdict(Progress(total=total, told_at=time.time()))},
        ],
        state=Activity.State.RUNNING,
    )
    launch(lambda: _run(row, work, total))
    return row


def _run(row: Activity, work: Work, total: int | None) -> None:
    teller = Teller(row, total)
    is_own_thread = threading.current_thread().name == "cacheadmin-run"
    try:
        work(teller)
    except Exception as error:
        logger.exception("The run %s ended with an error.", row.pk)
        teller.tell(Activity.State.FAILED, f"{type(error).__name__}: {error}"[:1000])
    else:
        failed = teller.progress.results.get("failed", 0)
        teller.tell(Activity.State.DONE if failed < max(1, teller.progress.done) else Activity.State.FAILED)
    finally:
        if is_own_thread:
            connections.close_all()


def cancel(row: Activity) -> bool:
    """Ask a run to stop; it hears within a second or after its present step. Returns: whether it was still running."""
    running = Activity.objects.filter(pk=row.pk, state=Activity.State.RUNNING)
    return bool(running.update(state=Activity.State.CANCELLED))


def forget_silent(older: timedelta = timedelta(minutes=10)) -> int:
    """Mark runs whose process ended as failed. Returns: how many."""
    silent = Activity.objects.filter(state=Activity.State.RUNNING, at__lt=timezone.now() - older)
    dead = [row.pk for row in silent if state_of(row, progress_of(row)) == Activity.State.FAILED]
    return Activity.objects.filter(pk__in=dead, state=Activity.State.RUNNING).update(state=Activity.State.FAILED)


def start_sweeping(request: HttpRequest, targets: Sequence[Target], reason: str) -> Activity:
    """
    Begin to look for what some patterns match, and to delete it.

    Cost:    1 round trip an alias, and two queries.
    Returns: its line of Activity.
    Raises:  CacheAway.
    """
    aliases = {target.alias for target in targets}
    passes = 2 * sum(browser.keys_of(alias) for target in targets for alias in managed(target.alias))
    said = told.swept(targets)
    return start(
        request,
        sweep(targets, request.user.get_username(), reason),
        kind=Activity.Kind.INVALIDATE,
        what=told.text(said),
        tenants=acts.tenants_of(targets),
        alias=(aliases.pop() or "") if len(aliases) == 1 else "",
        reason=reason,
        total=passes,
        said=said,
        targets=targets,
    )


def start_warming(request: HttpRequest, targets: Sequence[Target], pace: str = "fast") -> Activity:
    """
    Begin to warm what some targets name, at one of PACES.

    Returns: its line of Activity.
    """
    first = list(islice(steps_for(targets), STEPS_COUNTED + 1))
    is_whole = len(first) <= STEPS_COUNTED
    work = warm(first if is_whole else steps_for(targets), PACES.get(pace))
    total = len(first) if is_whole else None
    tenants, aliases = acts.tenants_of(targets), {target.alias for target in targets}
    alias = (aliases.pop() or "") if len(aliases) == 1 else ""
    said = told.warmed(targets)
    return start(
        request,
        work,
        kind=Activity.Kind.WARM,
        what=told.text(said),
        tenants=tenants,
        alias=alias,
        total=total,
        said=said,
    )


# --- what runs do ---------------------------------------------------------------------------------------------------


def warm(steps: Iterable[warming.Step], per_second: float | None = None) -> Work:
    """Return the work of warming some calls, at most so many a second."""

    def work(teller: Teller) -> None:
        def heard(outcome: warming.Outcome) -> None:
            teller.step(str(outcome.step), outcome.result, outcome.error)

        report = warming.run(steps, per_second=per_second, stop=teller.stop, on_outcome=heard)
        if report.away:
            raise CacheAdminError(
                _("The server of alias %(alias)r does not answer; what is done is kept.") % {"alias": report.away}
            )

    return work


def sweep(targets: Sequence[Target], name: str, reason: str) -> Work:
    """Return the work of looking for what some patterns match: `invalidation.deliver`, watched page by page."""

    def work(teller: Teller) -> None:
        aliases: dict[str, invalidation.Looked] = {}
        planned = teller.progress.total or 0

        def watch(alias: str, looked: invalidation.Looked) -> bool:
            aliases[alias] = looked
            seen, total, gone = map(sum, zip(*aliases.values(), strict=True))
            teller.looked(seen, max(planned, total), gone)
            return teller.goes_on()

        teller.looked(0, planned, 0)
        result = invalidation.deliver(targets, source="user", name=name, reason=reason, watch=watch)
        teller.progress.total = teller.progress.total if result.error else teller.progress.done
        if result.error and not result.is_stopped:
            raise CacheAdminError(result.error)

    return work


def clear(alias: str, name: str, reason: str) -> Work:
    """
    Return the work of clearing an alias: its epochs first, so that no worker serves anything, then its memory.

    Only keys under the alias' own prefix are touched.
    """

    def work(teller: Teller) -> None:
        result = invalidation.deliver([Target("tenant", "", ALL, alias)], source="user", name=name, reason=reason)
        teller.step(f"epochs of {alias}", "done" if result.is_done else "failed", result.error)
        where = store(alias)
        if result.is_done and isinstance(where, RedisStore):
            teller.progress.done = 0  # from here on keys are counted
            for count in where.clearing():
                teller.count(count)
                if not teller.goes_on():
                    return  # what is left is read by nobody, and goes at its timeout

    return work
