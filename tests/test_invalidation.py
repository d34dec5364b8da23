"""Every way to say what is to be invalidated reaches exactly that, in order, once the data is committed."""

from __future__ import annotations

import pytest
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings

from cacheadmin import (
    ABSENT,
    ALL,
    Target,
    cache_dashboard_data,
    cache_gold_rate,
    cache_query_result,
    cache_tenant_query,
    get_cache_key,
    get_cached_dashboard_data,
    get_cached_gold_rate,
    get_tenant_cache_key,
    invalidate_cache,
    invalidate_model_cache,
    invalidate_tags,
    invalidate_tenant_cache,
    invalidation,
)
from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidKey, InvalidRule, InvalidTarget, InvalidTenant, UnknownAlias
from cacheadmin.stats import Delta, recorder
from cacheadmin.stats.recording import INDEX
from cacheadmin.store import store
from cacheadmin.targets import from_pattern
from cacheadmin.testing import captured_invalidations, reset
from shop.models import Branch, Sale, Supplier, Tenant

pytestmark = pytest.mark.django_db

ALIASES = ("query", "default", "template", "api")


class Cached:
    """Entries of many tenants and groups, decorated and plain; `standing()` names those that are still there."""

    def __init__(self, tenants: list[str | None], groups: list[str], alias: str = "query") -> None:
        self.alias = alias
        self.functions = {}
        for group in groups:
            self.functions[group] = (
                cache_tenant_query(timeout=None, key_prefix=group, alias=alias, tags=["tag:{n}"])(of_tenant),
                cache_query_result(timeout=None, key_prefix=group, alias=alias, shared=True, tags=["tag:{n}"])(shared),
            )
        self.tenants = tenants

    def calls(self):
        for group, (of_one, of_all) in self.functions.items():
            for tenant in self.tenants:
                for n in (1, 2):
                    function, args = (of_all, (n,)) if tenant is None else (of_one, (tenant, n))
                    yield (tenant, group, n), function, args

    def fill(self) -> set[tuple]:
        plain = {}
        for (tenant, group, n), function, args in self.calls():
            function(*args)
            plain[self.plain(tenant, group, n)] = n
        caches[self.alias].set_many(plain, None)
        return self.standing()

    @staticmethod
    def plain(tenant: str | None, group: str, n: int) -> str:
        return get_cache_key(group, n) if tenant is None else get_tenant_cache_key(tenant, group, n)

    def standing(self) -> set[tuple]:
        """Entries whose decorated and plain value both stand; they must always agree."""
        calls = list(self.calls())
        plain = caches[self.alias].get_many([self.plain(*key) for key, _, _ in calls])
        decorated = store(self.alias).read_many([function.entry(*args) for _, function, args in calls])
        held = set()
        for (key, _, _), found in zip(calls, decorated, strict=True):
            assert (found.state == "hit") == (self.plain(*key) in plain), key
            if found.state == "hit":
                held.add(key)
        return held


def of_tenant(tenant_id: str, n: int) -> int:
    return n


def shared(n: int) -> int:
    return n


TENANTS = ["1", "12", "1*", "1:2", "{1}", "-", "~1", "x" * 500]
GROUPS = ["inventory", "inventory_list", "inventory:branch:5", "in*"]


@pytest.fixture
def cached() -> Cached:
    made = Cached([None, *TENANTS], GROUPS)
    assert len(made.fill()) == 2 * (len(TENANTS) + 1) * len(GROUPS)
    return made


# --- tenants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tenant", ["1", "1*", "1:2", "{1}", "-", "~1", "x" * 500, "*", "[1]", "%31"])
def test_tenant_id_matches_only_itself(cached: Cached, tenant: str) -> None:
    before = cached.standing()
    assert invalidate_tenant_cache(tenant, alias="query").is_done
    assert before - cached.standing() == {entry for entry in before if entry[0] == tenant}


@pytest.mark.parametrize(
    ("prefix", "groups"),
    [
        ("inventory", {"inventory", "inventory_list", "inventory:branch:5"}),
        ("inventory:", {"inventory:branch:5"}),
        ("in", {"inventory", "inventory_list", "inventory:branch:5", "in*"}),
        ("in*", {"in*"}),
        ("ventory", set()),
    ],
)
def test_prefix_is_the_beginning_of_a_groups_name(cached: Cached, prefix: str, groups: set[str]) -> None:
    before = cached.standing()
    assert invalidate_tenant_cache(12, prefix=prefix).is_done
    assert before - cached.standing() == {entry for entry in before if entry[0] == "12" and entry[1] in groups}


