"""Sites whose KEY_FUNCTION asks which tenant is active, as with one schema a tenant: nobody's keys are out of reach."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import cache_query_result, cache_tenant_query, invalidate_cache, invalidate_tenant_cache
from cacheadmin.tenancy import Tenancy, Tenant, tenancy

pytestmark = pytest.mark.django_db(transaction=True)

BACKENDS = {
    "ours": "cacheadmin.backends.RedisCache",
    "stock": "django_redis.cache.RedisCache",
    "memory": "django.core.cache.backends.locmem.LocMemCache",
}
TENANTS = ("acme", "globex")
number = itertools.count()


class Schemas(Tenancy):
    lists_all = True

    def list(self):
        return [Tenant(name, name) for name in TENANTS]


def key_function(key: str, prefix: str, version: int) -> str:
    return f"{tenancy().current() or 'public'}:{prefix}:{version}:{key}"


@pytest.fixture(params=BACKENDS)
def backend(request, redis_server) -> Iterator[str]:
    made = {
        "BACKEND": BACKENDS[request.param],
        "LOCATION": redis_server.url,
        "KEY_FUNCTION": "test_key_function.key_function",
        "TIMEOUT": 60,
    }
    site = {"TENANCY": "test_key_function.Schemas", "ALIASES": ["default"]}
    with override_settings(CACHES={"default": made}, CACHEADMIN=site):
        caches["default"].clear()
        yield request.param


def each(read: Callable[[], object]) -> list[object]:
    """What each tenant sees while he is active."""
    seen = []
    for name in TENANTS:
        with tenancy().activate(name):
            seen.append(read())
    return seen


@cache_tenant_query(timeout=60, key_prefix="stock", alias="default")
def stock(tenant_id: str) -> int:
    return next(number)


@cache_query_result(timeout=60, key_prefix="gold", alias="default", shared=True)
def gold() -> int:
    return next(number)


@pytest.mark.parametrize("active", [None, "acme", "globex"])
def test_entries_of_a_tenant_go_whoever_is_active(backend: str, active: str | None) -> None:
    before = each(lambda: stock("acme"))
    with tenancy().activate("acme"):
        assert stock("acme") == before[0]
    assert before[0] == before[1], "the argument says whose it is"
    with tenancy().activate(active):
        assert invalidate_tenant_cache("acme").is_done
    assert each(lambda: stock("acme"))[0] > before[0]


@pytest.mark.parametrize("active", [None, "acme"])
@pytest.mark.parametrize("drop", [lambda: gold.invalidate_all(), lambda: invalidate_cache("gold:*")])
def test_shared_data_goes_in_every_schema(backend: str, active: str | None, drop: Callable[[], object]) -> None:
    before = each(gold)
    assert each(gold) == before
    with tenancy().activate(active):
        drop()
    assert all(new > old for new, old in zip(each(gold), before, strict=True))


@pytest.mark.parametrize("backend", ["ours", "stock"], indirect=True)  # of other caches plain keys are not looked for
@pytest.mark.parametrize("active", [None, "acme"])
@pytest.mark.parametrize("pattern", ["products:*", "produ*:l?st", "products:list"])
def test_plain_keys_go_in_every_schema(backend: str, active: str | None, pattern: str) -> None:
    each(lambda: caches["default"].set("products:list", tenancy().current()))
    assert each(lambda: caches["default"].get("products:list")) == list(TENANTS)
    with tenancy().activate(active):
        assert invalidate_cache(pattern).is_done
    assert each(lambda: caches["default"].get("products:list")) == [None, None]
