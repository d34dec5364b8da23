"""The registry of checks, and running them. What a check looks at is in the modules beside this one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Final, Literal

from django.utils.functional import Promise
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from cacheadmin.conf import on_change
from cacheadmin.exceptions import ImproperSettings

logger = logging.getLogger("cacheadmin")

Level = Literal["error", "warning"]

LEVELS: Final[dict[str, Level]] = {"E": "error", "W": "warning"}
"""The letter in a check's id -> how bad its findings are. Worst first."""


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


Find = Callable[[], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Ids are never reused; the letter after the point says how bad a finding is."""

    id: str
    title: str | Promise
    """What is true when nothing is found."""
    find: Find
    at_start: bool
    """Whether it needs neither Redis nor the database: then it is one of Django's system checks too."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks found."""

    at: float
    """Seconds since 1970 at which they ran."""
    findings: tuple[Finding, ...] = ()
    """Worst first."""
    passed: tuple[Check, ...] = ()


def level_of(check_id: str) -> Level:
    """Return how bad the findings of a check are."""
    return LEVELS.get(check_id.rpartition(".")[2][:1], "error")


_checks: dict[str, Check] = {}


def check(check_id: str, title: str | Promise, *, at_start: bool = False) -> Callable[[Find], Find]:
    """Register a function that yields findings as the check `cacheadmin.<check_id>`."""

    def decorate(find: Find) -> Find:
        full = f"cacheadmin.{check_id}"
        if full in _checks:
            raise ValueError(f"The check id {full} is taken by {_checks[full].find.__name__}(); ids are never reused.")
        _checks[full] = Check(full, title, find, at_start)
        return find

    return decorate


def checks() -> tuple[Check, ...]:
    """Return every check, by its number."""
    return tuple(sorted(_checks.values(), key=lambda known: known.id.rpartition(".")[2][1:]))


def examine(chosen: Iterable[Check] | None = None) -> Report:
    """
    Run checks now, all of them by default.

    Cost:    a few round trips a server, one query; bounded by our own short timeouts while a server is away.
    Returns: the findings, worst first. A check that fails is a finding: nothing is raised.
    """
    findings: list[Finding] = []
    passed: list[Check] = []
    for one in checks() if chosen is None else chosen:
        try:
            found = [replace(finding, check=one.id) for finding in one.find()]
        except ImproperSettings:
            continue  # E001 says it once; a check that could not even read the settings has nothing to add
        except Exception as error:
            logger.exception("The check %s could not run.", one.id)
            text = _("Could not run: %(error)s") % {"error": f"{type(error).__name__}: {error}"}
            found = [Finding(text, where=str(one.title), check=one.id)]
        findings += found
        if not found:
            passed.append(one)
    worst = list(LEVELS.values())
    findings.sort(key=lambda finding: worst.index(finding.level))
    return Report(time.time(), tuple(findings), tuple(passed))


SOON: Final = 30.0
"""Seconds after which a report with findings is made anew, so that what was put right is not shown for long."""

_examining = Lock()
_latest: dict[str, Report] = {}
"""Language -> this process' last report: its texts are already translated."""


def latest(max_age: float) -> Report:
    """
    Return this process' last report in the active language, a new one if that is older than `max_age` seconds.

    A report with findings is believed for 30 seconds at most. While one thread examines, the others are given the old
    report if there is one.
    """
    language = get_language() or ""
    known = _latest.get(language)
    if known is not None and time.time() - known.at < (min(max_age, SOON) if known.findings else max_age):
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


on_change(_latest.clear)
