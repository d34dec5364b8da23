"""Checks of the servers: whether they answer, how fast, who they are, and whose else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin.conf import config

from .aliases import elsewhere, kind_of, options_of
from .facts import Facts
from .looking import Server
from .registry import Finding, check

OLDEST: Final = (6, 0)
"""Oldest version of Redis; Valkey tells the version of Redis that it stands for."""

CLOCKS_APART_SECONDS: Final = 30.0


def answering(facts: Facts) -> Iterator[Server]:
    """Return the servers that could be asked."""
    return (server for server in facts.servers if server.error is None)


# --- there ----------------------------------------------------------------------------------------------------------


@check("E010", gettext_lazy("Every server of the cache answers."))
def servers_answer(facts: Facts) -> Iterator[Finding]:
    """Report servers that cannot be asked, and aliases that a server refuses."""
    for server in facts.servers:
        if server.error is not None:
            yield Finding(
                str(server.error),
                where=f"{server.name}: {', '.join(server.aliases)}",
                why=_("The site computes every value; invalidations wait until it answers."),
                fix=_remedy(server),
                since=server.away_since or None,
            )
        for alias, refusal in server.refusals.items():
            if alias not in _numbered(facts, server):  # E023 says that
                yield Finding(
                    _("The server refuses the alias %(alias)s: %(error)s") % {"alias": alias, "error": refusal},
                    where=f"CACHES[{alias!r}]",
                    why=_("The site computes every value of this alias; invalidations wait."),
                    fix=_(
                        "Correct the number of the database (a cluster has only 0), or the user's rights (ACL), in "
                        "LOCATION and OPTIONS."
                    ),
                )


def _numbered(facts: Facts, server: Server) -> list[str]:
    """Return the aliases that a cluster refuses because of the number of their database."""
    return [alias for alias in server.refusals if server.is_cluster and facts.places[alias][1]]


def _remedy(server: Server) -> str:
    kind = type(server.cause).__name__
    if "Authentication" in kind or "NoPermission" in kind:
        return _('The server wants a password: "OPTIONS": {"PASSWORD": os.environ["REDIS_PASSWORD"]}')
    if kind == "NotMaster" or "ReadOnly" in kind:
        return _("LOCATION leads to a replica. Name the master first.")
    if "Timeout" in kind:
        text = _(
            "It is too slow, hung, or a firewall swallows packets: redis-cli %(server)s --latency. "
            "If it is merely far away, raise CACHEADMIN['TIMEOUT_MS'] (now %(ms)s)."
        )
        return text % {"server": _reached(server), "ms": config().timeout_ms}
    return _("Start the server, or correct LOCATION; invalidations that wait are then done by themselves.")


@check("W019", gettext_lazy("Every server answers at once."))
def servers_are_fast(facts: Facts) -> Iterator[Finding]:
    """Report servers whose fastest answer took more than half of SLOW_MS, above which they are left alone."""
    for server in answering(facts):
        ms = server.seconds * 1000
        if server.databases and ms > config().slow_ms / 2:
            yield Finding(
                _("%(server)s takes %(ms)d ms to answer.") % {"server": server.name, "ms": ms},
                where=", ".join(server.aliases),
                why=_(
                    "A hit costs one such wait, a miss three. From %(slow)s ms on the mean the server is left alone as "
                    "if it were away."
                )
                % {"slow": config().slow_ms},
                fix=_(
                    "Look for slow commands (redis-cli SLOWLOG GET 10), big keys, swapping, and the network between: "
                    "redis-cli %(server)s --latency. Keep the cache in the data centre of the site."
                )
                % {"server": _reached(server)},
            )


def _reached(server: Server) -> str:
    """Return how redis-cli is told where a server is."""
    return f"-s {server.name}" if server.name.startswith("/") else f"-u {elsewhere(server.aliases[0], 0)}"


@check("E020", gettext_lazy("Every server is new enough."))
def versions_fit(facts: Facts) -> Iterator[Finding]:
    """Report servers older than Redis 6."""
    oldest = ".".join(map(str, OLDEST))
    for server in answering(facts):
        version = server.info.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST:
            yield Finding(
                _("%(server)s is Redis %(version)s.") % {"server": server.name, "version": version},
                where=", ".join(server.aliases),
                why=_("Commands that entries are stored with are missing before %(version)s.") % {"version": oldest},
                fix=_("Run Redis %(version)s or newer, or Valkey.") % {"version": oldest},
            )


@check("W021", gettext_lazy("The clocks of the servers and of this host agree."))
def clocks_agree(facts: Facts) -> Iterator[Finding]:
    """Compare TIME with this host's clock."""
    for server in answering(facts):
        if abs(server.ahead_seconds) > CLOCKS_APART_SECONDS:
            way = _("ahead of") if server.ahead_seconds > 0 else _("behind")
            seconds = round(abs(server.ahead_seconds))
            yield Finding(
                _("The clock of %(server)s is %(n)s seconds %(way)s this host's.")
                % {"server": server.name, "n": seconds, "way": way},
                where=", ".join(server.aliases),
                why=_(
                    "No value becomes stale by it. But charts, “computed at” and “expires in” are off by as much, and "
                    "so are the counters of a host whose clock is wrong."
                ),
                fix=_("Let both hosts set their clocks: sudo timedatectl set-ntp true"),
            )


