"""The host's own ModelAdmins: buttons, actions and the panel, for those who may, at no cost to the change page."""

import re

import pytest
from console import make_items
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import include, path, reverse

from cacheadmin import ABSENT
from cacheadmin.admin import ConsoleAdmin, InvalidationRuleAdmin, host, ids, rule_preview
from cacheadmin.admin.mixins import CacheInvalidationMixin, TenantCacheMixin
from cacheadmin.exceptions import CacheAway
from cacheadmin.models import Activity, Console, InvalidationRule
from cacheadmin.targets import ALL, Target
from shop.inventory import inventory_list
from shop.models import Branch, Category, GoldRate, InventoryItem, Tenant

ITEMS = "admin:shop_inventoryitem_changelist"
ITEM = "admin:shop_inventoryitem_change"
PANEL = "admin:shop_inventoryitem_cached_data"
INVALIDATE = "admin:shop_inventoryitem_invalidate"
TENANTS = "admin:shop_tenant_changelist"
TENANT = "admin:shop_tenant_change"
CONFIRM = "admin:cacheadmin_invalidate"


@pytest.fixture
def shop(db):
    tenants = [Tenant.objects.create(name=name, slug=name.lower()) for name in ("Ruby", "Gold")]
    for tenant in tenants:
        make_items(tenant, "R1", "R2")
    return tenants


@pytest.fixture
def item(shop):
    return InventoryItem.objects.filter(tenant=shop[0]).first()


@pytest.fixture
def staff(client, django_user_model):
    """`staff("view_keys", …, tenant=…)` logs a member of the staff in who may change items and tenants, too."""

    def login(*codenames, tenant=None):
        user = django_user_model.objects.create_user("clerk", is_staff=True, tenant=tenant)
        own = [f"{verb}_{model}" for verb in ("view", "change") for model in ("inventoryitem", "tenant")]
        user.user_permissions.set(Permission.objects.filter(codename__in=[*codenames, *own]))
        client.force_login(user)
        return client

    return login


def tools(answer):
    return re.findall(r"(Invalidate caches…|Invalidate this tenant…|Warm this tenant…)</a>", answer.content.decode())


def scope(answer):
    return ids.open_scope(answer["Location"].partition("?on=")[2])


# --- the change page ----------------------------------------------------------------------------------------------


def test_a_change_page_has_a_button_and_a_folded_panel(admin_client, item):
    answer = admin_client.get(reverse(ITEM, args=[item.pk]))
    assert tools(answer) == ["Invalidate caches…"]
    html = answer.content.decode()
    assert f'data-cacheadmin-panel="{reverse(PANEL, args=[item.pk])}"' in html
    assert "<details open" not in html
    assert "Cached data" in html
    assert "History" in html


def test_a_change_page_costs_no_query_and_no_round_trip_more(admin_client, item, monkeypatch, round_trips):
    def cost():
        with CaptureQueriesContext(connection) as queries, round_trips() as sent:
            assert admin_client.get(reverse(ITEM, args=[item.pk])).status_code == 200
        return len(queries), sent

    cost()  # content types are looked up once a process
    ours = cost()
    monkeypatch.setattr(CacheInvalidationMixin, "render_change_form", admin.ModelAdmin.render_change_form)
    registered = admin.site.get_model_admin(InventoryItem)
    monkeypatch.setattr(registered, "change_form_template", None)
    assert "Cached data" not in admin_client.get(reverse(ITEM, args=[item.pk])).content.decode()
    assert ours == cost()
    assert ours[1] == []


def test_an_add_page_is_as_it_was(admin_client, shop):
    answer = admin_client.get(reverse("admin:shop_inventoryitem_add"))
    assert (answer.status_code, tools(answer)) == (200, [])
    assert "Cached data" not in answer.content.decode()
    assert "host.js" not in answer.content.decode()


def test_a_change_page_that_is_saved_works_as_before(admin_client, item):
    url = reverse(ITEM, args=[item.pk])
    form = admin_client.get(url).context["adminform"].form
    sent = {name: value for name, value in form.initial.items() if value is not None} | {"name": "Other", "tags": []}
    assert admin_client.post(url, sent).status_code == 302
    assert InventoryItem.objects.get(pk=item.pk).name == "Other"


