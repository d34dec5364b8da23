"""Checks of CACHES: what django-redis ignores, what two aliases share without wanting to. All of them run at start."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.conf import cache_settings, config, default_timeout
from cacheadmin.connections import server_url
from cacheadmin.stats.servers import redis_aliases

from .facts import Facts
from .registry import Finding, check

OURS: Final = '"BACKEND": "cacheadmin.backends.RedisCache"'

HEARD_ONCE: Final = (
    *("SOCKET_TIMEOUT", "SOCKET_CONNECT_TIMEOUT", "CONNECTION_POOL_KWARGS", "CONNECTION_POOL_CLASS"),
    *("PARSER_CLASS", "REDIS_CLIENT_CLASS", "USERNAME", "PASSWORD"),
)
"""Options of django-redis that belong to a pool, hence to the first alias that asked for the URL."""

TIMEOUTS: Final = ("socket_timeout", "socket_connect_timeout")


def options_of(alias: str) -> dict[str, Any]:
    """Return an alias' OPTIONS."""
    return cache_settings(alias).get("OPTIONS") or {}


def kind_of(alias: str) -> Literal["ours", "django-redis", "native", "portable"]:
    """Say what an alias' backend is: ours, another of django-redis', Django's own for Redis, or one of another kind."""
    try:
        backend = import_string(str(cache_settings(alias)["BACKEND"]))
    except ImportError:
        return "portable"  # Django says so when the alias is first used
    if getattr(backend, "keeps_scopes", False):
        return "ours"
    modules = [base.__module__.partition(".")[0] for base in backend.__mro__]
    return "django-redis" if "django_redis" in modules else "native" if alias in redis_aliases() else "portable"


