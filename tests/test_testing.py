"""What sites use in their own tests."""

import pytest
from django.core.cache import caches
from django.db import transaction
from django.test import TestCase

from cacheadmin import Rule, invalidate_tenant_cache, outbox, rules
from cacheadmin.outbox import Delivery, delivery
from cacheadmin.targets import Target
from cacheadmin.testing import CacheTestMixin, captured_invalidations, clear, reset
from shop.models import Tenant


@pytest.fixture
def tenants_rule(monkeypatch):
    monkeypatch.setattr(rules.current, "_code", (Rule("tenants", model="shop.Tenant", targets=["tenant"]),))
    rules.forget()
    yield
    rules.forget()


class TestTheMixin(CacheTestMixin, TestCase):
    def test_one_leaves_something_behind(self):
        assert caches["default"].get("tenant:1:inventory:a") is None
        caches["default"].set("tenant:1:inventory:a", 1)

    def test_two_does_not_find_it(self):
        self.test_one_leaves_something_behind()


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