def test_the_panel_lists_what_saving_the_row_would_drop(admin_client, item, shop):
    inventory_list(item.tenant_id)
    inventory_list(item.tenant_id, page=2)
    inventory_list(shop[1].pk)
    html = admin_client.get(reverse(PANEL, args=[item.pk]), {"format": "json"}).json()["html"]
    assert "Saving this inventory item would drop 2 entries" in html
    assert re.search(r"inventory_list</a>.*<td[^>]*>\s*2\s*</td>.*inventory</td>", html, re.DOTALL)
    page = admin_client.get(reverse(PANEL, args=[item.pk]))
    assert "would drop 2 entries" in page.content.decode()
    assert [crumb.label for crumb in page.context["crumbs"]][-2:] == [str(item), "Cached data"]
    assert inventory_list.peek(item.tenant_id) is not ABSENT


def test_the_panel_says_when_and_by_whom_a_group_was_invalidated(admin_client, item):
    inventory_list.invalidate_all(item.tenant_id)
    Activity.objects.create(
        kind="invalidate",
        source="user",
        who="amira",
        tenants=[str(item.tenant_id)],
        targets=[Target("group", "inventory_list", str(item.tenant_id)).to_json()],
    )
    inventory_list(item.tenant_id)
    with CaptureQueriesContext(connection) as queries:
        html = admin_client.get(reverse(PANEL, args=[item.pk])).content.decode()
    assert re.search(r"just now</time> <span[^>]*>by amira</span>", html)
    assert len(queries) <= 12


def test_the_panel_of_a_model_without_rules_offers_to_add_one(admin_client, item, monkeypatch):
    monkeypatch.setattr(host.rules, "snapshot", lambda: host.rules.Snapshot())
    html = admin_client.get(reverse(PANEL, args=[item.pk])).content.decode()
    assert "No rule names this model." in html
    assert "?model=shop.InventoryItem" in html


def test_the_panel_says_that_redis_is_away(admin_client, item, monkeypatch):
    def away(_targets, **_known):
        raise CacheAway("gone")

    monkeypatch.setattr(rule_preview.browser, "blast", away)
    assert "Redis does not answer" in admin_client.get(reverse(PANEL, args=[item.pk])).content.decode()


@pytest.mark.parametrize("pk", ["0", "x", "999999", "1/../2", "%00"])
def test_a_row_that_is_none_is_a_404(admin_client, shop, pk):
    for view in (PANEL, INVALIDATE):
        assert admin_client.get(reverse(view, args=[quote(pk)])).status_code == 404


# --- acting -------------------------------------------------------------------------------------------------------


def test_the_button_leads_to_the_question_and_changes_nothing(admin_client, item):
    inventory_list(item.tenant_id)
    answer = admin_client.get(reverse(INVALIDATE, args=[item.pk]))
    assert answer["Location"].startswith(reverse(CONFIRM))
    assert Target("prefix", "inventory", str(item.tenant_id), "query") in scope(answer)
    assert Target("tag", f"branch:{item.branch_id}", str(item.tenant_id), "query") in scope(answer)
    assert admin_client.get(answer["Location"]).status_code == 200
    assert inventory_list.peek(item.tenant_id) is not ABSENT
    assert not Activity.objects.exists()


def test_the_question_answered_invalidates_by_the_rules(admin_client, item, shop):
    inventory_list(item.tenant_id)
    inventory_list(shop[1].pk)
    place = admin_client.get(reverse(INVALIDATE, args=[item.pk]))["Location"]
    sent = {"on": place.partition("?on=")[2], "confirmed": "yes", "reason": "wrong price", "counted": "1"}
    assert admin_client.post(reverse(CONFIRM), sent).status_code == 302
    assert not isinstance(inventory_list.peek(item.tenant_id), dict)
    assert isinstance(inventory_list.peek(shop[1].pk), dict)
    line = Activity.objects.get()
    assert (line.source, line.reason, line.tenants, line.state) == (
        "user",
        "wrong price",
        [str(item.tenant_id)],
        "done",
    )


