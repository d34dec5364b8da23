"""The numbers: what this process counts (`recorder`) and what all processes' counts add up to in Redis."""

from __future__ import annotations

from .counts import (
    EVENTS,
    EVERY_TENANT,
    INDEX,
    LATENCY_BOUNDS_US,
    MISS_REASONS,
    OTHER,
    REFUSE_REASONS,
    RESULTS,
    SOURCES,
    Delta,
    Mark,
)
from .recording import recorder
from .sending import rollups

__all__ = [
    "EVENTS",
    "EVERY_TENANT",
    "INDEX",
    "LATENCY_BOUNDS_US",
    "MISS_REASONS",
    "OTHER",
    "REFUSE_REASONS",
    "RESULTS",
    "SOURCES",
    "Delta",
    "Mark",
    "recorder",
    "rollups",
]

recorder.keeper = rollups
