"""One GET to a server that an administrator named: within 2 seconds and 2 MB, no redirects, no surprising addresses.

The name is resolved here, each address is looked at, and the connection goes to the very address that was looked at: a
name that answers differently a moment later changes nothing. Errors never show the URL, credentials or the answer.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import unquote, urlencode, urlsplit

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from ..exceptions import CacheAdminError

SECONDS: Final = 2.0
MOST_BYTES: Final = 2_000_000
CHUNK_BYTES: Final = 65_536

METADATA: Final = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
"""Addresses at which clouds tell a machine its secrets, of those that are not link-local anyway."""


class FetchFailed(CacheAdminError):
    """There is no answer that can be used. The message may be shown to anybody, in his language."""


_LATE: Final = _("Prometheus does not answer within 2 s.")


@dataclass(frozen=True, slots=True)
class Base:
    """Where to ask, taken apart once."""

    is_secure: bool
    host: str
    port: int
    path: str
    authorization: str = ""

    @classmethod
    def of(cls, url: str) -> Base:
        """Read a URL of the settings. Raises: FetchFailed, which does not repeat it."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise FetchFailed(_("PROMETHEUS_URL is not a URL.")) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FetchFailed(_("PROMETHEUS_URL must begin with http:// or https:// and name a host."))
        authorization = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        is_secure = parts.scheme == "https"
        return cls(is_secure, parts.hostname, port or (443 if is_secure else 80), parts.path.rstrip("/"), authorization)


def get(base: Base, path: str, params: dict[str, str]) -> bytes:
    """
    Return the body of one GET.

    Cost:    at most 2 seconds, name resolution included, and 2 MB.
    Raises:  FetchFailed for anything but a 200 within these.
    """
    answers: queue.SimpleQueue[bytes | FetchFailed] = queue.SimpleQueue()
    deadline, opened = time.monotonic() + SECONDS, list[socket.socket]()

    def run() -> None:
        try:
            opened.append(_connected(base, deadline))
            with opened[0]:
                answers.put(_get(base, opened[0], path, params, deadline))
        except FetchFailed as error:
            answers.put(error)
        except (OSError, HTTPException, ValueError) as error:
            answers.put(FetchFailed(format_lazy(_("Prometheus does not answer: {error}."), error=type(error).__name__)))

    # A thread of its own, because nothing else ends a name resolution that hangs.
    threading.Thread(target=run, name="cacheadmin-prometheus", daemon=True).start()
    try:
        answer = answers.get(timeout=SECONDS + 0.1)
    except queue.Empty:
        answer = FetchFailed(_LATE)
        for sock in opened:  # ends the thread: a server may send one byte a second for ever
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
    if isinstance(answer, FetchFailed):
        raise answer
    return answer


def _get(base: Base, sock: socket.socket, path: str, params: dict[str, str], deadline: float) -> bytes:
    connection = HTTPConnection(base.host, base.port)
    connection.sock = sock
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    if base.authorization:
        headers["Authorization"] = base.authorization
    connection.request("GET", f"{base.path}{path}?{urlencode(params)}", headers=headers)
    with connection.getresponse() as response:
        if response.status != 200:
            raise FetchFailed(format_lazy(_("Prometheus answers with status {status}."), status=response.status))
        body = bytearray()
        while chunk := response.read1(CHUNK_BYTES):
            body += chunk
            if len(body) > MOST_BYTES:
                raise FetchFailed(_("Prometheus answers with more than 2 MB."))
            if time.monotonic() > deadline:
                raise FetchFailed(_LATE)
        return bytes(body)


def _connected(base: Base, deadline: float) -> socket.socket:
    """Connect to the first address of the host that is allowed and answers."""
    failure: Exception = FetchFailed(_("The host of PROMETHEUS_URL has no address."))
    for *_rest, where in socket.getaddrinfo(base.host, base.port, type=socket.SOCK_STREAM):
        address = str(where[0])
        if is_forbidden(address):
            failure = FetchFailed(_("The host of PROMETHEUS_URL has an address that is not asked: link-local or none."))
            continue
        try:
            sock = socket.create_connection((address, base.port), timeout=max(deadline - time.monotonic(), 0.01))
            if base.is_secure:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=base.host)
        except OSError as error:
            failure = error
            continue
        return sock
    raise failure


def is_forbidden(address: str) -> bool:
    """
    Say whether an address is never asked: link-local ones and those where clouds keep a machine's secrets.

    Loopback and private networks are where a Prometheus server usually is.
    """
    found: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and is_forbidden(str(inner)):
            return True
    return found.is_link_local or found.is_multicast or found.is_unspecified or found in METADATA
