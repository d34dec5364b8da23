"""`REQUEST_MEMO`: what a request has read once it reads again without a round trip, but never after its own writes."""

import pytest
from django.core.cache import caches
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction
from django.http import JsonResponse
from django.test import Client
from django.urls import path

from cacheadmin import (
    cache_tenant_query,
    invalidate_model_cache,
    invalidate_tags,
    invalidate_tenant_cache,
    memory,
)
from cacheadmin.memory import hits
from cacheadmin.store import RedisStore
from shop.models import Category, Tenant

computed = []


@cache_tenant_query(key_prefix="memo_list", tags=["branch:{branch_id}"])
def listed(tenant_id, branch_id=1):
    computed.append((tenant_id, branch_id))
    return ["ring", len(computed)]


@cache_tenant_query(key_prefix="memo_outer")
def made_of_it(tenant_id):
    return listed(tenant_id)


@pytest.fixture(autouse=True)
def _memo(settings):
    settings.CACHEADMIN = settings.CACHEADMIN | {"REQUEST_MEMO": True}
    computed.clear()


@pytest.fixture
def request_():
    """Be within a request."""
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    request_started.send(None)
    yield
    request_finished.send(None)
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)


def test_a_second_hit_costs_no_round_trip(request_, round_trips) -> None:
    listed(1)
    with round_trips() as sent:
        assert [listed(1), listed(1), listed(1)] == [["ring", 1]] * 3
    assert len(sent) == 1


def test_without_the_setting_each_hit_is_a_round_trip(settings, round_trips) -> None:
    settings.CACHEADMIN = settings.CACHEADMIN | {"REQUEST_MEMO": False}
    request_started.disconnect(close_old_connections)
    request_started.send(None)
    request_started.connect(close_old_connections)
    listed(1)
    with round_trips() as sent:
        listed(1)
        listed(1)
    assert len(sent) == 2


def test_outside_of_a_request_nothing_is_kept(round_trips) -> None:
    listed(1)
    with round_trips() as sent:
        listed(1)
        listed(1)
    assert len(sent) == 2


def test_each_read_returns_an_object_of_its_own(request_) -> None:
    listed(1)
    listed(1).append("changed")
    listed(1).append("changed")
    assert listed(1) == ["ring", 1]


def test_other_arguments_and_tenants_are_other_entries(request_) -> None:
    assert [listed(1), listed(2), listed(1, 2)] == [["ring", 1], ["ring", 2], ["ring", 3]]
    assert [listed(1), listed(2), listed(1, 2)] * 2 == [["ring", 1], ["ring", 2], ["ring", 3]] * 2


def deleted_key() -> None:
    caches["query"].delete(listed.key(1))


def set_key() -> None:
    caches["query"].set(listed.key(1), ["ring", 2])


INVALIDATIONS = {
    "tenant": lambda: invalidate_tenant_cache(1),
    "tag": lambda: invalidate_tags(1, "branch:1"),
    "model": lambda: invalidate_model_cache("shop.InventoryItem"),
    "one entry": lambda: listed.invalidate(1),
    "group": lambda: listed.invalidate_all(1),
    "pattern": lambda: caches["query"].delete_pattern("*memo*"),
    "alias": lambda: caches["query"].clear(),
    "refresh": lambda: listed.refresh(1),
    "delete": deleted_key,
    "set": set_key,
}


@pytest.mark.django_db
def test_what_another_task_of_the_request_reads_while_it_invalidates_is_not_kept(request_, monkeypatch) -> None:
    before = listed(1)
    drop_many = RedisStore.drop_many

    def overtaken(self, drops):
        assert listed(1) == before
        return drop_many(self, drops)

    monkeypatch.setattr(RedisStore, "drop_many", overtaken)
    invalidate_tenant_cache(1)
    assert listed(1) != before


@pytest.mark.django_db
@pytest.mark.parametrize("what", INVALIDATIONS)
def test_whatever_this_request_invalidates_or_writes_it_reads_anew(what, request_, round_trips) -> None:
    listed(1)
    listed(1)
    INVALIDATIONS[what]()
    with round_trips() as sent:
        listed(1)
    assert sent


@pytest.mark.django_db(transaction=True)
def test_its_own_writes_are_read_and_a_rollback_changes_nothing(request_, round_trips) -> None:
    tenant = Tenant.objects.create(name="Ruby & Co", slug="ruby")

    @cache_tenant_query(key_prefix="category")
    def names(tenant_id):
        return list(Category.objects.filter(tenant_id=tenant_id).values_list("name", flat=True))

    names(tenant.pk)
    assert names(tenant.pk) == []
    with transaction.atomic():
        Category.objects.create(tenant=tenant, name="Rings", slug="rings")
        assert names(tenant.pk) == ["Rings"]
        transaction.set_rollback(True)
    assert names(tenant.pk) == []
    Category.objects.create(tenant=tenant, name="Chains", slug="chains")
    assert names(tenant.pk) == ["Chains"]


def test_nothing_that_is_computed_is_made_of_it(request_, round_trips) -> None:
    listed(1)
    listed(1)
    with round_trips() as sent:
        made_of_it(1)
    assert len(sent) == 4  # its read, its lease, the read of what it is made of, its fill


def test_what_one_request_keeps_is_bounded(request_, round_trips, monkeypatch) -> None:
    monkeypatch.setattr(hits, "MOST_HITS", 1)
    for _ in range(2):
        listed(1)
        listed(2)
    with round_trips() as sent:
        listed(1)
        listed(2)
    assert len(sent) == 1


def test_what_is_larger_than_the_room_that_is_left_is_not_kept(request_, round_trips, monkeypatch) -> None:
    monkeypatch.setattr(hits._hits.get(), "room", 5)
    listed(1)
    listed(1)
    with round_trips() as sent:
        listed(1)
    assert len(sent) == 1


def repeated(request):
    """Answer how often this view computed, and whether a request before left something behind."""
    before = memory.recall("query", listed.entry(1).key)
    values = [listed(1) for _ in range(3)]
    return JsonResponse({"values": values, "left": before is not None, "kept": len(hits._hits.get().held)})


urlpatterns = [path("repeated/", repeated)]


@pytest.mark.urls("test_request_memo")
@pytest.mark.django_db
def test_a_request_begins_with_nothing_and_leaves_nothing(client: Client) -> None:
    for _ in range(2):
        assert client.get("/repeated/").json() == {"values": [["ring", 1]] * 3, "left": False, "kept": 1}
    assert hits._hits.get() is None
