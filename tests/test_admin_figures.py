"""Figures of the console against what is known: previews, how often rules fire, confirm pages, what leaves a line."""

import html
import re

import pytest
from console import client_of, console_stock, entry_of, make_items, make_shops, page, scope_of, text_of
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cacheadmin import ABSENT, browser, rules
from cacheadmin.admin import formats, rule_list, runs
from cacheadmin.models import Activity, InvalidationRule
from cacheadmin.overview import overview
from cacheadmin.stats import recorder
from cacheadmin.targets import Target
from shop.inventory import inventory_card, inventory_list
from shop.models import Tenant, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("within_a_minute")]


@pytest.fixture
def item():
    return make_items(Tenant.objects.create(name="Ruby & Co", slug="ruby"))[0]


def folded(text):
    """Return a text with plain spaces."""
    return re.sub(r"\s+", " ", text)


# --- the preview of a rule ------------------------------------------------------------------------------------------


def test_the_preview_shows_bytes_groups_and_entries_to_look_at(admin, item):
    tenant = item.tenant_id
    for number in (1, 2, 3, 4):
        inventory_list(tenant, page=number)
    inventory_card(tenant)
    listed = browser.entries("query", str(tenant), "inventory_list").rows
    card = browser.entries("query", str(tenant), "inventory_card").rows
    whole, of_lists = (sum(row.size_bytes for row in rows) for rows in ((*listed, *card), listed))
    sent = {
        "model": "shop.InventoryItem",
        "events": ["update"],
        "targets-kind": ["group", "group"],
        "targets-name": ["inventory_list", "inventory_card"],
        "targets-alias": ["", ""],
        "targets-tenant": ["same", "same"],
        "preview_tenant": str(tenant),
    }
    answer = admin.post(reverse("admin:cacheadmin_invalidationrule_preview"), sent).json()["html"]
    text = text_of(answer)
    size = folded(formats.size(whole))
    assert f"Saving one inventory item would drop 5 entries, {size}, in 2 groups." in text
    assert re.search(rf"inventory_list query 4 {re.escape(folded(formats.size(of_lists)))} ", text)
    found = re.findall(r'<li><a href="([^"]+)"><code>(.*?)</code></a></li>', answer)
    known = {row.arguments or "no arguments" for row in listed}
    assert len(known) == 4
    assert len(found) == len({label for _url, label in found}) == 3
    assert {html.unescape(label) for _url, label in found} < known
    for url, label in found:
        assert html.unescape(label) in text_of(admin.get(html.unescape(url)))


# --- rules: how often, who and when -----------------------------------------------------------------------------------


def test_the_list_says_how_often_a_rule_fires_an_hour(admin):
    fired = {"often": 120, "seldom": 1, "never": 0}
    for name in fired:
        InvalidationRule.objects.create(name=name, model="shop.Branch", targets=["group:x"])
    recorder.reset()  # a rule that is new drops what it names
    for name, times in fired.items():
        for _ in range(times):
            recorder.invalidated("query", "12", "group x", "rule", name)
    assert recorder.flush()
    answer = admin.get(page("invalidationrule_changelist"), {"source": "database"}).content.decode()
    cells = {
        name: html.unescape(re.search(rf">{name}</a>.*?title=\"([^\"]*)\">([^<]*)</td>", answer, re.DOTALL)[2])
        for name in fired
    }
    assert cells == {"often": "120", "seldom": "1.0", "never": "0"}  # the site has counted for less than an hour
    assert 'title="120 times in 24 hours"' in answer
    assert [rule_list.Fired(n).per_hour for n in (0, 2, 3, 24, 24 * 12)] == ["0", "<0.1", "0.1", "1.0", "12"]


def test_the_history_of_a_rule_says_who_and_when(admin, amira):
    made = InvalidationRule.objects.create(name="stock", model="shop.Branch", targets=["group:x"])
    other = User.objects.create_superuser("bianca")
    begun = timezone.now()
    for client, action in ((admin, "switch_off"), (client_of(other), "switch_on")):
        client.post(page("invalidationrule_changelist"), {"action": action, "_selected_action": [made.pk]})
    answer = admin.get(page("invalidationrule_history", made.pk))
    assert [entry.user for entry in answer.context["entries"]] == [other, amira]
    assert all(begun <= entry.action_time <= timezone.now() for entry in answer.context["entries"])
    rows = re.findall(
        r"<tr><td[^>]*>(.*?)</td><td>(.*?)</td><th[^>]*>(.*?)</th></tr>", answer.content.decode(), re.DOTALL
    )
    assert [(who, re.sub("<[^>]+>", "", what)) for _when, who, what in rows] == [
        ("bianca", "enabled: off → on"),
        ("amira", "enabled: on → off"),
    ]
    assert all(f"{timezone.localtime(begun).year}" in when for when, _who, _what in rows)  # the exact time, as a title


# --- before an act --------------------------------------------------------------------------------------------------


