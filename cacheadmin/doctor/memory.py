"""Checks of the servers' memory: its limit, and what a server that is full does to what lies there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin.conf import session_alias

from .facts import Facts
from .looking import Server
from .registry import Finding, check
from .servers import answering

NEARLY_FULL: Final = 0.9
GIB: Final = 1024**3

QUEUES: Final = ("_kombu.", "celery-task-meta-", "unacked", "rq:", "bull:", "django_q", "huey.")
"""Beginnings of keys that queues keep: what is evicted there is lost work."""


@check("W024", gettext_lazy("Every server has a limit of memory."))
def memory_is_limited(facts: Facts) -> Iterator[Finding]:
    """Report maxmemory = 0."""
    for server in answering(facts):
        if "maxmemory" in server.info and not server.number("maxmemory"):
            yield Finding(
                _("%(server)s may use all memory of its host.") % {"server": server.name},
                where=", ".join(server.aliases),
                why=_("It grows until the kernel ends it, and the whole cache is gone at once."),
                # More than it holds now: a limit below that would throw entries out by the million, at once.
                fix=f"maxmemory {max(1, math.ceil(server.number('used_memory') * 1.5 / GIB))}gb\n{_policy(server)}",
            )


def _kept(server: Server) -> list[str]:
    """Say what lies on a server that must not be evicted."""
    kept = []
    if session_alias() in server.aliases:
        kept.append(_("sessions (SESSION_ENGINE)"))
    if any(key.name.startswith(QUEUES) for database in server.databases for key in database.sample):
        kept.append(_("the keys of a queue"))
    return kept


def _policy(server: Server) -> str:
    """Return the line of redis.conf that suits what lies on a server."""
    if kept := _kept(server):
        return "maxmemory-policy noeviction  # " + _(" and ").join(kept)
    return "maxmemory-policy allkeys-lru"


@check("W025", gettext_lazy("What a full server does fits what it keeps."))
def eviction_fits(facts: Facts) -> Iterator[Finding]:
    """Hold the eviction policy against what lies there: sessions, queues, entries without a timeout, a full server."""
    for server in answering(facts):
        policy = server.info.get("maxmemory_policy", "")
        if policy.startswith("allkeys"):
            yield from _evicting_all(server, policy)
        elif policy.startswith("volatile"):
            yield from _evicting_some(server, policy)
        elif policy == "noeviction":
            yield from _evicting_none(facts, server)


def _evicting_all(server: Server, policy: str) -> Iterator[Finding]:
    if kept := _kept(server):
        yield Finding(
            _("%(policy)s on %(server)s may evict %(what)s.")
            % {"policy": policy, "server": server.name, "what": _(" and ").join(kept)},
            where=", ".join(server.aliases),
            why=_("Evicting an entry costs a miss. Evicting these logs people out, or loses work."),
            fix=_(
                'Keep them on a server of their own, or sessions also in the database:\nSESSION_ENGINE = "%(engine)s"'
            )
            % {"engine": "django.contrib.sessions.backends.cached_db"},
        )


def _evicting_some(server: Server, policy: str) -> Iterator[Finding]:
    values = [key for database in server.databases for key in database.sample if key.is_value]
    lasting = [key for key in values if not key.expires]
    if lasting:
        share = round(100 * len(lasting) / len(values))
        yield Finding(
            _("%(policy)s on %(server)s cannot evict ~%(share)s%% of the values: they have no timeout.")
            % {"policy": policy, "server": server.name, "share": share},
            where=", ".join(server.aliases),
            why=_("When memory is full only the others go, down to none; then nothing more is stored."),
            fix='"TIMEOUT": 86_400' if _kept(server) else "maxmemory-policy allkeys-lru",
        )


def _evicting_none(facts: Facts, server: Server) -> Iterator[Finding]:
    used, limit = server.number("used_memory"), server.number("maxmemory")
    refused = sum(facts.counted.refused_full.get(alias, 0) for alias in server.aliases) if facts.counted else 0
    if not refused and not (limit and used >= NEARLY_FULL * limit):
        return
    title = _("%(server)s is nearly full, and evicts nothing.") % {"server": server.name}
    if refused:
        title = ngettext(
            "%(server)s was full, and did not store %(n)s value in the last 24 hours.",
            "%(server)s was full, and did not store %(n)s values in the last 24 hours.",
            refused,
        ) % {"server": server.name, "n": refused}
    yield Finding(
        title,
        where=_("%(used)s of %(limit)s used") % {"used": filesizeformat(used), "limit": filesizeformat(limit)},
        why=_("With noeviction a full server stores no new values. Invalidations go on, and nothing becomes stale."),
        fix=f"maxmemory {math.ceil(limit * 2 / GIB)}gb" if _kept(server) else "maxmemory-policy allkeys-lru",
    )