def test_selected_rows_are_invalidated_by_one_question(admin_client, shop):
    pks = InventoryItem.objects.values_list("pk", flat=True)
    with CaptureQueriesContext(connection) as queries:
        answer = admin_client.post(reverse(ITEMS), {"action": "invalidate_caches", "_selected_action": pks})
    assert {target.tenant for target in scope(answer)} == {str(tenant.pk) for tenant in shop}
    assert "Invalidate" in admin_client.get(answer["Location"]).context["title"]
    assert len(queries) <= 12


def test_the_actions_stand_in_the_lists(admin_client, shop):
    items, tenants = admin_client.get(reverse(ITEMS)), admin_client.get(reverse(TENANTS))
    assert "Invalidate caches of selected inventory items…" in items.content.decode()
    assert "Invalidate everything cached for selected tenants…" in tenants.content.decode()
    assert "Warm caches of selected tenants…" in tenants.content.decode()


def test_a_tenant_has_buttons_for_all_of_it(admin_client, shop):
    answer = admin_client.get(reverse(TENANT, args=[shop[0].pk]))
    assert tools(answer) == ["Invalidate this tenant…", "Warm this tenant…"]
    links = re.findall(r'<li><a href="([^"]*\?on=[^"]*)">', answer.content.decode())
    assert [admin_client.get(link).status_code for link in links] == [200, 200]
    for link in links:
        assert ids.open_scope(link.partition("?on=")[2]) == (Target("tenant", "", str(shop[0].pk)),)


@pytest.mark.parametrize("action", ["invalidate_tenants", "warm_tenants"])
def test_selected_tenants_are_asked_about_together(admin_client, shop, action):
    sent = {"action": action, "_selected_action": [tenant.pk for tenant in shop]}
    answer = admin_client.post(reverse(TENANTS), sent)
    assert set(scope(answer)) == {Target("tenant", "", str(tenant.pk)) for tenant in shop}
    assert admin_client.get(answer["Location"]).status_code == 200


def test_too_many_tenants_at_once_are_refused(admin_client, db):
    Tenant.objects.bulk_create(Tenant(name=f"T{i}", slug=f"t{i}") for i in range(ids.SCOPE_TARGETS + 1))
    sent = {"action": "invalidate_tenants", "_selected_action": "1", "select_across": "1", "index": "0"}
    answer = admin_client.post(reverse(TENANTS), sent, follow=True)
    assert "choose fewer than 200 tenants" in answer.content.decode()


def test_very_many_rows_widen_to_their_tenants(admin_client, shop, monkeypatch):
    InvalidationRule.objects.create(
        name="one by one", model="shop.InventoryItem", targets=[{"kind": "key", "name": "inventory_item:{pk}"}]
    )
    branch = Branch.objects.first()
    category = Category.objects.get(tenant=branch.tenant)
    InventoryItem.objects.bulk_create(
        InventoryItem(
            tenant=branch.tenant, branch=branch, category=category, sku=f"B{i}", name="x", weight=1, price=1, quantity=1
        )
        for i in range(300)
    )
    pks = list(InventoryItem.objects.filter(tenant=branch.tenant).values_list("pk", flat=True))
    answer = admin_client.post(reverse(ITEMS), {"action": "invalidate_caches", "_selected_action": pks})
    assert len(answer["Location"]) < 4000
    assert scope(answer) == (Target("tenant", "", str(branch.tenant_id)),)


