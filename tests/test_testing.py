"""What sites use in their own tests."""

import multiprocessing
from types import SimpleNamespace

import pytest
from django.core.cache import caches
from django.db import transaction
from django.test import TestCase

from cacheadmin import Rule, cache_query_result, invalidate_tenant_cache, outbox
from cacheadmin.outbox import Delivery, delivery
from cacheadmin.targets import Target
from cacheadmin.testing import (
    CacheTestMixin,
    assert_invalidates,
    assert_keeps,
    assert_never_stale,
    captured_invalidations,
    clear,
    reset,
)
from shop.models import Tenant


@pytest.fixture
def tenants_rule(use_rules):
    use_rules(Rule("tenants", model="shop.Tenant", targets=["tenant"]))


class TestTheMixin(CacheTestMixin, TestCase):
    def test_one_leaves_something_behind(self):
        assert caches["default"].get("tenant:1:inventory:a") is None
        caches["default"].set("tenant:1:inventory:a", 1)

    def test_two_does_not_find_it(self):
        self.test_one_leaves_something_behind()


def test_workers_of_parallel_tests_neither_read_nor_empty_each_others_cache(monkeypatch):
    def seen_by(worker):
        monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(name=worker))
        case = TestTheMixin("test_two_does_not_find_it")
        case.setUp()
        found = caches["query"].get("tenant:1:inventory:a")
        caches["query"].set("tenant:1:inventory:a", worker)
        left = [caches["query"].get("tenant:1:inventory:a"), caches["query"].key_prefix]
        case.doCleanups()
        return found, left

    caches["query"].set("tenant:1:inventory:a", "the site's")
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace())
    assert seen_by("ForkPoolWorker-1") == (None, ["ForkPoolWorker-1", "jewelry_shop_query_ForkPoolWorker-1"])
    assert seen_by("ForkPoolWorker-2") == (None, ["ForkPoolWorker-2", "jewelry_shop_query_ForkPoolWorker-2"])
    assert caches["query"].get("tenant:1:inventory:a") == "the site's"


@pytest.mark.django_db
def test_what_is_invalidated_is_listed_whoever_asked(tenants_rule):
    with captured_invalidations() as dropped:
        tenant = Tenant.objects.create(name="a", slug="a")
        invalidate_tenant_cache(7, "inventory")
    assert [(i.source, i.name) for i in dropped] == [("rule", "tenants"), ("code", "")]
    assert dropped[0].targets == (Target("tenant", "", str(tenant.pk)),)
    Tenant.objects.create(name="b", slug="b")
    assert len(dropped) == 2


@pytest.mark.django_db
def test_it_is_listed_when_the_tested_block_ends(tenants_rule):
    with captured_invalidations() as dropped, transaction.atomic():
        Tenant.objects.create(name="a", slug="a")
        assert dropped == []
    assert len(dropped) == 1


# --- expectations ---------------------------------------------------------------------------------------------------


@cache_query_result(timeout=60, key_prefix="names", shared=True)
def names():
    return list(Tenant.objects.order_by("pk").values_list("name", flat=True))


@cache_query_result(timeout=60, key_prefix="names", shared=True)
async def names_async():
    return [tenant.name async for tenant in Tenant.objects.order_by("pk")]


@pytest.fixture
def names_rule(use_rules):
    use_rules(Rule("names", model="shop.Tenant", tenant="shared", targets=["group:names"]))


@pytest.mark.django_db
def test_a_write_that_a_rule_names_is_seen_to_invalidate(names_rule):
    with assert_invalidates(names) as dropped:
        Tenant.objects.create(name="a", slug="a")
    assert [i.name for i in dropped] == ["names"]
    with assert_invalidates(names_async):
        Tenant.objects.all().delete()


@pytest.mark.django_db
def test_a_write_that_no_rule_names_is_reported():
    with (
        pytest.raises(AssertionError, match=r"names\(\) is still cached. Invalidated: rule tenants: "),
        assert_invalidates(names),
    ):
        Tenant.objects.create(name="a", slug="a")


@pytest.mark.django_db
def test_what_must_stay_is_reported_when_it_goes(names_rule):
    with assert_keeps(names):
        Tenant.objects.filter(name="nobody").count()
    with pytest.raises(AssertionError, match=r"no longer cached. Invalidated: rule names: "), assert_keeps(names):
        Tenant.objects.create(name="a", slug="a")


@pytest.mark.django_db
def test_what_cannot_be_cached_is_reported_before_the_block(monkeypatch):
    monkeypatch.setattr(names, "_kept", (True, 0.0, True, lambda value: False, None))
    names.forget_options()
    with pytest.raises(AssertionError, match="not cached before the block"), assert_invalidates(names):
        pytest.fail("the block ran")
    monkeypatch.undo()
    names.forget_options()


@pytest.mark.django_db
@pytest.mark.parametrize("function", [names, names_async])
def test_a_write_overtakes_a_computation_and_its_value_is_not_kept(names_rule, function):
    Tenant.objects.create(name="a", slug="a")
    served = assert_never_stale(function, write=lambda: Tenant.objects.create(name="b", slug="b"))
    assert served == ["a", "b"]


@pytest.mark.django_db
@pytest.mark.parametrize("function", [names, names_async])
def test_a_write_that_nothing_follows_leaves_a_stale_value_and_is_reported(function):
    with pytest.raises(AssertionError, match="is cached as it was before the write: no rule"):
        assert_never_stale(function, write=lambda: Tenant.objects.create(name="b", slug="b"))


class TestTheMixinsAssertions(CacheTestMixin, TestCase):
    def test_both_are_there(self):
        with self.assertKeeps(names):
            Tenant.objects.count()
        with pytest.raises(AssertionError), self.assertInvalidates(names):
            Tenant.objects.count()


def test_reset_forgets_what_waits():
    delivery._remembered[Target("group", "a", "1")] = 0.0
    reset()
    assert delivery.remembered() == ()
    assert outbox.Delivery is Delivery


def test_clear_empties_every_alias():
    for alias in ("default", "query"):
        caches[alias].set("tenant:1:inventory:a", 1)
    clear()
    assert [caches[alias].get("tenant:1:inventory:a") for alias in ("default", "query")] == [None, None]
