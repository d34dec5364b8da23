"""The shop itself: its data, its pages, whose they are, and its map."""

import socket
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.cache import caches
from django.core.management import call_command
from django.test import Client, RequestFactory
from django.utils import timezone

import cacheadmin
from cacheadmin.functions import registry
from cacheadmin.rules import validate
from cacheadmin.tenancy import EVERYONE
from shop import inventory, outcomes, rates, sales, selling
from shop.cache import Tenancy
from shop.cache_rules import rules
from shop.management.commands.seed_shop import fill
from shop.models import (
    Branch,
    Customer,
    GoldRate,
    InventoryItem,
    LoyaltyAccount,
    PricingRule,
    PurchaseOrder,
    RepairOrder,
    Sale,
    SaleLine,
    Tenant,
    TenantSetting,
    User,
)
from shop.processes import Child, free_port, running

SHOP = Path(__file__).parent / "shop"


@pytest.fixture
def shops(db):
    """The five shops at their smallest, with their users: 0.1 s."""
    return fill(scale=0.01, random_seed=7)


@pytest.fixture
def ruby(shops):
    return Tenant.objects.get(slug="ruby")


@pytest.fixture
def item(ruby):
    return InventoryItem.objects.filter(tenant=ruby, quantity__gt=1).first()


@pytest.fixture
def clerk(client, ruby):
    client.force_login(User.objects.get(username="ruby"))
    return client


def pages_of(slug):
    item = InventoryItem.objects.filter(tenant__slug=slug).first()
    customer = Customer.objects.filter(tenant__slug=slug).first()
    base = f"/shops/{slug}/"
    return [
        *("/", "/gold/"),
        *(base, f"{base}inventory/", f"{base}inventory/?branch=1&category=rings&search=ruby&page=99", f"{base}report/"),
        *(f"{base}report/?start=2020-13-01&end=x", f"{base}office/", f"{base}customers/{customer.pk}/"),
        *(f"{base}items/{item.pk}/", f"{base}api/products/", f"{base}api/today/", f"{base}api/stock/"),
    ]


@pytest.mark.usefixtures("shops")
class TestSeed:
    def test_five_shops_with_everything_a_shop_has(self):
        assert list(Tenant.objects.order_by("pk").values_list("slug", flat=True)) == [
            *("ruby", "gold", "opale", "karat", "lapis"),
        ]
        for model in (Branch, InventoryItem, Customer, LoyaltyAccount, Sale, PricingRule, TenantSetting):
            assert set(model.objects.values_list("tenant__slug", flat=True)) == {
                *("ruby", "gold", "opale", "karat", "lapis"),
            }
        assert GoldRate.objects.filter(karat=24).exists()

    def test_each_sale_costs_what_its_lines_cost(self):
        for sale in Sale.objects.prefetch_related("lines")[:50]:
            assert sale.total == sum(line.price * line.quantity for line in sale.lines.all())

    def test_nothing_crosses_the_border_of_a_tenant(self):
        for item in InventoryItem.objects.select_related("branch", "category", "supplier"):
            assert {item.branch.tenant_id, item.category.tenant_id, item.supplier.tenant_id} == {item.tenant_id}
        assert not [
            line
            for line in SaleLine.objects.select_related("sale", "item")
            if line.sale.tenant_id != line.item.tenant_id
        ]

    def test_seeding_again_changes_nothing(self, capsys):
        count = InventoryItem.objects.count()
        call_command("seed_shop", scale=0.01)
        assert "nothing was created" in capsys.readouterr().out
        assert InventoryItem.objects.count() == count

    def test_the_same_seed_makes_the_same_stock(self):
        def stock():
            return list(InventoryItem.objects.order_by("sku").values_list("sku", "name", "price", "quantity"))

        first = stock()
        Tenant.objects.all().delete()
        User.objects.all().delete()
        GoldRate.objects.all().delete()
        call_command("seed_shop", scale=0.01, verbosity=0)
        assert stock() == first

    def test_ruby_may_act_and_gold_may_only_look(self):
        ruby, gold = User.objects.get(username="ruby"), User.objects.get(username="gold")
        for permission in ("view_keys", "view_values", "invalidate", "warm"):
            assert ruby.has_perm(f"cacheadmin.{permission}")
        assert gold.has_perm("cacheadmin.view_keys")
        assert not gold.has_perm("cacheadmin.invalidate")
        assert not ruby.has_perm("cacheadmin.see_all_tenants")


