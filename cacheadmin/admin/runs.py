"""Long deeds of a person, done in a thread of this process and followed on a line of Activity.

The line is the only state: its `targets` hold `{"run": …}`, so that every process can show it, and its `state` is
changed to `cancelled` by whoever stops it. A run whose process ended says nothing any more and is shown as failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from django.db import connections
from django.http import HttpRequest
from django.utils import timezone

from cacheadmin import browser, invalidation, warming
from cacheadmin.conf import managed
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.models import Activity
from cacheadmin.progress import PACES, Progress, Teller, progress_of, state_of
from cacheadmin.store import RedisStore, store
from cacheadmin.targets import ALL, Target

from . import acts, told, troubles
from .warmable import steps_for

logger = logging.getLogger("cacheadmin")

STEPS_COUNTED: Final = 1000
"""Calls that are counted before a warm run begins; a longer one has no total."""

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
    pace: str = "fast",
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
        pace=pace if pace in PACES else "fast",
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
        teller.tell(Activity.State.FAILED, troubles.plain(f"{type(error).__name__}: {error}")[:1000])
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


def change_pace(row: Activity, pace: str) -> bool:
    """Ask a run to go on at one of PACES; it hears within a second or after its step. Returns: whether it ran."""
    running = Activity.objects.filter(pk=row.pk, state=Activity.State.RUNNING)
    return pace in PACES and bool(running.update(pace=pace))


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
    work = warm(first if is_whole else steps_for(targets))
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
        pace=pace,
    )


# --- what runs do ---------------------------------------------------------------------------------------------------


def warm(steps: Iterable[warming.Step]) -> Work:
    """Return the work of warming some calls."""

    def work(teller: Teller) -> None:
        def heard(outcome: warming.Outcome) -> None:
            teller.step(str(outcome.step), outcome.result, outcome.error)

        report = warming.run(steps, per_second=teller.per_second, stop=teller.stop, on_outcome=heard)
        if report.away:
            raise CacheAdminError(
                f"The server of alias {report.away!r} does not answer; what is done is kept."  # told by `troubles`
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