def test_tenant_is_dropped_in_every_alias_or_in_the_named_one() -> None:
    for alias in ALIASES:
        caches[alias].set("tenant:5:group:x", 1)
    invalidate_tenant_cache(5, alias="template")
    assert [caches[a].get("tenant:5:group:x") for a in ALIASES] == [1, 1, None, 1]
    result = invalidate_tenant_cache(5)
    assert [caches[a].get("tenant:5:group:x") for a in ALIASES] == [None] * 4
    assert (result.state, result.places, result.targets) == ("done", 4, (Target("tenant", "", "5"),))
    assert set(result.identities) == set(ALIASES)


@pytest.mark.parametrize("nobody", [None, "", True, object()])
def test_tenant_that_is_none_is_refused(nobody: object) -> None:
    with pytest.raises(InvalidTenant):
        invalidate_tenant_cache(nobody)


def test_saved_instance_stands_for_its_id() -> None:
    tenant = Tenant.objects.create(name="Ruby", slug="ruby")
    caches["query"].set(get_tenant_cache_key(tenant, "group"), 1)
    invalidate_tenant_cache(tenant)
    assert caches["query"].get(get_tenant_cache_key(tenant, "group")) is None


# --- tags -----------------------------------------------------------------------------------------------------------


def test_tags_drop_what_carries_them_and_nothing_else() -> None:
    made = Cached([None, "1", "12"], ["a", "b"])
    made.fill()
    functions = [(key, f, args) for key, f, args in made.calls()]
    assert invalidate_tags(1, "tag:1", "unknown").is_done
    for (tenant, group, n), f, args in functions:
        assert (f.peek(*args) is ABSENT) == (tenant == "1" and n == 1), (tenant, group, n)
    invalidate_tags(None, "tag:2")
    for (tenant, _, n), f, args in functions:
        assert (f.peek(*args) is ABSENT) == ((tenant, n) in {("1", 1), (None, 2)})
    with pytest.raises(InvalidTarget):
        invalidate_tags(1, "")
    with pytest.raises(InvalidTenant):
        invalidate_tags("", "tag")
    assert invalidate_tags(1).is_done


# --- patterns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "hit"),
    [
        ("inventory:*", lambda t, g, n: g in ("inventory", "inventory:branch:5")),
        ("tenant:12:*", lambda t, g, n: t == "12"),
        ("tenant:12:inventory:*", lambda t, g, n: t == "12" and g in ("inventory", "inventory:branch:5")),
        ("tenant:1%3A2:inventory:*", lambda t, g, n: t == "1:2" and g in ("inventory", "inventory:branch:5")),
        ("tenant:*", lambda t, g, n: True),
        ("*", lambda t, g, n: True),
        ("inventory*", lambda t, g, n: g.startswith("inventory")),
        ("*:branch:*", lambda t, g, n: g == "inventory:branch:5"),
        ("inventory_lis?:*", lambda t, g, n: g == "inventory_list"),
        ("in\\*:*", lambda t, g, n: g == "in*"),
        ("tenant:1[23]:*", lambda t, g, n: t == "12"),
        ("tenant:1?:*", lambda t, g, n: t in ("12", "1*")),
        ("[h-j]n\\*:*", lambda t, g, n: g == "in*"),
        ("[j-h]n\\*:*", lambda t, g, n: g == "in*"),
        ("nothing:*", lambda t, g, n: False),
        ("[", lambda t, g, n: False),
    ],
)
def test_pattern_is_matched_as_it_is_and_behind_the_tenant(cached: Cached, pattern: str, hit) -> None:
    """Decorated entries whose tenant is known by a digest only may go along with a pattern that is looked for."""
    before = cached.standing()
    assert invalidate_cache(pattern, alias="query").is_done
    gone = {entry for entry in before - cached.standing() if entry[0] != "x" * 500}
    assert gone == {entry for entry in before if hit(*entry) and entry[0] != "x" * 500}
    left = {entry for entry in cached.standing() if entry[0] == "x" * 500}
    assert not {entry for entry in left if hit(*entry)}


