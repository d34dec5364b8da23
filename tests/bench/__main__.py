"""Command line: `python -m bench [--quick] [--write FILE]`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from server import Server


def main() -> int:
    """Start a server, set Django up, run, print; return 0."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to quote")
    parser.add_argument("--write", type=Path, help="write the report to this file too")
    options = parser.parse_args()
    with Server.start(args=("--maxmemory", "2gb")) as server:
        os.environ["REDIS_URL"] = server.url
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"
        os.environ["BENCH_REDIS"] = server.url_for(0).rsplit("/", 1)[0]
        from bench import report, rows

        rows.prepare()
        text = report.render(rows.run(quick=options.quick), quick=options.quick)
    sys.stdout.write(text)
    if options.write:
        options.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
