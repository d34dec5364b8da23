"""The numbers: what this process counts (`recorder`) and what all processes' counts add up to in Redis."""

from __future__ import annotations

from .recorder import (
    EVENTS,
    EVERY_TENANT,
    LATENCY_BOUNDS_US,
    MISS_REASONS,
    OTHER,
    REFUSE_REASONS,
    RESULTS,
    SOURCES,
    Delta,
    Mark,
    recorder,
)

__all__ = [
    "EVENTS",
    "EVERY_TENANT",
    "LATENCY_BOUNDS_US",
    "MISS_REASONS",
    "OTHER",
    "REFUSE_REASONS",
    "RESULTS",
    "SOURCES",
    "Delta",
    "Mark",
    "recorder",
]