@pytest.mark.usefixtures("shops")
class TestTenancy:
    @pytest.fixture
    def tenancy(self):
        return Tenancy()

    @pytest.fixture
    def request_for(self):
        def make(path, user=None):
            request = RequestFactory().get(path)
            request.user = user or AnonymousUser()
            return request

        return make

    def test_a_request_belongs_to_the_tenant_of_its_user(self, tenancy, request_for, ruby):
        user = User.objects.get(username="ruby")
        assert tenancy.from_request(request_for("/shops/gold/", user)) == str(ruby.pk)

    def test_else_to_the_tenant_of_its_path(self, tenancy, request_for, ruby):
        admin = User.objects.get(username="admin")
        assert tenancy.from_request(request_for("/shops/ruby/report/")) == str(ruby.pk)
        assert tenancy.from_request(request_for("/shops/ruby/report/", admin)) == str(ruby.pk)

    @pytest.mark.parametrize("path", ["/", "/gold/", "/shops/nobody/", "/shops/", "/admin/shops/ruby/"])
    def test_else_to_nobody(self, tenancy, request_for, path):
        assert tenancy.from_request(request_for(path)) is None

    def test_a_row_belongs_to_its_tenant_and_a_line_to_its_sale_s(self, tenancy, ruby):
        line = SaleLine.objects.filter(sale__tenant=ruby).first()
        for instance in (ruby, line, line.sale, line.item, User.objects.get(username="ruby")):
            assert tuple(tenancy.from_instance(instance)) == (str(ruby.pk),)
        for instance in (GoldRate.objects.first(), User.objects.get(username="admin")):
            assert tuple(tenancy.from_instance(instance)) == ()

    def test_staff_see_the_cache_of_their_tenant_and_admin_that_of_all(self, tenancy, ruby):
        assert tenancy.allowed(User.objects.get(username="ruby")) == (str(ruby.pk),)
        assert tenancy.allowed(User.objects.get(username="admin")) is EVERYONE
        assert tenancy.allowed(AnonymousUser()) == ()

    def test_tenants_are_listed_with_their_names(self, tenancy):
        assert [tenant.label for tenant in tenancy.list()] == [
            *("Ruby & Co", "Gold & Sons", "Maison Opale", "Karat House", "Lapis Lane"),
        ]


def test_the_shop_uses_every_decorator_every_helper_and_the_tag():
    sources = "".join(path.read_text() for path in SHOP.rglob("*") if path.suffix in (".py", ".html"))
    uses = [f"{name}(" for name in cacheadmin.__all__ if name.startswith(("cache_", "get_"))]
    assert len(uses) == 12
    assert [use for use in (*uses, "{% load cacheadmin") if use not in sources] == []


@pytest.mark.usefixtures("shops")
class TestPages:
    @pytest.mark.parametrize("name", ["ruby", "admin", None])
    def test_every_page_renders(self, client, name):
        if name:
            client.force_login(User.objects.get(username=name))
        for path in pages_of("ruby") * 2:
            response = client.get(path)
            assert (path, response.status_code) == (path, 200)
            assert "default-src 'none'" in response["Content-Security-Policy"]

    def test_somebody_bound_to_one_shop_gets_404_for_another(self, clerk):
        for path in pages_of("gold")[2:]:
            assert (path, clerk.get(path).status_code) == (path, 404)
        item = InventoryItem.objects.filter(tenant__slug="gold").first()
        for deed in ("sell", "price", "restock"):
            assert clerk.post(f"/shops/gold/items/{item.pk}/{deed}/", {"price": 1}).status_code == 404

    def test_no_page_holds_an_inline_script_or_style(self, clerk):
        for path in pages_of("ruby"):
            text = clerk.get(path).content.decode()
            assert "<style" not in text
            assert "<script" not in text
            assert " style=" not in text
            assert " on" + "click" not in text

    def test_selling_needs_a_post_with_a_token(self, item):
        strict = Client(enforce_csrf_checks=True)
        path = f"/shops/ruby/items/{item.pk}/sell/"
        assert strict.get(path).status_code == 405
        assert strict.post(path).status_code == 403

    def test_a_price_that_is_none_is_refused(self, clerk, item):
        response = clerk.post(f"/shops/ruby/items/{item.pk}/price/", {"price": "cheap"})
        assert response.status_code == 422
        assert "Enter a number" in response.content.decode()

    def test_ruby_s_admin_shows_ruby_s_rows_only(self, clerk, ruby):
        text = clerk.get("/admin/shop/inventoryitem/").content.decode()
        assert "RU-00001" in text
        assert "GO-00001" not in text
        assert "Gold &amp; Sons" not in text
        assert clerk.get("/admin/shop/tenant/").status_code == 200
        assert clerk.get(f"/admin/shop/tenant/{ruby.pk}/change/").status_code == 200
        foreign = InventoryItem.objects.filter(tenant__slug="gold").first()
        assert clerk.get(f"/admin/shop/inventoryitem/{foreign.pk}/change/").status_code == 302

    def test_the_admin_offers_to_invalidate_and_to_warm_to_those_who_may(self, client, item):
        tenants, items = "/admin/shop/tenant/", f"/admin/shop/inventoryitem/{item.pk}/change/"
        client.force_login(User.objects.get(username="ruby"))
        assert "warm_tenants" in client.get(tenants).content.decode()
        assert "Invalidate caches" in client.get(items).content.decode()
        client.force_login(User.objects.get(username="gold"))
        assert "warm_tenants" not in client.get(tenants).content.decode()


