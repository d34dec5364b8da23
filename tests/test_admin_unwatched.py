"""A live value that was wrong: which rule has the gap, and the way to mend it."""

import pytest
from console import console_stock, entry_of, make_items, make_shops, make_user, page, text_of
from django.db import connection

from cacheadmin.admin import unwatched
from cacheadmin.admin.dropping import Dropper
from cacheadmin.functions import cache_tenant_query, registry
from cacheadmin.models import InvalidationRule
from shop.models import InventoryItem

pytestmark = pytest.mark.django_db

ITEM = "shop.InventoryItem"
WRITES = ("create", "update", "delete")


@pytest.fixture
def gap_stock():
    """A function that returns what a list of items shows."""

    @cache_tenant_query(timeout=900, key_prefix="gap_stock")
    def gap_stock(tenant_id):
        found = InventoryItem.objects.filter(tenant=tenant_id).order_by("pk")
        return {"items": [{"sku": item.sku, "price": item.price, "quantity": item.quantity} for item in found]}

    registry[gap_stock.name] = gap_stock
    yield gap_stock
    registry.pop(gap_stock.name, None)


@pytest.fixture
def ruby(use_rules):
    use_rules()
    [shop] = make_shops("Ruby & Co")
    make_items(shop)
    return str(shop.pk)


def rule(name="stock", fields=("quantity", "status"), **given):
    """Return a rule that drops the list."""
    return InvalidationRule.objects.create(
        name=name, model=ITEM, fields=list(fields), targets=["group:gap_stock"], **given
    )


def recomputed(client, gap_stock, ruby, price=177):
    """Have a price changed behind a cached list, recompute it, and return the page."""
    gap_stock(ruby)
    InventoryItem.objects.filter(tenant=ruby).update(price=price)
    entry = entry_of(ruby, "query", "gap_stock")
    assert client.post(page("entry_recompute", entry)).status_code == 302
    return client.get(page("entry_detail", entry))


def test_the_rule_that_forgets_a_field_is_named_and_one_click_away(admin, gap_stock, ruby) -> None:
    made = rule()
    answer = recomputed(admin, gap_stock, ruby)
    text = text_of(answer)
    assert "This value was out of date." in text
    assert "the rule stock watches quantity, status, not price." in text
    assert f'<a href="{page("invalidationrule_change", made.pk)}">Edit the rule</a>' in answer.content.decode()


def test_without_a_rule_it_says_so_and_offers_one(admin, gap_stock, ruby) -> None:
    answer = recomputed(admin, gap_stock, ruby)
    assert "No rule drops it; only its timeout does. Add a rule" in text_of(answer)
    assert f'<a href="{page("invalidationrule_add")}">Add a rule</a>' in answer.content.decode()


def test_where_rules_leave_no_field_out_other_causes_are_named(admin, gap_stock, ruby) -> None:
    rule("all", fields=(), enabled=True)
    gap_stock(ruby)
    with connection.cursor() as cursor:
        cursor.cursor.execute("UPDATE shop_inventoryitem SET price = 55")  # past the wrappers of Django's cursor
    entry = entry_of(ruby, "query", "gap_stock")
    admin.post(page("entry_recompute", entry))
    text = text_of(admin.get(page("entry_detail", entry)))
    assert "a write that passed the ORM by" in text
    assert "Edit the rule" not in text


def test_who_may_not_see_values_or_rules_is_told_less(gap_stock, ruby) -> None:
    rule()
    keys = make_user("keys", "view_keys", "warm", "see_all_tenants")
    text = text_of(recomputed(keys, gap_stock, ruby, 1))
    assert "This value was out of date." in text
    assert "watches" not in text
    values = make_user("values", "view_keys", "view_values", "warm", "see_all_tenants")
    text = text_of(recomputed(values, gap_stock, ruby, 2))
    assert "not price." in text
    assert "Edit the rule" not in text


def test_an_orphan_that_differs_is_no_ones_fault(admin, gap_stock, ruby) -> None:
    rule()
    console_stock(ruby)
    gap_stock(ruby)
    InventoryItem.objects.filter(tenant=ruby).update(price=1, quantity=1)
    entry = entry_of(ruby, "query", "gap_stock")
    admin.post(page("entry_recompute", entry))
    assert "watches" not in text_of(admin.get(page("entry_detail", entry)))


def test_a_field_is_left_out_only_if_no_rule_watches_it() -> None:
    narrow = Dropper("narrow", ITEM, 1, events=WRITES, fields=("quantity",))
    paths = ["items.0.price", "items.0.branch_id", "items.0.updated_at_the_moon"]
    assert unwatched.gap_of([narrow], paths) == unwatched.Gap(narrow, ("branch", "price"))
    price = Dropper("price", ITEM, 2, events=WRITES, fields=("price",))
    assert unwatched.gap_of([narrow, price], paths).missing == ("branch",)
    whole = Dropper("whole", ITEM, 3, events=WRITES)
    assert unwatched.gap_of([narrow, whole], paths) is None
    created = Dropper("created", ITEM, 4, events=("create",))  # sees no change of a row
    assert unwatched.gap_of([narrow, created], paths).rule == narrow
    assert unwatched.gap_of([Dropper("gone", "shop.Nothing", 5, events=WRITES, fields=("a",))], paths) is None
    assert unwatched.gap_of([], paths) is None


def test_a_rule_that_watches_many_fields_is_told_in_short() -> None:
    many = Dropper("many", ITEM, 1, events=WRITES, fields=("a", "b", "c", "d", "e", "f"))
    text = unwatched.reason([many], unwatched.Gap(many, ("price",)), None)
    assert "the rule many watches a, b, c and 3 more, not price." in text
