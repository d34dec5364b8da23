"""
The peers, each in an environment of its own below `build/bench`, made by pip once and kept.

They cannot share one: they patch Django, ask for different redis-py, and would measure each other. All get the versions
that `requirements/constraints.txt` pins, so that Django, redis-py and hiredis are the same for everybody.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import venv
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
HOME = ROOT / "build" / "bench"

BASE = ("Django", "redis", "hiredis")
_MODULES = {
    "Django": "django",
    "django-redis": "django_redis",
    "django-prometheus": "django_prometheus",
    "django-cache-memoize": "cache_memoize",
    "django-cacheops": "cacheops",
    "django-cachalot": "cachalot",
    "dj-cache-panel": "dj_cache_panel",
}
"""Package -> what is imported."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One library, or ours, as a worker process runs it."""

    name: str
    packages: tuple[str, ...] = ()
    """What pip installs beside BASE; for ours nothing: it runs where the benchmark runs."""
    adapter: str = ""
    """Module below `bench.adapters`; default: the name."""
    environment: tuple[tuple[str, str], ...] = ()
    has_own_environment: bool = True
    home: str = ""
    """The peer whose environment it shares; default: its own."""

    def is_here(self) -> bool:
        """Say whether all that it needs is installed where the benchmark runs."""
        return all(importlib.util.find_spec(_MODULES.get(package, package)) for package in (*BASE, *self.packages))

    def here(self) -> Peer:
        """Return it as it runs in this environment."""
        return replace(self, has_own_environment=False)

    @property
    def module(self) -> str:
        """The adapter to import."""
        return f"bench.adapters.{self.adapter or self.name}"

    @property
    def folder(self) -> Path:
        """Where its environment is; another one when its packages or the pins change."""
        told = "\n".join((sys.version, *BASE, *self.packages, CONSTRAINTS.read_text()))
        return HOME / f"{self.home or self.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def python(self) -> Path:
        """Return the interpreter of its environment, which is made if it is not there."""
        if not self.has_own_environment:
            return Path(sys.executable)
        python, done = self.folder / "bin" / "python", self.folder / "installed"
        if not done.exists():
            print(f"Installing {self.name} into {self.folder.relative_to(ROOT)} ...", file=sys.stderr, flush=True)
            venv.create(self.folder, with_pip=False, clear=True, symlinks=True)
            command = [sys.executable, "-m", "pip", "--python", os.fspath(python), "install", "--quiet"]
            command += ["--disable-pip-version-check", "-c", os.fspath(CONSTRAINTS), *BASE, *self.packages]
            subprocess.run(command, check=True)
            done.touch()
        return python


PEERS = {
    peer.name: peer
    for peer in (
        Peer("redis-py", adapter="raw"),
        Peer("django-redis", ("django-redis",), adapter="stock"),
        Peer("django-prometheus", ("django-redis", "django-prometheus"), adapter="prometheus"),
        Peer("django-cache-memoize", ("django-redis", "django-cache-memoize"), adapter="memoize"),
        Peer("django-cacheops", ("django-cacheops",), adapter="cacheops"),
        Peer("django-cachalot", ("django-redis", "django-cachalot"), adapter="cachalot"),
        Peer("dj-cache-panel", ("django-redis", "dj-cache-panel"), adapter="panel"),
        Peer("cacheadmin", has_own_environment=False, adapter="ours"),
    )
}


def _other(name: str, of: str, **environment: str) -> Peer:
    """Return a peer in the environment of another one, told something else."""
    return replace(PEERS[of], name=name, environment=tuple(environment.items()), home=of)


VARIANTS = {
    peer.name: peer
    for peer in (
        _other("redis-py without hiredis", "redis-py", BENCH_WITHOUT_HIREDIS="1"),
        _other("cacheadmin without hiredis", "cacheadmin", BENCH_WITHOUT_HIREDIS="1"),
        _other("cacheadmin on_failure", "cacheadmin", BENCH_OUTBOX="on_failure"),
        _other("cacheadmin off", "cacheadmin", BENCH_OUTBOX="off"),
        _other("cacheadmin REQUEST_MEMO", "cacheadmin", BENCH_REQUEST_MEMO="1"),
        _other("cacheadmin default", "cacheadmin", BENCH_TIMEOUT_MS="100"),
        _other("django-redis with timeouts", "django-redis", BENCH_SOCKET_TIMEOUT="0.1"),
    )
}
"""The same with another parser, outbox, memory or timeout."""
