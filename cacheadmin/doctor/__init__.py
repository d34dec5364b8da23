"""The doctor: checks of how cacheadmin is set up and how it fares. Importing this registers all of them.

A new check is one decorated function in `settings` (what Django's own checks can say too) or `live` (what needs Redis,
the database or imported rules), and a row in `docs/checks.md`.
"""

from __future__ import annotations

from . import live, settings
from .registry import Check, Finding, Level, Report, checks, examine, latest

__all__ = ["Check", "Finding", "Level", "Report", "checks", "examine", "latest", "live", "settings"]
