"""The figures as a Markdown table."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from bench.rows import Row

PACKAGES = ("Django", "django-redis", "redis", "hiredis", "django-prometheus", "django-cache-memoize")


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} –"


def _verdict(row: Row) -> str:
    return {True: "met", False: "**not met**", None: ""}[row.is_met]


def render(rows: list[Row], *, quick: bool) -> str:
    """Return the report. Ratios are medians of the ratios within interleaved rounds; times of one run mean little."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`" + (" with `--quick`: to see that it runs, not to quote." if quick else "."),
        "Each figure is the median of the ratios within interleaved rounds of one run: a busy machine hits both sides.",
        "",
        f"Python {platform.python_version()}, {', '.join(map(_version, PACKAGES))}; embedded server on loopback.",
        "",
        "| What | Against | Ratio | Target | | Round trips | Besides |",
        "| --- | --- | ---: | --- | --- | --- | --- |",
    ]
    for row in rows:
        besides = "; ".join(
            [*(f"{name} {figure:.2f}" for name, figure in row.others.items()), *filter(None, [row.notes])]
        )
        figure = f"{row.ratio:.3f}" if row.ratio < 0.1 else f"{row.ratio:.2f}"
        cells = (row.name, row.against, figure, row.target, _verdict(row), row.round_trips, besides)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
