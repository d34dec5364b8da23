"""The charts' points from a Prometheus server: one fixed query, whose only variable parts are quoted labels."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from ..conf import config, on_change
from ..stats.layout import MINUTE
from .fetching import Base, FetchFailed, get
from .series import Series

REST_SECONDS: Final = 30.0
"""How long a server that did not answer is left alone, so that not every page waits for it."""

WINDOW_SECONDS: Final = 120
"""Least window of a rate: two samples of a server that scrapes once a minute."""

BEFORE: Final = "15m"
"""How long a counter may have been out of sight and still go on from where it was."""

RESULTS: Final = ("hit", "stale", "miss", "bypassed", "error")

AGAIN: Final = " again"
"""What the second part of a line is called: what was counted since a counter began again with its process."""

_READS: Final = "cacheadmin_reads_total{%(site)s}"

COUNTED: Final = {
    "cost": "cacheadmin_compute_seconds_total{%(site)s}",
    "invalidations": "cacheadmin_invalidations_total{%(site)s}",
    "evicted": "cacheadmin_server_evicted_keys_total{%(servers)s}",
}
"""A line of the charts -> the counter that it adds up."""

LINES: Final = {
    "p50": "histogram_quantile(0.5, sum by (le) (rate(cacheadmin_read_seconds_bucket{%(site)s}[%(window)s])))",
    "p95": "histogram_quantile(0.95, sum by (le) (rate(cacheadmin_read_seconds_bucket{%(site)s}[%(window)s])))",
    "used": "sum(max by (server) (cacheadmin_server_memory_bytes{%(servers)s}))",
    "waiting": "sum(max by (database) (max_over_time(cacheadmin_outbox_waiting{%(servers)s}[%(step)ss])))",
    "lag": "max(max_over_time(cacheadmin_relay_lag_seconds{%(servers)s}[%(step)ss]))",
    "limit": "sum(max by (server) (cacheadmin_server_memory_limit_bytes{%(servers)s} > 0))",
}
"""A line of the charts -> how to ask for it."""

# Not increase(): that guesses what happened between the samples and the edges of the window, so that its sums are not
# what was counted. Differences of samples, one after the other, add up to it. Of each series by itself, since what is
# summed over hosts does not show that one of them began again.
RISE: Final = (
    "clamp_min(max_over_time(%(counter)s[%(step)ss])"
    " - last_over_time(%(counter)s[%(before)s] offset %(step)ss), 0)"
    # The first sample of a series: all of it, if its process was looked at before and had no such series yet. If not,
    # the process may have counted for days before somebody looked.
    " or (max_over_time(%(counter)s[%(step)ss]) and on (job, instance) (up{%(servers)s} offset %(step)ss == 1))"
    " or (max_over_time(%(counter)s[%(step)ss]) - min_over_time(%(counter)s[%(step)ss]))"
)
"""How far a counter rose within a bucket, or to its highest if it began again."""

FELL: Final = (
    "%(counter)s < max_over_time(%(counter)s[%(step)ss])"
    " or %(counter)s < last_over_time(%(counter)s[%(before)s] offset %(step)ss)"
)
"""How far a counter is that began again within a bucket."""


def quoted(text: str) -> str:
    """Return a text as PromQL writes it between double quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def selector(labels: Mapping[str, str]) -> str:
    """Return matchers for labels; a name that Prometheus would not take is left out."""
    return ",".join(f"{name}={quoted(text)}" for name, text in sorted(labels.items()) if name.isidentifier())


def query(alias: str | None, step: int) -> str:
    """Return the one query: all lines of the charts, told apart by the label `line`."""
    labels = config().prometheus_labels
    words = {
        "site": selector({**labels, "alias": alias} if alias else labels),
        "servers": selector(labels),
        "window": f"{max(step, WINDOW_SECONDS)}s",
        "step": str(step),
        "before": BEFORE,
    }
    parts = [f'label_replace({text % words}, "line", "{line}", "", "")' for line, text in LINES.items()]
    for how, suffix in ((RISE, ""), (FELL, AGAIN)):
        reads = how % (words | {"counter": _READS % words})
        parts.append(f'label_replace(sum by (result) ({reads}), "line", "$1{suffix}", "result", "(.+)")')
        for line, counter in COUNTED.items():
            text = how % (words | {"counter": counter % words})
            parts.append(f'label_replace(sum({text}), "line", "{line}{suffix}", "", "")')
    return " or ".join(parts)


class _Rest:
    """When a server that failed may be asked again."""

    def __init__(self) -> None:
        self.ends: tuple[float, tuple[object, ...]] = (float("-inf"), ())

    def forget(self) -> None:
        """Ask at once (settings changed)."""
        self.ends = (float("-inf"), ())

    def check(self) -> None:
        """Raise: FetchFailed, as the last time, while the server is left alone."""
        until, why = self.ends
        if time.monotonic() < until:
            raise FetchFailed(*why)

    def begin(self, error: FetchFailed) -> None:
        """Leave the server alone."""
        self.ends = (time.monotonic() + REST_SECONDS, error.args)


