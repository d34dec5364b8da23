"""The verdict: what is wrong, and for whom. Pure; the page puts it into words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..stats import EVERY_TENANT, Mark
from ..stats.history import DroppedLine
from ..stats.layout import MINUTE
from .figures import FELL
from .health import Server


@dataclass(frozen=True, slots=True)
class Cause:
    """What was invalidated most since a hit ratio fell."""

    name: str
    """The rule's, or the person's."""
    source: str
    what: str
    a_minute: float


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to say above the figures."""

    kind: Literal["away", "tenant", "group", "empty"]
    """`away` a server does not answer · `tenant`, `group` misses more than usual · `empty` nothing was ever cached."""
    aliases: tuple[str, ...] = ()
    tenant: str | None = None
    """Of a note on a tenant; None is shared data."""
    group: str = ""
    hit_ratio: float | None = None
    before: float | None = None
    """The range's median."""
    since: float = 0.0
    """Seconds since 1970: when the server was found away, or the ratio fell; 0.0 if that is not known."""
    cause: Cause | None = None
    deploy: str = ""
    """The release that began when the ratio fell."""


def fell_at(ratios: Mapping[int, float | None], before: float) -> int:
    """Return the beginning of the newest run of buckets that are at least FELL below `before`; 0 if there is none."""
    since = 0
    for start in sorted(ratios, reverse=True):
        ratio = ratios[start]
        if ratio is not None and ratio > before - FELL:
            break
        since = start if ratio is not None else since
    return since


def cause_of(
    lines: Iterable[DroppedLine], since: float, now: float, *, tenant: str | None = EVERY_TENANT, group: str = ""
) -> Cause | None:
    """Return what was invalidated most since then: of one tenant (or of all), or of one group."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for line in lines:
        kind, _, name = line.what.partition(" ")
        reaches = (
            kind == "tenant" or (kind == "group" and name == group) or (kind == "prefix" and group.startswith(name))
        )
        if line.at < since - MINUTE or not (reaches if group else line.tenant in (tenant, EVERY_TENANT)):
            continue
        counts[line.name, line.source, line.what] += line.count
    if not counts:
        return None
    (name, source, what), count = max(counts.items(), key=lambda item: item[1])
    return Cause(name, source, what, count / max((now - since) / MINUTE, 1.0))


def deploy_at(marks: Iterable[Mark], since: float) -> str:
    """Return the release that was first seen within two minutes of a moment."""
    return next((m.text for m in marks if m.kind == "deploy" and abs(m.at - since) <= 2 * MINUTE), "")


def away(servers: Sequence[Server]) -> list[Note]:
    """Return a note for every server that does not answer."""
    return [Note("away", aliases=server.aliases, since=server.away_since) for server in servers if server.info is None]