def test_one_key_without_a_glob_is_one_entry_everywhere() -> None:
    made = Cached([None, "1", "2"], ["test"])
    before = made.fill()
    invalidate_cache(get_tenant_cache_key(1, "test", 1))
    caches["query"].delete(get_tenant_cache_key(1, "test", 1))
    for _, f, args in made.calls():
        f(*args)
    for (tenant, _, n), _, _ in made.calls():
        if tenant == "1" and n == 1:
            caches["query"].set(made.plain(tenant, "test", n), n)
    assert made.standing() == before
    for alias in ALIASES:
        caches[alias].set("test:key1", 1)
        caches[alias].set("tenant:9:test:key1", 1)
        caches[alias].set("test:key12", 1)
        caches[alias].set("plain", 1)
    invalidate_cache("test:key1")
    invalidate_cache("plain")
    for alias in ALIASES:
        assert caches[alias].get_many(["test:key1", "tenant:9:test:key1", "test:key12", "plain"]) == {"test:key12": 1}


REST = ["", "key1", "x" * 200, "ä" * 40, "~digest", "%7E", "*", "a b", "\n", "{", "stock!x"]


@pytest.mark.parametrize("group", ["list", "a:b", "tenant:6:x", "~", "g" * 300, ""])
def test_plain_key_is_reached_by_its_own_name(group: str) -> None:
    cache = caches["query"]
    for rest in REST:
        key = f"tenant:5:{group}:{rest}" if group else f"tenant:5:{rest}"
        cache.set(key, 1)
        assert invalidate_cache(key.replace("\\", "\\\\")).is_done if "*" not in key else True
        assert (cache.get(key) is None) == ("*" not in key), key
        cache.set(key, 2)
        assert cache.delete(key) is True
        assert cache.get(key) is None


@pytest.mark.parametrize("key", ["tenant:5:list:" + "x" * 50, "tenant:5:tenant:6:x:y", "tenant:5:x", "list:~a", "a:b"])
def test_delete_inside_a_transaction_is_repeated_after_its_commit(key: str) -> None:
    """Between the delete and the commit another process may have cached what it still read."""
    cache = caches["query"]
    with transaction.atomic():
        cache.delete(key)
        cache.set(key, "read before the commit")
    assert cache.get(key) is None


def test_delete_of_another_version_is_repeated_after_the_commit() -> None:
    cache = caches["query"]
    with transaction.atomic():
        cache.delete("tenant:5:list:a", version=7)
        cache.set("tenant:5:list:a", "read before the commit", version=7)
    assert cache.get("tenant:5:list:a", version=7) is None


def test_key_with_two_colons_after_the_tenant_goes_with_its_tenant() -> None:
    caches["query"].set("tenant:5::x", 1)
    invalidate_tenant_cache(6)
    assert caches["query"].get("tenant:5::x") == 1
    invalidate_tenant_cache(5)
    assert caches["query"].get("tenant:5::x") is None


def test_long_keys_are_found_by_pattern_although_redis_knows_only_their_digest() -> None:
    cache = caches["query"]
    long, other = "list:" + "long rest " * 20, "list:" + "other rest " * 20
    cache.set(long, 1)
    cache.set(other, 1)
    invalidate_cache("*long*")
    assert cache.get(long) is None
    assert cache.get(other) == 1


@pytest.mark.parametrize("pattern", ["", None, 5, "*x" * 150])
def test_pattern_that_is_none_is_refused(pattern: object) -> None:
    with pytest.raises(InvalidTarget):
        invalidate_cache(pattern)


def test_ambiguous_tenant_in_a_pattern_is_refused() -> None:
    with pytest.raises(InvalidKey, match="get_tenant_cache_key"):
        invalidate_cache("tenant:%41:*")


def test_unknown_alias_is_an_error_of_the_caller() -> None:
    for call in (
        lambda: invalidate_cache("a:*", alias="nope"),
        lambda: invalidate_tenant_cache(1, alias="nope"),
        lambda: invalidate_tags(1, "x", alias="nope"),
    ):
        with pytest.raises(UnknownAlias, match="nope"):
            call()
        with pytest.raises(UnknownAlias), transaction.atomic():
            call()


