"""The settings of cacheadmin: the dict `CACHEADMIN`, typed, and the parts of CACHES that we need.

The only module that reads `django.conf.settings`. Nothing here is read at import time.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from django.conf import settings
from django.core.signals import setting_changed

from .exceptions import ImproperSettings, UnknownAlias

MAY_BE_ZERO = ("metrics_tenants",)
"""Numbers that mean something at 0."""

MOST = {"metrics_tenants": 50}
"""Upper bounds of numbers."""

PREFERRED_ORDER = ("query", "default", "template", "api")
"""Rank of the reference site's aliases, inner first: what others are computed from comes before them."""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings in force. Field `timeout_ms` is the key `CACHEADMIN["TIMEOUT_MS"]`, and so on."""

    aliases: tuple[str, ...] = ()
    """Managed cache aliases in rank order, inner first. Default: the Redis aliases of CACHES."""
    tenancy: str = "cacheadmin.tenancy.NoTenants"
    """Dotted path of the tenancy class."""
    outbox: Literal["durable", "on_failure", "off"] = "durable"
    """Whether an invalidation is written to the database together with the data it follows."""
    timeout_ms: int = 100
    """Milliseconds to wait for a connection and for each reply of Redis on our own connections."""
    slow_ms: int = 50
    """Milliseconds a read takes on the mean above which a server is left alone as if it were away."""
    retry_seconds: float = 1.0
    """Seconds for which a process leaves Redis alone after it did not answer."""
    lease_seconds: int = 60
    """Least seconds for which one computation may hold an entry; grows with the function."""
    patience_seconds: float = 2.0
    """Least seconds for which the others wait for it; grows with the function, at most 10."""
    max_value_bytes: int = 8 * 1024 * 1024
    """Bytes above which a serialized value is not stored."""
    sign_values: bool = False
    """Sign payloads with a keyed BLAKE2b of SECRET_KEY and check it before a payload is unpickled."""
    request_memo: bool = False
    """Keep the hits of a request until it ends: reading one again costs no round trip."""
    raw_keys: Literal["manual", "always", "never"] = "manual"
    """Stock backends: when plain keys are looked for by SCAN."""
    replicas: tuple[str, ...] = ()
    """Database aliases that may lag behind their primary; what was read there is not stored."""
    stats_alias: str = ""
    """Alias whose server keeps the roll-ups of the counters. Default: `default`, else the first managed alias."""
    flush_seconds: float = 3.0
    """Seconds between two flushes of a process' counters."""
    confirm_above: int = 10_000
    """Entries above which the console asks to type the name of what is invalidated."""
    read_only: bool = False
    """The console shows, nothing acts."""
    release: str | None = None
    """Text that marks a deploy, kept in what is known about each entry."""
    metrics_tenants: int = 0
    """Tenants, the busiest ones, that have Prometheus series of their own; the others are `other`. At most 50."""
    prometheus_url: str | None = field(default=None, repr=False)  # it may hold a password
    """Base URL of a Prometheus server that the console's charts read; None for the roll-ups in Redis."""
    prometheus_labels: dict[str, str] = field(default_factory=dict)
    """Labels that tell this site's series from others' on that server, such as `{"job": "shop"}`."""
    mask_value: str | None = None
    """Dotted path of a callable `(path, label) -> bool` that hides fields of shown values."""


def setting_names() -> tuple[str, ...]:
    """Return the keys that `CACHEADMIN` may hold."""
    return tuple(f.name.upper() for f in fields(Config))


