"""Decorated functions on caches without Redis: scopes work, races too, only sight is missing."""

from __future__ import annotations

import threading

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.http import HttpResponse
from django.template import engines
from django.test import RequestFactory, override_settings

from cacheadmin import (
    ABSENT,
    cache_api_response,
    cache_dashboard_data,
    cache_gold_rate,
    cache_query_result,
    cache_report_result,
    cache_tenant_query,
    get_cached_dashboard_data,
    get_cached_gold_rate,
    get_cached_report_result,
    get_or_set_cache,
    invalidate_cache,
    invalidate_tags,
    invalidate_tenant_cache,
)
from cacheadmin.exceptions import UncacheableValue
from cacheadmin.store import Drop, PortableStore, store
from shop.models import Tenant

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True, params=["locmem", "db"])
def backend(request):
    """The four aliases on a cache without Redis."""
    made = {
        "locmem": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "db": {"BACKEND": "django.core.cache.backends.db.DatabaseCache"},
    }[request.param]
    if request.param == "db":
        request.getfixturevalue("cache_table")
    aliases = ["default", "query", "template", "api"]
    settings = {
        alias: made | {"LOCATION": "cache_table" if request.param == "db" else alias, "KEY_PREFIX": alias}
        for alias in aliases
    }
    with override_settings(CACHES=settings, CACHEADMIN={"ALIASES": aliases, "TENANCY": "shop.cache.Tenancy"}):
        for alias in aliases:
            caches[alias].clear()
        yield request.param


@pytest.fixture
def cache_table(db):
    from django.core.management import call_command

    settings = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_table"}}
    with override_settings(CACHES=settings, CACHEADMIN={"ALIASES": ["default"]}):
        call_command("createcachetable", verbosity=0)


class Counter:
    def __init__(self) -> None:
        self.calls = 0
        self.during = None

    def __call__(self) -> int:
        self.calls += 1
        seen = self.calls
        if self.during is not None:
            during, self.during = self.during, None
            during()
        return seen


def numbers(asked: Counter, **options):
    @cache_tenant_query(timeout=60, key_prefix="numbers", tags=["branch:{branch}"], **options)
    def f(tenant_id, branch=1):
        return asked()

    return f


def test_store_is_the_portable_one() -> None:
    assert isinstance(store("query"), PortableStore)
    assert not store("query").keeps_index


def test_values_of_every_kind_are_cached() -> None:
    for value in (None, 0, "", [], {"a": (1, None)}, 2**70, False):

        @cache_query_result(timeout=60, key_prefix=f"kinds{value!r:.5}", shared=True)
        def f(value=value):
            return [value]

        assert f() == f() == [value]
        assert f.peek() == [value]
    with pytest.raises(UncacheableValue, match="only once"):
        cache_query_result(timeout=60, shared=True)(lambda: iter([1]))()


@pytest.mark.parametrize("options", [{}, {"single_flight": False}, {"grace": 10}, {"timeout": None}], ids=str)
def test_each_way_to_invalidate_reaches_it(options: dict) -> None:
    asked = Counter()

    @cache_tenant_query(**{"timeout": 60, "key_prefix": "numbers", "tags": ["branch:{branch}"], **options})
    def f(tenant_id, branch=1):
        return asked()

    for invalidate in (
        lambda: invalidate_tenant_cache(1),
        lambda: invalidate_tenant_cache(1, prefix="num"),
        lambda: invalidate_tags(1, "branch:1"),
        lambda: invalidate_cache("tenant:1:numbers:*"),
        lambda: invalidate_cache(f.key(1)),
        lambda: f.invalidate(1),
        lambda: f.invalidate_all(tenant=1),
    ):
        value = f(1)
        other = f(2)
        assert (f(1), f.peek(1)) == (value, value)
        assert invalidate().is_done
        assert f.peek(1) is ABSENT
        assert (f(1), f(2)) == (asked.calls, other)


def test_all_tenants_are_those_of_the_list() -> None:
    asked = Counter()
    f, tenant = numbers(asked), Tenant.objects.create(name="Ruby", slug="ruby")
    f(tenant.pk)
    f.invalidate_all()
    assert f.peek(tenant.pk) is ABSENT