@pytest.mark.parametrize("prefix", ["shop{1}", "50%", "a*b?", "[x]", "back\\slash", "ü", "a:b:"])
def test_key_prefix_may_hold_anything(redis_server, prefix: str) -> None:
    ours = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url}
    settings = {"default": ours | {"KEY_PREFIX": prefix}, "other": ours | {"KEY_PREFIX": prefix + "x"}}
    values = {"plain": 1, "tenant:5:list:a": 2, "tenant:5:list:" + "x" * 100: 3, "list:a": 4}
    with override_settings(CACHES=settings):
        cache, other = caches["default"], caches["other"]
        cache.set_many(values)
        other.set_many(values)
        assert sorted(cache.keys("*")) == sorted(values)
        invalidate_tenant_cache(5, alias="default")
        assert cache.get_many(values) == {"plain": 1, "list:a": 4}
        invalidate_cache("*is?:a", alias="default")
        assert cache.get_many(values) == {"plain": 1}
        cache.set_many(values)
        assert cache.delete_pattern("tenant:5:*") == 2
        cache.clear()
        assert cache.get_many(values) == {}
        assert cache.keys("*") == []
        assert other.get_many(values) == values


# --- all tenants ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        Target("tenant"),
        Target("group", "report"),
        Target("prefix", "rep"),
        Target("tag", "tag:1"),
        Target("key", "report:x"),
        Target("pattern", "rep*"),
    ],
    ids=lambda t: t.kind,
)
def test_everybody_means_listed_tenants_others_and_shared_data(target: Target) -> None:
    listed = Tenant.objects.create(name="Ruby", slug="ruby")
    tenants = [str(listed.pk), "not in the list", "-", "~" + "a" * 22, "x" * 500]
    cache = caches["query"]

    @cache_tenant_query(timeout=60, key_prefix="report", tags=["tag:1"])
    def mine(tenant_id: str) -> int:
        return 1

    for tenant in tenants:
        mine(tenant)
        cache.set(get_tenant_cache_key(tenant, "report").removesuffix("-") + "x", 1)
    cache.set("report:x", 1)
    assert invalidation.request([target], source="command").is_done
    if target.kind != "key":
        assert [mine.peek(tenant) for tenant in tenants] == [ABSENT] * len(tenants)
    if target.kind != "tag":  # plain keys carry no tags
        assert cache.get("report:x") is None
        keys = [get_tenant_cache_key(tenant, "report").removesuffix("-") + "x" for tenant in tenants]
        assert cache.get_many(keys) == {}


def test_rules_trust_a_complete_list_of_tenants(round_trips) -> None:
    Tenant.objects.create(name="Ruby", slug="ruby")
    targets = [Target("group", "report", ALL, "query")]
    store("query").link.call(("PING",))
    with round_trips() as sent:
        invalidation.deliver(targets, source="rule")
    assert sent == ["UNLINK ECHO", "UNLINK ECHO"], "shared data first, then the tenants"
    with round_trips() as sent:
        invalidation.deliver(targets, source="code")
    assert sent == ["UNLINK ECHO", "UNLINK ECHO", "SCAN"]


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Supplier", "shop.Supplier", Supplier])
def test_model_cache_is_what_its_rules_name_and_groups_called_like_it(name: object) -> None:
    keys, other = ["supplier:a", "supplier_list:a"], "customer:a"

    def fill() -> None:
        for tenant in (123, 124):
            caches["query"].set_many({f"tenant:{tenant}:{key}": 1 for key in (*keys, other)})

    fill()
    invalidate_model_cache(name, tenant_id=123)
    assert caches["query"].get_many([f"tenant:123:{key}" for key in (*keys, other)]) == {f"tenant:123:{other}": 1}
    assert len(caches["query"].get_many([f"tenant:124:{key}" for key in (*keys, other)])) == len(keys) + 1
    fill()
    assert invalidate_model_cache(name).is_done
    left = [f"tenant:{tenant}:{key}" for tenant in (123, 124) for key in (*keys, other)]
    assert sorted(caches["query"].get_many(left)) == [f"tenant:123:{other}", f"tenant:124:{other}"]