def problems() -> list[str]:
    """Return what is wrong with `CACHEADMIN`, one sentence each; empty when all is well."""
    given = getattr(settings, "CACHEADMIN", {})
    if not isinstance(given, dict):
        return [f"CACHEADMIN must be a dict, not {type(given).__name__}."]
    known, found = setting_names(), []
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(str(key).upper(), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(known)}."
            found.append(f"CACHEADMIN[{key!r}] is not a setting.{hint}")
        elif wrong := _wrong_type(key.lower(), value):
            found.append(wrong)
    for key, there in (("ALIASES", "CACHES"), ("STATS_ALIAS", "CACHES"), ("REPLICAS", "DATABASES")):
        value = given.get(key) or ()
        named = [value] if isinstance(value, str) and key == "STATS_ALIAS" else value
        found += [
            f"CACHEADMIN[{key!r}] names {alias!r}, which {there} does not have."
            for alias in (named if isinstance(named, (list, tuple)) else ())
            if isinstance(alias, str) and alias not in getattr(settings, there)
        ]
    return found


def _wrong_type(name: str, value: Any) -> str:
    hint = get_type_hints(Config)[name]
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return ""
        return f"CACHEADMIN[{name.upper()!r}] is {value!r}; allowed are {', '.join(map(repr, get_args(hint)))}."
    if get_origin(hint) is tuple:
        fits = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        return "" if fits else f"CACHEADMIN[{name.upper()!r}] must be a list of texts, not {value!r}."
    if get_origin(hint) is dict:
        fits = isinstance(value, dict) and all(isinstance(part, str) for pair in value.items() for part in pair)
        return "" if fits else f"CACHEADMIN[{name.upper()!r}] must be a dict of texts, not {value!r}."
    allowed: tuple[type, ...] = tuple(get_args(hint)) or (hint,)
    if float in allowed:
        allowed += (int,)
    fits = isinstance(value, allowed) and (not isinstance(value, bool) or bool in allowed)
    if fits and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            return f"CACHEADMIN[{name.upper()!r}] must be a finite number, not {value!r}."
        if value < 0 or (value == 0 and name not in MAY_BE_ZERO):
            return f"CACHEADMIN[{name.upper()!r}] must be above zero, not {value!r}."
        if value > MOST.get(name, value):
            return f"CACHEADMIN[{name.upper()!r}] must be at most {MOST[name]}, not {value!r}."
    return "" if fits else f"CACHEADMIN[{name.upper()!r}] must be {_name(hint)}, not {value!r}."


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)).replace(" | None", " or None")


@cache
def config() -> Config:
    """
    Return the settings in force.

    Cost:    a dict look-up; settings are read once, and again after `setting_changed` (override_settings).
    Raises:  ImproperSettings for an unknown key or a wrong type.
    """
    if found := problems():
        raise ImproperSettings(" ".join(found))
    given = {key.lower(): value for key, value in getattr(settings, "CACHEADMIN", {}).items()}
    given["aliases"] = tuple(given.get("aliases") or _redis_aliases())
    if not given.get("stats_alias") and given["aliases"]:
        given["stats_alias"] = "default" if "default" in given["aliases"] else given["aliases"][0]
    return Config(**given)


def _redis_aliases() -> list[str]:
    """Aliases of CACHES whose backend's name says Redis or Valkey, the reference site's four first."""
    found = [a for a, c in settings.CACHES.items() if any(w in c["BACKEND"].lower() for w in ("redis", "valkey"))]
    return sorted(found, key=lambda a: PREFERRED_ORDER.index(a) if a in PREFERRED_ORDER else len(PREFERRED_ORDER))


def rank(alias: str) -> int:
    """Return the rank of a managed alias; a lower one is computed from by a higher one. Raises: UnknownAlias."""
    try:
        return config().aliases.index(alias)
    except ValueError as error:
        raise UnknownAlias(
            f"The cache alias {alias!r} is not managed; managed are {', '.join(config().aliases) or 'none'}. "
            "Add it to CACHES with a Redis backend, or to CACHEADMIN['ALIASES'], or name another one with alias=…."
        ) from error


def managed(alias: str | None) -> tuple[str, ...]:
    """Return the managed aliases that `alias` means: all of them for None. Raises: UnknownAlias."""
    if alias is None:
        return config().aliases
    rank(alias)
    return (alias,)


