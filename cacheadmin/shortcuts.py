"""Helpers in one line: compute-or-get by a key, and the reference site's dashboard, report and gold-rate caches.

Dashboards live in `default`, reports in `query`, both under their tenant; the gold rate in `default`, shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import invalidation, transactions
from .encoding import fingerprint
from .functions import timeout_ms
from .keys import Entry, get_cache_key, get_tenant_cache_key, logical, member, split, tenant_text
from .reading import Call, Options, Pace, get
from .results import settled
from .scoped import ScopedKeys
from .store import ABSENT, Fill, RedisStore, Stamp, store
from .store.base import LONGEST_LEASE_MS
from .store.codec import refuse_once
from .targets import of_key

DASHBOARD: Final = "dashboard"
REPORT: Final = "report"
GOLD_RATE: Final = "gold_rate"

MOST_PACES: Final = 10_000

_paces: dict[str, Pace] = {}
"""By group. Groups may be made of ids (`user:5`), so there is a bound."""


def _pace(group: str) -> Pace:
    if len(_paces) > MOST_PACES:
        _paces.clear()
    return _paces.setdefault(group, Pace())


def get_or_set_cache(
    key: str,
    callable: Callable[[], Any],  # noqa: A002 - the name that the sites' own helpers have
    timeout: Any = DEFAULT_TIMEOUT,
    alias: str = "default",
    **options: Any,
) -> Any:
    """
    Return what is cached under a key, or call `callable`, keep its result and return it.

    None and other false values are values. A key with a scope (`[tenant:<id>:]<group>:<rest>`) is computed by one
    caller at a time and dropped with its tenant or group; one without a colon is a plain `get` and `set`.

    Cost:    a hit 1 round trip, a miss 3.
    """
    alias = options.pop("cache_alias", alias)
    scoped = split(key)
    if scoped is None:
        return _plain(key, callable, timeout, alias)
    of_alias = store(alias)
    entry = Entry(of_alias.place(scoped.tenant).group(scoped.group), member(scoped.rest))
    call = Call(
        of_alias,
        entry,
        lambda: settled(callable()),
        options=Options(timeout_ms=timeout_ms(alias, timeout), **options),
        pace=_pace(scoped.group),
        about=lambda: {"fn": "get_or_set_cache", "key": key},
        sender="get_or_set",
    )
    return get(call)


_MISSING: Final = object()


def _plain(key: str, compute: Callable[[], Any], timeout: Any, alias: str) -> Any:
    cache = caches[alias]
    value = cache.get(key, _MISSING)
    if value is _MISSING and not getattr(cache, "keeps_scopes", False):
        # django-prometheus' backends answer a cached None with the default, but leave `get_many` as it is.
        value = cache.get_many([key]).get(key, _MISSING)
    if value is _MISSING:
        value = settled(compute())
        refuse_once(value)
        cache.set(key, value, timeout)
    return value


# --- values that somebody else computed -----------------------------------------------------------------------------


def _keep(alias: str, key: str, value: Any, timeout: Any) -> bool:
    """Store a value under the stamp that `_kept` saw, on other caches than Redis under that of the moment."""
    of_alias, ttl_ms, value = store(alias), timeout_ms(alias, timeout), settled(value)
    scoped = split(key)
    if scoped is None:
        return False
    if ttl_ms < 0:  # as Django's caches: what was there goes
        invalidation.request([of_key(key, alias)])
        return False
    entry = Entry(of_alias.place(scoped.tenant).group(scoped.group), member(scoped.rest))
    if isinstance(of_alias, RedisStore):
        return ScopedKeys(of_alias).set_many([(key, entry, value)], ttl_ms) == 1
    if not transactions.may_read():
        return False
    stamp = of_alias.open(entry, "take", ttl_ms=ttl_ms, lease_ms=LONGEST_LEASE_MS)
    return isinstance(stamp, Stamp) and of_alias.fill(Fill(entry, stamp, of_alias.encode(value), ttl_ms, {}))


def _kept(alias: str, key: str) -> Any:
    of_alias, scoped = store(alias), split(key)
    if scoped is None:
        return None
    entry = Entry(of_alias.place(scoped.tenant).group(scoped.group), member(scoped.rest))
    if isinstance(of_alias, RedisStore):
        found = ScopedKeys(of_alias).get(entry)
    else:
        found = of_alias.read(entry) if transactions.may_read() else None
    return None if found is None or found.value is ABSENT else found.value


def cache_dashboard_data(tenant_id: Any, data: Any, timeout: Any = 300) -> bool:
    """
    Keep a tenant's dashboard in `default`, group `dashboard`; return whether it was stored.

    Read it before you compute it, with `get_cached_dashboard_data`: the value is then refused if the tenant was
    invalidated in between.
    Raises:  InvalidTenant.
    """
    return _keep("default", get_tenant_cache_key(tenant_id, DASHBOARD), data, timeout)


def get_cached_dashboard_data(tenant_id: Any) -> Any:
    """Return a tenant's dashboard, None if it is not cached. Cost: 1 round trip."""
    return _kept("default", get_tenant_cache_key(tenant_id, DASHBOARD))


def _report_key(tenant_id: Any, report_type: str, params: Mapping[str, Any] | None) -> str:
    named = {str(name): value for name, value in (params or {}).items()}  # any name, `prefix` too
    return logical(tenant_text(tenant_id), f"{REPORT}:{report_type}", fingerprint((), named))


def cache_report_result(
    tenant_id: Any, report_type: str, params: Mapping[str, Any] | None, data: Any, timeout: Any = 900
) -> bool:
    """
    Keep a tenant's report in `query`, group `report:<report_type>`; return whether it was stored.

    The order of `params` does not matter.
    Raises:  InvalidTenant; InvalidKey for a parameter without a stable value.
    """
    return _keep("query", _report_key(tenant_id, report_type, params), data, timeout)


def get_cached_report_result(tenant_id: Any, report_type: str, params: Mapping[str, Any] | None = None) -> Any:
    """Return a tenant's report, None if it is not cached. Cost: 1 round trip."""
    return _kept("query", _report_key(tenant_id, report_type, params))


def cache_gold_rate(rate_data: Any, timeout: Any = 300) -> bool:
    """Keep the gold rate in `default`, group `gold_rate`, shared by all tenants; return whether it was stored."""
    return _keep("default", get_cache_key(GOLD_RATE), rate_data, timeout)


def get_cached_gold_rate() -> Any:
    """Return the gold rate, None if it is not cached. Cost: 1 round trip."""
    return _kept("default", get_cache_key(GOLD_RATE))