def test_model_cache_of_the_reference_document() -> None:
    caches["query"].set("tenant:123:inventoryitem:list", 1)
    caches["query"].set("tenant:5:sales_summary:x", 1)
    invalidate_model_cache("InventoryItem", tenant_id=123)
    assert caches["query"].get("tenant:123:inventoryitem:list") is None
    assert caches["query"].get("tenant:5:sales_summary:x") == 1
    invalidate_model_cache("Sale")
    assert caches["query"].get("tenant:5:sales_summary:x") is None


def test_unknown_model_is_named() -> None:
    with pytest.raises(InvalidRule, match="Unknown"):
        invalidate_model_cache("Unknown")
    with pytest.raises(InvalidTenant):
        invalidate_model_cache(Sale, tenant_id="")


# --- order and transactions -----------------------------------------------------------------------------------------


def test_inner_aliases_come_first_and_shared_data_before_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    Tenant.objects.create(name="Ruby", slug="ruby")
    order: list[tuple[str, list[str | None]]] = []
    kind = type(store("query"))
    drop_many = kind.drop_many

    def noted(self, drops):
        order.append((self.alias, [drop.place.tenant for drop in drops]))
        return drop_many(self, drops)

    monkeypatch.setattr(kind, "drop_many", noted)
    invalidation.deliver([Target("group", "g")], source="rule")
    pk = str(Tenant.objects.get().pk)
    assert order == [(alias, [None]) for alias in ALIASES] + [(alias, [pk]) for alias in ALIASES]
    assert config().aliases == ALIASES


def test_outer_alias_is_left_alone_while_an_inner_one_is_away(fresh_server, redis_server) -> None:
    """Dropped first, an outer value would be computed again from the inner one that still stands."""
    away = fresh_server()
    ours = {"BACKEND": "cacheadmin.backends.RedisCache"}
    settings = {"query": ours | {"LOCATION": away.url}, "default": ours | {"LOCATION": redis_server.url}}
    with override_settings(CACHES=settings, CACHEADMIN={}):
        reset()
        caches["default"].set("tenant:1:g:x", 1)
        away.stop()
        result = invalidation.deliver([Target("tenant", tenant="1")])
        assert (result.state, result.pending) == ("failed", (Target("tenant", tenant="1"),))
        assert "does not answer" in result.error
        assert caches["default"].get("tenant:1:g:x") == 1


CALLS = {
    "tenant": lambda: invalidate_tenant_cache(5),
    "prefix": lambda: invalidate_tenant_cache(5, prefix="inv"),
    "scope": lambda: invalidate_cache("inventory:*"),
    "pattern": lambda: invalidate_cache("*ventor?:*"),
    "key": lambda: invalidate_cache("tenant:5:inventory:x"),
    "model": lambda: invalidate_model_cache("InventoryItem", 5),
}


@pytest.mark.parametrize("call", CALLS)
def test_invalidation_waits_for_the_commit(call: str) -> None:
    cache, key = caches["query"], "tenant:5:inventory:x"
    cache.set(key, 1)
    with captured_invalidations() as captured:
        with transaction.atomic():
            with transaction.atomic():
                assert CALLS[call]().state == "deferred"
            assert cache.get(key) == 1
        assert cache.get(key) is None
    assert [result.state for result in captured] == ["done"]


@pytest.mark.parametrize("call", CALLS)
def test_invalidation_is_forgotten_with_a_rollback(call: str) -> None:
    cache, key = caches["query"], "tenant:5:inventory:x"
    cache.set(key, 1)

    def act() -> None:
        with transaction.atomic():
            CALLS[call]()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        act()
    assert cache.get(key) == 1


def test_inner_rollback_may_drop_more_but_never_less() -> None:
    caches["query"].set_many({"tenant:5:a:x": 1, "tenant:5:b:x": 1})
    with transaction.atomic():
        invalidate_tenant_cache(5, prefix="a")
        create = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # renamed in Django 6.1
        savepoint = create()
        invalidate_tenant_cache(5, prefix="b")
        transaction.savepoint_rollback(savepoint)
    assert caches["query"].get("tenant:5:a:x") is None