@pytest.mark.parametrize("flight", [True, False])
@pytest.mark.parametrize("how", ["entry", "tenant", "tag"])
def test_value_computed_before_an_invalidation_is_never_read_after_it(flight: bool, how: str) -> None:
    asked = Counter()
    f = numbers(asked, single_flight=flight)
    calls = {
        "entry": lambda: f.invalidate(1),
        "tenant": lambda: invalidate_tenant_cache(1),
        "tag": lambda: invalidate_tags(1, "branch:1"),
    }
    asked.during = calls[how]
    assert f(1) == 1
    assert f.peek(1) is ABSENT
    assert (f(1), f(1)) == (2, 2)
    asked.during = calls[how]
    f.refresh(1)
    assert f(1) == 4


def test_other_thread_s_invalidation_refuses_the_value_too(backend: str) -> None:
    if backend == "db":
        return  # an in-memory database belongs to its thread
    asked = Counter()
    f = numbers(asked)

    def elsewhere() -> None:
        thread = threading.Thread(
            target=lambda: store("query").drop_many([Drop(store("query").place("1"), tenant=True)])
        )
        thread.start()
        thread.join()

    asked.during = elsewhere
    assert (f(1), f(1), f(1)) == (1, 2, 2)


def test_losing_any_one_key_costs_misses_only(backend: str) -> None:
    asked = Counter()
    f = numbers(asked)
    entry = f.entry(1)
    for lost in (entry.key, *PortableStore._names(entry)):
        f(1)
        caches["query"].delete(lost)
        assert f.peek(1) is ABSENT
        value = f(1)
        f.invalidate(1)
        assert f(1) == value + 1


def test_long_and_odd_names_are_no_trouble() -> None:
    for tenant in ("x" * 190, "ü" * 60, "a b\n", "y" * 5000, "{}", "~"):
        asked = Counter()

        @cache_tenant_query(timeout=60, key_prefix="g" * 150, tags=["t" * 150])
        def f(tenant_id, text=""):
            return asked()  # noqa: B023 - called in this round only

        assert (f(tenant), f(tenant), f(tenant, "z" * 5000)) == (1, 1, 2)
        invalidate_tenant_cache(tenant)
        assert (f(tenant), f(tenant)) == (3, 3)


def test_shortcuts_go_with_their_tenant() -> None:
    assert cache_dashboard_data(1, {"a": 1})
    cache_report_result(1, "sales", {"b": 1}, [1])
    cache_gold_rate(5)
    assert get_cached_dashboard_data(1) == {"a": 1}
    assert get_cached_report_result(1, "sales", {"b": 1}) == [1]
    invalidate_tenant_cache(1)
    assert get_cached_dashboard_data(1) is None
    assert get_cached_report_result(1, "sales", {"b": 1}) is None
    assert get_cached_gold_rate() == 5
    invalidate_cache("gold_rate:*")
    assert get_cached_gold_rate() is None


def test_get_or_set_views_and_fragments_work_too() -> None:
    asked = Counter()
    assert get_or_set_cache("tenant:1:list:x", asked) == get_or_set_cache("tenant:1:list:x", asked) == 1
    invalidate_tenant_cache(1)
    assert get_or_set_cache("tenant:1:list:x", asked) == 2
    view = cache_api_response(timeout=60, x_cache=True)(lambda request: HttpResponse("x"))
    request = RequestFactory().get("/")
    request.user = type("U", (), {"pk": 1, "tenant_id": 1})()
    assert [view(request)["X-Cache"] for _ in range(2)] == ["MISS", "HIT"]
    template = engines["django"].from_string(
        "{% load cacheadmin %}{% cache 60 side 1 tenant=1 using='template' %}{{ n }}{% endcache %}"
    )
    assert [template.render({"n": n}) for n in (1, 2)] == ["1", "1"]
    invalidate_tenant_cache(1)
    assert template.render({"n": 3}) == "3"
    assert view(request)["X-Cache"] == "MISS"


def test_coroutines_are_cached(backend: str) -> None:
    asked = Counter()

    @cache_tenant_query(timeout=60)
    async def f(tenant_id):
        return asked()

    async def act():
        return [await f(1), await f(1)]

    assert async_to_sync(act)() == [1, 1]
