"""Fill caches ahead of their readers: by hand in runs, or after a rule that says so."""

from __future__ import annotations

from .afterwards import install, run_waiting
from .runs import Outcome, Report, Result, Step, UnknownFunction, load_functions, plan, run, warm, warmable

__all__ = [
    "Outcome",
    "Report",
    "Result",
    "Step",
    "UnknownFunction",
    "install",
    "load_functions",
    "plan",
    "run",
    "run_waiting",
    "warm",
    "warmable",
]
