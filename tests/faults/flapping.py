"""A shop under load, over HTTP, while its server comes and goes."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from faults import Asked, Outcome
from server import Server
from shop.browser import Browser
from shop.processes import Child, free_port

TESTS = Path(__file__).parents[1]
VISITORS = 4
START_SECONDS = 60
HALF_SECONDS = 1.0
CALM_SECONDS = 2.0
TIMEOUT_MS = 100
SHOPS = ("ruby", "gold", "opale", "karat", "lapis")
PAGES = (
    *("/", "/shops/{}/", "/shops/{}/inventory/", "/shops/{}/inventory/?category=rings", "/shops/{}/report/"),
    *("/shops/{}/api/products/", "/shops/{}/api/today/", "/gold/"),
)


def flapping(asked: Asked) -> Outcome:
    """Let the server be up for a second and away for a second, `count` times, while people visit."""
    outcome = Outcome()
    with (
        tempfile.TemporaryDirectory(prefix="cacheadmin-flapping-") as directory,
        Server.start() as server,
        shop(server, Path(directory)) as url,
    ):
        visits = Visits(url, asked.seed)
        with visits.going():
            time.sleep(CALM_SECONDS)
            calm = visits.taken()
            flap(outcome, server, asked.count, lambda: asked.stops_at_first and bool(visits.failed))
            flapped = visits.taken()
        outcome.figures["five_hundreds"] = 0
        for what in visits.failed:
            outcome.violate("five_hundreds", what)
        outcome.figures |= {"pages": len(flapped), "pages_when_calm": len(calm)}
        for name, took in (("calm", calm), ("flapping", flapped)):
            percent = statistics.quantiles(took, n=100, method="inclusive")
            outcome.figures |= {
                f"{name}_p50_ms": round(1000 * percent[49]),
                f"{name}_p99_ms": round(1000 * percent[98]),
            }
    return outcome


def flap(outcome: Outcome, server: Server, count: int, is_over: Callable[[], bool]) -> None:
    """Freeze the server and kill it, in turn; a killed one is replaced by an empty one at the same place."""
    servers = [server]
    try:
        for number in range(count):
            if number % 2 == 0:
                servers[-1].pause()
                time.sleep(HALF_SECONDS)
                servers[-1].resume()
            else:
                servers[-1].kill()
                time.sleep(HALF_SECONDS)
                servers.append(Server.start(port=server.port))
            outcome.count("outages")
            time.sleep(HALF_SECONDS)
            if is_over():
                break
    finally:
        for each in servers[1:]:
            each.stop()


class Visits:
    """Some people who read and buy without a pause worth the name."""

    def __init__(self, url: str, seed: int) -> None:
        self.url, self.seed = url, seed
        self.failed: list[str] = []
        self._took: list[float] = []
        self._over = threading.Event()

    @contextmanager
    def going(self) -> Iterator[None]:
        """Let them visit for a `with` block."""
        threads = [threading.Thread(target=self._visit, args=(self.seed + n,), daemon=True) for n in range(VISITORS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def taken(self) -> list[float]:
        """Return the seconds of each page since the last call."""
        taken, self._took = self._took, []
        return taken

    def _visit(self, seed: int) -> None:
        chance, browser = random.Random(seed), Browser(self.url)
        while not self._over.is_set():
            path = chance.choice(PAGES).format(chance.choice(SHOPS))
            begun = time.monotonic()
            try:
                if chance.random() < 0.05:
                    path = "/gold/move/"
                    browser.submit("/gold/", path)  # a write that concerns everybody
                else:
                    browser.get(path)
            except (OSError, HTTPException, LookupError) as error:
                self.failed.append(f"{path}: {type(error).__name__}: {error}")
                continue
            self._took.append(time.monotonic() - begun)
            if browser.status >= 500:
                self.failed.append(f"{path}: {browser.status} {browser.text[:200]!r}")
            time.sleep(0.02)


@contextmanager
def shop(server: Server, directory: Path) -> Iterator[str]:
    """Run the shop in two workers of four threads."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": os.pathsep.join([os.fspath(TESTS), os.fspath(TESTS.parent)]),
        "REDIS_URL": server.url,
        "SHOP_DB": os.fspath(directory / "shop.sqlite3"),
        "SHOP_TIMEOUT_MS": str(TIMEOUT_MS),
    }
    for command in (("migrate", "--verbosity", "0"), ("seed_shop", "--scale", "0.1")):
        subprocess.run(
            [sys.executable, "-m", "django", *command], env=environment, check=True, stdout=subprocess.DEVNULL
        )
    port = free_port(0)
    url = f"http://127.0.0.1:{port}/"
    command = [
        *(sys.executable, "-m", "gunicorn", "faults.web:application", "--workers", "2", "--threads", "4"),
        *("--worker-class", "gthread", "--bind", f"127.0.0.1:{port}", "--log-level", "error", "--no-control-socket"),
    ]
    with (directory / "web.log").open("wb") as log, Child(command, env=environment, log=log):
        wait_for(url)
        yield url


def wait_for(url: str) -> None:
    """Wait until the shop answers."""
    ends_at, browser = time.monotonic() + START_SECONDS, Browser(url)
    while time.monotonic() < ends_at:
        try:
            browser.get("/")
        except OSError:
            time.sleep(0.1)
        else:
            assert browser.status == 200, browser.text[:500]
            return
    raise AssertionError("The shop does not start.")