def cache_settings(alias: str) -> dict[str, Any]:
    """Return CACHES[alias]."""
    return settings.CACHES[alias]


def default_timeout(alias: str) -> float | None:
    """Return the seconds for which an alias keeps a value unless told otherwise, read as Django reads them."""
    given = cache_settings(alias)
    timeout = given.get("timeout", given.get("TIMEOUT", 300))
    try:
        return None if timeout is None else int(timeout)
    except (ValueError, TypeError):
        return 300


def cache_aliases() -> tuple[str, ...]:
    """Return every alias of CACHES, managed or not."""
    return tuple(settings.CACHES)


def session_alias() -> str | None:
    """Return the cache alias that keeps the sessions and nothing else does; None where they are kept elsewhere."""
    return settings.SESSION_CACHE_ALIAS if settings.SESSION_ENGINE.endswith(".cache") else None


def middleware() -> tuple[str, ...]:
    """Return the dotted paths of MIDDLEWARE."""
    return tuple(settings.MIDDLEWARE)


def has_urls() -> bool:
    """Whether the site has a URLconf: a project of workers alone may do without."""
    return bool(getattr(settings, "ROOT_URLCONF", None))


def silenced_checks() -> frozenset[str]:
    """Return the ids of the system checks that the site does not want to hear of."""
    return frozenset(settings.SILENCED_SYSTEM_CHECKS)


def alias_of(location: Any, params: dict[str, Any]) -> str | None:
    """Return the first alias of CACHES that a backend was made for: Django does not tell a backend its name."""
    for alias, settings_of in settings.CACHES.items():
        rest = {key: value for key, value in settings_of.items() if key not in ("BACKEND", "LOCATION")}
        if rest == params and settings_of.get("LOCATION", "") == location:
            return alias
    return None


def is_configured() -> bool:
    """Whether Django knows its settings: the package can be imported before it does."""
    return bool(settings.configured)


def in_tests() -> bool:
    """Whether a test runner has set Django up: threads of ours would use its databases behind its back."""
    module = sys.modules.get("django.test.utils")
    return module is not None and hasattr(module._TestState, "saved_data")


def secret_key() -> str:
    """Return the key that signs payloads and the ids in the console's URLs."""
    return settings.SECRET_KEY


def shared_apps() -> frozenset[str]:
    """Return the apps of which django-tenants' settings keep one set of tables for all tenants."""
    public = getattr(settings, "PUBLIC_SCHEMA_NAME", "public")
    by_type: dict[str, Any] = getattr(settings, "TENANT_TYPES", {})
    if not by_type:
        lists = {public: getattr(settings, "SHARED_APPS", ()), "": getattr(settings, "TENANT_APPS", ())}
    else:
        lists = {name: options["APPS"] for name, options in by_type.items()}
    own = {app for name, apps in lists.items() if name != public for app in apps}
    return frozenset(lists.get(public, ())) - own


def user_model() -> str:
    """Return the label of the user model, for foreign keys."""
    return settings.AUTH_USER_MODEL


@cache
def replicas() -> frozenset[str]:
    """Return the database aliases that may lag behind: those listed in `REPLICAS`, and mirrors of the test settings."""
    databases: dict[str, Any] = settings.DATABASES
    mirrors = (alias for alias, options in databases.items() if options.get("TEST", {}).get("MIRROR"))
    return frozenset(config().replicas).union(mirrors)


_callbacks: list[Callable[[], object]] = []


def on_change(callback: Callable[[], object]) -> Callable[[], object]:
    """Call `callback()` whenever CACHEADMIN or CACHES changed through `override_settings`. Usable as a decorator."""
    _callbacks.append(callback)
    return callback


def _reload(*, setting: str, **_: Any) -> None:
    if setting in ("CACHEADMIN", "CACHES", "SECRET_KEY", "DATABASES"):
        config.cache_clear()
        replicas.cache_clear()
        for callback in _callbacks:
            callback()


setting_changed.connect(_reload, dispatch_uid="cacheadmin.conf")