GROUPS_WITHOUT_FUNCTION = {
    "dashboard",
    "gold_rate",
    "gold_rate_range",
    "product_list",
    "purchase_orders",
    "repair_orders",
    "report:sales_report",
    "sidebar",
}
"""Groups of the shortcuts, of `get_or_set_cache` and of the fragments; no decorated function has them."""


class TestMap:
    def test_every_rule_names_models_fields_and_aliases_that_exist(self):
        names = [rule.name for rule in rules]
        assert len(set(names)) == len(names)
        assert [(rule.name, problem) for rule in rules for problem in validate(rule)] == []

    def test_every_group_of_the_shop_is_dropped_by_some_rule(self):
        groups = {
            function.group for name, function in registry.items() if name.startswith("shop.")
        } | GROUPS_WITHOUT_FUNCTION
        targets = [target for rule in rules for target in rule.targets]
        exact = {target.name for target in targets if target.kind in ("group", "fragment")}
        prefixes = tuple(target.name for target in targets if target.kind == "prefix")
        assert {group for group in groups if group not in exact and not group.startswith(prefixes)} == set()
        # The other way round: a misspelt target would drop nothing.
        assert exact <= groups
        assert [prefix for prefix in prefixes if not any(group.startswith(prefix) for group in groups)] == []


@pytest.mark.usefixtures("backend", "shops")
class TestCaching:
    def test_each_page_computes_once_and_says_so(self, client):
        for path in [path for path in pages_of("ruby") if "/api/" not in path and "/items/" not in path]:
            caches_emptied()
            with outcomes.counting() as bodies:
                first = client.get(path)
            assert sorted(bodies) == sorted(o.group for o in first.wsgi_request.outcomes if not o.is_from_cache), path
            assert bodies, path
            with outcomes.counting() as bodies:
                second = client.get(path)
            assert bodies == [], path
            assert all(outcome.is_from_cache for outcome in second.wsgi_request.outcomes), path
            assert "0 of" not in second.content.decode()

    def test_a_new_price_shows_at_once(self, client, item):
        path = f"/shops/ruby/inventory/?search={item.sku.lower()}"
        for _ in range(2):
            client.get(path)
        selling.change_price(item, "71234.50")
        response = client.get(path)
        assert "71,234.50" in response.content.decode()
        assert "71234.50" in client.get(f"/shops/ruby/api/products/?search={item.sku.lower()}").content.decode()

    def test_a_sale_shows_on_the_dashboard_and_in_the_report(self, client, item):
        day = timezone.localdate()
        before = [sales.dashboard_figures(item.tenant_id), sales.sales_report(item.tenant_id, day, day)]
        sale = selling.sell(item.pk)
        figures, report = sales.dashboard_figures(item.tenant_id), sales.sales_report(item.tenant_id, day, day)
        assert figures["all_total"] == before[0]["all_total"] + sale.total
        assert report["totals"]["count"] == before[1]["totals"]["count"] + 1

    def test_a_change_in_one_shop_leaves_the_others_alone(self, item):
        others = Tenant.objects.exclude(pk=item.tenant_id)
        for tenant in others:
            inventory.inventory_list(tenant.pk)
        selling.change_price(item, 5)
        with outcomes.counting() as bodies:
            for tenant in others:
                inventory.inventory_list(tenant.pk)
        assert bodies == []

    def test_an_item_drops_the_board_of_its_branch_only(self, ruby, item):
        boards = list(Branch.objects.filter(tenant=ruby).values_list("pk", flat=True))
        for pk in boards:
            inventory.branch_board(ruby.pk, pk)
        selling.change_price(item, 5)
        with outcomes.counting() as bodies:
            for pk in boards:
                if pk != item.branch_id:
                    inventory.branch_board(ruby.pk, pk)
            assert bodies == []
            assert inventory.branch_board(ruby.pk, item.branch_id)["id"] == item.branch_id
        assert bodies == ["branch_board"]

    def test_the_gold_rate_drops_every_shop_s_prices(self, monkeypatch):
        monkeypatch.setattr(selling, "gauss", lambda mean, step: mean + step)  # one by chance may move no cent
        tenants = list(Tenant.objects.values_list("pk", flat=True))
        before = {pk: inventory.pricing_table(pk) for pk in tenants}
        selling.move_market()
        assert all(inventory.pricing_table(pk) != before[pk] for pk in tenants)

    def test_each_row_of_the_map_drops_what_shows_its_model(self, ruby, item):
        customer = Customer.objects.filter(tenant=ruby).first()
        reads = {
            "customer": lambda: sales.customer_history(ruby.pk, customer.pk),
            "loyalty": lambda: sales.loyalty_tiers(ruby.pk),
            "repairs": lambda: sales.repair_board(ruby.pk),
            "suppliers": lambda: inventory.suppliers(ruby.pk),
            "settings": lambda: inventory.tenant_settings(ruby.pk),
            "categories": lambda: inventory.category_counts(ruby.pk),
            "branches": lambda: inventory.branches(ruby.pk),
            "pricing": lambda: inventory.pricing_table(ruby.pk),
        }
        changed = {
            "customer": customer,
            "loyalty": customer.loyalty,
            "repairs": RepairOrder.objects.filter(tenant=ruby).first(),
            "suppliers": PurchaseOrder.objects.filter(tenant=ruby).first(),
            "settings": TenantSetting.objects.filter(tenant=ruby).first(),
            "categories": item.category,
            "branches": item.branch,
            "pricing": PricingRule.objects.filter(tenant=ruby).first(),
        }
        for name, read in reads.items():
            read()
            with outcomes.counting() as bodies:
                read()
            assert (name, bodies) == (name, [])
            changed[name].save()
            with outcomes.counting() as bodies:
                read()
            assert (name, len(bodies)) == (name, 1)

    def test_a_visit_counts_without_dropping_anything(self, client, item):
        inventory.inventory_list(item.tenant_id)
        client.get(f"/shops/ruby/items/{item.pk}/")
        with outcomes.counting() as bodies:
            inventory.inventory_list(item.tenant_id)
        assert bodies == []
        assert InventoryItem.objects.get(pk=item.pk).view_count == item.view_count + 1


