"""A real Prometheus for a test: in a directory of its own, on loopback, gone with the process that started it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from shop.processes import Child, free_port

START_SECONDS = 60
SCRAPE_SECONDS = 30

CONFIG = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: shop
    static_configs:
      - targets: [{targets}]
"""


class QueryError(Exception):
    """Prometheus refused a query; the message is its own."""


class Prometheus:
    """
    One running server that scrapes `targets` ("127.0.0.1:8000") once a second; a context manager.

    `program` is its path, `directory` an empty one for its data, `rules` files of alert rules.
    """

    def __init__(self, program: str, directory: Path, targets: Sequence[str], rules: Sequence[Path] = ()) -> None:
        config = directory / "prometheus.yml"
        lists = {"targets": targets, "rules": [rule.resolve() for rule in rules]}
        config.write_text(CONFIG.format(**{name: ", ".join(map(str, some)) for name, some in lists.items()}))
        port = free_port(0)
        self.url = f"http://127.0.0.1:{port}"
        self._log = directory / "prometheus.log"
        command = [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with self._log.open("wb") as log:
            self._child = Child(command, log=log)
        self.wait_for(lambda: self._get("/api/v1/status/buildinfo", {}), "start", START_SECONDS)

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """
        Return the series of an instant query. Raises: QueryError.

        After a scrape that took too long no series is left: a query of now waits for the next one.
        """
        when = {} if at is None else {"time": str(at)}
        deadline = time.monotonic() + SCRAPE_SECONDS
        while at is None and time.monotonic() < deadline and self._get("/api/v1/query", {"query": "up == 0"})["result"]:
            time.sleep(0.1)
        found: list[dict[str, Any]] = self._get("/api/v1/query", {"query": promql, **when})["result"]
        return found

    def value(self, promql: str) -> float:
        """Return the value of the first series, 0.0 if there is none."""
        found = self.query(promql)
        return float(found[0]["value"][1]) if found else 0.0

    def label_values(self, label: str, matching: str) -> list[str]:
        """Return the values of a label, of the series of a selector."""
        found: list[str] = self._get(f"/api/v1/label/{label}/values", {"match[]": matching})
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules as Prometheus has loaded them, with their health."""
        groups: list[dict[str, Any]] = self._get("/api/v1/rules", {})["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def wait_for(self, holds: Any, what: str, seconds: float) -> None:
        """Return when `holds()` is true. Raises: AssertionError with the end of the server's log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except (OSError, QueryError):  # 503 while it starts
                assert self._child.is_running(), self._log.read_text()[-2000:]
            time.sleep(0.2)
        raise AssertionError(f"Prometheus waited {seconds} s in vain: {what}.\n{self._log.read_text()[-2000:]}")

    def _get(self, path: str, params: dict[str, str]) -> Any:
        address = f"{self.url}{path}?{urllib.parse.urlencode(params)}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(f"{error.read().decode()}\n{params}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()
