"""Run scenarios by name, or all in turn, one line each."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from django.db import connections

from faults import Asked, Outcome, Scenario, site
from faults.scenarios import SCENARIOS
from postgres import Postgres
from server import Server

EXAMPLES_SHOWN = 3


def main() -> int:
    """Run what the command line asks for. Returns: 0 if all is green."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("name", choices=["all", *SCENARIOS])
    parser.add_argument("--count", type=int, help="how often (default: the long form)")
    parser.add_argument("--short", action="store_true", help="as often as CI does")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", metavar="MECHANISM", help="take one safety mechanism away")
    parser.add_argument("--to-the-end", action="store_true", help="go on after a violation without a mechanism")
    parser.add_argument(
        "--database", help="sqlite, postgres (one of its own) or postgresql://… (an empty one); default: the scenario's"
    )
    parser.add_argument("--json", action="store_true", help="print the figures for a program")
    asked = parser.parse_args()
    begun = time.monotonic()
    if asked.name == "all":
        worst = run_all(asked)
        sys.stdout.write(f"{'all green' if not worst else 'RED'}, {time.monotonic() - begun:.0f} s in all\n")
        return worst
    scenario = SCENARIOS[asked.name]
    if asked.short:
        asked.count = asked.count or scenario.short
    logging.disable(logging.CRITICAL)  # each fault is logged, as it should be; here only the count matters
    chosen = asked.database or scenario.databases[0]
    outcome = run(scenario, chosen, asked)
    report(f"{scenario.name} {chosen.partition(':')[0]}", scenario, outcome, time.monotonic() - begun, asked.json)
    return 0 if outcome.is_green else 1


def run_all(asked: argparse.Namespace) -> int:
    """Run every scenario on each of its databases. Returns: 0 if all are green."""
    more = ["--seed", str(asked.seed), *(["--count", str(asked.count)] if asked.count else [])]
    more += ["--short"] if asked.short else []
    # Each in a process of its own: Django is set up once a process.
    runs = [(name, database) for name, scenario in SCENARIOS.items() for database in scenario.databases]
    command = [sys.executable, "-m", "faults"]
    return max(subprocess.call([*command, name, "--database", database, *more]) for name, database in runs)


def run(scenario: Scenario, database: str, asked: argparse.Namespace) -> Outcome:
    """Run one scenario against a server and a site of its own."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheadmin-faults-"))
        url = stack.enter_context(Server.start()).url.rpartition("/")[0]
        if database == "postgres":
            database = stack.enter_context(Postgres.start()).create()
        site.set_up(url, Path(directory), database)
        from faults import mechanisms

        if asked.without:
            mechanisms.take_away(asked.without)
        stops_at_first = bool(asked.without) and not asked.to_the_end
        outcome = scenario.run(Asked(asked.count or scenario.long, asked.seed, url, stops_at_first))
        connections.close_all()
        return outcome


def report(name: str, scenario: Scenario, outcome: Outcome, seconds: float, as_json: bool) -> None:
    """Print one line, and the first violations below it."""
    figures = outcome.figures | {name: outcome.figures.get(name, 0) for name in scenario.must}
    if as_json:
        sys.stdout.write(
            json.dumps(
                {
                    "figures": figures,
                    "violations": outcome.violations[:EXAMPLES_SHOWN],
                    "is_broken": outcome.is_broken,
                }
            )
            + "\n"
        )
        return
    told = "  ".join(
        f"{name} {value:,.0f}" if value >= 10 or value == int(value) else f"{name} {value:.2f}"
        for name, value in figures.items()
    )
    sys.stdout.write(f"{'ok ' if outcome.is_green else 'RED'} {name:<24} {told}  ({seconds:.0f} s)\n")
    for violation in outcome.violations[:EXAMPLES_SHOWN]:
        sys.stdout.write(f"    {violation}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