def pairs(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield each two managed aliases that lie in one database of one server."""
    for one, other in combinations(facts.places, 2):
        if facts.places[one] == facts.places[other]:
            yield one, other


def prefix_of(alias: str) -> str:
    """Return what Django's own key function puts before a key, without the last colon."""
    kept = cache_settings(alias)
    return f"{kept.get('KEY_PREFIX', '')}:{kept.get('VERSION', 1)}"


@check("W003", gettext_lazy("No alias sets MAX_CONNECTIONS, which django-redis ignores."), at_start=True)
def pool_size_is_heard(_facts: Facts) -> Iterator[Finding]:
    """Report OPTIONS["MAX_CONNECTIONS"]: django-redis takes the size of its pool from CONNECTION_POOL_KWARGS."""
    for alias in config().aliases:
        wish = options_of(alias).get("MAX_CONNECTIONS")
        if wish is not None:
            yield Finding(
                _("MAX_CONNECTIONS is ignored by django-redis."),
                where=f"CACHES[{alias!r}]['OPTIONS']",
                why=_("The pool of connections has no limit, whatever the setting says."),
                fix=f'"OPTIONS": {{"CONNECTION_POOL_KWARGS": {{"max_connections": {wish}}}}}',
            )


@check("W004", gettext_lazy("No two aliases share both database and prefix."), at_start=True)
def aliases_are_apart(facts: Facts) -> Iterator[Finding]:
    """Report aliases with the same database, KEY_PREFIX and VERSION: their plain keys are each other's."""
    for one, other in pairs(facts):
        if prefix_of(one) == prefix_of(other):
            kept = cache_settings(other).get("KEY_PREFIX") or "site"
            yield Finding(
                _("The aliases %(one)s and %(other)s keep their keys in one place.") % {"one": one, "other": other},
                where=f"CACHES[{other!r}]",
                why=_("A plain key set in one is read from the other, and clearing one clears both."),
                fix=f'"KEY_PREFIX": "{kept}_{other}"',
            )


@check("W005", gettext_lazy("No KEY_PREFIX holds a colon."), at_start=True)
def prefixes_are_plain(_facts: Facts) -> Iterator[Finding]:
    """Report prefixes with a colon, which separates prefix, version and key."""
    for alias in config().aliases:
        prefix = str(cache_settings(alias).get("KEY_PREFIX", ""))
        if ":" in prefix:
            yield Finding(
                _("The prefix %(prefix)r holds a colon.") % {"prefix": prefix},
                where=f"CACHES[{alias!r}]['KEY_PREFIX']",
                why=_(
                    "A colon separates prefix, version and key, so clearing an alias with the prefix before the colon "
                    "can reach the keys of this one."
                ),
                fix=f'"KEY_PREFIX": "{prefix.replace(":", "_")}"',
            )


@check("W013", gettext_lazy("No two aliases with one URL want other connections."), at_start=True)
def pools_are_as_wished(facts: Facts) -> Iterator[Finding]:
    """Report aliases whose LOCATION is the same and whose options of connections differ: the second's are not heard."""
    pooled = [alias for alias in facts.places if kind_of(alias) in ("ours", "django-redis")]
    for one, other in combinations(pooled, 2):
        ignored = [n for n in HEARD_ONCE if options_of(one).get(n) != options_of(other).get(n)]
        if ignored and server_url(one) == server_url(other):
            names = {"one": one, "other": other, "names": ", ".join(ignored)}
            yield Finding(
                _("The aliases %(one)s and %(other)s share one pool of connections.") % names,
                where=f"CACHES[{other!r}]['OPTIONS']",
                why=_(
                    "django-redis keeps pools by URL: whichever alias is used first decides for both, and %(names)s of "
                    "the other is ignored."
                )
                % names,
                fix=_("Give both the same options, or each a database of its own: %(setting)s")
                % {"setting": f'"LOCATION": "{_free(facts, other)}"'},
            )


@check("W014", gettext_lazy("No alias whose clear() empties a database shares it."), at_start=True)
def clearing_reaches_one_alias(facts: Facts) -> Iterator[Finding]:
    """Report two aliases in one database, where a stock backend would clear both with FLUSHDB."""
    for one, other in pairs(facts):
        stock = [alias for alias in (one, other) if kind_of(alias) != "ours"]
        if stock:
            names = {"one": one, "other": other, "stock": stock[0]}
            yield Finding(
                _("The aliases %(one)s and %(other)s lie in one database.") % names,
                where=f"CACHES[{other!r}]['LOCATION']",
                why=_("clear() of %(stock)s is FLUSHDB: it empties the other alias, and whatever else is there.")
                % names,
                fix=f'{OURS}\n"LOCATION": "{_free(facts, other)}"',
            )


def _free(facts: Facts, alias: str) -> str:
    """Return the URL of a database of the alias' server that no alias has."""
    server = facts.places[alias][0]
    taken = {number for name, number in facts.places.values() if name == server}
    return elsewhere(alias, next(number for number in range(len(taken) + 1) if number not in taken))


def elsewhere(alias: str, number: int) -> str:
    """Return an alias' URL with another database: TLS, user and options stay. The registry hides passwords."""
    parts = urlsplit(server_url(alias))
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "db"]
    if parts.scheme == "unix":
        return parts._replace(query=urlencode([*query, ("db", number)])).geturl()
    return parts._replace(path=f"/{number}", query=urlencode(query)).geturl()


@check("W015", gettext_lazy("No prefix lies inside another."), at_start=True)
def prefixes_are_side_by_side(facts: Facts) -> Iterator[Finding]:
    """Report two aliases of one database, where keys of one look like keys of the other."""
    for pair in pairs(facts):
        inner, outer = sorted(pair, key=lambda alias: len(prefix_of(alias)), reverse=True)
        if prefix_of(inner).startswith(prefix_of(outer) + ":"):
            names = {"inner": inner, "outer": outer}
            yield Finding(
                _("The prefix of %(inner)s lies inside that of %(outer)s.") % names,
                where=f"CACHES[{inner!r}]['KEY_PREFIX']",
                why=_("%(outer)s can read keys of %(inner)s, and clearing or scanning %(outer)s reaches them.") % names,
                fix=f'"KEY_PREFIX": "{str(cache_settings(inner).get("KEY_PREFIX", "")).replace(":", "_") or inner}"',
            )


