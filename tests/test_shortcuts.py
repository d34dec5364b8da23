"""The one-line helpers, as the reference site calls them."""

from __future__ import annotations

import datetime as dt
import threading
import time
from decimal import Decimal

import pytest
from django.conf import settings
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings

from cacheadmin import (
    cache_dashboard_data,
    cache_gold_rate,
    cache_report_result,
    get_cache_key,
    get_cached_dashboard_data,
    get_cached_gold_rate,
    get_cached_report_result,
    get_or_set_cache,
    get_tenant_cache_key,
    invalidate_cache,
    invalidate_model_cache,
    invalidate_tenant_cache,
    shortcuts,
)
from cacheadmin.exceptions import InvalidKey, InvalidTenant, UncacheableValue
from cacheadmin.store import store
from shop.models import GoldRate, Tenant

pytestmark = pytest.mark.django_db


class Counter:
    def __init__(self, *answers: object) -> None:
        self.calls = 0
        self.answers = answers

    def __call__(self) -> object:
        self.calls += 1
        return self.answers[0] if self.answers else self.calls


LOCMEM = "django.core.cache.backends.locmem"

# --- compute or get -------------------------------------------------------------------------------------------------

KEYS = [
    "expensive_calculation",
    "list:x",
    "tenant:7:list:x",
    "tenant:7:x",
    get_tenant_cache_key(7, "list", q="x" * 500),
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [None, 0, "", [], {"a": 1}, 5])
def test_value_is_computed_once_whatever_it_is(key: str, value: object) -> None:
    asked = Counter(value)
    assert [get_or_set_cache(key, asked, timeout=900) for _ in range(3)] == [value] * 3
    assert asked.calls == 1


STOCK = ["django_prometheus.cache.backends.redis", "django_redis.cache", "django.core.cache.backends.redis"]


@pytest.mark.parametrize("value", [None, 0, ""])
@pytest.mark.parametrize("backend", [*(f"{module}.RedisCache" for module in STOCK), f"{LOCMEM}.LocMemCache"])
@pytest.mark.parametrize("key", ["expensive_calculation", "tenant:7:list:x"])
def test_false_values_are_values_with_every_backend(redis_server, key: str, backend: str, value: object) -> None:
    location = "values" if LOCMEM in backend else redis_server.url
    only = {"default": {"BACKEND": backend, "LOCATION": location}}
    with override_settings(CACHES=only, CACHEADMIN=settings.CACHEADMIN | {"ALIASES": ["default"]}):
        caches["default"].clear()
        asked = Counter(value)
        assert [get_or_set_cache(key, asked, timeout=60) for _ in range(3)] == [value] * 3
        assert asked.calls == 1


def test_example_of_the_reference_document() -> None:
    expensive_function = Counter("dear")
    result = get_or_set_cache("expensive_calculation", lambda: expensive_function(), timeout=900)
    assert result == get_or_set_cache("expensive_calculation", lambda: expensive_function(), timeout=900) == "dear"
    assert expensive_function.calls == 1
    assert caches["default"].get("expensive_calculation") == "dear"
    assert 890 < caches["default"].ttl("expensive_calculation") <= 900


def test_positional_order_and_the_synonym_of_alias_are_the_reference_sites() -> None:
    assert get_or_set_cache("a:b", lambda: 1, 60, "query") == 1
    assert get_or_set_cache("a:b", lambda: 2, 60, alias="query") == 1
    assert get_or_set_cache("a:b", lambda: 2, 60, cache_alias="query") == 1
    assert get_or_set_cache("a:b", lambda: 2, 60) == 2
    assert get_or_set_cache(key="a:b", callable=lambda: 3, timeout=60, alias="query") == 1


def test_scoped_value_goes_with_its_tenant_and_group_and_is_what_plain_code_sees() -> None:
    asked = Counter()
    key = get_tenant_cache_key(7, "list")
    assert get_or_set_cache(key, asked) == 1
    assert caches["default"].get(key) == 1
    invalidate_tenant_cache(7)
    assert get_or_set_cache(key, asked) == 2
    invalidate_cache("list:*")
    assert get_or_set_cache(key, asked) == 3
    assert caches["default"].get(key) == 3, "else the next line would store under the stamp that a get saw long ago"
    caches["default"].set(key, "plain")
    assert get_or_set_cache(key, asked) == "plain"
    caches["default"].delete(key)
    assert get_or_set_cache(key, asked) == 4


