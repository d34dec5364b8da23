"""What is compared. Each function takes the bench and how thorough to be, and returns tables."""

from __future__ import annotations

from bench.comparisons.dropping import drops, reclaiming
from bench.comparisons.reading import again, hits, late_fill, misses, parser
from bench.comparisons.trouble import counting, hung, memory, stampede
from bench.comparisons.writing import saves, stale_writes

ALL = {
    "hits": hits,
    "again": again,
    "parser": parser,
    "counting": counting,
    "misses": misses,
    "late": late_fill,
    "drops": drops,
    "reclaiming": reclaiming,
    "saves": saves,
    "writes": stale_writes,
    "memory": memory,
    "stampede": stampede,
    "hung": hung,
}
"""In the order of the report. `hung` stops the server, so it is last."""

__all__ = ["ALL"]
