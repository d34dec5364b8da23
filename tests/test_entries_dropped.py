"""The entries that a rule has dropped: counted when their memory is given back, shown in the list of rules."""

import re

import pytest
from console import client_of
from django.urls import reverse

from cacheadmin import cache_tenant_query, connections, invalidation, reclaiming
from cacheadmin.admin import rule_list
from cacheadmin.conf import config
from cacheadmin.models import InvalidationRule
from cacheadmin.stats import recorder, rollups
from cacheadmin.stats.counts import OTHER
from cacheadmin.stats.layout import FIELDS_A_HASH, FREED, HOUR, bucket_key
from cacheadmin.stats.recording import NAMES_FREED
from cacheadmin.targets import ALL, Target
from shop.models import User

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_counted():
    recorder.reset()
    rollups.measure()
    reclaiming.forget()
    yield
    recorder.reset()
    reclaiming.forget()


@cache_tenant_query(timeout=300, key_prefix="dropped_stock")
def stock(tenant_id, number):
    return number


def fill(tenant="12", entries=5):
    """Cache some entries of a tenant."""
    for number in range(entries):
        stock(tenant, number)


def drop(name, source="rule", tenant="12"):
    """Invalidate the group as a rule does."""
    target = Target("group", "dropped_stock", tenant, "query")
    assert invalidation.deliver([target], source=source, name=name).is_done


def freed():
    """Reclaim, flush, and return what the roll-ups say."""
    reclaiming.run_due(everything=True)
    assert recorder.flush()
    return rule_list.counted().freed


@pytest.mark.parametrize("source", ["rule", "relay"])
def test_what_is_given_back_is_counted_for_the_rule(source):
    fill()
    drop("stock", source)
    assert freed() == {"stock": 5}
    fill(entries=2)
    drop("stock", source)
    assert freed() == {"stock": 7}


@pytest.mark.parametrize("source", ["user", "command", "code"])
def test_what_people_and_code_drop_is_no_rules(source):
    fill()
    drop("stock", source)
    assert freed() == {}


def test_a_rule_of_all_tenants_counts_what_each_had():
    fill("12", 3)
    fill("13", 4)
    target = Target("group", "dropped_stock", ALL, "query")
    tenants = [Target("group", "dropped_stock", tenant, "query") for tenant in ("12", "13")]
    assert invalidation.deliver([target, *tenants], source="rule", name="every").is_done
    assert freed() == {"every": 7}


def test_of_rules_within_some_seconds_the_first_is_counted_and_nothing_twice():
    fill()
    drop("first")
    drop("second")
    assert freed() == {"first": 5}


def test_invalidating_costs_no_command_more(commandstats):
    fill()
    with commandstats() as before:
        drop("", "user")
    with commandstats() as after:
        drop("a rule with a name")
    assert after == before


def test_names_are_bounded_in_a_process_and_in_redis():
    for number in range(NAMES_FREED + 50):
        recorder.freed(f"rule {number}", 1)
    assert recorder.flush()
    known = rule_list.counted().freed
    assert len(known) == FIELDS_A_HASH + 1 == NAMES_FREED + 1
    assert known[OTHER] == 50
    recorder.reset()
    for number in range(100):
        recorder.freed(f"later {number}", 2)
    assert recorder.flush()
    known = rule_list.counted().freed
    assert sum(known.values()) == NAMES_FREED + 50 + 200
    link = connections.link(config().stats_alias)
    keys = [key.decode() for key in link.call(("KEYS", "*{cacheadmin}:f:*")).values[0]]
    assert keys
    assert all(link.call(("HLEN", key)).values[0] <= FIELDS_A_HASH + 1 for key in keys)
    assert all(link.call(("TTL", key)).values[0] > 0 for key in keys)
    assert all(key.startswith(bucket_key(FREED, HOUR, 0).rsplit(":", 2)[0]) for key in keys)


def test_nothing_else_reads_these_numbers_as_invalidations():
    fill()
    drop("stock")
    freed()
    lines = rule_list.counted().lines
    assert [(line.source, line.name, line.what, line.count) for line in lines] == [
        ("rule", "stock", "group dropped_stock", 1)
    ]


def test_the_list_of_rules_shows_them_in_its_one_round_trip(round_trips):
    for name in ("stock", "a, b", "b"):
        InvalidationRule.objects.create(name=name, model="shop.Branch", targets=["group:dropped_stock"])
    admin, url = (
        client_of(User.objects.create_superuser("amira")),
        reverse("admin:cacheadmin_invalidationrule_changelist"),
    )
    fill("12", 5)
    drop("stock, a, b")
    fill("13", 2)
    drop("b", tenant="13")
    freed()
    answer = admin.get(url, {"source": "database"})
    assert {row.name: row.fired.entries for row in answer.context["rows"]} == {"stock": 5, "a, b": 5, "b": 7}
    body = answer.content.decode()
    assert "Entries dropped (24 h)" in body
    assert re.search(r'title="Memory given back by scopes[^"]+computed anew', body)
    with round_trips() as sent:
        rule_list.counted()
    assert len(sent) == 1
