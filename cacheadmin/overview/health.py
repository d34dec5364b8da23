"""The servers and the aliases as they are now: who answers, how full it is. Asks INFO, never the roll-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..conf import cache_settings, config
from ..connections import link
from ..exceptions import CacheAway
from ..stats.servers import ServerInfo, database, info, redis_aliases, servers


@dataclass(frozen=True, slots=True)
class Server:
    """One server and the managed aliases on it."""

    name: str
    """Host and port, or socket; never a password."""
    aliases: tuple[str, ...]
    info: ServerInfo | None
    """None while it is away."""
    away_since: float = 0.0
    """Seconds since 1970; 0.0 if it answers."""


@dataclass(frozen=True, slots=True)
class AliasRow:
    """One managed alias as the overview lists it."""

    alias: str
    backend: str
    """Dotted path."""
    state: Literal["up", "away", "unknown"]
    """`unknown` for a backend that is no Redis."""
    away_since: float = 0.0
    server: str = ""
    hit_ratio: float | None = None
    """Of now."""
    keys: int | None = None
    """Keys in its database, of whomever, entries or not: an upper bound of its entries."""
    used_bytes: int | None = None
    """Memory of its whole server."""
    limit_bytes: int | None = None
    """None for no limit, or not known."""
    policy: str = ""


def look(known: ServerInfo | None = None) -> tuple[Server, ...]:
    """
    Ask every server about itself, but that of the roll-ups, where it is `known`.

    Cost: one round trip a server, however many aliases it has.
    """
    found = []
    for name, aliases in servers().items():
        try:
            is_known = known is not None and config().stats_alias in aliases
            found.append(Server(name, aliases, known if is_known else info(aliases[0])))
        except CacheAway:
            found.append(Server(name, aliases, None, link(aliases[0]).away_since))
    return tuple(found)


def alias_rows(found: tuple[Server, ...], ratios: dict[str, float | None]) -> tuple[AliasRow, ...]:
    """Return a row for each managed alias; `ratios` are the hit ratios of now."""
    of_alias = {alias: server for server in found for alias in server.aliases}
    rows = []
    for alias in config().aliases:
        backend, server = cache_settings(alias)["BACKEND"], of_alias.get(alias)
        if alias not in redis_aliases() or server is None:
            rows.append(AliasRow(alias, backend, "unknown", hit_ratio=ratios.get(alias)))
        elif server.info is None:
            rows.append(AliasRow(alias, backend, "away", server.away_since, server.name, ratios.get(alias)))
        else:
            seen = server.info
            rows.append(
                AliasRow(
                    alias,
                    backend,
                    "up",
                    server=server.name,
                    hit_ratio=ratios.get(alias),
                    keys=seen.keys.get(database(alias), 0),
                    used_bytes=seen.used_bytes,
                    limit_bytes=seen.limit_bytes or None,
                    policy=seen.policy,
                )
            )
    return tuple(rows)
