"""Those of the doctor's checks that Django runs at start: `manage.py check` prints what they find."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register  # noqa: A004 - Django's own name

from . import doctor


@register(Tags.caches)
def check_setup(**_options: Any) -> list[CheckMessage]:
    """Return the findings about settings and installation. Cost: no query, no round trip."""
    facts = doctor.Facts(at_start=True, seconds=float("inf"))
    found = doctor.examine((check for check in doctor.checks() if check.at_start), facts)
    return [_message(finding) for finding in found.findings]


def _message(finding: doctor.Finding) -> CheckMessage:
    kind = {"error": Error, "warning": Warning, "info": Info}[finding.level]
    where = f"{finding.where}: " if finding.where and finding.where not in finding.title else ""
    return kind(f"{where}{finding.title} {finding.why}".rstrip(), hint=finding.fix or None, id=finding.check)
