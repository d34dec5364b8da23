"""Cached functions and Health: what each function is worth and who drops it; what is set up wrong."""

import json
import re
import time

import pytest
from console import text_of
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from cacheadmin import cache_query_result, doctor
from cacheadmin.admin import worth
from cacheadmin.admin.views.health import open_findings
from cacheadmin.connections import forget_links
from cacheadmin.doctor import registry as doctor_registry
from cacheadmin.functions import registry
from cacheadmin.models import InvalidationRule
from cacheadmin.overview import reach
from cacheadmin.rules import Rule, all_rules
from cacheadmin.stats import recorder, rollups
from shop.inventory import inventory_list
from shop.models import Tenant, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("within_a_minute")]

URL = reverse("admin:cacheadmin_function_list")
DETAIL = reverse("admin:cacheadmin_function_detail", args=[inventory_list.name])
HEALTH = reverse("admin:cacheadmin_health")


@pytest.fixture(autouse=True)
def _no_memory():
    doctor_registry._latest.clear()
    recorder.reset()
    yield
    doctor_registry._latest.clear()


@pytest.fixture
def shops():
    return [Tenant.objects.create(name=name, slug=name[:4].lower()) for name in ("Ruby & Co", "Gold & Sons")]


@pytest.fixture
def bound(shops) -> Client:
    user = User.objects.create_user("ruby", is_staff=True, tenant=shops[0])
    user.user_permissions.add(Permission.objects.get(codename="view_keys"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def counted(shops):
    """Ninety hits and ten misses of each shop, a miss costs 0.2 s; and an entry of each."""
    for shop in shops:
        inventory_list(shop.pk)
    recorder.reset()
    rollups.measure()
    for shop in shops:
        tenant = str(shop.pk)
        for _ in range(90):
            recorder.read("query", "inventory_list", tenant, "hit")
        for _ in range(10):
            recorder.read("query", "inventory_list", tenant, "miss")
            recorder.computed("query", "inventory_list", tenant, 0.2)
    assert recorder.flush()
    return shops


@pytest.fixture
def lonely(monkeypatch):
    """A function that no rule drops and no argument ties to a tenant."""
    narrow = [rule for rule in all_rules() if all(target.kind != "tenant" for target in rule.targets)]
    monkeypatch.setattr(reach, "all_rules", lambda: narrow)

    def lonely_figures(year):
        return year

    lonely_figures.__qualname__ = "lonely_figures"
    cached = cache_query_result(key_prefix="lonely_figures")(lonely_figures)
    yield cached
    del registry[cached.name]


def plain(response) -> str:
    """The page without the places where a name may be broken."""
    return response.content.decode().replace("<wbr>", "")


def row_of(response, name: str) -> str:
    """One row of the table, and the advice below it, as text."""
    rows = re.findall(r"<tr>(.*?</tr>(?:<tr class=\"cacheadmin-below\">.*?</tr>)?)", plain(response), re.DOTALL)
    [found] = [row for row in rows if f">{name}</a>" in row]
    return text_of(found)


def names_in(response) -> set[str]:
    return {name for name in registry if f">{name}</a>" in plain(response)}


# --- the list -------------------------------------------------------------------------------------------------------


def test_each_function_says_what_it_is_worth(admin, counted) -> None:
    row = row_of(admin.get(URL), inventory_list.name)
    assert row.startswith("shop.inventory.inventory_list query · inventory_list 15 min 90% 200 ms ")
    assert re.search(r" 2 ~ [\d.]+ ?(KB|bytes)", row.replace("\xa0", " "))


def test_the_best_comes_first(admin, counted) -> None:
    html = plain(admin.get(URL))
    first = re.search(r'<th scope="row" class="cacheadmin-function"><a href="[^"]+" title="([^"]+)">([^<]+)', html)
    assert first[2] == inventory_list.name
    assert re.fullmatch(r"shop/inventory\.py:\d+", first[1])


@pytest.mark.parametrize("name", sorted(name for name in registry if name.startswith("shop.")))
def test_every_cached_function_and_view_has_a_page(admin, name) -> None:
    response = admin.get(reverse("admin:cacheadmin_function_detail", args=[name]))
    assert response.status_code == 200
    assert f"{name.rpartition('.')[2]}(" in response.content.decode()


def test_a_rules_name_is_quoted_in_the_link_to_it(admin) -> None:
    targets = [{"kind": "group", "name": "inventory_list", "alias": "query", "tenant": "same"}]
    InvalidationRule.objects.create(name="a&b#c", model="shop.InventoryItem", events=["update"], targets=targets)
    response = admin.get(reverse("admin:cacheadmin_function_detail", args=["shop.inventory.inventory_list"]))
    assert "?q=a%26b%23c" in response.content.decode()


def test_a_function_that_no_rule_drops_is_said_to_be_so(admin, lonely) -> None:
    row = row_of(admin.get(URL), lonely.name)
    assert "Add a rule: it is stale until its timeout." in row
    assert "0 No rule drops it; only its timeout does." in row


@pytest.mark.parametrize(
    ("show", "is_listed"), [("", True), ("unruled", False), ("unwarmed", False), ("advice", False)]
)
def test_filters_leave_out_what_is_in_order(admin, lonely, show, is_listed) -> None:
    names = names_in(admin.get(URL, {"show": show}))
    assert lonely.name in names
    assert (inventory_list.name in names) is is_listed


def test_a_search_is_literal_and_by_name(admin) -> None:
    assert names_in(admin.get(URL, {"q": "INVENTORY.inventory_L"})) == {inventory_list.name}
    assert names_in(admin.get(URL, {"q": ".*"})) == set()


def test_an_alias_limits_the_list(admin) -> None:
    names = names_in(admin.get(URL, {"alias": "api"}))
    assert names
    assert {registry[name].alias for name in names} == {"api"}


@pytest.mark.parametrize("order", ["name", "-name", "ratio", "-compute", "-entries", "-size", "-saved", "nonsense"])
def test_every_order_works(admin, counted, order) -> None:
    assert admin.get(URL, {"o": order}).status_code == 200


def test_a_bound_user_sees_the_figures_of_his_tenant(bound, counted) -> None:
    row = row_of(bound.get(URL), inventory_list.name).replace("\xa0", " ")
    assert re.search(r" 1 ~ [\d.]+ ?(KB|bytes) 1 \d+$", row)


# --- one function ---------------------------------------------------------------------------------------------------


def test_the_page_of_a_function_says_how_it_is_called_and_who_drops_it(admin, counted) -> None:
    html = admin.get(DETAIL).content.decode()
    words = text_of(html)
    assert "inventory_list(tenant_id, branch_id=None, category=None, search='', page=1)" in words
    assert "the tenant in the argument tenant_id" in words
    assert "when Inventory item changes" in words
    assert "Ruby & Co 90%" in words
    drawn = json.loads(re.search(r'id="cacheadmin-charts" type="application/json">(.*?)</script>', html)[1])
    assert set(drawn["charts"]) == {"ratio", "results"}
    assert [value for value in drawn["charts"]["ratio"]["lines"][0]["values"] if value is not None] == [90.0]


def test_beside_the_mean_computation_stands_the_mean_read(admin, counted) -> None:
    assert "reading it" not in text_of(admin.get(DETAIL).content.decode())  # none was timed
    for took_ns in (300_000, 500_000):
        recorder.read("query", "inventory_list", str(counted[0].pk), "hit", took_ns)
    recorder.flush()
    words = text_of(admin.get(DETAIL).content.decode()).replace("\xa0", " ")
    assert "Mean compute 200 ms reading it 0.4 ms" in words


def test_its_links_lead_to_pages(admin, counted) -> None:
    html = admin.get(DETAIL).content.decode()
    urls = set(re.findall(r'<a href="([^"]*(?:invalidate|tenants)/[^"]*)"', html))
    assert len(urls) >= 5
    for url in urls:
        assert admin.get(url).status_code == 200


def test_a_bound_user_sees_no_other_tenant_of_it(bound, counted) -> None:
    html = bound.get(DETAIL).content.decode()
    assert "Ruby &amp; Co" in html
    assert "Gold &amp; Sons" not in html
    assert "Invalidate" not in html  # not given


@pytest.mark.parametrize(
    "name", ["shop.nothing", "x/y", "<script>", "é" * 300, "..", "shop.inventory.inventory_list/x"]
)
def test_a_function_that_never_was_is_a_404(admin, name) -> None:
    response = admin.get(reverse("admin:cacheadmin_function_list") + f"{name}/")
    assert response.status_code == 404
    assert "<script>" not in response.content.decode().split("</head>")[1].replace("<script src", "")


# --- what it is worth -----------------------------------------------------------------------------------------------


def rule(*targets) -> Rule:
    return Rule("r", model="shop.Sale", targets=targets)


@pytest.mark.parametrize(
    ("target", "reaches"),
    [
        ("inventory_list", True),
        ("inventory", False),
        ("prefix:inventory", True),
        ("prefix:sales", False),
        ("tag:branch:{pk}", True),
        ("tag:customer:{pk}", False),
        ("key:inventory_list:x", True),
        ("key:other:x", False),
        ("pattern:inventory*", True),
        ("pattern:sales*", False),
        ("tenant", True),
        ({"kind": "group", "name": "inventory_list", "alias": "api"}, False),
        ({"kind": "group", "name": "inventory_list", "alias": "query"}, True),
    ],
)
def test_which_rules_reach_a_function(target, reaches) -> None:
    assert worth.rules_of(inventory_list, [rule(target)]) == ([rule(target)] if reaches else [])


def test_a_rule_for_any_tag_may_reach_computed_tags() -> None:
    @cache_query_result(key_prefix="tagged", tags=lambda year: [f"year:{year}"])
    def tagged(year):
        return year

    try:
        assert worth.rules_of(tagged, [rule("tag:x:{pk}")])
    finally:
        del registry[tagged.name]


@pytest.fixture
def slow_key(shops, monkeypatch):
    """An hour in which hardly any entry of the first shop's prices is read again, and those of lists all are."""
    recorder.reset()
    now = time.time()
    for back in range(60, 0, -1):
        monkeypatch.setattr(time, "time", lambda back=back: now - back * 60)
        if back == 60:
            rollups.measure()
        for group, hits, misses in (("pricing_table", 1, 30), ("inventory_list", 29, 1)):
            for _ in range(hits):
                recorder.read("query", group, str(shops[0].pk), "hit", 400_000)
            for _ in range(misses):
                recorder.read("query", group, str(shops[0].pk), "miss", 400_000)
                recorder.computed("query", group, str(shops[0].pk), 0.05)
                recorder.filled("query", group, str(shops[0].pk), 1000)
        assert recorder.flush()
    monkeypatch.setattr(time, "time", lambda: now)


def test_advice_stands_under_the_function_with_its_figures(admin, slow_key) -> None:
    function = next(f for f in registry.values() if f.group == "pricing_table")
    row = row_of(admin.get(URL, {"range": "3h"}), function.name)
    assert "Its key varies too much: a tenant has about " in row
    assert "100 of them are read again 3 times" in row
    assert "−" not in row_of(admin.get(URL), inventory_list.name)
    detail = admin.get(reverse("admin:cacheadmin_function_detail", args=[function.name])).content.decode()
    assert detail.count("Its key varies too much") == 2  # of the function, and beside the tenant


def test_saved_seconds_are_sorted_and_shown_an_hour(admin, slow_key) -> None:
    html = plain(admin.get(URL, {"o": "-saved", "range": "3h"}))
    first = re.search(r'<th scope="row" class="cacheadmin-function"><a[^>]*>([^<]+)', html)
    assert first[1] == inventory_list.name
    assert "Saved an hour" in html
    assert re.search(r" 1 min \d+ s ", row_of(admin.get(URL), inventory_list.name))


def test_without_counts_only_what_its_source_says_is_advised() -> None:
    assert worth.advice(inventory_list, None, 1) == []
    assert worth.advice(inventory_list, None, 0) == ["Add a rule: it is stale until its timeout."]


def test_what_costs_more_than_it_spares_has_a_sign() -> None:
    assert (worth.saved_text(-90), worth.saved_text(90), worth.saved_text(None)) == ("−1 min 30 s", "1 min 30 s", "–")


# --- health ---------------------------------------------------------------------------------------------------------


def test_all_well_is_one_line(admin) -> None:
    html = admin.get(HEALTH).content.decode()
    assert f"All {len(doctor.checks())} checks pass." in html
    assert html.count("cacheadmin.E001") == 1


def test_a_finding_says_where_why_and_what_to_do(admin, settings) -> None:
    settings.CACHES = settings.CACHES | {"api": settings.CACHES["api"] | {"OPTIONS": {"MAX_CONNECTIONS": 9}}}
    html = admin.get(HEALTH).content.decode()
    words = text_of(html)
    assert "MAX_CONNECTIONS is ignored by django-redis." in words
    assert "CACHES['api']['OPTIONS']" in words
    assert '{"max_connections": 9}' in words
    assert "cacheadmin.W003" in words
    assert re.search(r'Health <span class="cacheadmin-count">1<', html)
    assert f"{len(doctor.checks()) - 1} checks passed" in words


def test_check_again_is_a_post_and_looks_anew(admin, settings) -> None:
    assert open_findings() == 0
    settings.CACHEADMIN = settings.CACHEADMIN | {"TENANCY": "shop.cache.Tenancy"}
    before = doctor.latest(300)
    response = admin.post(HEALTH, follow=True)
    assert "Checked: nothing was found." in response.content.decode()
    assert doctor.latest(300) is not before


def test_the_number_beside_the_tab_costs_nothing_twice(admin, round_trips) -> None:
    open_findings()
    with round_trips() as sent:
        open_findings()
    assert sent == []


# --- who may, cost, without Redis -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [URL, DETAIL, HEALTH])
def test_they_take_the_permission_to_see_keys(url) -> None:
    client = Client()
    assert client.get(url).status_code == 302
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(url).status_code == 403
    assert client.post(url).status_code in (403, 405)


@pytest.mark.parametrize("url", [URL, DETAIL, HEALTH])
def test_they_cost_few_queries_and_round_trips(admin, counted, django_assert_max_num_queries, round_trips, url) -> None:
    admin.get(url)
    with django_assert_max_num_queries(12), round_trips() as sent:
        admin.get(url)
    assert len(sent) <= 12  # three a database, of which there are four


@pytest.mark.parametrize("url", [URL, DETAIL, HEALTH])
def test_without_redis_they_say_so(admin, fresh_server, settings, url) -> None:
    server = fresh_server()
    settings.CACHES = {alias: made | {"LOCATION": server.url} for alias, made in settings.CACHES.items()}
    server.stop()
    response = admin.get(url)
    assert response.status_code == 200
    assert "does not answer" in response.content.decode()
    forget_links()


@pytest.mark.parametrize("url", [URL, DETAIL, HEALTH, reverse("admin:cacheadmin_activity_list")])
def test_nothing_is_inline(admin, counted, url) -> None:
    html = admin.get(url).content.decode()
    assert re.findall(r"<style|\sstyle=|\son\w+=", html) == []
    for script in re.findall(r"<script([^>]*)>", html):
        assert " src=" in script or 'type="application/json"' in script
    assert html.count("<h1") == 1
