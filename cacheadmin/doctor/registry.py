"""The registry of checks, and running them. What a check looks at is in the modules beside this one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from django.db import connections
from django.utils.functional import Promise
from django.utils.translation import get_language, override
from django.utils.translation import gettext as _

from cacheadmin.conf import in_tests, on_change, silenced_checks
from cacheadmin.doctor.facts import Facts
from cacheadmin.doctor.secrets import without_secrets
from cacheadmin.exceptions import ImproperSettings

logger = logging.getLogger("cacheadmin")

Level = Literal["error", "warning", "info"]

LEVELS: Final[dict[str, Level]] = {"E": "error", "W": "warning", "I": "info"}
"""The letter in a check's id -> how bad its findings are. Worst first."""

MOST: Final = 20
"""Findings of one check that are told apart; the rest is a number."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is set up wrong, or fares badly."""

    title: str
    """What is wrong, in a sentence."""
    where: str = ""
    """The setting, alias, rule or function."""
    why: str = ""
    """What it leads to."""
    fix: str = ""
    """What to do; text to paste where that is possible."""
    since: float | None = None
    """Seconds since 1970, where the check knows it."""
    check: str = ""
    """Id of the check, put in by the registry."""

    @property
    def level(self) -> Level:
        """How bad it is, from the check's id."""
        return level_of(self.check)


