"""The tables as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from bench.measure import Table

COMMAND = 'make bench ARGS="--write docs/benchmarks.md"'


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    rule = ["---"] * len(heads)
    return [f"| {' | '.join(map(str, cells))} |" for cells in (heads, rule, *rows)]


def render(tables: Sequence[Table], versions: dict[str, dict[str, str]], *, quick: bool) -> str:
    """Return the report: targets first, then each comparison."""
    lines = [
        "# Benchmarks",
        "",
        f"Made by `{COMMAND}`" + (" with `--quick`: to see that it runs, not to quote." if quick else "."),
        "",
        "Every peer has an environment and a process of its own, and all share one embedded server on loopback. Ways",
        "are timed round by round, all of a round right after each other in shuffled order; a ratio is the median of",
        "the ratios within rounds, so that a busy machine hits both sides. Times are of one machine, for scale only.",
        "A round trip is one command or pipeline that the caller sends; Redis' CPU is the server's own, user and",
        "system, with all that is done in the background.",
        "",
        "The server has a core of its own, and no core is left to halt: on an idle virtual machine waking up takes",
        "longer than a command does, and whoever pauses just long enough between commands pays for it each time. What",
        "keeps a core awake yields to everybody; it adds one a core to the load.",
        "",
        f"Python {platform.python_version()}. " + "; ".join(_versions(versions)) + ".",
        "",
        f"Load average at the end of the run: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores.",
        "",
    ]
    targets = [target for table in tables for target in table.targets]
    if targets:
        met = sum(target.is_met for target in targets)
        rows = [(t.what, t.measured, t.target, "met" if t.is_met else "**not met**") for t in targets]
        lines += ["## Targets", "", f"{met} of {len(targets)} met.", ""]
        lines += [*_markdown(("What", "Measured", "Target", ""), rows), ""]
    for table in tables:
        lines += [
            f"## {table.title}",
            "",
            *([table.text, ""] if table.text else []),
            *_markdown(table.heads, table.rows),
            "",
        ]
    return "\n".join(lines)


def _versions(versions: dict[str, dict[str, str]]) -> list[str]:
    """Return every package and version once: all environments have the same pins."""
    found = {package: number for peer in versions.values() for package, number in peer.items()}
    return [f"{package} {number}" for package, number in sorted(found.items(), key=lambda item: item[0].lower())]
