"""A wire that can be cut: a TCP proxy before the server, which refuses, swallows or holds back what comes."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any, Literal

from django.conf import settings

from faults import site
from server import free_port

Mode = Literal["open", "refused", "black-holed", "hung"]
CHUNK = 65536


def caches_behind(port: int, *aliases: str) -> dict[str, Any]:
    """Return CACHES with a proxy before the server, for some aliases or all."""
    through = {
        alias: settings.CACHES[alias] | {"LOCATION": f"redis://127.0.0.1:{port}/{number}"}
        for number, alias in enumerate(site.ALIASES)
        if not aliases or alias in aliases
    }
    return settings.CACHES | through


class Proxy:
    """
    Forwards to a server on this machine as long as its mode is "open".

    `refused`: nobody listens, and what was connected is cut · `black-holed`: what is sent disappears ·
    `hung`: it is accepted, and forwarded when the wire is open again.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.mode: Mode = "open"
        self.accepted = 0
        """Connections, ever."""
        self._is_open = threading.Event()
        self._is_open.set()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port = free_port()
        self._listener = self._listen(self.port)

    def set(self, mode: Mode) -> None:
        """Break the wire, or mend it."""
        before, self.mode = self.mode, mode
        if mode == "refused":
            # A blocked accept() would keep the port open.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._cut()
        elif before == "refused":
            self._listener = self._listen(self.port)
        if before == "black-holed":
            self._cut()  # what has disappeared does not come back
        if mode == "hung":
            self._is_open.clear()
        else:
            self._is_open.set()

    def cut(self) -> None:
        """Close what is connected; who comes anew is let through."""
        self._cut()

    def close(self) -> None:
        """End it, and cut what is connected."""
        self.set("refused")

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed: nobody listens any more
            while True:
                client, _ = listener.accept()
                self.accepted += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:  # the server itself is gone
                    client.close()
                    continue
                with self._lock:
                    self._sockets |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                self._is_open.wait()
                if self.mode != "black-holed":
                    sink.sendall(data)
        self._end(source, sink)

    def _end(self, *ended: socket.socket) -> None:
        with self._lock:
            self._sockets -= set(ended)
        for one in ended:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _cut(self) -> None:
        with self._lock:
            cut = tuple(self._sockets)
        self._end(*cut)