Find = Callable[[Facts], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Ids are never reused; the letter after the point says how bad a finding is."""

    id: str
    title: str | Promise
    """What is true when nothing is found."""
    look: Find
    at_start: bool
    """Whether it can say something without Redis and the database: then it is one of Django's system checks too."""

    def find(self, facts: Facts | None = None) -> Iterable[Finding]:
        """Look; without facts at what is known at start, or, for a check that needs more, at everything anew."""
        return self.look(Facts(at_start=self.at_start) if facts is None else facts)


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found."""

    at: float
    """Seconds since 1970 at which they ran."""
    findings: tuple[Finding, ...] = ()
    """Worst first."""
    passed: tuple[Check, ...] = ()
    unfinished: tuple[Check, ...] = ()
    """Those that could not look everywhere: a server was away, or no time was left."""
    silenced: tuple[Check, ...] = ()
    """Those that SILENCED_SYSTEM_CHECKS names."""

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Errors and warnings."""
        return tuple(finding for finding in self.findings if finding.level != "info")


def level_of(check_id: str) -> Level:
    """Return how bad the findings of a check are."""
    return LEVELS.get(check_id.rpartition(".")[2][:1], "error")


_checks: dict[str, Check] = {}


def check(check_id: str, title: str | Promise, *, at_start: bool = False) -> Callable[[Find], Find]:
    """Register a function of the facts that yields findings as the check `cacheadmin.<check_id>`."""

    def decorate(find: Find) -> Find:
        full = f"cacheadmin.{check_id}"
        taken = next((known for known in _checks.values() if known.id[-3:] == full[-3:]), None)
        if taken is not None:
            raise ValueError(f"The check id {taken.id} is taken by {taken.look.__name__}(); ids are never reused.")
        _checks[full] = Check(full, title, find, at_start)
        return find

    return decorate


def checks() -> tuple[Check, ...]:
    """Return every check, by its number."""
    return tuple(sorted(_checks.values(), key=lambda known: known.id.rpartition(".")[2][1:]))


def examine(chosen: Iterable[Check] | None = None, facts: Facts | None = None) -> Report:
    """
    Run checks now, all of them by default.

    Cost:    what their `facts` cost: two round trips a database and one for the counters, one query a database and one
             for people, one HTTP request where PROMETHEUS_URL is set. Once the time of the facts is used up no further
             check begins, and the one under way ends with what it has.
    Returns: the findings, worst first. A check that fails is a finding: nothing is raised.
    """
    facts = Facts() if facts is None else facts
    findings: list[Finding] = []
    ended: dict[str, list[Check]] = {"passed": [], "unfinished": [], "silenced": []}
    silenced = silenced_checks()
    for one in checks() if chosen is None else chosen:
        if one.id in silenced:
            ended["silenced"].append(one)
            continue
        if not facts.has_time():
            ended["unfinished"].append(one)
            continue
        try:
            found, is_whole = _run(one, facts)
        except ImproperSettings:
            continue  # E001 says it once; a check that could not even read the settings has nothing to add
        except Exception as error:
            logger.exception("The check %s could not run.", one.id)
            text = _("Could not run: %(error)s") % {"error": f"{type(error).__name__}: {error}"}
            found, is_whole = [Finding(text, where=str(one.title))], True
        findings += [_cleaned(finding, one.id) for finding in found]
        if not is_whole:
            ended["unfinished"].append(one)
        elif not found:
            ended["passed"].append(one)
    worst = list(LEVELS.values())
    findings.sort(key=lambda finding: worst.index(finding.level))
    return Report(time.time(), tuple(findings), *(tuple(ended[name]) for name in ("passed", "unfinished", "silenced")))


def _run(one: Check, facts: Facts) -> tuple[list[Finding], bool]:
    """Return what a check finds, and whether it came to its end."""
    found: list[Finding] = []
    more, facts.is_blind = 0, False
    for finding in one.look(facts):
        if len(found) < MOST:
            found.append(finding)
        else:
            more += 1
        if not facts.has_time():
            return found, False
    if more:
        found.append(Finding(_("%(n)s more of this kind.") % {"n": more}, where=str(one.title)))
    return found, bool(found) or not facts.is_blind


def _cleaned(finding: Finding, check_id: str) -> Finding:
    title, where, why, fix = map(without_secrets, (finding.title, finding.where, finding.why, finding.fix))
    return replace(finding, title=title, where=where, why=why, fix=fix, check=check_id)


# --- kept for a while ----------------------------------------------------------------------------------------------

SOON: Final = 30.0
"""Seconds after which a report with findings is made anew, so that what was put right is not shown for long."""

_examining = threading.Lock()
_latest: dict[str, Report] = {}
"""Language -> this process' last report: its texts are already translated."""


def _is_good(report: Report | None, max_age: float) -> bool:
    return report is not None and time.time() - report.at < (min(max_age, SOON) if report.findings else max_age)


def latest(max_age: float) -> Report:
    """
    Return this process' last report in the active language, a new one if that is older than `max_age` seconds.

    A report with findings is believed for 30 seconds at most. While one thread examines, the others are given the old
    report if there is one.
    """
    language = get_language() or ""
    known = _latest.get(language)
    if known is not None and _is_good(known, max_age):
        return known
    if not _examining.acquire(blocking=known is None):
        assert known is not None
        return known
    try:
        newest = _latest.get(language)
        if newest is None or newest is known:  # nobody was faster
            newest = _latest[language] = examine()
        return newest
    finally:
        _examining.release()


def known(max_age: float) -> Report | None:
    """
    Return this process' last report, and have a new one made beside this thread if it is older than `max_age` seconds.

    For pages that are about something else: they do not wait. Where there can be no thread (tests, a database in
    memory) it is made at once.
    Returns: None if there is none yet.
    """
    language = get_language() or ""
    report = _latest.get(language)
    if _is_good(report, max_age):
        return report
    if in_tests() or any(_is_in_memory(connection) for connection in connections.all()):
        return latest(max_age)
    if not _examining.locked():
        threading.Thread(target=_refresh, args=(language, max_age), name="cacheadmin-doctor", daemon=True).start()
    return report


def _is_in_memory(connection: object) -> bool:
    return bool(getattr(connection, "is_in_memory_db", bool)())


def _refresh(language: str, max_age: float) -> None:
    try:
        with override(language or None):
            latest(max_age)
    except Exception:
        logger.exception("The checks could not be run.")
    finally:
        connections.close_all()


on_change(_latest.clear)
