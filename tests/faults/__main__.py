"""Run scenarios by name, or all in turn, one line each."""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults import Asked, Outcome, Scenario, site
from faults.scenarios import SCENARIOS
from server import Server

EXAMPLES_SHOWN = 3


def main() -> int:
    """Run what the command line asks for. Returns: 0 if all is green."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("name", choices=["all", *SCENARIOS])
    parser.add_argument("--count", type=int, help="how often (default: the long form)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", metavar="MECHANISM", help="take one safety mechanism away")
    parser.add_argument("--json", action="store_true", help="print the figures for a program")
    asked = parser.parse_args()
    if asked.name == "all":
        more = ["--seed", str(asked.seed), *(["--count", str(asked.count)] if asked.count else [])]
        # Each in a process of its own: Django is set up once a process.
        codes = [subprocess.call([sys.executable, "-m", "faults", name, *more]) for name in SCENARIOS]
        return max(codes)
    scenario = SCENARIOS[asked.name]
    logging.disable(logging.CRITICAL)  # each fault is logged, as it should be; here only the count matters
    begun = time.monotonic()
    outcome = run(scenario, asked.count or scenario.long, asked.seed, asked.without)
    report(scenario, outcome, time.monotonic() - begun, as_json=asked.json)
    return 0 if outcome.is_green else 1


def run(scenario: Scenario, count: int, seed: int, without: str | None) -> Outcome:
    """Run one scenario against a server and a site of its own."""
    with tempfile.TemporaryDirectory(prefix="cacheadmin-faults-") as directory, Server.start() as server:
        url = server.url.rpartition("/")[0]
        site.set_up(url, Path(directory))
        from faults import mechanisms

        if without:
            mechanisms.take_away(without)
        return scenario.run(Asked(count, seed, url, stops_at_first=bool(without)))


def report(scenario: Scenario, outcome: Outcome, seconds: float, *, as_json: bool) -> None:
    """Print one line, and the first violations below it."""
    figures = outcome.figures | {name: outcome.figures.get(name, 0) for name in scenario.must}
    if as_json:
        sys.stdout.write(json.dumps({"figures": figures, "violations": outcome.violations[:EXAMPLES_SHOWN]}) + "\n")
        return
    told = "  ".join(f"{name} {value:,.0f}" for name, value in figures.items())
    sys.stdout.write(f"{'ok ' if outcome.is_green else 'RED'} {scenario.name:<16} {told}  ({seconds:.0f} s)\n")
    for violation in outcome.violations[:EXAMPLES_SHOWN]:
        sys.stdout.write(f"    {violation}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
