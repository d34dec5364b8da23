"""Processes that end with the demo, however the demo ends. POSIX only, like gunicorn."""

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

import server

GRACE_SECONDS = 2

# A shell leads a session that holds the process and all its children. A second shell waits for the end of a pipe whose
# other end only the demo holds: when the demo is gone, by SIGKILL too, the kernel closes it, and the session gets a
# SIGTERM and soon after a SIGKILL. When the process ends by itself, what it left behind is killed at once.
GUARD = """
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ read -r _ <&3; kill -TERM "$child"; sleep %d; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
wait "$child"
kill -KILL 0
"""


class Child:
    """One process in a session of its own, so that Ctrl-C in the terminal is for the demo alone."""

    def __init__(self, command, *, env=None, log=None):
        """Start `command`; its output goes to the open file `log`, or where the demo's own goes."""
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", GUARD % GRACE_SECONDS, "sh", *map(os.fspath, command)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            env=env,
            start_new_session=True,
        )

    def is_running(self):
        """Say whether the process has not ended yet."""
        return self.process.poll() is None

    def ask_to_stop(self):
        """Send SIGTERM by closing the pipe; SIGKILL follows after `GRACE_SECONDS`."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def stop(self):
        """Ask, wait, and make sure that nothing of it is left."""
        self.ask_to_stop()
        try:
            self.process.wait(GRACE_SECONDS + 1)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stop()


def free_port(first):
    """Return the first port from `first` on that nobody listens on at 127.0.0.1; any free one for 0."""
    if not first:
        return server.free_port()
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise SystemExit(f"Ports {first} to {first + 99} of 127.0.0.1 are taken. Free one, or choose with --port.")


class Running(NamedTuple):
    """A process of this machine."""

    pid: int
    parent: int
    group: int


def running():
    """Yield every process but zombies; from /proc, else from `ps`, which a bare Debian lacks."""
    if Path("/proc/self/stat").exists():
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The name in parentheses may hold spaces; what follows the last one is "state parent group …".
                state, parent, group = path.read_text().rpartition(")")[2].split()[:3]
                if state != "Z":
                    yield Running(int(path.parent.name), int(parent), int(group))
        return
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=True)
    for line in listing.stdout.splitlines():
        *ids, state = line.split()
        if not state.startswith("Z"):
            yield Running(*map(int, ids))