@check("W016", gettext_lazy("Every stock backend has timeouts."), at_start=True)
def waits_are_bounded(facts: Facts) -> Iterator[Finding]:
    """Report stock backends that wait for a hung server as long as redis-py does. Ours has short timeouts by itself."""
    for alias in facts.places:
        kind, options = kind_of(alias), options_of(alias)
        if kind == "ours":
            continue
        pool = {**options, **(options.get("CONNECTION_POOL_KWARGS") or {})}
        query = server_url(alias).partition("?")[2]
        missing = [n for n in TIMEOUTS if pool.get(n) is None and pool.get(n.upper()) is None and f"{n}=" not in query]
        if missing:
            upper = [f'"{name.upper() if kind == "django-redis" else name}": 0.1' for name in missing]
            yield Finding(
                _("The alias %(alias)s has no timeouts.") % {"alias": alias},
                where=f"CACHES[{alias!r}]['OPTIONS']",
                why=_(
                    "A server that hangs holds up every call of this cache for 5 seconds with redis-py 8, for ever "
                    "with older ones. (Decorated functions have connections of their own, which wait for TIMEOUT_MS.)"
                ),
                fix=f'"OPTIONS": {{{", ".join(upper)}}}',
            )


@check("W017", gettext_lazy("Every managed alias has the backend whose plain keys are exact."), at_start=True)
def backends_keep_scopes(_facts: Facts) -> Iterator[Finding]:
    """Report stock backends, and what is not exact with them."""
    of_kind: dict[str, list[str]] = {}
    for alias in config().aliases:
        of_kind.setdefault("portable" if kind_of(alias) == "portable" else "stock", []).append(alias)
    if stock := [alias for alias in of_kind.get("stock", ()) if kind_of(alias) != "ours"]:
        yield Finding(
            _("Plain keys are not exact in %(aliases)s.") % {"aliases": ", ".join(stock)},
            where=", ".join(f"CACHES[{alias!r}]['BACKEND']" for alias in stock),
            why=_(
                "What cache.set() and Django's own cache tag keep there has neither fence nor header: a value that was "
                "computed before an invalidation may be stored after it, and rules reach it only with RAW_KEYS = "
                '"always", by a SCAN. Decorated functions are exact all the same.'
            ),
            fix=OURS,
        )
    if portable := of_kind.get("portable"):
        yield Finding(
            _("Not a Redis cache: %(aliases)s.") % {"aliases": ", ".join(portable)},
            where=", ".join(f"CACHES[{alias!r}]['BACKEND']" for alias in portable),
            why=_(
                "Entries cannot be listed, two callers may compute one value, prefixes widen to the tenant; and the "
                "memory of a process (locmem) is not reached by the invalidations of others."
            ),
            fix=f'{OURS}\n"LOCATION": "redis://127.0.0.1:6379/0"',
        )


@check("W018", gettext_lazy("No alias keeps entries for ever by default."), at_start=True)
def defaults_expire(_facts: Facts) -> Iterator[Finding]:
    """Report TIMEOUT = None in CACHES."""
    for alias in config().aliases:
        if default_timeout(alias) is None:
            yield Finding(
                _("What is kept in %(alias)s never expires unless the call says so.") % {"alias": alias},
                where=f"CACHES[{alias!r}]['TIMEOUT']",
                why=_("Memory only grows, and a rule that was forgotten is never made good by a timeout."),
                fix='"TIMEOUT": 900',
            )


@check("E043", gettext_lazy("Each LOCATION can be read."), at_start=True)
def locations_can_be_read(facts: Facts) -> Iterator[Finding]:
    """Report URLs that redis-py does not understand."""
    for alias in redis_aliases():
        if alias not in facts.places:
            yield Finding(
                _("LOCATION of %(alias)s is no address of a Redis server.") % {"alias": alias},
                where=f"CACHES[{alias!r}]['LOCATION']",
                why=_("Nothing can be cached there."),
                fix='"LOCATION": "redis://127.0.0.1:6379/0"',
            )
