"""`manage.py cache_doctor`: what is set up wrong, and how to put it right."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from ... import doctor, warming
from ...doctor import Finding
from ..base import CacheCommand, count, printable


class Command(CacheCommand):
    """Examines. Exit code 1 if there is an error; warnings alone leave it 0."""

    help = "Check the settings, the servers, the rules and the cached functions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the format."""
        parser.add_argument(
            "--fail-level", choices=("error", "warning"), default="error", help="Exit with 1 from here on."
        )
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Examine."""
        try:
            warming.load_functions()
        except Exception as error:  # noqa: BLE001 - a site's own code; there is more to examine
            self.warn(f"The URLconf cannot be loaded ({type(error).__name__}: {error}): some functions are not known.")
        report = doctor.examine()
        if options["format"] == "json":
            self.emit(
                {
                    "findings": [_as_json(finding) for finding in report.findings],
                    "passed": [{"check": check.id, "title": str(check.title)} for check in report.passed],
                }
            )
        else:
            for finding in report.findings:
                self._tell(finding)
            self.say(f"{count(len(report.passed), 'check')} passed, {count(len(report.findings), 'finding')}.")
        levels = ("error",) if options["fail_level"] == "error" else ("error", "warning")
        if bad := [finding for finding in report.findings if finding.level in levels]:
            raise CommandError(f"{count(len(bad), 'finding')} to put right.")

    def _tell(self, finding: Finding) -> None:
        style = self.style.ERROR if finding.level == "error" else self.style.WARNING
        self.stdout.write(style(printable(f"{finding.level}: {finding.title} ({finding.check})")))
        for head, text in (("Where", finding.where), ("Why", finding.why), ("Fix", finding.fix)):
            if text:
                self.say(textwrap.indent(f"{head}: {text}", "  "))
        self.say()


def _as_json(finding: Finding) -> dict[str, Any]:
    names = ("check", "level", "title", "where", "why", "fix", "since")
    return {name: getattr(finding, name) for name in names}