_rest = _Rest()
on_change(_rest.forget)


def known_series() -> int:
    """
    Return how many series of our counters the server has of this site.

    Cost:    one HTTP request of at most 2 s; none for 30 s after one that failed.
    Raises:  FetchFailed.
    """
    _rest.check()
    asked = f"count(cacheadmin_reads_total{{{selector(config().prometheus_labels)}}})"
    try:
        answer = json.loads(get(Base.of(config().prometheus_url or ""), "/api/v1/query", {"query": asked}))
        return sum(int(found["value"][1]) for found in answer["data"]["result"])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise FetchFailed(_("Prometheus answers with something else than a number.")) from error
    except FetchFailed as error:
        _rest.begin(error)
        raise


def redrawn(points: Series, alias: str | None, now: float) -> Series:
    """
    Return the same series with what Prometheus knows in place of what the roll-ups do.

    The line of the worst tenant stays: Prometheus has no series of each tenant.
    Cost:    one HTTP request of at most 2 s; none for 30 s after one that failed.
    Raises:  FetchFailed.
    """
    _rest.check()
    try:
        lines = _lines(points.times, points.step, alias, now)
    except FetchFailed as error:
        _rest.begin(error)
        raise
    return _drawn(points, lines)


def _lines(times: Sequence[int], step: int, alias: str | None, now: float) -> dict[str, dict[int, float]]:
    base = Base.of(config().prometheus_url or "")
    whole = [start for start in times if start + step <= now]  # what is not over yet cannot be asked for
    if not whole:
        return {}
    # What happened in a bucket is known at its end.
    start, end = str(whole[0] + step), str(whole[-1] + step)
    params = {"query": query(alias, step), "start": start, "end": end, "step": str(step)}
    return parsed(get(base, "/api/v1/query_range", params), step)


def parsed(body: bytes, step: int) -> dict[str, dict[int, float]]:
    """Return line -> beginning of the bucket -> value, of the answer to `query`. Raises: FetchFailed."""
    try:
        answer = json.loads(body)
        if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
            raise FetchFailed(_("Prometheus refused the query."))
        found: dict[str, dict[int, float]] = {}
        for series in answer["data"]["result"]:
            line = found.setdefault(str(series["metric"]["line"]), {})
            line.update({int(float(at)) - step: float(value) for at, value in series["values"]})
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise FetchFailed(_("Prometheus answers with something else than a matrix.")) from error
    return found


def _drawn(points: Series, lines: Mapping[str, Mapping[int, float]]) -> Series:
    def line(name: str, scale: float = 1.0) -> list[Any]:
        known = lines.get(name, {})
        values = [known.get(start) for start in points.times]
        return [None if value is None or not math.isfinite(value) else value * scale for value in values]

    def counted(name: str, scale: float = 1.0) -> list[Any]:
        """Return a line of two parts; a gap where the first is unknown."""
        parts = zip(line(name, scale), line(name + AGAIN, scale), strict=True)
        return [None if rise is None else rise + (again or 0.0) for rise, again in parts]

    a_second, a_minute = 1 / points.step, MINUTE / points.step
    by_result = {result: counted(result, a_second) for result in RESULTS}
    # Where one result is known, those without a series did not happen; where none is, nothing is known.
    for at in range(len(points.times)):
        if any(values[at] is not None for values in by_result.values()):
            for values in by_result.values():
                values[at] = values[at] or 0.0
    ratios = [_ratio(hit, stale, miss) for hit, stale, miss, *_ in zip(*by_result.values(), strict=True)]
    limits = [value for value in line("limit") if value is not None]
    return replace(
        points,
        hit=by_result["hit"],
        stale=by_result["stale"],
        miss=by_result["miss"],
        bypassed=by_result["bypassed"],
        error=by_result["error"],
        hit_ratio=ratios,
        p50_ms=line("p50", 1000),
        p95_ms=line("p95", 1000),
        cost=counted("cost", a_minute),
        invalidations=counted("invalidations", a_minute),
        used_bytes=[None if value is None else int(value) for value in line("used")],
        limit_bytes=int(limits[-1]) if limits else None,
        evicted=[None if value is None else round(value) for value in counted("evicted")],
        waiting=[None if value is None else int(value) for value in line("waiting")],
        lag_seconds=line("lag"),
    )


def _ratio(hit: float | None, stale: float | None, miss: float | None) -> float | None:
    """Return the hit ratio; None without reads that the cache answered: a gap, not 0 or 100%."""
    if hit is None or stale is None or miss is None or hit + stale + miss == 0:
        return None
    return (hit + stale) / (hit + stale + miss)
