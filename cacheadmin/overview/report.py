"""The figures as plain data, for `cache_stats --format json`."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict
from typing import Any

from ..tenancy import Everyone
from .figures import Figure, Figures
from .page import Overview, overview
from .ranges import DEFAULT_RANGE, RANGES, Range
from .rows import Allowed, group_rows, tenant_rows

TENANTS = 50
"""Most tenants in a report."""


def stats_report(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    now: float | None = None,
) -> dict[str, Any]:
    """
    Return what `cache_stats` prints: figures of now, by alias, by group and by tenant (the 50 that cost most).

    Ratios are 0 to 1, rates a minute, times in seconds unless the name says otherwise; unknown is None. Tables are over
    the range. A tenant None is shared data.
    Cost:    four round trips to the server of the roll-ups, one to each other server.
    Raises:  CacheAway if the counters cannot be read.
    """
    page = overview(within, alias=alias, tenants=tenants, now=now)
    by_group = group_rows(within, alias=alias, tenants=tenants, now=now)
    by_tenant = tenant_rows(within, alias=alias, tenants=tenants, now=now)
    ranked = sorted(by_tenant.items(), key=lambda item: -(item[1].cost or 0.0))[:TENANTS]
    return {
        "at": dt.datetime.fromtimestamp(page.now, dt.UTC).isoformat(timespec="seconds"),
        "range_seconds": within.seconds,
        "alias": alias,
        "now": _now(page),
        "notes": [asdict(note) for note in page.notes],
        "aliases": [asdict(row) for row in page.aliases],
        "groups": [
            {"alias": name[0], "group": name[1], **_figures(found)}
            for name, found in sorted(by_group.items(), key=lambda item: -(item[1].cost or 0.0))
        ],
        "tenants": [{"tenant": tenant, **_figures(found)} for tenant, found in ranked],
        "tenants_counted": len(by_tenant),
    }


def _now(page: Overview) -> dict[str, Any]:
    strip = page.strip

    def both(found: Figure) -> dict[str, float | None]:
        return {"now": found.value, "median": found.median}

    return {
        "hit_ratio": both(strip.hit_ratio),
        "requests_per_second": both(strip.requests),
        "read_p50_ms": both(strip.p50_ms),
        "read_p95_ms": both(strip.p95_ms),
        "cost_seconds_per_minute": both(strip.cost),
        "invalidations_per_minute": both(strip.invalidations),
        "waited_most": strip.waited_most,
        "lag_most_seconds": strip.lag_most_seconds,
        "used_bytes": strip.used_bytes,
        "limit_bytes": strip.limit_bytes,
        "evicted": strip.evicted,
    }


def _figures(found: Figures) -> dict[str, Any]:
    return {
        "reads": found.reads,
        "hit_ratio": found.hit_ratio,
        "hit_ratio_change": found.change,
        "requests_per_minute": found.requests,
        "misses_per_minute": found.misses,
        "miss_reasons_per_minute": dict(found.reasons),
        "cost_seconds_per_minute": found.cost,
        "saved_seconds_per_minute": found.saved,
        "mean_compute_seconds": found.mean_compute,
        "mean_read_seconds": found.mean_read,
        "invalidations_per_minute": found.invalidations,
    }
