"""The doctor: checks of how cacheadmin is set up and how it fares. Importing this registers all of them.

A new check is one decorated function in the module of its theme, a row in `docs/checks.md`, and an entry under a
symptom in `docs/troubleshooting.md`. It takes the `Facts` of the examination and asks nobody anything by itself.
"""

from __future__ import annotations

from . import aliases, entries, memory, outbox, people, process, reads, rules, servers, settings, writes
from .facts import Facts
from .registry import Check, Finding, Level, Report, checks, examine, known, latest

__all__ = [
    "Check",
    "Facts",
    "Finding",
    "Level",
    "Report",
    "aliases",
    "checks",
    "entries",
    "examine",
    "known",
    "latest",
    "memory",
    "outbox",
    "people",
    "process",
    "reads",
    "rules",
    "servers",
    "settings",
    "writes",
]
