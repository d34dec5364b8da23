"""`manage.py cache_doctor`: what is set up wrong, and how to put it right."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import CommandError

from ... import doctor, warming
from ...doctor import Finding
from ..base import CacheCommand, count, printable

SECONDS: Final = 10.0
"""For so long checks begin."""
STEPS: Final = 20
"""Pages of keys that are sampled in each database: a page of the console looks at one."""

LEVELS: Final = ("error", "warning", "info")


class Command(CacheCommand):
    """Examines. Exit code 1 if there is a finding of the level that fails, an error by default; else 0."""

    help = "Check the settings, the servers, the rules, the outbox and what is cached. Changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the level and the format."""
        parser.add_argument(
            "--fail-level", choices=LEVELS, default="error", help="Exit with 1 from this level on (default: error)."
        )
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Examine."""
        try:
            warming.load_functions()
        except Exception as error:  # noqa: BLE001 - a site's own code; there is more to examine
            self.warn(f"The URLconf cannot be loaded ({type(error).__name__}: {error}): some functions are not known.")
        report = doctor.examine(facts=doctor.Facts(seconds=SECONDS, steps=STEPS))
        failing = LEVELS[: LEVELS.index(options["fail_level"]) + 1]
        bad = [finding for finding in report.findings if finding.level in failing]
        if options["format"] == "json":
            self.emit(_as_json(report, is_ok=not bad))
        else:
            self._tell(report)
        if bad:
            raise CommandError(f"{count(len(bad), 'finding')} to put right.")

    def _tell(self, report: doctor.Report) -> None:
        for level in LEVELS:
            for finding in report.findings:
                if finding.level == level:
                    self._tell_finding(finding)
        if report.unfinished:
            names = ", ".join(one.id for one in report.unfinished)
            self.warn(f"Not known, as a server is away or {SECONDS:.0f} s were over: {names}.")
        if report.silenced:
            self.say(f"Silenced by SILENCED_SYSTEM_CHECKS: {', '.join(one.id for one in report.silenced)}.")
        self.say(f"{count(len(report.passed), 'check')} passed, {count(len(report.findings), 'finding')}.")

    def _tell_finding(self, finding: Finding) -> None:
        style = {"error": self.style.ERROR, "warning": self.style.WARNING}.get(finding.level, self.style.NOTICE)
        self.stdout.write(style(printable(f"{finding.level}: {finding.title} ({finding.check})")))
        for head, text in (("Where", finding.where), ("Why", finding.why), ("Fix", finding.fix)):
            if "\n" in text:
                self.say(f"  {head}:")
                for line in text.splitlines():
                    self.say(textwrap.indent(line, "    "))
            elif text:
                self.say(f"  {head}: {text}")
        self.say()


def _as_json(report: doctor.Report, *, is_ok: bool) -> dict[str, Any]:
    names = ("check", "level", "title", "where", "why", "fix", "since")
    return {
        "ok": is_ok,
        "findings": [{name: getattr(finding, name) for name in names} for finding in report.findings],
        **{
            kind: [{"check": check.id, "title": str(check.title)} for check in getattr(report, kind)]
            for kind in ("passed", "unfinished", "silenced")
        },
    }