def test_the_question_knows_memory_and_work_to_recompute(admin):
    ruby = str(make_shops("Ruby & Co", "Gold & Sons")[0].pk)
    for branch in range(1, 4):
        console_stock(ruby, branch, text="x" * 4000)
    sizes = [row.size_bytes for row in browser.entries("query", ruby, "console_stock").rows]
    recorder.reset()
    for seconds in (1.0, 3.0):  # a mean of two seconds, three times
        recorder.computed("query", "console_stock", ruby, seconds)
    assert recorder.flush()
    text = text_of(admin.get(page("invalidate", on=scope_of(Target("tenant", "", ruby)))))
    size = folded(formats.size(sum(sizes)))
    assert size.endswith("KB")
    assert f" Memory {size} " in text
    assert " Work to recompute 6.0 s " in text
    assert re.search(rf" console_stock query 3 {re.escape(size)} 6.0 s ", text)
    one = text_of(admin.get(page("invalidate", on=scope_of(_key_of(ruby)))))
    assert " Work to recompute 2.0 s " in one


def _key_of(tenant):
    [row, *_rest] = browser.entries("query", tenant, "console_stock").rows
    assert entry_of(tenant)
    return Target("key", row.key, tenant, "query")


def test_a_size_is_marked_as_an_estimate_wherever_not_every_entry_was_weighed(admin, item):
    tenant = str(item.tenant_id)
    urls = {
        "tenants": page("tenant_list", o="name"),
        "question": page("invalidate", on=scope_of(Target("tenant", "", tenant))),
        "group": page("invalidate", on=scope_of(Target("group", "inventory_list", tenant, "query"))),
        "panel": reverse("admin:shop_inventoryitem_cached_data", args=[item.pk]),
    }
    sent = {"model": "shop.InventoryItem", "events": ["update"], "preview_tenant": tenant}
    sent |= {"targets-kind": ["group"], "targets-name": ["inventory_list"], "targets-alias": [""]}
    sent |= {"targets-tenant": ["same"]}

    def shown():
        rule = admin.post(reverse("admin:cacheadmin_invalidationrule_preview"), sent).json()["html"]
        found = {name: text_of(admin.get(url)) for name, url in urls.items()}
        return found | {"rule": text_of(rule)}

    def sizes(texts):
        """Return the sizes on each page, with what stands before them; no bytes at all are exact."""
        return {name: set(re.findall(r"(~? ?)\b[1-9][\d.,]* (?:bytes|KB)", text)) for name, text in texts.items()}

    inventory_list(item.tenant_id)
    inventory_list(item.tenant_id, page=2)
    few = shown()
    assert re.search(r"Ruby & Co \S+ .*? 2 \d+ bytes", few["tenants"])
    assert all("~ " not in found for found in sizes(few).values())
    assert all(sizes(few)[name] for name in few)
    for number in range(3, 21):  # of which eight are weighed, two on the list of tenants
        inventory_list(item.tenant_id, page=number)
    many = shown()
    assert sizes(many) == {name: {"~ "} for name in many}
    assert re.search(r" Memory ~ [\d.]+ KB ", many["question"])
    assert re.search(r"drop 20 entries, ~ [\d.]+ KB, in 1 group\.", many["rule"])
    assert re.search(r"drop 20 entries, ~ [\d.]+ KB, in 1 group\.", many["panel"])
    assert browser.blast([Target("tenant", "", tenant)]).is_exact  # entries are counted, not sampled


# --- what leaves a line, and a mark -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_no_save_leaves_a_line_in_the_table_of_activity(item):
    assert rules.for_model("shop.InventoryItem")
    tenant = item.tenant_id
    with CaptureQueriesContext(connection) as queries:
        for price in range(200, 205):
            inventory_list(tenant)
            item.price = price
            item.save()
            assert inventory_list.peek(tenant) is ABSENT  # the rule fired
    assert any("shop_inventoryitem" in query["sql"] for query in queries)
    assert [query["sql"] for query in queries if Activity._meta.db_table in query["sql"]] == []
    assert not Activity.objects.exists()
    assert recorder.flush()
    assert sum(rule.fired.times for rule in _listed() if rule.name == "inventory") >= 5  # summed, in Redis


def _listed():
    from django.contrib.admin import site

    return rule_list.listed(site, may_add=False, with_figures=True).rows


def test_clearing_an_alias_is_marked_on_the_charts(admin, monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda job: job())
    ruby = str(make_shops("Ruby & Co")[0].pk)
    console_stock(ruby, 1)
    admin.post(page("clear"), {"on": "query", "name": "query"})
    assert Activity.objects.get().state == "done"
    assert recorder.flush()
    marks = [(mark.kind, mark.text, mark.tenant) for mark in overview().marks]
    assert [mark for mark in marks if mark[0] == "clear"] == [("clear", "query", "*")]  # a new tenant's rule is another
    assert "query cleared" in html.unescape(admin.get(page("console_changelist")).content.decode())
