"""Driving the workers: who does what, round by round in shuffled order, and what the server says it took."""

from __future__ import annotations

import json
import os
import queue
import random
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import redis

from bench.peers import ROOT, Peer
from server import Server

ANSWER_SECONDS = 300

Ways: TypeAlias = Mapping[str, tuple[str, str, dict[str, Any]]]
"""Label -> worker, its way, the way's arguments."""


class BenchError(Exception):
    """A worker could not do what it was told."""


class Worker:
    """One peer's process."""

    def __init__(self, peer: Peer, url: str, **environment: str) -> None:
        self.name = peer.name
        # In memory where the system has such a folder: the disk is not what is measured.
        home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._directory = tempfile.TemporaryDirectory(prefix="cacheadmin-bench-", dir=home)
        paths = [os.fspath(ROOT / "tests"), *([os.fspath(ROOT)] if not peer.has_own_environment else [])]
        given = {
            "BENCH_REDIS": url,
            "BENCH_DB": os.fspath(Path(self._directory.name) / "bench.sqlite3"),
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONHASHSEED": "0",
        }
        inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        self._process = subprocess.Popen(
            [os.fspath(peer.python()), "-m", "bench.worker", peer.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited | given | dict(peer.environment) | environment,
            text=True,
            bufsize=1,
        )
        # Read by a thread of its own, so that waiting for an answer can end.
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.versions: dict[str, str] = self._answer(ANSWER_SECONDS)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")

    def tell(self, **order: Any) -> None:
        """Send one order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")

    def _answer(self, seconds: float) -> Any:
        line = self._answers.get(timeout=seconds)
        if not line:
            raise BenchError(f"{self.name} ended.")
        answer = json.loads(line)
        if "why" in answer:
            raise BenchError(f"{self.name}: {answer['why']}")
        return answer["said"]

    def do(self, seconds: float = ANSWER_SECONDS, **order: Any) -> Any:
        """Send one order and return its answer. Raises: BenchError; queue.Empty when it takes too long."""
        self.tell(**order)
        return self._answer(seconds)

    def wait(self, seconds: float) -> Any:
        """Return the answer to what was told before. Raises: as `do`."""
        return self._answer(seconds)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        self._directory.cleanup()


@dataclass(slots=True)
class Line:
    """What one way to do something took, beside the way that the others are compared with."""

    name: str
    ratio: float
    """Median of the ratios within rounds."""
    seconds: float
    """Median seconds a call: of this machine, for scale only."""
    trips: float
    """Round trips a call."""
    redis_us: float
    """Microseconds of the server's CPU a call."""
    rounds: list[float]
    """Seconds a call in each round."""

    def times(self, other: Line) -> float:
        """Return the median of the ratios to another way within rounds."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))


class Workers(Mapping[str, Worker]):
    """Workers by name, each started when it is first asked for; leaving the block stops them."""

    def __init__(self, url: str, peers: Mapping[str, Peer]) -> None:
        self._url, self._peers = url, peers
        self.started: dict[str, Worker] = {}

    def __getitem__(self, name: str) -> Worker:
        if name not in self.started:
            self.started[name] = Worker(self._peers[name], self._url)
        return self.started[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, name: object) -> bool:
        return name in self._peers

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self.started.values():
            worker.stop()


class Bench:
    """The server and the workers of one run."""

    def __init__(self, server: Server, workers: Mapping[str, Worker]) -> None:
        self.server = server
        self.client = redis.Redis.from_url(server.url)
        self.workers = workers

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.close()

    def make(self, ways: Ways) -> dict[str, Worker]:
        """Build ways. Returns: label -> the worker that has it; those that a peer has not are left out."""
        made = {}
        for label, (name, way, given) in ways.items():
            if name in self.workers and self.workers[name].do(make=way, **{"as": label, "with": given}):
                made[label] = self.workers[name]
        return made

    def compare(self, ways: Ways, against: str, *, rounds: int, calls: int) -> dict[str, Line]:
        """Time ways against one of them, interleaved: every round times all, in an order of its own."""
        made = self.make(ways)
        taken: dict[str, list[float]] = {label: [] for label in made}
        cost = {label: self.cost(worker, label, calls) for label, worker in made.items()}
        for _ in range(rounds):
            for label in random.sample(list(made), len(made)):
                taken[label].append(made[label].do(time=calls, **{"as": label}))
        return {
            label: Line(
                label,
                statistics.median(a / b for a, b in zip(taken[label], taken[against], strict=True)),
                statistics.median(taken[label]),
                *cost[label],
                taken[label],
            )
            for label in made
        }

    def cost(self, worker: Worker, label: str, calls: int) -> tuple[float, float]:
        """Return round trips, and microseconds of the server's CPU, for a call of a way."""
        # First connections, scripts, epochs: what only first calls pay. What is long by itself is not repeated.
        times, more = (3, 5 * calls) if calls > 1 else (1, 1)
        worker.do(time=times, **{"as": label})
        trips = worker.do(trips=calls, **{"as": label}) / calls
        nothing = min(self._spent(lambda: None) for _ in range(3))
        spent = [self._spent(lambda: worker.do(time=more, **{"as": label})) for _ in range(times)]
        return trips, max(statistics.median(spent) - nothing, 0.0) / more * 1e6

    def _spent(self, work: Any) -> float:
        before = self.cpu()
        work()
        return self.cpu() - before

    def cpu(self) -> float:
        """Return the seconds of CPU that the server has used."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def memory(self) -> int:
        """Return the bytes that keys and values take, without the buffers of whoever is connected."""
        stats = self.client.memory_stats()
        table = stats.get("db.0", {})
        return int(stats["dataset.bytes"]) + sum(
            int(table.get(f"overhead.hashtable.{n}", 0)) for n in ("main", "expires")
        )

    def commands(self, worker: Worker, label: str, calls: int) -> dict[str, int]:
        """
        Return how often the server runs each command for calls of a way, those of scripts too.

        The fewest of three times: what a peer sends in the background now and then, nobody waits for.
        """
        return min((self._commands(worker, label, calls) for _ in range(3)), key=lambda told: sum(told.values()))

    def _commands(self, worker: Worker, label: str, calls: int) -> dict[str, int]:
        self.client.config_resetstat()
        worker.do(time=calls, **{"as": label})
        return {
            name.removeprefix("cmdstat_"): stat["calls"]
            for name, stat in self.client.info("commandstats").items()
            if name.removeprefix("cmdstat_").partition("|")[0] not in _OURS
        }

    def flush(self) -> None:
        """Empty the server, at once: Valkey would do it in the background, in the middle of what is measured next."""
        self.client.execute_command("FLUSHALL", "SYNC")

    def populate(self, keys: int) -> None:
        """Add keys of nobody."""
        script = "for i = ARGV[1], ARGV[2] do redis.call('SET', 'other:1:filler:' .. i, 'x') end"
        for start in range(0, keys, 20_000):
            self.client.eval(script, 0, start, min(start + 20_000, keys) - 1)


_OURS = ("info", "config", "client", "select", "hello", "ping", "command", "flushdb", "flushall")


@dataclass(slots=True)
class Target:
    """One promise and what became of it."""

    what: str
    measured: str
    target: str
    is_met: bool


@dataclass(slots=True)
class Table:
    """One comparison, ready to be shown."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    text: str = ""
    targets: list[Target] = field(default_factory=list)