@pytest.mark.usefixtures("shops")
class TestSelling:
    def test_selling_writes_a_sale_its_line_the_stock_and_the_points(self, item, ruby):
        customer = Customer.objects.filter(tenant=ruby).first()
        points, quantity = customer.loyalty.points, item.quantity
        sale = selling.sell(item.pk, customer=customer)
        item.refresh_from_db()
        assert (sale.total, sale.tenant, sale.branch) == (item.price, ruby, item.branch)
        assert [(line.item, line.quantity, line.price) for line in sale.lines.all()] == [(item, 1, item.price)]
        assert item.quantity == quantity - 1
        assert LoyaltyAccount.objects.get(customer=customer).points == points + int(item.price) // 10

    def test_the_last_piece_sold_is_sold_out(self, item):
        selling.sell(item.pk, quantity=item.quantity)
        item.refresh_from_db()
        assert (item.quantity, item.status) == (0, "sold out")
        with pytest.raises(selling.SoldOut, match="0 pieces left, 1 were asked for"):
            selling.sell(item.pk)

    def test_the_market_moves_all_karats_together(self):
        pure = selling.move_market()
        latest = {rate["karat"]: rate["price_per_gram"] for rate in rates.latest_gold_rates()}
        assert latest[24] == pure.price_per_gram
        assert abs(latest[18] - pure.price_per_gram * 18 / 24) < Decimal("0.001")


class TestProcesses:
    def test_a_child_ends_with_its_parent_however_that_ends(self, tmp_path):
        # A child that ignores SIGTERM, of a parent that has no time to say goodbye.
        script = """
import os, signal, sys
from shop.processes import Child
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = Child([sys.executable, "-c", stubborn])
print(child.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
        parent = subprocess.run([sys.executable, "-c", script], cwd=SHOP.parent, stdout=subprocess.PIPE, check=False)
        assert left_in_group(int(parent.stdout)) == []

    def test_a_child_that_is_stopped_leaves_nothing(self):
        with Child(["/bin/sh", "-c", "sleep 60 & sleep 60"]) as child:
            assert child.is_running()
        assert not child.is_running()
        assert left_in_group(child.process.pid) == []

    def test_a_port_that_is_taken_is_passed_over(self):
        first = free_port(0)
        with socket.create_server(("127.0.0.1", first)):
            assert free_port(first) > first


def left_in_group(group):
    """Return the processes of a group that are still there after a while: a killed one needs a moment to go."""
    deadline = time.monotonic() + 60
    while (left := [process for process in running() if process.group == group]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def caches_emptied():
    for cache in caches.all():
        cache.clear()
