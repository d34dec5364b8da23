"""The rule form and the host's panel in Chromium, under a strict policy: rows, chips, preview; and without script."""

import json

import pytest
from console import make_items
from django.urls import reverse

from cacheadmin.models import InvalidationRule
from shop.inventory import inventory_list
from shop.models import Tenant

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def item():
    """An item of Ruby & Co, whose list is cached."""
    tenant = Tenant.objects.create(name="Ruby & Co", slug="ruby")
    [found] = make_items(tenant)
    inventory_list(tenant.pk)
    return found


@pytest.fixture
def opened(open_page, item):
    """`opened(path, **context options)` opens a page of the shop that has the item."""
    return open_page


def complaints(page):
    """What went wrong in the page; a missing favicon is the shop's."""
    return [text for text in page.said if "404" not in text]


def test_a_rule_is_typed_with_chips_rows_and_a_preview_that_follows(opened):
    page = opened(reverse("admin:cacheadmin_invalidationrule_add"))
    page.select_option("#id_model", "shop.InventoryItem")
    page.wait_for_selector("#cacheadmin-fields option[value=price]", state="attached")
    page.fill("#id_fields", "price")
    page.press("#id_fields", "Enter")
    page.fill("#id_fields", "status, nope")
    page.press("#id_fields", "Tab")
    page.click("[aria-label='Remove nope']")
    page.locator("[name=targets-name]").fill("inventory_list")
    page.wait_for_selector("text=would drop 1 entry")
    page.click("text=Add another")
    page.locator("[name=targets-kind]").last.select_option("tenant")
    assert page.locator("[name=targets-name]").last.is_hidden()
    page.click("text=Add another")
    page.locator("[data-cacheadmin-remove]").last.click()
    page.click("button[name=_save]")
    page.wait_for_url("**/invalidationrule/")
    rule = InvalidationRule.objects.get()
    assert rule.fields == ["price", "status"]
    assert [(target["kind"], target["name"]) for target in rule.targets] == [
        ("group", "inventory_list"),
        ("tenant", ""),
    ]
    assert complaints(page) == []


def test_a_rule_that_stands_is_edited_with_a_preview_that_follows(opened, item):
    inventory_list(item.tenant_id, page=2)
    made = InvalidationRule.objects.create(name="stock", model="shop.InventoryItem", targets=["group:dashboard"])
    page = opened(reverse("admin:cacheadmin_invalidationrule_change", args=[made.pk]))
    page.wait_for_selector("text=would drop nothing")
    name = page.locator("[name=targets-name]").first
    assert name.input_value() == "dashboard"
    name.fill("inventory_list")
    page.wait_for_selector("text=would drop 2 entries")
    made.refresh_from_db()
    assert made.targets == ["group:dashboard"]  # looking saves nothing
    page.click("button[name=_save]")
    page.wait_for_url("**/invalidationrule/")
    made.refresh_from_db()
    assert [(target["kind"], target["name"]) for target in made.targets] == [("group", "inventory_list")]
    assert complaints(page) == []


def test_a_rule_in_code_is_overridden_on_a_phone(opened):
    page = opened(reverse("admin:cacheadmin_invalidationrule_changelist"), viewport={"width": 360, "height": 740})
    row = page.get_by_role("row").filter(has_text="Gold rate →")
    row.get_by_role("link", name="Override here").click()
    assert page.input_value("#id_name") == "gold rate"


def test_a_rule_is_typed_without_script(opened):
    page = opened(reverse("admin:cacheadmin_invalidationrule_add"), java_script_enabled=False)
    page.select_option("#id_model", "shop.InventoryItem")
    page.fill("#id_fields", "price, status")
    page.locator("[name=targets-name]").nth(1).fill("inventory_list")
    page.click("button[name=_preview]")
    assert page.locator("text=would drop 1 entry").count() == 1
    assert not InvalidationRule.objects.exists()
    page.click("button[name=_save]")
    rule = InvalidationRule.objects.get()
    assert (rule.fields, len(rule.targets)) == (["price", "status"], 1)


def test_an_error_stands_below_its_target_and_goes_with_it(opened):
    page = opened(reverse("admin:cacheadmin_invalidationrule_add"))
    page.select_option("#id_model", "shop.InventoryItem")
    page.locator("[name=targets-kind]").select_option("tag")
    page.locator("[name=targets-name]").fill("branch:{brnch_id}")
    page.click("button[name=_save]")
    assert "Did you mean branch_id" in page.inner_text(".cacheadmin-target-errors")
    assert page.locator("[data-cacheadmin-target]").count() == 1
    page.click("[data-cacheadmin-remove]")
    assert page.locator(".cacheadmin-target-errors").count() == 0
    page.click("text=Add another")
    page.locator("[name=targets-name]").fill("inventory_list")
    page.click("button[name=_save]")
    page.wait_for_url("**/invalidationrule/")
    assert complaints(page) == []


def test_a_file_of_rules_is_uploaded_looked_at_and_applied(opened):
    stored = InvalidationRule.objects.create(name="stock", model="shop.InventoryItem", targets=["group:inventory_list"])
    bad = {"name": "<img src=x onerror=alert(1)>", "model": "shop.Nothing", "targets": "group:inventory_list"}
    rows = [
        {"name": "stock", "model": "shop.InventoryItem", "fields": "price", "targets": "group:inventory_list"},
        {"name": "sold", "model": "shop.Sale", "targets": "group:inventory_list"},
        bad,
    ]
    page = opened(reverse("admin:cacheadmin_invalidationrule_changelist"))
    page.click("text=Import")
    upload = {"name": "rules.json", "mimeType": "application/json", "buffer": json.dumps(rows).encode()}
    page.set_input_files("[type=file]", upload)
    page.click("text=Show what would change")
    assert page.inner_text("h1") == "2 changes: 1 new, 1 changed, 1 error"
    first, changed, new = (page.locator(".cacheadmin-diff tbody tr").nth(n).inner_text() for n in range(3))
    assert bad["name"] in first
    assert "shop.Nothing" in first
    assert changed.endswith("fields: +\u00a0price")  # and nothing more: targets are the same however written
    assert "sold" in new
    assert InvalidationRule.objects.count() == 1

    page.click("text=Apply 2 changes")
    assert "Some rows are wrong." in page.inner_text("#content")
    assert InvalidationRule.objects.count() == 1
    page.check("[name=without_errors]")
    page.click("text=Apply 2 changes")
    page.wait_for_url("**/invalidationrule/")
    assert "Imported 2 rules: 1 new, 1 changed." in page.inner_text("#content")
    assert page.locator("#content tbody >> text=sold").count() >= 1
    stored.refresh_from_db()
    assert stored.fields == ["price"]
    assert {rule.name for rule in InvalidationRule.objects.all()} == {"stock", "sold"}
    assert complaints(page) == []


def test_the_panel_of_a_change_page_is_filled_when_it_is_opened(opened, item):
    page = opened(reverse("admin:shop_inventoryitem_change", args=[item.pk]))
    assert page.locator("text=would drop").count() == 0
    page.click(".cacheadmin-host summary")
    page.wait_for_selector("text=Saving this inventory item would drop 1 entry")
    assert complaints(page) == []
    plain = opened(reverse("admin:shop_inventoryitem_change", args=[item.pk]), java_script_enabled=False)
    plain.click(".cacheadmin-host summary")
    plain.click("text=Show")
    assert plain.locator("text=would drop 1 entry").count() == 1
