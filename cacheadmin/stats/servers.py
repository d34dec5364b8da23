"""The servers behind the managed aliases: which aliases share one, and what INFO says about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from redis.connection import parse_url

from ..conf import cache_settings, config
from ..connections import link, server_url

INFO_SECTIONS: Final = tuple(("INFO", section) for section in ("server", "clients", "memory", "stats", "keyspace"))


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says about itself. Numbers it does not tell are 0, texts empty."""

    version: str
    uptime_seconds: int
    used_bytes: int
    limit_bytes: int
    """`maxmemory`; 0 for no limit."""
    policy: str
    """`maxmemory_policy`."""
    evicted: int
    """Keys evicted since the server started."""
    keys: dict[int, int]
    """Database number -> keys in it, of this site or not."""
    clients: int = 0
    """Connections of clients, this site's or not."""


def redis_aliases() -> tuple[str, ...]:
    """Return the managed aliases whose backend speaks to a Redis or Valkey server."""
    words = ("redis", "valkey")
    return tuple(a for a in config().aliases if any(w in cache_settings(a)["BACKEND"].lower() for w in words))


def servers() -> dict[str, tuple[str, ...]]:
    """Return the managed Redis aliases by the server they share, which is named by host and port, or by socket."""
    found: dict[str, tuple[str, ...]] = {}
    for alias in redis_aliases():
        where = server_of(alias)
        found[where] = (*found.get(where, ()), alias)
    return found


def server_of(alias: str) -> str:
    """Return host and port, or the socket, of an alias' server. Raises: ValueError for a URL that cannot be read."""
    url = _parsed(alias)
    return str(url.get("path") or f"{url.get('host', 'localhost')}:{url.get('port', 6379)}")


def _parsed(alias: str) -> dict[str, Any]:
    return parse_url(server_url(alias))  # type: ignore[no-untyped-call]


def database(alias: str) -> int:
    """Return the number of an alias' database."""
    options = cache_settings(alias).get("OPTIONS", {})
    return int(options.get("db") or _parsed(alias).get("db", 0))


def info(alias: str) -> ServerInfo:
    """Ask the server of an alias about itself. Cost: one round trip. Raises: CacheAway."""
    return server_info(link(alias).call(*INFO_SECTIONS).values)


def server_info(sections: Iterable[Any]) -> ServerInfo:
    """Read the replies to INFO_SECTIONS."""
    facts: dict[str, str] = {}
    for section in sections:
        if isinstance(section, bytes):
            for line in section.decode("utf-8", "replace").splitlines():
                fact, _, text = line.partition(":")
                facts[fact] = text
    return ServerInfo(
        version=facts.get("valkey_version") or facts.get("redis_version", ""),
        uptime_seconds=_int(facts, "uptime_in_seconds"),
        used_bytes=_int(facts, "used_memory"),
        limit_bytes=_int(facts, "maxmemory"),
        policy=facts.get("maxmemory_policy", ""),
        evicted=_int(facts, "evicted_keys"),
        keys={int(db[2:]): _keys(text) for db, text in facts.items() if db[:2] == "db" and db[2:].isdigit()},
        clients=_int(facts, "connected_clients"),
    )


def _int(facts: dict[str, str], name: str) -> int:
    text = facts.get(name, "")
    return int(text) if text.isdigit() else 0


def _keys(text: str) -> int:
    """Read `keys=12,expires=3,…`."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return _int({fact: number for fact, _, number in pairs}, "keys")
