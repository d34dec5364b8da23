"""Decorated functions: whose entry a call reads, what is kept of its result and for how long."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import functools
import io
import pickle
import time
import uuid
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.db import connection, transaction
from django.db.models import Sum
from django.test import TestCase, override_settings
from django.utils.functional import SimpleLazyObject

from cacheadmin import (
    ABSENT,
    ResultList,
    cache_api_response,
    cache_query_result,
    cache_tenant_query,
    get_cache_key,
    invalidate_cache,
    invalidate_tags,
    invalidate_tenant_cache,
)
from cacheadmin.exceptions import InvalidKey, InvalidTenant, UncacheableValue
from cacheadmin.functions import CachedFunction, registry
from cacheadmin.signals import cache_read
from cacheadmin.store import store
from cacheadmin.tenancy import tenancy
from cacheadmin.testing import CacheTestMixin
from shop.models import Branch, Category, InventoryItem, Sale, Tenant

pytestmark = pytest.mark.django_db


class Counter:
    """Counts how often it is asked, and answers with that number or what it was told to."""

    def __init__(self, *answers: object) -> None:
        self.calls = 0
        self.answers = answers

    def __call__(self) -> object:
        self.calls += 1
        return self.answers[0] if self.answers else self.calls


@pytest.fixture
def shop() -> Tenant:
    tenant = Tenant.objects.create(name="Ruby", slug="ruby")
    branch = Branch.objects.create(tenant=tenant, name="One", city="Basel")
    category = Category.objects.create(tenant=tenant, name="Rings", slug="rings")
    for sku in ("A", "B"):
        InventoryItem.objects.create(
            tenant=tenant, branch=branch, category=category, sku=sku, name=sku, weight=1, price=10, quantity=1
        )
    return tenant


# --- whose entry it is ----------------------------------------------------------------------------------------------


def test_first_argument_is_the_tenant() -> None:
    asked = Counter()

    @cache_tenant_query(timeout=60, key_prefix="mine")
    def mine(shop_id: int) -> object:
        return asked()

    assert (mine(1), mine(12), mine(1), mine("1"), mine(shop_id=1)) == (1, 2, 1, 1, 1)
    invalidate_tenant_cache(1)
    assert (mine(12), mine(1)) == (2, 3)


@pytest.mark.parametrize("name", ["tenant_id", "tenant"])
def test_argument_of_that_name_is_the_tenant(name: str) -> None:
    asked, space = Counter(), {}
    exec(f"def mine(page, {name}): return asked()", {"asked": asked}, space)
    mine = cache_query_result(timeout=60)(space["mine"])
    assert mine.tenant_parameter == name
    assert (mine(1, 7), mine(1, 8), mine(1, 7)) == (1, 2, 1)
    assert mine.entry(1, 7).group.place.tenant == "7"
    invalidate_tenant_cache(7)
    assert (mine(1, 8), mine(1, 7)) == (2, 3)


def test_model_instance_and_its_id_are_one_tenant(shop: Tenant) -> None:
    asked = Counter()

    @cache_query_result(timeout=60)
    def of_instance(tenant: object) -> object:
        return asked()

    assert (of_instance(shop), of_instance(shop.pk), of_instance(str(shop.pk))) == (1, 1, 1)
    with pytest.raises(InvalidTenant):
        of_instance(Tenant(name="not saved"))


def test_active_tenant_owns_what_no_argument_names() -> None:
    asked = Counter()

    @cache_query_result(timeout=60)
    def mine(page: int = 1) -> object:
        return asked()

    with tenancy().activate(1):
        assert (mine(), mine()) == (1, 1)
    with tenancy().activate(2):
        assert mine() == 2
    assert mine() == 3, "nobody is active: shared"
    assert mine.may_fall_back
    invalidate_tenant_cache(1)
    with tenancy().activate(1):
        assert mine() == 4
    with tenancy().activate(2):
        assert mine() == 2
    assert mine() == 3


def test_shared_is_shared_whoever_is_active() -> None:
    asked = Counter()

    @cache_query_result(timeout=60, shared=True)
    def everybodys(tenant_id: int = 0) -> object:
        return asked()

    assert everybodys.entry(1).group.place.tenant is None
    with tenancy().activate(1):
        assert everybodys() == 1
    with tenancy().activate(2):
        assert everybodys() == 1
    assert everybodys(5) == 2, "the argument still tells entries apart"
    assert not everybodys.may_fall_back


@pytest.mark.parametrize("nobody", [None, "", True, False, 1.0, object()])
def test_call_without_a_tenant_is_an_error(nobody: object) -> None:
    asked = Counter()

    @cache_tenant_query(timeout=60)
    def first(tenant_id: object) -> object:
        return asked()

    @cache_query_result(timeout=60)
    def by_name(page: int, tenant: object = None) -> object:
        return asked()

    with pytest.raises(InvalidTenant, match="first"):
        first(nobody)
    with tenancy().activate(1), pytest.raises(InvalidTenant, match="by_name"):
        by_name(1, nobody)
    assert asked.calls == 0


def test_function_without_arguments_cannot_be_a_tenants() -> None:
    with pytest.raises(InvalidTenant, match="first one"):

        @cache_tenant_query()
        def nothing() -> None: ...


# --- how decorators are written -------------------------------------------------------------------------------------


def test_decorators_work_without_parentheses() -> None:
    asked = Counter()

    @cache_query_result
    def shared_one(number: int) -> object:
        """Say a number."""
        return asked()

    @cache_tenant_query
    def tenants_one(tenant_id: int) -> object:
        return asked()

    assert (shared_one(1), shared_one(1), tenants_one(1), tenants_one(1)) == (1, 1, 2, 2)
    assert shared_one.__name__ == "shared_one"
    assert shared_one.__doc__ == "Say a number."
    assert shared_one.options().timeout_ms == 900_000, "the timeout of the alias `query`"
    assert shared_one.alias == "query"
    assert shared_one.group == "shared_one"


def test_positional_order_and_the_synonym_of_alias_are_the_reference_sites() -> None:
    @cache_query_result(30, "positional", "api")
    def one() -> int:
        return 1

    @cache_tenant_query(30, "positional", cache_alias="template")
    def two(tenant_id: int) -> int:
        return 2

    assert (one.timeout, one.group, one.alias) == (30, "positional", "api")
    assert (two.timeout, two.group, two.alias) == (30, "positional", "template")
    one(), two(1)
    assert one.peek() == 1
    assert two.peek(1) == 2


def test_functions_of_one_group_never_meet() -> None:
    @cache_query_result(key_prefix="same")
    def one(a: int) -> str:
        return "one"

    @cache_query_result(key_prefix="same")
    def two(a: int) -> str:
        return "two"

    assert (one(1), two(1), one(1), two(1)) == ("one", "two", "one", "two")
    assert {one.name, two.name} <= set(registry)


def test_functions_that_a_factory_makes_never_meet() -> None:
    def make(factor: int):
        @cache_query_result(key_prefix="factories", shared=True)
        def times(number: int) -> int:
            return number * factor

        return times

    twice, thrice = make(2), make(3)
    assert [twice(5), thrice(5), twice(5), thrice(5)] == [10, 15, 10, 15]
    assert make(2).peek(5) == 10, "another process makes the same one"


def test_functions_that_a_factory_makes_of_models_never_meet() -> None:
    def make(model: type, columns: tuple[str, ...], seen: list[int]):
        @cache_query_result(key_prefix="factories", shared=True)
        def described() -> str:
            return f"{model.__name__} {columns}"

        return described

    items, tenants, names = make(InventoryItem, ("pk",), []), make(Tenant, ("pk",), []), make(Tenant, ("name",), [])
    assert [items(), tenants(), names()] == ["InventoryItem ('pk',)", "Tenant ('pk',)", "Tenant ('name',)"]
    assert make(Tenant, ("pk",), [1]).peek() == "Tenant ('pk',)", "a list may be another one in another process"


def test_what_a_function_encloses_is_not_looked_at_too_closely(django_assert_num_queries) -> None:
    lazily, rows = SimpleLazyObject(lambda: pytest.fail("made")), Tenant.objects.all()

    with django_assert_num_queries(0):

        @cache_query_result(key_prefix="enclosing", shared=True)
        def value() -> object:
            return lazily, rows


def test_what_has_no_name_is_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"functools.partial.* has no name .* a function made with `def`"):
        cache_query_result(key_prefix="powers", shared=True)(functools.partial(pow, 2))


def test_unknown_option_and_unknown_field_of_a_tag_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="time_out"):
        cache_query_result(time_out=5)(len)
    with pytest.raises(TypeError, match="shared"):
        cache_tenant_query(shared=True)
    with pytest.raises(InvalidKey, match="branch"):

        @cache_query_result(tags=["branch:{branch}"])
        def f(branch_id: int) -> None: ...

    with pytest.raises(InvalidKey, match="tenant:"):
        cache_query_result(key_prefix="tenant:1:x")(lambda: None)


@pytest.mark.parametrize("decorator", [cache_query_result, cache_tenant_query, cache_api_response])
@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", "60"), ("timeout", dt.timedelta(1)), ("grace", -1), ("grace", None), ("jitter", 5), ("jitter", "a")],
)
def test_number_that_makes_no_sense_is_refused_at_once(decorator, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"The {option} of .*Tenant is"):
        decorator(**{option: value})(Tenant)


def test_wrong_arguments_are_the_functions_own_error() -> None:
    @cache_tenant_query()
    def f(tenant_id: int, page: int = 1, *, size: int = 2) -> int:
        return 1

    for args, kwargs in (
        ((), {}),
        ((), {"page": 2, "sise": 1}),
        ((1, 2, 3), {}),
        ((1,), {"tenant_id": 1}),
        ((1,), {"sise": 3}),
        ((), {"page": 1, "size": 2, "sise": 1}),
    ):
        with pytest.raises(TypeError):
            f(*args, **kwargs)
        with pytest.raises(TypeError):
            f.key(*args, **kwargs)


def test_argument_without_a_stable_value_is_refused_with_a_hint(shop: Tenant) -> None:
    @cache_tenant_query()
    def f(tenant_id: int, branch: object) -> int:
        return 1

    with pytest.raises(InvalidKey, match="Pass its id"):
        f(1, Branch.objects.first())


def test_calls_that_mean_the_same_meet() -> None:
    asked = Counter()

    @cache_tenant_query(key_prefix="inventory_list")
    def get_inventory_items(tenant_id: int, branch_id: int | None = None, *, size: int = 20) -> object:
        return asked()

    same = [
        get_inventory_items(1),
        get_inventory_items(1, None),
        get_inventory_items(1, branch_id=None),
        get_inventory_items(tenant_id=1, size=20),
        get_inventory_items(size=20, branch_id=None, tenant_id="1"),
    ]
    assert same == [1] * 5
    others = [get_inventory_items(1, 2), get_inventory_items(1, "2"), get_inventory_items(1, True)]
    others += [get_inventory_items(1, Decimal(2)), get_inventory_items(1, 2.0), get_inventory_items(1, size=2)]
    assert others == [2, 3, 4, 5, 6, 7]


# --- values ---------------------------------------------------------------------------------------------------------


def test_entry_is_named_once_for_arguments_that_tell_all(monkeypatch: pytest.MonkeyPatch) -> None:
    @cache_tenant_query(timeout=60)
    def named(tenant_id: int, size: object = 0, kind: str = "a") -> list[object]:
        return [tenant_id, size, kind]

    name, named_for = named.arguments.name, []
    monkeypatch.setattr(named.arguments, "name", lambda *given: named_for.append(given) or name(*given))
    for size in (5, "5", None, "x" * 64):
        named_for.clear()
        assert [named(1, size), named(1, size), named(1, size=size), named(1, size=size)] == [[1, size, "a"]] * 4
        assert len(named_for) == 2, "once for each way to say it"
    for size in (5.0, True, "x" * 65, [5], dt.date(2024, 1, 1)):
        named_for.clear()
        assert [named(1, size), named(1, size)] == [[1, size, "a"]] * 2
        assert len(named_for) == 2, "of these equal ones need not be the same, or take room"
    keys = [named.key(1, size) for size in (5, "5", 5.0, True, None, 1, "1", "", "None") * 2]
    assert len(set(keys)) == 9


def test_entry_that_was_named_is_named_anew_by_other_settings(settings) -> None:
    @cache_tenant_query(timeout=60)
    def named(tenant_id: int) -> str:
        return "a"

    @cache_query_result(timeout=60)
    def of_the_active() -> str | None:
        return tenancy().current()

    before = named.entry(1).key
    assert named.entry(1).key == before
    settings.CACHES = {a: of | {"KEY_PREFIX": "other"} for a, of in settings.CACHES.items()}
    assert named.entry(1).key.startswith("other:")
    assert named.entry(1).key != before
    for tenant in ("1", "2"):
        with tenancy().activate(tenant):
            assert of_the_active() == tenant


@pytest.mark.parametrize(
    "value",
    [None, 0, "", [], {}, False, 0.0, b"", 2**70, -1, True, Decimal("0.10"), uuid.UUID(int=1), dt.date(2024, 1, 1)],
)
def test_false_values_are_values_and_keep_their_type(value: object) -> None:
    asked = Counter(value)

    @cache_query_result(timeout=60, key_prefix="falsy")
    def falsy() -> object:
        return asked()

    results: list[str] = []
    cache_read.connect(listener := lambda **kw: results.append(kw["result"]))
    try:
        for _ in range(3):
            found = falsy()
            assert found == value
            assert type(found) is type(value)
        assert falsy.peek() == value
    finally:
        cache_read.disconnect(listener)
    assert asked.calls == 1
    assert results == ["miss", "hit", "hit"]


def test_queryset_is_evaluated_once_and_iterates_again_without_a_query(shop: Tenant, django_assert_num_queries) -> None:
    @cache_query_result(timeout=900, key_prefix="inventory_list")
    def get_inventory_items(tenant_id, branch_id=None):
        return InventoryItem.objects.filter(tenant_id=tenant_id)

    with django_assert_num_queries(1):
        first = get_inventory_items(shop.pk)
        assert [item.sku for item in first] == ["A", "B"]
        assert [item.sku for item in first] == ["A", "B"]
    with django_assert_num_queries(0):
        for _ in range(2):
            again = get_inventory_items(shop.pk)
            assert type(again) is ResultList
            assert [item.sku for item in again] == ["A", "B"]
            assert again == first
            assert (again.count(), again.exists(), again.first().sku, again.last().sku) == (2, True, "A", "B")
            assert again.all()[1:] == [first[1]]
            assert list(map(str, again.all())) == ["A A", "B B"]
    with pytest.raises(AttributeError, match="inside the cached function"):
        again.filter(sku="A")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = again.nonsense


def test_values_lists_and_raw_queries_are_kept_as_rows(shop: Tenant, django_assert_num_queries) -> None:
    @cache_tenant_query(key_prefix="rows")
    def skus(tenant_id):
        return InventoryItem.objects.filter(tenant_id=tenant_id).values_list("sku", flat=True)

    @cache_tenant_query(key_prefix="rows")
    def raw(tenant_id):
        return InventoryItem.objects.raw("SELECT * FROM shop_inventoryitem WHERE tenant_id = %s", [tenant_id])

    @cache_tenant_query(key_prefix="rows")
    def none(tenant_id):
        return InventoryItem.objects.none()

    for expected in (3, 0):
        with django_assert_num_queries(min(expected, 2)):
            assert skus(shop.pk) == ["A", "B"]
            assert [item.sku for item in raw(shop.pk)] == ["A", "B"]
            assert (none(shop.pk), none(shop.pk).first(), none(shop.pk).last()) == ([], None, None)


def test_aggregate_of_the_reference_site_is_cached(shop: Tenant, django_assert_num_queries) -> None:
    Sale.objects.create(tenant=shop, branch=Branch.objects.get(), number="1", total=5)

    @cache_tenant_query(timeout=900, key_prefix="sales_summary")
    def get_sales_summary(tenant_id, start_date, end_date):
        return Sale.objects.filter(tenant_id=tenant_id, created_at__date__range=[start_date, end_date]).aggregate(
            total=Sum("total")
        )

    today = dt.datetime.now(dt.UTC).date()
    with django_assert_num_queries(1):
        assert get_sales_summary(shop.pk, today, today) == {"total": 5}
        assert get_sales_summary(shop.pk, today, today) == {"total": 5}
        assert get_sales_summary(str(shop.pk), end_date=today, start_date=today) == {"total": 5}


@pytest.mark.parametrize("make", [lambda: (n for n in (1, 2)), lambda: iter([1]), lambda: io.BytesIO(b"x")])
@pytest.mark.usefixtures("nobody_waits")
def test_what_can_be_read_only_once_is_refused_and_holds_nobody_up(make) -> None:
    @cache_query_result(timeout=60)
    def once() -> object:
        return make()

    for _ in range(2):
        with pytest.raises(UncacheableValue, match="only once"):
            once()


def test_what_cannot_be_serialized_is_refused_by_name() -> None:
    @cache_query_result(timeout=60)
    def local() -> object:
        return lambda: None

    with pytest.raises(UncacheableValue, match="function cannot be serialized"):
        local()


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "value", "calls"),
    [
        ({"condition": lambda value: value != []}, [], 2),
        ({"condition": lambda value: value != []}, [1], 1),
        ({"cache_none": False}, None, 2),
        ({"cache_none": False}, 0, 1),
        ({"timeout": None}, 1, 1),
        ({"timeout": 0}, 1, 2),
        ({"timeout": -5}, 1, 2),
        ({"timeout": 0.9}, 1, 1),
        ({"max_value_bytes": 10}, "x" * 100, 2),
        ({"single_flight": False}, 1, 1),
        ({"grace": 10}, 1, 1),
        ({"jitter": 1.0}, 1, 1),
    ],
    ids=lambda part: ", ".join(part) if isinstance(part, dict) else f"{part!r:.12}",
)
@pytest.mark.usefixtures("nobody_waits")
def test_options_say_what_is_kept(options: dict, value: object, calls: int) -> None:
    asked = Counter(value)

    @cache_query_result(**{"timeout": 60, **options})
    def f() -> object:
        return asked()

    begun = time.monotonic()
    assert (f(), f()) == (value, value)
    while asked.calls != calls and 0 < (options.get("timeout") or 0) < time.monotonic() - begun:
        begun, asked.calls = time.monotonic(), 0  # it was kept, and gone before it could be read
        f.refresh()
        f()
    assert asked.calls == calls


def left_ms(function: CachedFunction, *args: object) -> int:
    return store(function.alias).remaining_ms(function.entry(*args))


@pytest.mark.parametrize(("given", "said"), [({}, 1), ({"TENANCY": "shop.cache.Tenancy"}, 0)])
def test_entries_of_tenants_that_the_site_does_not_know_are_told_of_once(given: dict, said: int, caplog) -> None:
    @cache_tenant_query(key_prefix="told")
    def of(tenant_id: int) -> int:
        return tenant_id

    with override_settings(CACHEADMIN=given):
        assert [of(1), of(1), of(2)] == [1, 1, 2]
    assert [of.name in record.getMessage() for record in caplog.records] == [True] * said


def test_timeout_is_in_seconds_and_none_is_for_ever() -> None:
    def f(n: int) -> int:
        return n

    begun = time.monotonic()

    def assert_kept(ms: int, **options: object) -> None:
        function = cache_query_result(key_prefix=f"kept-{ms}", **options)(f)
        function(1)
        left = left_ms(function, 1)
        passed = 1000 * (time.monotonic() - begun) + 1
        assert ms - passed <= left <= ms

    assert_kept(60_000, timeout=60)
    assert_kept(20_500, timeout=20.5)
    assert_kept(900_000)
    assert_kept(35_000, timeout=30, grace=5)
    for_ever = cache_query_result(timeout=None, key_prefix="for-ever")(f)
    for_ever(1)
    assert left_ms(for_ever, 1) == -1


def test_tiny_timeout_is_short_and_not_for_ever() -> None:
    @cache_query_result(timeout=0.0001)
    def f() -> int:
        return 1

    f()
    time.sleep(0.01)
    assert f.peek() is ABSENT


def test_jitter_only_shortens() -> None:
    @cache_query_result(timeout=100, jitter=0.5)
    def f(n: int) -> int:
        return n

    begun = time.monotonic()
    for n in range(30):
        f(n)
    left = [left_ms(f, n) for n in range(30)]
    passed = 1000 * (time.monotonic() - begun) + 1
    assert all(50_000 - passed < ms <= 100_000 for ms in left)
    assert max(left) - min(left) > 5_000


def test_version_and_defaults_in_the_code_tell_releases_apart() -> None:
    def release(default: int, version: object = None) -> CachedFunction:
        def f(a: int, b: int = default) -> int:
            return default

        return cache_query_result(version=version)(f)

    assert release(1)(5) == 1
    assert release(2)(5) == 2, "a changed default is another question"
    assert release(1)(5) == 1
    assert release(1).peek(5) == 1
    assert release(1, version=2).peek(5) is ABSENT


def test_tags_are_formats_over_the_arguments_or_made_by_a_callable() -> None:
    asked = Counter()

    @cache_tenant_query(key_prefix="tagged", tags=["branch:{branch_id}", "all"])
    def by_format(tenant_id: int, branch_id: int = 1) -> object:
        return asked()

    @cache_tenant_query(key_prefix="tagged", tags=lambda tenant_id, branch_id: {"all", f"branch:{branch_id}"})
    def by_callable(tenant_id: int, branch_id: int = 1) -> object:
        return asked()

    assert by_format.entry(1, 5).tags == ("branch:5", "all")
    for f in (by_format, by_callable):
        kept, other = f(1, 1), f(1, 2)
        elsewhere = f(2, 1)
        invalidate_tags(1, "branch:1")
        assert f(1, 1) != kept
        assert (f(1, 2), f(2, 1)) == (other, elsewhere)
        invalidate_tags(1, "all", alias="query")
        assert f(1, 2) != other


def test_callable_for_tags_is_called_as_the_function_is() -> None:
    asked: list[tuple[object, ...]] = []

    def of_branches(tenant_id, /, *branches, currency="EUR", **more):
        asked.append((tenant_id, branches, currency, more))
        return [f"branch:{branch}" for branch in branches]

    @cache_tenant_query(key_prefix="of_branches", tags=of_branches)
    def stock(tenant_id, /, *branches, currency="EUR", **more):
        return time.monotonic_ns()

    before = stock(1, 5, 6, year=2024)
    assert asked == [(1, (5, 6), "EUR", {"year": 2024})]
    invalidate_tags(1, "branch:6")
    assert stock(1, 5, 6, year=2024) != before


def test_one_text_as_tags_is_one_tag() -> None:
    @cache_query_result(tags="inventory")
    def f() -> int:
        return 1

    assert f.entry().tags == ("inventory",)


def test_too_many_tags_are_refused_by_name() -> None:
    @cache_query_result(tags=lambda n: [f"tag{i}" for i in range(n)])
    def f(n: int) -> int:
        return n

    assert f(100) == 100
    assert f.peek(100) == 100
    with pytest.raises(InvalidKey, match="tags"):
        f(300)


def test_hostile_tags_drop_only_themselves() -> None:
    tags = ["*", "a", "a*", "[a]", "{x}", "a:b", "%61", "\n", "ä", "x" * 5000, "~", "-"]
    counts = dict.fromkeys(tags, 0)

    @cache_query_result(shared=True, tags=lambda tag: [tag])
    def f(tag: str) -> int:
        counts[tag] += 1
        return counts[tag]

    for tag in tags:
        f(tag)
    for i, tag in enumerate(tags):
        invalidate_tags(None, tag)
        for other in tags:
            f(other)
        assert list(counts.values()) == [2] * (i + 1) + [1] * (len(tags) - i - 1)


def test_warm_with_lists_calls_for_a_tenant() -> None:
    @cache_tenant_query(warm_with=[(), (1,), {"size": 5}])
    def listed(tenant_id: int, branch: int | None = None, size: int = 2) -> None: ...

    @cache_tenant_query(warm_with=lambda tenant: [(f"of {tenant}",)])
    def made(tenant_id: int, what: str) -> None: ...

    @cache_query_result(warm_with=[(1,), {"branch": 1}])
    def last(branch: int, tenant_id: int) -> None: ...

    @cache_query_result(shared=True, warm_with=[(1, 2)])
    def shared(a: int, b: int) -> None: ...

    @cache_query_result()
    def unwarmed(tenant_id: int) -> None: ...

    assert list(listed.warm_calls("7")) == [
        ((), {"tenant_id": "7"}),
        ((), {"tenant_id": "7", "branch": 1}),
        ((), {"tenant_id": "7", "size": 5}),
    ]
    assert list(made.warm_calls("7")) == [((), {"tenant_id": "7", "what": "of 7"})]
    assert list(last.warm_calls("7")) == [((), {"branch": 1, "tenant_id": "7"})] * 2
    assert list(shared.warm_calls(None)) == [((1, 2), {})]
    assert list(unwarmed.warm_calls("7")) == []
    for wrong, said in (("rings", "tuples or dicts of arguments, not 'rings'"), ((1, 2, 3), "gives .1, 2, 3., more")):
        listed.warm_with = [wrong]
        with pytest.raises(TypeError, match=said):
            list(listed.warm_calls("7"))


# --- what a decorated function carries ------------------------------------------------------------------------------


def test_key_names_the_entry_for_the_other_helpers() -> None:
    asked = Counter()

    @cache_tenant_query(key_prefix="report:sales")
    def f(tenant_id: object, what: str = "") -> object:
        return asked()

    for tenant in (7, "a:b%c*", "ü\n"):
        for what in ("", "x" * 100, "*", "tenant:1:x", "~a"):
            value = f(tenant, what)
            assert f.key(tenant, what).count(":") == 4
            assert caches["query"].get(f.key(tenant, what)) == value
            assert invalidate_cache(f.key(tenant, what)).is_done
            assert f.peek(tenant, what) is ABSENT
    assert f.key(7).startswith("tenant:7:report:sales:")


def test_peek_never_computes_and_refresh_always_does() -> None:
    asked = Counter()

    @cache_tenant_query()
    def f(tenant_id: int) -> object:
        return asked()

    assert f.peek(1) is ABSENT
    assert asked.calls == 0
    assert f.refresh(1) == 1
    assert f.refresh(1) == 2
    assert (f(1), f.peek(1)) == (2, 2)


def test_warm_computes_only_what_is_missing() -> None:
    asked = Counter()

    def made(timeout: float) -> CachedFunction:
        @cache_tenant_query(timeout=timeout, key_prefix=f"for {timeout}", grace=60)
        def f(tenant_id: int) -> object:
            return asked()

        return f

    lasting, short = made(60), made(0.05)
    assert lasting.warm(1) is True
    assert lasting.warm(1) is False
    assert lasting(1) == 1
    assert short.warm(1) is True
    time.sleep(0.08)
    assert short.warm(1) is True, "past its timeout, though within its grace"
    assert asked.calls == 3


def test_invalidate_drops_one_call_and_invalidate_all_the_group() -> None:
    asked = Counter()

    @cache_tenant_query(key_prefix="some")
    def f(tenant_id: int, n: int = 0) -> object:
        return asked()

    assert [f(1), f(1, 1), f(2)] == [1, 2, 3]
    assert f.invalidate(1).is_done
    assert [f(1), f(1, 1), f(2)] == [4, 2, 3]
    assert f.invalidate_all(tenant=1).is_done
    assert [f(1), f(1, 1), f(2)] == [5, 6, 3]
    assert f.invalidate_all().is_done
    assert [f(1), f(1, 1), f(2)] == [7, 8, 9]


@cache_tenant_query()
def pickled(tenant_id: int) -> None: ...


@cache_api_response()
def pickled_view(request: object) -> None: ...


@pytest.mark.parametrize("function", [pickled, pickled_view])
def test_cached_function_is_pickled_and_copied_like_any_function(function: object) -> None:
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy({"do": function})["do"] is function


def test_methods_find_their_entry_through_self() -> None:
    asked = Counter()

    class Shop(Tenant):
        class Meta:
            app_label = "shop"
            proxy = True

        @cache_tenant_query(key_prefix="of_self")
        def total(self, page: int = 1) -> object:
            return asked()

    class Reports:
        @cache_query_result(key_prefix="stateful")
        def of_object(self, n: int) -> object:
            return asked()

        @staticmethod
        @cache_tenant_query(key_prefix="static")
        def static(tenant_id: int) -> object:
            return asked()

    one, two = Shop(pk=1), Shop(pk=2)
    assert (one.total(), one.total(page=1), two.total(), one.total(2)) == (1, 1, 2, 3)
    Shop.total.invalidate(one)
    assert (one.total(), two.total()) == (4, 2)
    assert (Reports.static(1), Reports().static(1)) == (5, 5)
    with pytest.raises(InvalidKey, match="Reports"):
        Reports().of_object(1)


def test_cached_function_keeps_working_after_settings_change(redis_server) -> None:
    asked = Counter()

    @cache_query_result(shared=True)
    def f() -> object:
        return asked()

    assert f() == 1
    caches_now = {
        "query": {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url_for(1), "KEY_PREFIX": "q"}
    }
    with override_settings(CACHES=caches_now):
        assert (f(), f()) == (2, 2)
    assert f() == 1


# --- coroutines -----------------------------------------------------------------------------------------------------


def test_coroutine_functions_are_cached() -> None:
    asked = Counter()

    @cache_tenant_query(key_prefix="async")
    async def f(tenant_id: int, page: int = 1) -> object:
        await asyncio.sleep(0)
        return asked()

    class Service:
        @cache_query_result(shared=True)
        async def method(self) -> None: ...

    async def act() -> list[object]:
        seen = [await f(1), await f(1, page=1), await f(2), await f.refresh(1), await f(1)]
        return [*seen, await asyncio.to_thread(f.peek, 1)]

    assert iscoroutinefunction(f)
    assert iscoroutinefunction(Service().method)
    assert async_to_sync(act)() == [1, 1, 2, 3, 3, 3]
    assert f.warm(1) is False
    assert f.warm(3) is True
    assert f.invalidate_all().is_done
    assert async_to_sync(f)(1) == 5


def test_coroutine_may_return_a_queryset(shop: Tenant) -> None:
    @cache_tenant_query()
    async def items(tenant_id):
        return InventoryItem.objects.filter(tenant_id=tenant_id)

    async def act() -> list[list[str]]:
        return [[item.sku for item in await items(shop.pk)] for _ in range(2)]

    assert async_to_sync(act)() == [["A", "B"], ["A", "B"]]


def test_tasks_on_a_cold_entry_compute_it_once_without_blocking_the_loop() -> None:
    asked, ticks = Counter(), Counter()

    @cache_tenant_query()
    async def slow(tenant_id: int) -> object:
        begun = ticks.calls
        while ticks.calls < begun + 5:  # which a loop that is blocked by those who wait would not bring about
            await asyncio.sleep(0.01)
        return asked()

    async def act() -> list[object]:
        async def tick() -> None:
            while True:
                ticks()
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        try:
            return await asyncio.gather(*(slow(1) for _ in range(10)))
        finally:
            ticking.cancel()

    assert async_to_sync(act)() == [1] * 10
    assert asked.calls == 1


@pytest.mark.usefixtures("nobody_waits")
def test_cancelled_coroutine_gives_its_lease_back() -> None:
    asked = Counter()
    begun = asyncio.Event()

    @cache_tenant_query()
    async def slow(tenant_id: int) -> object:
        begun.set()
        if asked() == 1:
            await asyncio.sleep(60)
        return asked.calls

    async def act() -> object:
        task = asyncio.create_task(slow(1))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await slow(1)

    assert async_to_sync(act)() == 2


def test_failing_coroutine_raises_its_own_error_and_is_asked_again() -> None:
    asked = Counter()

    @cache_tenant_query()
    async def failing(tenant_id: int) -> object:
        raise LookupError(asked())

    for n in (1, 2):
        with pytest.raises(LookupError, match=str(n)):
            async_to_sync(failing)(1)


def test_tenants_of_concurrent_tasks_do_not_mix() -> None:
    @cache_query_result(key_prefix="whoami")
    async def whoami() -> str | None:
        seen = tenancy().current()
        await asyncio.sleep(0.01)
        assert tenancy().current() == seen
        return seen

    async def as_tenant(tenant: int) -> str | None:
        with tenancy().activate(tenant):
            await asyncio.sleep(0)
            return await whoami()

    async def act() -> list[str | None]:
        return await asyncio.gather(*(as_tenant(n % 3 + 1) for n in range(12)))

    expected = [str(n % 3 + 1) for n in range(12)]
    assert async_to_sync(act)() == expected
    assert async_to_sync(act)() == expected


@override_settings(CACHEADMIN={"TENANCY": "cacheadmin.tenancy.SchemaTenancy"})
def test_tenant_of_a_coroutine_is_the_one_that_the_threads_connection_is_set_to() -> None:
    """As with django-tenants: its middleware sets the connection in the thread of the ORM, not in that of the loop."""

    @cache_query_result(key_prefix="schema_of_a_coroutine")
    async def schema() -> str:
        return await sync_to_async(lambda: connection.schema_name)()

    async def request(name: str) -> list[str]:
        await sync_to_async(setattr)(connection, "schema_name", name)
        try:
            return [await schema(), await schema(), await schema.refresh()]
        finally:
            await sync_to_async(delattr)(connection, "schema_name")

    assert async_to_sync(request)("acme") == ["acme"] * 3
    assert async_to_sync(request)("globex") == ["globex"] * 3


# --- transactions and tests -----------------------------------------------------------------------------------------


def names(tenant_id: object) -> list[str]:
    return list(Branch.objects.filter(tenant_id=tenant_id).values_list("name", flat=True))


def test_block_that_has_written_reads_its_own_writes_and_fills_nothing(shop: Tenant) -> None:
    cached = cache_tenant_query(key_prefix="branch_names")(names)
    assert cached(shop.pk) == ["One"]
    with transaction.atomic():
        assert cached(shop.pk) == ["One"], "nothing is written yet: a hit"
        Branch.objects.create(tenant=shop, name="Two", city="Bern")
        assert cached(shop.pk) == ["One", "Two"]
        assert cached.refresh(shop.pk) == ["One", "Two"]
        assert cached.warm(shop.pk) in (True, False)
    assert cached(shop.pk) == ["One", "Two"]


def test_peek_in_a_block_that_has_written_shows_nothing_that_may_be_older(shop: Tenant) -> None:
    @cache_tenant_query(key_prefix="peeked")
    def name(tenant_id: int) -> str:
        return Tenant.objects.get(pk=tenant_id).name

    before = name(shop.pk)
    with transaction.atomic():
        assert name.peek(shop.pk) == before
        Tenant.objects.filter(pk=shop.pk).update(name="renamed")
        assert name.peek(shop.pk) is ABSENT


def test_rollback_leaves_nothing_of_the_transaction_in_the_cache(shop: Tenant) -> None:
    cached = cache_tenant_query(key_prefix="branch_names")(names)
    cold = cache_tenant_query(key_prefix="cold")(names)
    assert cached(shop.pk) == ["One"]

    def act() -> None:
        with transaction.atomic():
            Branch.objects.create(tenant=shop, name="Two", city="Bern")
            assert cached.invalidate(shop.pk).state == "deferred"
            for f in (cached, cold):
                assert f(shop.pk) == ["One", "Two"]
                f.refresh(shop.pk)
                f.warm(shop.pk)
            caches["query"].set(cached.key(shop.pk), ["One", "Two"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        act()
    assert cold.peek(shop.pk) is ABSENT
    assert cached.peek(shop.pk) == ["One"]
    assert (cached(shop.pk), cold(shop.pk)) == (["One"], ["One"])


def test_invalidation_inside_a_block_happens_when_it_commits(shop: Tenant) -> None:
    asked = Counter()

    @cache_tenant_query(key_prefix="unrelated")
    def f(tenant_id: int) -> object:
        return asked()

    assert f(1) == 1
    with transaction.atomic():
        with transaction.atomic():
            assert f.invalidate_all(tenant=1).state == "deferred"
        assert f.peek(1) == 1
    assert f.peek(1) is ABSENT


@pytest.mark.django_db(transaction=True)
def test_works_the_same_without_a_test_transaction() -> None:
    tenant = Tenant.objects.create(name="Ruby", slug="ruby")
    cached = cache_tenant_query(key_prefix="branch_names")(names)
    assert (cached(tenant.pk), cached.peek(tenant.pk)) == ([], [])
    with transaction.atomic():
        Branch.objects.create(tenant=tenant, name="Two", city="Bern")
        assert cached(tenant.pk) == ["Two"]
    assert cached(tenant.pk) == ["Two"]
    with transaction.atomic():
        list(Tenant.objects.all())
        cached.invalidate(tenant.pk)
    assert cached(tenant.pk) == ["Two"]
    assert connection.in_atomic_block is False


class CacheTest(CacheTestMixin, TestCase):
    """The unit test of the reference document, inside Django's own TestCase."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.tenant = Tenant.objects.create(name="Ruby", slug="ruby")
        cls.user = get_user_model().objects.create(username="ruby", tenant=cls.tenant)

    def test_query_caching(self) -> None:
        asked = Counter()

        @cache_tenant_query(timeout=900, key_prefix="expensive")
        def get_expensive_query(tenant_id):
            return asked()

        result1 = get_expensive_query(tenant_id=1)
        result2 = get_expensive_query(tenant_id=1)
        assert result1 == result2
        assert asked.calls == 1

    def test_user_id_tells_users_apart(self) -> None:
        @cache_tenant_query(key_prefix="user_orders")
        def get_user_orders(tenant_id, user_id):
            return Sale.objects.filter(tenant_id=tenant_id, number=f"user {user_id}")

        Sale.objects.create(
            tenant=self.tenant,
            branch=Branch.objects.create(tenant=self.tenant, name="One", city="Bern"),
            number=f"user {self.user.pk}",
        )
        assert len(get_user_orders(self.tenant.pk, self.user.pk)) == 1
        assert len(get_user_orders(self.tenant.pk, self.user.pk + 1)) == 0
        with self.assertNumQueries(0):
            assert len(get_user_orders(self.tenant.pk, self.user.pk)) == 1

    def test_savepoint_of_the_tested_code_counts_as_a_transaction(self) -> None:
        cached = cache_tenant_query(key_prefix="branch_names")(names)
        assert cached(self.tenant.pk) == []
        with transaction.atomic():
            Branch.objects.create(tenant=self.tenant, name="Two", city="Bern")
            assert cached(self.tenant.pk) == ["Two"]
            assert cached.invalidate(self.tenant.pk).state == "deferred"
        assert cached(self.tenant.pk) == ["Two"]


def test_hand_written_cache_key_and_decorated_entry_share_a_group() -> None:
    @cache_query_result(key_prefix="inventory", shared=True)
    def f() -> int:
        return 1

    f()
    cache = caches["query"]
    cache.set(get_cache_key("inventory", 1, 2), "plain")
    invalidate_cache("inventory:*")
    assert f.peek() is ABSENT
    assert cache.get(get_cache_key("inventory", 1, 2)) is None