@check("W022", gettext_lazy("Every server says who it is."))
def identities_are_known(facts: Facts) -> Iterator[Finding]:
    """Report servers that hide run_id and master_replid."""
    for server in answering(facts):
        if server.databases and not server.has_identity:
            yield Finding(
                _("%(server)s hides which server it is.") % {"server": server.name},
                where=", ".join(server.aliases),
                why=_(
                    "After a failover, or a restart with an old dump, values and epochs of the former server count as "
                    "valid: what was invalidated in between may be read again."
                ),
                fix=_(
                    "Let the user run INFO: ACL SETUSER <user> +info. Or put the server, not a proxy, into LOCATION."
                ),
            )


@check("E023", gettext_lazy("No alias asks a cluster for a database by its number."))
def clusters_have_one_database(facts: Facts) -> Iterator[Finding]:
    """Report database numbers that a server in cluster mode refuses: most have only 0."""
    for server in facts.servers:
        if numbered := _numbered(facts, server):
            yield Finding(
                _("%(server)s is part of a cluster, which has only database 0.") % {"server": server.name},
                where=", ".join(f"CACHES[{alias!r}]['LOCATION']" for alias in numbered),
                why=_("Nothing is cached in these aliases: the server refuses to select their database."),
                fix="\n".join(
                    f'# {alias}\n"LOCATION": "{elsewhere(alias, 0)}", "KEY_PREFIX": "site_{alias}"'
                    for alias in numbered
                ),
            )


# --- others ---------------------------------------------------------------------------------------------------------


@check("W026", gettext_lazy("Nobody else can put values where pickle reads them."))
def pickles_are_our_own(facts: Facts) -> Iterator[Finding]:
    """Report aliases that unpickle what they read, on a server that others use too."""
    if config().sign_values:
        return
    for server in answering(facts):
        pickling = [alias for alias in server.aliases if _pickles(alias)]
        others = _others(server) if pickling else []
        if others:
            yield Finding(
                _("%(aliases)s unpickle values of a server that others use.") % {"aliases": ", ".join(pickling)},
                where=_("%(server)s: %(others)s") % {"server": server.name, "others": ", ".join(others)},
                why=_("Whoever can write there can have code run in the processes of this site."),
                fix='CACHEADMIN = {"SIGN_VALUES": True}\n'
                '"OPTIONS": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}\n'
                + _("# or a server of its own, with a password"),
            )


def _pickles(alias: str) -> bool:
    options = options_of(alias)
    named = options.get("SERIALIZER", options.get("serializer", "pickle"))
    return kind_of(alias) != "portable" and "pickle" in str(named).lower()


def _others(server: Server) -> list[str]:
    """Say how others show: keys that no alias has, databases that no alias uses, clients of another kind."""
    found = []
    foreign = sum(key.kind == "foreign" for database in server.databases for key in database.sample)
    if foreign:
        text = ngettext("%(n)s key of nobody here", "%(n)s keys of nobody here", foreign) + _(" in a sample")
        found.append(text % {"n": foreign})
    ours = {database.number for database in server.databases}
    numbers = sorted(int(name[2:]) for name in server.info if name[:2] == "db" and name[2:].isdigit())
    if strange := [str(number) for number in numbers if number not in ours]:
        found.append(_("keys in database %(numbers)s") % {"numbers": ", ".join(strange)})
    libraries = {client.get("lib-name", "") for client in server.clients}
    if strange := sorted(name[:40] for name in libraries if name and not name.startswith("redis-py")):
        found.append(_("clients of %(names)s") % {"names": ", ".join(strange)})
    users = {client.get("user", "") for client in server.clients}
    if len(users - {""}) > 1:
        found.append(ngettext("%(n)s user", "%(n)s users", len(users)) % {"n": len(users)})
    return found