@pytest.mark.parametrize("key", ["plain", "list:x"])
@pytest.mark.parametrize(("timeout", "calls"), [(0, 2), (-1, 2), (None, 1), (0.9, 1)])
def test_timeout_is_djangos(key: str, timeout: object, calls: int) -> None:
    asked, begun = Counter(), time.monotonic()
    for _ in range(2):
        get_or_set_cache(key, asked, timeout=timeout)
    while asked.calls != calls and timeout == 0.9 < time.monotonic() - begun:
        asked, begun = Counter(), time.monotonic()  # it was kept, and gone before it could be read
        caches["default"].delete(key)
        for _ in range(2):
            get_or_set_cache(key, asked, timeout=timeout)
    assert asked.calls == calls
    if timeout is None:
        assert caches["default"].ttl(key) is None


def test_default_timeout_is_the_aliases() -> None:
    for key in ("plain", "list:x"):
        get_or_set_cache(key, lambda: 1, alias="query")
        assert 890 < caches["query"].ttl(key) <= 900


def test_timeout_that_is_no_number_is_named() -> None:
    with pytest.raises(ValueError, match=r"The timeout is 'soon'; give seconds"):
        get_or_set_cache("list:x", lambda: 1, timeout="soon")


@pytest.mark.parametrize("key", KEYS)
def test_queryset_is_kept_as_its_rows(key: str, django_assert_num_queries) -> None:
    Tenant.objects.create(name="Ruby", slug="ruby")
    with django_assert_num_queries(1):
        for _ in range(2):
            assert [t.name for t in get_or_set_cache(key, Tenant.objects.all)] == ["Ruby"]


@pytest.mark.usefixtures("nobody_waits")
def test_generator_is_refused_and_an_error_is_the_callers_own() -> None:
    for key in ("a:b", "without_scope"):
        with pytest.raises(UncacheableValue, match="only once"):
            get_or_set_cache(key, lambda: (n for n in ()))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            get_or_set_cache("a:b", lambda: 1 / 0)


@pytest.mark.parametrize("key", ["a:b", "without_scope"])
def test_coroutine_is_refused_with_what_to_do(key: str) -> None:
    async def compute() -> int:
        return 1

    with pytest.raises(UncacheableValue, match="Await it"):
        get_or_set_cache(key, compute)


def test_threads_on_a_cold_key_compute_it_once() -> None:
    asked = Counter()

    def slow() -> object:
        time.sleep(0.2)
        return asked()

    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(get_or_set_cache("a:b", slow))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 5


def test_miss_is_three_round_trips_and_a_hit_one(round_trips) -> None:
    get_or_set_cache("a:0", lambda: 1)
    with round_trips() as sent:
        get_or_set_cache("a:1", lambda: 1)
        get_or_set_cache("a:1", lambda: 1)
    sent = [line for line in sent if "INFO" not in line]
    assert (len(sent), sent[0], sent[-1]) == (4, "MGET", "MGET")


def test_groups_made_of_ids_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcuts, "MOST_PACES", 3)
    for i in range(10):
        get_or_set_cache(f"user:{i}:x", lambda: 1)
    assert len(shortcuts._paces) <= 4


# --- dashboards, reports, the gold rate -----------------------------------------------------------------------------


def test_dashboard_of_the_reference_document() -> None:
    tenant_id, data = 7, {"sales": Decimal("10.50"), "at": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}
    assert get_cached_dashboard_data(tenant_id) is None
    assert cache_dashboard_data(tenant_id, data, timeout=300)
    assert get_cached_dashboard_data(tenant_id) == get_cached_dashboard_data(str(tenant_id)) == data
    assert get_cached_dashboard_data(8) is None
    key = get_tenant_cache_key(tenant_id, "dashboard")
    assert caches["default"].get(key) == data
    assert 290 < caches["default"].ttl(key) <= 300
    invalidate_tenant_cache(tenant_id, prefix="dashboard")
    assert get_cached_dashboard_data(tenant_id) is None


