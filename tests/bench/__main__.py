"""Command line: `python -m bench [--quick] [--only hits,drops] [--write FILE]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench import comparisons, cores, report
from bench.measure import Bench, Table, Workers
from bench.peers import PEERS, VARIANTS
from server import Server


def reports(names: list[str], *, quick: bool, here: bool = False) -> Iterator[str]:
    """
    Start the server and workers and compare; `here` with those peers alone that this environment has.

    Yields the report after each comparison, so that one that fails late has not lost what was before.
    """
    peers = {
        name: peer.here() if here else peer for name, peer in (PEERS | VARIANTS).items() if not here or peer.is_here()
    }
    with (
        cores.awake(),
        cores.apart(lambda: Server.start(args=("--maxmemory", "4gb"))) as server,
        server,
        Workers(server.url, peers) as workers,
        Bench(server, workers) as bench,
    ):
        tables: list[Table] = []
        for name in names:
            begun = time.monotonic()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            tables += comparisons.ALL[name](bench, quick=quick)
            print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            server_info = bench.client.info("server")
            served = {
                server_info.get("server_name", "redis"): server_info.get("valkey_version", server_info["redis_version"])
            }
            versions = {name: worker.versions for name, worker in workers.started.items()} | {"server": served}
            yield report.render(tables, versions, quick=quick)


def main() -> int:
    """Run, print; return 0."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs, not to quote")
    parser.add_argument("--only", help=f"some of {', '.join(comparisons.ALL)}; comma between them")
    parser.add_argument(
        "--here", action="store_true", help="install nothing: peers that are not installed are left out"
    )
    parser.add_argument("--write", type=Path, help="write the report to this file too, after each comparison")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(comparisons.ALL)
    if unknown := [name for name in names if name not in comparisons.ALL]:
        parser.error(f"no such comparison: {', '.join(unknown)}; there are {', '.join(comparisons.ALL)}")
    os.environ.pop("REDIS_URL", None)
    text = ""
    try:
        for text in reports(names, quick=options.quick, here=options.here):
            if options.write:
                options.write.write_text(text)
    finally:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