@pytest.mark.django_db(transaction=True)
def test_manual_invalidation_is_not_narrowed_by_a_write_in_the_same_transaction(redis_server) -> None:
    """
    On a stock backend rules do not look for plain keys, but whoever invalidates by hand wants them gone.

    The shop's rules also name aliases that are not configured here: that must hold nothing else up.
    """
    stock = {"BACKEND": "django_prometheus.cache.backends.redis.RedisCache", "LOCATION": redis_server.url}
    with override_settings(CACHES={"default": stock}):
        tenant = Tenant.objects.create(name="Ruby", slug="ruby")
        caches["default"].set(f"tenant:{tenant.pk}:anything:x", 1)
        with transaction.atomic():
            Branch.objects.create(tenant=tenant, name="One", city="Bern")
            invalidate_tenant_cache(tenant)
        assert caches["default"].get(f"tenant:{tenant.pk}:anything:x") is None


# --- stock backends -------------------------------------------------------------------------------------------------


@pytest.fixture(
    params=["django_prometheus.cache.backends.redis", "django_redis.cache", "django.core.cache.backends.redis"]
)
def stock(request, redis_server):
    """The reference site's present settings, and the two other stock backends."""
    backend = {"BACKEND": f"{request.param}.RedisCache", "KEY_PREFIX": "jewelry_shop", "TIMEOUT": 300}
    settings = {
        "default": backend | {"LOCATION": redis_server.url_for(0)},
        "query": backend | {"LOCATION": redis_server.url_for(1), "KEY_PREFIX": "jewelry_shop_query", "TIMEOUT": 900},
        "template": backend | {"LOCATION": redis_server.url_for(2)},
        "api": backend | {"LOCATION": redis_server.url_for(3)},
    }
    with override_settings(CACHES=settings):
        yield caches["query"]


PLAIN = {
    "tenant:123:inventoryitem:list": 1,
    "tenant:123:sales:x": 2,
    "tenant:12:inventory:x": 3,
    "tenant:1:inventory:x": 4,
    "inventory:x": 5,
    "test:key1": 6,
    "plain": 7,
    "tenant:123:alone": 8,
}


@pytest.mark.parametrize(
    ("call", "gone"),
    [
        (lambda: invalidate_tenant_cache(123), {1, 2, 8}),
        (lambda: invalidate_tenant_cache(12), {3}),
        (lambda: invalidate_tenant_cache(123, prefix="inventory"), {1}),
        (lambda: invalidate_cache("inventory:*"), {3, 4, 5}),
        (lambda: invalidate_cache("tenant:1:*"), {4}),
        (lambda: invalidate_cache("tenant:123:sales:*"), {2}),
        (lambda: invalidate_cache("test:key1"), {6}),
        (lambda: invalidate_cache("plain"), {7}),
        (lambda: invalidate_cache("*key?"), {6}),
        (lambda: invalidate_cache("tenant:123:alone"), {8}),
        (lambda: invalidate_cache("*"), {1, 2, 3, 4, 5, 6, 8}),
        (lambda: invalidate_model_cache("PricingRule", tenant_id=123), {1}),
        (lambda: invalidate_model_cache("PricingRule"), {1, 3, 4, 5}),
    ],
)
def test_plain_keys_of_a_stock_backend_are_found_by_scan(stock, call, gone: set[int]) -> None:
    stock.set_many(PLAIN)
    assert call().is_done
    assert set(PLAIN.values()) - set(stock.get_many(PLAIN).values()) == gone


def test_decorated_entries_work_fully_on_a_stock_backend(stock) -> None:
    made = Cached(["1", "12"], ["inventory", "report"])
    for _, f, args in made.calls():
        f(*args)
    invalidate_tenant_cache(1, prefix="inv")
    standing = {key for key, f, args in made.calls() if f.peek(*args) is not ABSENT}
    assert standing == {(t, g, n) for t in ("1", "12") for g in ("inventory", "report") for n in (1, 2)} - {
        ("1", "inventory", 1),
        ("1", "inventory", 2),
    }
    made.functions["report"][0].invalidate("12", 1)
    assert made.functions["report"][0].peek("12", 1) is ABSENT


def test_helpers_of_the_reference_site_work_on_a_stock_backend(stock) -> None:
    cache_dashboard_data(5, {"a": 1})
    cache_gold_rate(2)
    assert (get_cached_dashboard_data(5), get_cached_gold_rate()) == ({"a": 1}, 2)
    invalidate_tenant_cache(5)
    assert (get_cached_dashboard_data(5), get_cached_gold_rate()) == (None, 2)