def test_report_of_the_reference_document() -> None:
    params = {"start_date": "2024-01-01", "end_date": "2024-12-31"}
    assert cache_report_result(7, "sales_report", params, ["rows"], timeout=900)
    assert get_cached_report_result(7, "sales_report", params) == ["rows"]
    assert get_cached_report_result(7, "sales_report", dict(reversed(params.items()))) == ["rows"]
    for other in (
        (8, "sales_report", params),
        (7, "other", params),
        (7, "sales_report", params | {"x": 1}),
        (7, "sales_report"),
    ):
        assert get_cached_report_result(*other) is None
    assert store("query").groups_many([store("query").place("7")]) == [["report:sales_report", "report:other"]]
    invalidate_cache("report:*")
    assert get_cached_report_result(7, "sales_report", params) is None


@pytest.mark.parametrize("params", [None, {}, {"a b": 1, "": 2}, {1: "x"}, {"self": 1, "prefix": 2, "tenant_id": 3}])
def test_report_takes_any_plain_parameters(params: dict | None) -> None:
    assert cache_report_result(7, "odd", params, "rows")
    assert get_cached_report_result(7, "odd", params) == "rows"


def test_report_parameters_without_a_stable_value_are_refused() -> None:
    with pytest.raises(InvalidKey):
        cache_report_result(7, "x", {"a": object()}, 1)
    with pytest.raises(InvalidKey):
        get_cached_report_result(7, "x", {"a": object()})


def test_gold_rate_of_the_reference_document_follows_its_model() -> None:
    rate_data = {"24k": Decimal("75.1")}
    assert get_cached_gold_rate() is None
    assert cache_gold_rate(rate_data, timeout=300)
    assert get_cached_gold_rate() == rate_data
    assert caches["default"].get(get_cache_key("gold_rate")) == rate_data
    GoldRate.objects.create(karat=24, price_per_gram=Decimal("76"))
    assert get_cached_gold_rate() is None
    cache_gold_rate(rate_data)
    invalidate_model_cache("GoldRate")
    assert get_cached_gold_rate() is None


@pytest.mark.parametrize("nobody", [None, "", True])
def test_call_without_a_tenant_is_an_error(nobody: object) -> None:
    for call in (
        lambda: cache_dashboard_data(nobody, 1),
        lambda: get_cached_dashboard_data(nobody),
        lambda: cache_report_result(nobody, "x", {}, 1),
        lambda: get_cached_report_result(nobody, "x", {}),
    ):
        with pytest.raises(InvalidTenant):
            call()


def test_value_read_before_an_invalidation_is_refused() -> None:
    assert get_cached_dashboard_data(7) is None
    data = {"sales": 1}
    invalidate_tenant_cache(7)
    assert cache_dashboard_data(7, data) is False
    assert get_cached_dashboard_data(7) is None
    assert cache_dashboard_data(7, data) is True


@pytest.mark.parametrize("timeout", [0, -1])
def test_timeout_that_has_passed_stores_nothing(timeout: int) -> None:
    assert cache_dashboard_data(7, 1, timeout) is False
    assert cache_gold_rate(1, timeout) is False
    assert (get_cached_dashboard_data(7), get_cached_gold_rate()) == (None, None)


def test_timeout_that_has_passed_removes_what_was_there() -> None:
    cache_dashboard_data(7, 1)
    cache_dashboard_data(7, 2, timeout=0)
    assert get_cached_dashboard_data(7) is None


def test_transaction_that_has_written_neither_keeps_nor_sees_values() -> None:
    cache_dashboard_data(7, "before")

    def act() -> None:
        with transaction.atomic():
            Tenant.objects.create(name="Ruby", slug="ruby")
            assert get_cached_dashboard_data(7) is None
            assert cache_dashboard_data(7, "uncommitted") is False
            raise RuntimeError

    with pytest.raises(RuntimeError):
        act()
    assert get_cached_dashboard_data(7) == "before"


def test_helpers_follow_settings_that_change(redis_server) -> None:
    cache_gold_rate(1)
    with override_settings(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "x"}},
        CACHEADMIN={"ALIASES": ["default"]},
    ):
        assert get_cached_gold_rate() is None
        cache_gold_rate(2)
        assert get_cached_gold_rate() == 2
    assert get_cached_gold_rate() == 1