def test_what_a_wider_target_covers_is_left_out():
    whole, group = Target("tenant", "", "1"), Target("group", "x", "1", "query")
    other = Target("group", "x", "2", "query")
    assert host.merged([group, whole, other, group]) == [whole, other]
    assert host.merged([Target("tenant", "", ALL), whole, group]) == [Target("tenant", "", ALL)]
    assert host.merged([Target("tenant", "", "1", "query"), group]) == [Target("tenant", "", "1", "query")]
    assert host.merged([Target("tenant", "", "1", "api"), group]) == [Target("tenant", "", "1", "api"), group]


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codenames", "buttons", "panel", "ask"),
    [
        ((), [], 403, 403),
        (("view_keys",), [], 200, 403),
        (("invalidate",), [], 403, 403),
        (("view_keys", "invalidate"), ["Invalidate caches…"], 200, 302),
    ],
)
def test_the_console_permissions_decide(staff, item, codenames, buttons, panel, ask):
    client = staff(*codenames, "see_all_tenants")
    answer = client.get(reverse(ITEM, args=[item.pk]))
    assert tools(answer) == buttons
    assert ("Cached data" in answer.content.decode()) is (panel == 200)
    assert client.get(reverse(PANEL, args=[item.pk])).status_code == panel
    assert client.get(reverse(INVALIDATE, args=[item.pk])).status_code == ask
    listed = client.get(reverse(ITEMS)).content.decode()
    assert ("Invalidate caches of selected" in listed) is bool(buttons)
    acted = client.post(reverse(ITEMS), {"action": "invalidate_caches", "_selected_action": [item.pk]})
    assert ("?on=" in acted.headers.get("Location", "")) is bool(buttons)


@pytest.mark.parametrize(
    ("codenames", "buttons"),
    [
        (("view_keys",), []),
        (("view_keys", "invalidate"), ["Invalidate this tenant…"]),
        (("view_keys", "warm"), ["Warm this tenant…"]),
    ],
)
def test_a_tenant_bound_user_acts_on_his_own_tenant(staff, shop, codenames, buttons):
    client = staff(*codenames, tenant=shop[0])
    assert tools(client.get(reverse(TENANT, args=[shop[0].pk]))) == buttons


def test_a_tenant_bound_user_reaches_nothing_of_others(staff, shop, monkeypatch):
    ruby, gold = shop
    client = staff("view_keys", "invalidate", "warm", tenant=ruby)
    registered = admin.site.get_model_admin(Tenant)
    monkeypatch.setattr(type(registered), "get_queryset", admin.ModelAdmin.get_queryset)  # a site that shows him all
    assert tools(client.get(reverse(TENANT, args=[gold.pk]))) == []
    sent = {"action": "invalidate_tenants", "_selected_action": [ruby.pk, gold.pk]}
    assert scope(client.post(reverse(TENANTS), sent)) == (Target("tenant", "", str(ruby.pk)),)
    answer = client.post(reverse(TENANTS), {**sent, "_selected_action": [gold.pk]}, follow=True)
    assert "None of these is a tenant whose cache you may see." in answer.content.decode()


def test_rules_for_all_tenants_reach_only_those_a_user_may_see(staff, shop):
    InvalidationRule.objects.create(
        name="wide", model="shop.InventoryItem", targets=[{"kind": "group", "name": "x", "tenant": "all"}]
    )
    InvalidationRule.objects.create(
        name="shared", model="shop.InventoryItem", targets=[{"kind": "group", "name": "y", "tenant": "shared"}]
    )
    ruby = shop[0]
    client = staff("view_keys", "invalidate", tenant=ruby)
    mine = InventoryItem.objects.filter(tenant=ruby).first()
    found = scope(client.get(reverse(INVALIDATE, args=[mine.pk])))
    assert {target.tenant for target in found} == {str(ruby.pk)}
    assert Target("group", "x", str(ruby.pk)) in found
    theirs = InventoryItem.objects.exclude(tenant=ruby).first()
    assert client.get(reverse(PANEL, args=[theirs.pk])).status_code == 404
    assert client.get(reverse(INVALIDATE, args=[theirs.pk])).status_code == 404


def test_nobody_acts_while_the_site_is_read_only(admin_client, item, settings):
    settings.CACHEADMIN = {**settings.CACHEADMIN, "READ_ONLY": True}
    assert tools(admin_client.get(reverse(ITEM, args=[item.pk]))) == []
    assert admin_client.get(reverse(PANEL, args=[item.pk])).status_code == 200
    assert admin_client.get(reverse(INVALIDATE, args=[item.pk])).status_code == 403
    assert "Invalidate caches" not in admin_client.get(reverse(ITEMS)).content.decode()


# --- other admin sites --------------------------------------------------------------------------------------------


class BackOffice(admin.AdminSite):
    """A site of its own, with the console."""