def test_keys_that_others_wrote_do_not_disturb_a_scan(stock, redis, redis_server) -> None:
    odd = ["tenant:%41:x:y", "tenant::x", "tenant:", ":", "::", "%", "a" * 200, "\xff", "tenant:50%:x:y"]
    stock.set_many(dict.fromkeys(odd, 1))
    redis.execute_command("SELECT", 1)
    try:
        redis.set(b"jewelry_shop_query:1:\xff\xfe:\x80", b"x")
        redis.lpush(b"jewelry_shop_query:1:tenant:5:list:x", b"x")
        assert invalidate_tenant_cache(5).is_done
        assert not redis.exists(b"jewelry_shop_query:1:tenant:5:list:x")
        for call in (
            lambda: invalidate_cache("a:*"),
            lambda: invalidate_cache("*a:b"),
            lambda: invalidate_cache("a:b"),
        ):
            assert call().is_done
    finally:
        redis.execute_command("SELECT", 0)
    assert len(stock.get_many(odd)) == len(odd)


@pytest.mark.parametrize(("raw_keys", "by_hand", "by_rule"), [("manual", 1, 0), ("always", 1, 1), ("never", 0, 0)])
def test_setting_says_when_plain_keys_are_looked_for(stock, raw_keys: str, by_hand: int, by_rule: int) -> None:
    target = Target("tenant", tenant="5")
    with override_settings(CACHEADMIN={"RAW_KEYS": raw_keys}):
        for source, is_found in (("code", by_hand), ("user", by_hand), ("rule", by_rule), ("relay", by_rule)):
            stock.set("tenant:5:a:x", 1)
            invalidation.deliver([target], source=source)
            assert (stock.get("tenant:5:a:x") is None) == bool(is_found), source


# --- the server is away ---------------------------------------------------------------------------------------------


@pytest.fixture
def away(fresh_server):
    server = fresh_server()
    settings = {"default": {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": server.url}}
    server.stop()
    with override_settings(CACHES=settings, CACHEADMIN={}):
        reset()
        yield
    reset()


def test_without_anybody_who_keeps_it_an_undelivered_invalidation_has_failed(away, monkeypatch) -> None:
    monkeypatch.setattr(invalidation.asking, "_keep", None)
    with captured_invalidations() as captured:
        result = invalidate_tenant_cache(5)
    assert (result.state, result.is_done, result.pending) == ("failed", False, (Target("tenant", "", "5"),))
    assert str(result) == "failed: everything of tenant 5"
    assert captured == [result]


@pytest.mark.parametrize("kept", [True, False])
def test_keeper_says_whether_it_waits(away, monkeypatch, kept: bool) -> None:
    asked: list[invalidation.Invalidation] = []
    monkeypatch.setattr(invalidation.asking, "_keep", lambda result: asked.append(result) or kept)
    assert invalidate_cache("a:*").state == ("waiting" if kept else "failed")
    assert asked[0].pending == tuple(from_pattern("a:*"))


def test_delete_while_the_server_is_away_is_kept(away, monkeypatch) -> None:
    asked: list[invalidation.Invalidation] = []
    monkeypatch.setattr(invalidation.asking, "_keep", lambda result: bool(asked.append(result)) or True)
    long = "tenant:5:list:" + "x" * 50
    assert caches["default"].delete(long) is False
    assert [result.targets for result in asked] == [(Target("key", "list:" + "x" * 50, "5", "default"),)]


def test_nothing_is_dropped_twice_in_one_delivery() -> None:
    target = Target("tenant", tenant="5")
    assert invalidation.deliver([target, target]).targets == (target,)
    assert invalidation.deliver([]).state == "done"


def test_several_things_of_a_place_dropped_together_count_as_one_invalidation() -> None:
    recorder.flush()
    deltas: list[Delta] = []
    recorder.sinks.append(deltas.append)
    try:
        targets = [Target("group", name, "7", "query") for name in ("a", "b", "c")]
        invalidation.deliver([*targets, Target("tag", "t", "7", "default")])
        recorder.flush()
    finally:
        recorder.sinks.remove(deltas.append)
    counted = {key: numbers[INDEX["invalidated"]] for delta in deltas for key, numbers in delta.counts.items()}
    assert sum(counted.values()) == 2
    assert sum(sum(delta.dropped.values()) for delta in deltas) == 4
