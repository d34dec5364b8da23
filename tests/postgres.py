"""
A PostgreSQL server for the tests: Debian's programs, a directory of its own, a unix socket, gone with its parent.

Nothing here imports Django or cacheadmin.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from server import let_go, watch

START_SECONDS = 30
STOP_SECONDS = 10
USER = "cacheadmin"

# Nothing here has to survive a crash, and what other processes commit must not wait for a disk.
SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class PostgresError(RuntimeError):
    """No server could be found or started; the message says why."""


def find_programs() -> Path | None:
    """Return the directory that holds `initdb` and `postgres`: on PATH, else the newest that Debian has installed."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return installed[-1].parent if installed else None


def settings(url: str) -> dict[str, str]:
    """Return an address, `postgresql://user:password@host:port/name?host=/directory`, as Django's settings name it."""
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": dict(parse_qsl(parts.query)).get("host", parts.hostname or ""),
        "PORT": str(parts.port or ""),
    }


class Postgres:
    """One running server. Make it with `Postgres.start()`; use it as a context manager or call `stop()`."""

    def __init__(self, programs: Path, process: subprocess.Popen[bytes], pid: int, directory: Path) -> None:
        self.process = process
        self.pid = pid
        self.directory = directory
        """Of its socket, its data and its log."""
        self._programs = programs
        self._numbers = itertools.count(1)

    @classmethod
    def start(cls) -> Postgres:
        """
        Make a cluster, start its server and return once it answers. Takes a second or two, half of it for the cluster.

        Raises: PostgresError, with the end of the server's log.
        """
        programs = find_programs()
        if programs is None:
            raise PostgresError("PostgreSQL is not installed; on Debian: apt install postgresql")
        directory = Path(tempfile.mkdtemp(prefix="cacheadmin-pg-"))
        try:
            account = _not_root(directory)
            _initdb(programs, directory, account)
            settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
            process, pid = watch(
                [programs / "postgres", "-D", directory / "data", "-k", directory, *settings],
                directory / "server.log",
                # At once, as after a crash, but with its shared memory removed, which SIGKILL would leave behind.
                ending="QUIT",
                cwd=directory,
                **account,
            )
            server = cls(programs, process, pid, directory)
            server._wait_until_ready()
            return server
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    def url(self, database: str) -> str:
        """Return the address of one of its databases, as `psql` reads it."""
        return f"postgresql://{USER}@/{quote(database)}?{urlencode({'host': os.fspath(self.directory)})}"

    def create(self, name: str = "") -> str:
        """Create an empty database, under a name of its own if none is given, and return its address."""
        name = name or f"made_{os.getpid()}_{next(self._numbers)}"
        # Of the first template, which nobody connects to, so that two processes may copy it at once.
        command = [self._programs / "createdb", "-h", self.directory, "-U", USER, "-T", "template0", name]
        subprocess.run(command, check=True)
        return self.url(name)

    def stop(self) -> None:
        """End the server, its clients' connections too, and remove its directory."""
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGQUIT)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.kill(self.pid, signal.SIGKILL)
                self.process.wait(STOP_SECONDS)
        let_go(self.process)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        asked = [self._programs / "pg_isready", "-q", "-h", self.directory, "-U", USER, "-d", "postgres"]
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if subprocess.call(asked) == 0:
                return
            time.sleep(0.02)
        log = (self.directory / "server.log").read_text(errors="replace")
        self.stop()
        raise PostgresError(f"PostgreSQL did not start:\n{log[-2000:]}")


def _not_root(directory: Path) -> dict[str, Any]:
    """Return Popen's options for an account that may run a server: root may not, so root hands the directory over."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(directory, account.pw_uid, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise PostgresError("PostgreSQL does not run as root, and there is no account `postgres` or `nobody`.")


def _initdb(programs: Path, directory: Path, account: dict[str, Any]) -> None:
    made = subprocess.run(
        [
            *(programs / "initdb", "-D", directory / "data", "-U", USER, "-A", "trust"),
            *("-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"),
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        **account,
    )
    if made.returncode:
        raise PostgresError(f"initdb failed:\n{made.stdout[-1000:]}{made.stderr[-1000:]}")
