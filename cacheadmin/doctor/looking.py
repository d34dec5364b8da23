"""Looking at servers and keys: INFO, the time, and a sample of keys, in two round trips a database. Only reads."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cacheadmin import connections, envelope
from cacheadmin.conf import cache_settings, config
from cacheadmin.connections import AWAY, NO_IDENTITY, link
from cacheadmin.exceptions import CacheAway, InvalidKey
from cacheadmin.keys import Group, Parsed, Place, alias_base, parse, split
from cacheadmin.stats.layout import base as numbers_base

SCAN_COUNT: Final = 500
SAMPLED: Final = 150
"""Keys of one page of a SCAN that are looked at more closely."""

MOST_CLIENTS: Final = 500
"""Clients up to which they are listed; the list of more is long."""

HEADER_BYTES: Final = envelope.header_bytes_limit(tags=8)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a sample."""

    name: str
    kind: Literal["entry", "plain", "own", "foreign"]
    """`entry` a value with our header · `plain` one without · `own` bookkeeping · `foreign` of no alias here."""
    alias: str = ""
    """Empty for a foreign one."""
    what: str = ""
    """The function that filled it, or its group; never its arguments."""
    size_bytes: int = 0
    expires: bool = True
    is_orphan: bool = False

    @property
    def is_value(self) -> bool:
        """Whether it holds what somebody cached."""
        return self.kind in ("entry", "plain")


@dataclass(slots=True)
class Database:
    """One database of a server."""

    number: int
    aliases: tuple[str, ...]
    keys: int = 0
    """Keys in it, of whomever."""
    sample: list[Key] = field(default_factory=list)


@dataclass(slots=True)
class Server:
    """One server behind managed aliases."""

    name: str
    aliases: tuple[str, ...]
    info: dict[str, str] = field(default_factory=dict)
    databases: list[Database] = field(default_factory=list)
    error: CacheAway | None = None
    """Why it could not be asked at all."""
    cause: BaseException | None = None
    """What that came from, where it is known."""
    refusals: dict[str, BaseException] = field(default_factory=dict)
    """Alias -> why this one cannot use the server that answers others."""
    away_since: float = 0.0
    seconds: float = 0.0
    """The shortest round trip that was seen."""
    ahead_seconds: float = 0.0
    """How far its clock is ahead of ours; below zero if it is behind."""
    clients: list[dict[str, str]] = field(default_factory=list)
    """Who is connected, as CLIENT LIST tells; empty where that is not allowed or they are many."""

    @property
    def has_identity(self) -> bool:
        """Whether it says who it is."""
        return any(link(alias).identity not in (b"", NO_IDENTITY) for alias in self.aliases)

    @property
    def is_cluster(self) -> bool:
        """Whether it is part of a cluster, as far as it could be asked."""
        said = any("cluster" in str(refusal).lower() for refusal in self.refusals.values())
        return said or self.info.get("cluster_enabled") == "1"

    def number(self, fact: str) -> int:
        """Return a number of INFO; 0 where it does not tell."""
        text = self.info.get(fact, "")
        return int(text) if text.isdigit() else 0


def look(places: Mapping[str, tuple[str, int]], steps: int, deadline: float) -> tuple[Server, ...]:
    """
    Ask every server and sample each of its databases.

    Cost:    two round trips a database, and two more for each further step; a server that is away is asked once.
    """
    servers: dict[str, dict[int, list[str]]] = {}
    for alias, (name, number) in places.items():
        servers.setdefault(name, {}).setdefault(number, []).append(alias)
    found = []
    for name, databases in servers.items():
        server = Server(name, tuple(alias for aliases in databases.values() for alias in aliases))
        for number, aliases in databases.items():
            try:
                _look_at(server, Database(number, tuple(aliases)), steps, deadline)
            except CacheAway as error:
                server.away_since = link(aliases[0]).away_since
                # Skipped: a call before this one has failed, and it is not time to try again.
                cause = error.__cause__ or link(aliases[0]).failure
                if cause is None or isinstance(cause, AWAY):
                    server.error, server.cause = error, cause
                    break  # its other databases would not answer either
                server.refusals.update(dict.fromkeys(aliases, cause))
        found.append(server)
    return tuple(found)