back_office = BackOffice(name="back_office")
back_office.register(Console, ConsoleAdmin)
back_office.register(InvalidationRule, InvalidationRuleAdmin)


@admin.register(GoldRate, site=back_office)
class GoldRateAdmin(CacheInvalidationMixin, admin.ModelAdmin):
    actions = ("publish",)
    change_form_template = "admin/import_export/change_form.html"

    @admin.action(description="Publish")
    def publish(self, request, queryset):
        """Do nothing; the site's own action."""


@admin.register(Tenant, site=back_office)
class BackOfficeTenantAdmin(TenantCacheMixin, CacheInvalidationMixin, admin.ModelAdmin):
    """Both mixins on one model."""


bare = admin.AdminSite(name="bare")
"""A site without the console."""


@admin.register(GoldRate, site=bare)
class BareAdmin(CacheInvalidationMixin, admin.ModelAdmin):
    """Has the mixin, but nowhere to ask."""


@admin.register(Tenant, site=bare)
class SilentAdmin(TenantCacheMixin, admin.ModelAdmin):
    actions = None


urlpatterns = [
    path("admin/", admin.site.urls),
    path("office/", back_office.urls),
    path("bare/", bare.urls),
    path("", include("shop.urls")),
]


@pytest.fixture
def rate(db):
    return GoldRate.objects.create(karat=18, price_per_gram=60)


@pytest.mark.urls(__name__)
def test_another_admin_site_keeps_to_its_own_pages(admin_client, rate):
    answer = admin_client.get(f"/office/shop/goldrate/{rate.pk}/change/")
    html = answer.content.decode()
    assert f"/office/shop/goldrate/{rate.pk}/invalidate-caches/" in html
    assert f"/office/shop/goldrate/{rate.pk}/cached-data/" in html
    sent = admin_client.get(f"/office/shop/goldrate/{rate.pk}/invalidate-caches/")["Location"]
    assert sent.startswith("/office/cacheadmin/console/invalidate/?on=")
    page = admin_client.get(f"/office/shop/goldrate/{rate.pk}/cached-data/").content.decode()
    assert "/office/cacheadmin/" in page
    rules_page = admin_client.get("/office/cacheadmin/invalidationrule/").content.decode()
    assert "/office/cacheadmin/invalidationrule/add/" in rules_page
    assert "/admin/cacheadmin/invalidationrule/" not in rules_page


@pytest.mark.urls(__name__)
def test_a_sites_own_actions_and_template_stay(admin_client, rate):
    listed = admin_client.get("/office/shop/goldrate/").content.decode()
    assert "Publish" in listed
    assert "Invalidate caches of selected gold rates…" in listed
    names = [template.name for template in admin_client.get(f"/office/shop/goldrate/{rate.pk}/change/").templates]
    assert {"admin/cacheadmin/host/change_form.html", "admin/import_export/change_form.html"} <= set(names)


@pytest.mark.urls(__name__)
def test_both_mixins_on_one_model(admin_client, shop):
    answer = admin_client.get(f"/office/shop/tenant/{shop[0].pk}/change/")
    assert sorted(tools(answer)) == ["Invalidate caches…", "Invalidate this tenant…", "Warm this tenant…"]
    registered = back_office.get_model_admin(Tenant)
    request = RequestFactory().get("/")
    request.user = answer.wsgi_request.user
    assert {"invalidate_caches", "invalidate_tenants", "warm_tenants"} <= set(registered.get_actions(request))
    assert not registered.check()


@pytest.mark.urls(__name__)
def test_a_site_without_the_console_shows_nothing(admin_client, rate, shop):
    html = admin_client.get(f"/bare/shop/goldrate/{rate.pk}/change/").content.decode()
    assert "Cached data" not in html
    assert tools(admin_client.get(f"/bare/shop/goldrate/{rate.pk}/change/")) == []
    assert "Invalidate caches of selected" not in admin_client.get("/bare/shop/goldrate/").content.decode()
    assert admin_client.get(f"/bare/shop/goldrate/{rate.pk}/cached-data/").status_code == 404
    assert bare.get_model_admin(Tenant).actions is None
    assert "action-select" not in admin_client.get("/bare/shop/tenant/").content.decode()