def _look_at(server: Server, database: Database, steps: int, deadline: float) -> None:
    to = link(database.aliases[0])
    first: list[tuple[Any, ...]] = [] if server.info else [("INFO",)]
    timer = _Timer(server)
    size, scanned, *told = timer.call(to, [("DBSIZE",), ("SCAN", 0, "COUNT", SCAN_COUNT), *first])
    if told and isinstance(told[0], bytes):
        server.info = _facts(told[0].decode("utf-8", "replace").splitlines())
    database.keys = size if isinstance(size, int) else 0
    server.databases.append(database)
    whose = _Whose(database.aliases)
    for step in range(steps):
        if not isinstance(scanned, list):
            return  # a server that does not let us SCAN
        names = [name for name in scanned[1] if isinstance(name, bytes)]
        known = {key.name for key in database.sample}
        page = [_text(name) for name in names if _text(name) not in known]
        chosen = random.sample(page, SAMPLED) if len(page) > SAMPLED else page
        is_last = step == steps - 1 or int(scanned[0]) == 0 or time.monotonic() > deadline
        extra: list[tuple[Any, ...]] = [] if is_last else [("SCAN", int(scanned[0]), "COUNT", SCAN_COUNT)]
        wants_clients = not step and not server.clients and 0 < server.number("connected_clients") <= MOST_CLIENTS
        extra += [("CLIENT", "LIST")] if wants_clients else []
        questions = [whose.questions(name) for name in chosen]
        replies = timer.call(to, [*extra, *(command for asked in questions for command in asked)])
        more, replies = replies[: len(extra)], replies[len(extra) :]
        if wants_clients and isinstance(more[-1], bytes):
            server.clients = [_client(line) for line in more[-1].decode("utf-8", "replace").splitlines() if line]
        for name, asked in zip(chosen, questions, strict=True):
            answers, replies = replies[: len(asked)], replies[len(asked) :]
            if (key := whose.key(name, answers, to.identity)) is not None:
                database.sample.append(key)
        if is_last:
            return
        scanned = more[0]


class _Timer:
    """Asks, each time for the server's clock too, and keeps the shortest round trip and what it said of the clock."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def call(self, to: connections.Link, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        wall, begun = time.time(), time.monotonic()
        now, *values = to.call(("TIME",), *commands).values
        took = time.monotonic() - begun
        if isinstance(now, list) and (not self.server.seconds or took < self.server.seconds):
            self.server.seconds = took
            self.server.ahead_seconds = int(now[0]) + int(now[1]) / 1_000_000 - (wall + took / 2)
        return values


class _Whose:
    """Tells which alias of one database a key belongs to, and what to ask about it."""

    def __init__(self, aliases: Iterable[str]) -> None:
        self.prefixes = {alias: connections.prefix(alias) for alias in aliases}
        self.bases = {alias: alias_base(prefix, alias) for alias, prefix in self.prefixes.items()}
        self.numbers = numbers_base() if config().stats_alias in self.prefixes else ""
        self.may_differ = any("KEY_FUNCTION" in cache_settings(alias) for alias in self.prefixes)
        """Whether keys of another tenant have another prefix, so that none can be called foreign."""

    def _entry(self, name: str) -> tuple[str, Group, Parsed] | None:
        """Return whose entry it is; None for any other key, and where names are so long that digests stand for them."""
        for alias, base in self.bases.items():
            if name.startswith(base) and (parsed := parse(name, self.prefixes[alias], alias)) and parsed.kind == "v":
                group = Place(self.prefixes[alias], alias, parsed.tenant).group(parsed.group)
                return (alias, group, parsed) if name == group.values + parsed.member else None
        return None

    def questions(self, name: str) -> list[tuple[Any, ...]]:
        """Return what to ask about a key. `key` takes the answers."""
        raw = name.encode("utf-8", "surrogateescape")
        asked: list[tuple[Any, ...]] = [("MEMORY", "USAGE", raw, "SAMPLES", 5), ("PTTL", raw)]
        if found := self._entry(name):
            group = found[1]
            asked += [("GETRANGE", raw, 0, HEADER_BYTES), ("GET", group.tenant_epoch), ("GET", group.epoch)]
        return asked

    def key(self, name: str, answers: Sequence[Any], identity: bytes) -> Key | None:
        """Return what the answers say about a key; None if it is gone, or nobody can say whose it is."""
        size, ttl_ms, *of_entry = answers
        if size is None or ttl_ms == -2:
            return None
        size, expires = (size if isinstance(size, int) else 0), ttl_ms != -1
        if found := self._entry(name):
            alias, group, _ = found
            header = envelope.parse(of_entry[0]) if isinstance(of_entry[0], bytes) else None
            what = str(header.about.get("fn") or "") if header else ""
            is_orphan = header is not None and (header.epochs[:2] != tuple(of_entry[1:]) or header.identity != identity)
            return Key(name, "entry", alias, what or group.name, size, expires, is_orphan)
        if self.numbers and name.startswith(self.numbers):
            return Key(name, "own", config().stats_alias, "", size, expires)
        for alias, base in self.bases.items():
            if name.startswith(base):
                return Key(name, "own", alias, "", size, expires)
        for alias, prefix in self.prefixes.items():
            if name.startswith(prefix + ":"):
                return Key(name, "plain", alias, _group(name[len(prefix) + 1 :]), size, expires)
        return None if self.may_differ else Key(name, "foreign", size_bytes=size, expires=expires)


def _group(key: str) -> str:
    """Return what a caller's key begins with, its tenant aside; what follows may name rows or people."""
    try:
        scoped = split(key)
    except InvalidKey:
        return ""
    return scoped.group.partition(":")[0] if scoped else ""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _facts(lines: Iterable[str]) -> dict[str, str]:
    return {fact: text for fact, colon, text in (line.partition(":") for line in lines) if colon}


def _client(line: str) -> dict[str, str]:
    return {name: text for name, equals, text in (part.partition("=") for part in line.split(" ")) if equals}
