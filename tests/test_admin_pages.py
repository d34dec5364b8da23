"""What the browsing pages show: lists, entries, values; with hostile data, without Redis, within their budget."""

import os
import pickle
import re

import pytest
from console import (
    client_of,
    console_rates,
    console_stock,
    entry_of,
    inline_of,
    make_run,
    make_shops,
    make_user,
    page,
    pages_of,
    scope_of,
    site_pages,
    text_of,
)
from django.core.cache import caches
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from cacheadmin import browser, connections, envelope
from cacheadmin.admin import ids
from cacheadmin.connections import links
from cacheadmin.invalidation import request
from cacheadmin.models import Activity, Intent, InvalidationRule
from cacheadmin.stats import recorder
from cacheadmin.store import store
from cacheadmin.targets import ALL, Target
from shop.models import Tenant, User

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script>\"'&{{ x }}{% y %}\u202e\x00\x1b[31m"


@pytest.fixture
def ruby():
    return str(make_shops("Ruby & Co", "Gold & Sons")[0].pk)


@pytest.fixture
def filled(ruby):
    for branch in range(1, 4):
        console_stock(ruby, branch)
    console_rates(18)
    return ruby


def browsing_pages(tenant):
    """Return name -> URL of every page that leads from tenants down to an entry, and of the acts' questions."""
    scope = scope_of(Target("tenant", "", tenant))
    return {
        **pages_of(tenant),
        "tenants": page("tenant_list"),
        "all groups": page("group_list"),
        "shared": page("tenant_detail", ids.tenant_id(None)),
        "find": page("find", q="a"),
        "confirm": page("invalidate", on=scope),
        "warm": page("warm", on=scope),
        "clear": page("clear", on="query"),
        "pattern": page("pattern", pattern="*stock?:*"),
        "run": page("run_detail", make_run([tenant]).pk),
    }


def all_pages(tenant):
    """Return name -> URL of every page that answers GET."""
    return {**browsing_pages(tenant), **site_pages()}


# --- the pages ------------------------------------------------------------------------------------------------------


def test_tenants_are_listed_with_what_they_hold(admin, filled):
    text = text_of(admin.get(page("tenant_list")))
    assert re.search(rf"Ruby & Co {filled} .* 3 ~ [\d,.]+\s\w+", text)
    assert text.index("Shared data") < text.index("Ruby & Co")
    assert "No tenant begins with “rubi”." in text_of(admin.get(page("tenant_list", q="rubi")))
    assert "Gold" not in text_of(admin.get(page("tenant_list", q="ru")))


@pytest.mark.parametrize(
    ("alias", "group", "call"),
    [("api", "product_list", "shop.views.products_api(request"), ("query", "console_stock", "console.console_stock(")],
)
def test_the_entries_of_a_group_say_how_its_function_or_view_is_called(admin, filled, alias, group, call):
    answer = admin.get(page("entry_list", ids.tenant_id(filled), ids.group_id(alias, group)))
    assert answer.status_code == 200
    assert call in text_of(answer)


def test_tenants_with_reads_come_first(admin, filled):
    recorder.flush()
    names = re.findall(r"Ruby & Co|Gold & Sons", text_of(admin.get(page("tenant_list"))))
    assert names[0] == "Ruby & Co"
    names = re.findall(r"Ruby & Co|Gold & Sons", text_of(admin.get(page("tenant_list", o="name"))))
    assert names[0] == "Gold & Sons"


def test_a_tenants_groups_link_to_their_entries(admin, filled):
    recorder.flush()
    response = admin.get(page("tenant_detail", ids.tenant_id(filled)))
    assert (
        page("entry_list", ids.tenant_id(filled), ids.group_id("query", "console_stock")) in response.content.decode()
    )
    text = text_of(response)
    assert "console_stock query · function" in text
    assert "Invalidate tenant…" in text


def test_an_empty_tenant_says_since_when(admin, ruby):
    assert text_of(admin.get(page("group_list"))).endswith("Nothing is cached now.")
    assert "Nothing is cached for Ruby & Co now." in text_of(admin.get(page("tenant_detail", ids.tenant_id(ruby))))


def test_entries_are_listed_searched_and_filtered(admin, filled):
    url = pages_of(filled)["entries"]
    text = text_of(admin.get(url))
    assert "All 3 Live 3" in text
    assert "branch=2 Live 1" in text
    assert "1–3 of 3 entries read in" in text
    assert "Read again" in text
    assert "branch=3" in text_of(admin.get(url + "?q=branch:3"))
    assert "No entry contains “nothing”." in text_of(admin.get(url + "?q=nothing"))
    request([Target("tag", "branch:3", filled, "query")])
    orphans = text_of(admin.get(url + "?state=orphan"))
    assert "All 3 Live 2 Orphan 1" in orphans
    assert "branch=2" not in orphans


NONSENSE = ("p=-1", "p=abc", "p=999", "per_page=1e9", "o=;--", "state=nonsense", "at=-5", "at=zz", "q=" + "x" * 5000)


@pytest.mark.parametrize("query", NONSENSE)
def test_nonsense_in_a_query_string_is_the_nearest_valid_page(admin, filled, query):
    for url in pages_of(filled).values():
        assert admin.get(f"{url}?{query}").status_code == 200
    assert "1–3 of 3" in text_of(admin.get(f"{pages_of(filled)['entries']}?{query}")) or query[0] in "qa"


def test_an_entry_shows_facts_scopes_and_value(admin, filled):
    text = text_of(admin.get(pages_of(filled)["entry"]))
    for expected in ("Live", "console.console_stock", "Stands on", "Ruby & Co", "Group console_stock", "Tag branch:1"):
        assert expected in text
    assert "The next read is a hit." in text
    assert "read without running it" in text
    assert 'text: ""' in text
    assert "pickle" in text


@pytest.mark.parametrize(
    ("shown", "expected"), [("json", '"branch": 1'), ("text", "branch: 1"), ("hex", "80 0"), ("?", "Tree")]
)
def test_a_value_is_shown_in_four_ways(admin, filled, shown, expected):
    assert expected in text_of(admin.get(pages_of(filled)["entry"], {"value": shown}))


def test_masked_fields_are_hidden_in_every_view(admin, filled, settings):
    settings.CACHEADMIN = {**settings.CACHEADMIN, "MASK_VALUE": "console.hide_passwords"}
    url = entry_of(filled)
    for shown in ("tree", "json", "text", "hex"):
        response = admin.get(page("entry_detail", url), {"value": shown})
        assert "hunter2" not in response.content.decode(), shown
    assert "hidden by mask" in text_of(admin.get(page("entry_detail", url)))


def test_an_orphan_says_why_and_a_gone_entry_keeps_its_history(admin, filled):
    url = pages_of(filled)["entry"]
    request([Target("tag", "branch:1", filled, "query")])
    text = text_of(admin.get(url))
    assert "This value is never served again." in text
    assert "An epoch it stood on is gone: tag branch:1." in text
    row = browser.entries("query", filled, "console_stock").rows[0]
    request([browser.key_target("query", filled, "console_stock", row.member, row.about)])
    response = admin.get(url)
    assert response.status_code == 404
    assert "Not cached now" in text_of(response)
    assert "What happened to it" in text_of(response)


def test_an_entrys_history_names_people_rules_and_quiet_times(admin, filled):
    Activity.objects.create(
        kind="invalidate",
        source="user",
        who="amira",
        what="x",
        tenants=[filled],
        targets=[Target("group", "console_stock", filled, "query").to_json()],
        at="2026-11-20T10:00Z",
    )
    recorder.invalidated("query", filled, "prefix console", "rule", "stock, sales, gold")
    recorder.flush()
    text = text_of(admin.get(pages_of(filled)["entry"]))
    assert "Computed by" in text
    assert "All groups that begin with console invalidated by stock and 2 more." in text


def test_an_entry_names_the_rules_that_drop_it(admin, filled):
    by_branch = {"kind": "tag", "name": "branch:{id}", "alias": None, "tenant": "same"}
    InvalidationRule.objects.create(name="stock by branch", model="shop.Branch", targets=[by_branch])
    text = text_of(admin.get(pages_of(filled)["entry"]))
    assert "stock by branch when Branch changes, by tag" in text


def test_find_opens_the_one_match_and_lists_more(admin, filled):
    assert admin.get(page("find"), {"q": "Ruby"}).url == page("tenant_detail", ids.tenant_id(filled))
    row = browser.entries("query", filled, "console_stock").rows[0]
    view = browser.entry("query", filled, "console_stock", row.member)
    for text in (view.full_key, f"tenant:{filled}:{row.key}"):
        assert admin.get(page("find"), {"q": text}).url == page("entry_detail", entry_of(filled)), text
    assert "Nothing begins with “zzz”" in text_of(admin.get(page("find"), {"q": "zzz"}))
    assert "Type the beginning" in text_of(admin.get(page("find")))


def test_find_opens_the_entry_of_a_pasted_call(admin, filled):
    entry = browser.entries("query", filled, "console_stock", search="branch=2").rows[0]
    url = page("entry_detail", ids.entry_id("query", filled, "console_stock", entry.member))
    for text in (
        f"console_stock({filled}, 2)",
        f"console.console_stock(tenant_id={filled}, branch=2)",
        "console_stock(branch=2)",
        "branch=2",
        " branch=2, text='' ",
    ):
        assert admin.get(page("find"), {"q": text}).url == url, text
    for text in (
        "console_stock(branch=99)",
        "branch='2'",
        "console_stock(branch=__import__('os'))",
        "(" * 300 + "=",
        "a=9" * 90,
    ):
        assert "Nothing begins with" in text_of(admin.get(page("find"), {"q": text})), text


def test_a_call_of_a_known_tenant_opens_what_happened_even_if_it_is_not_cached(admin, filled):
    response = admin.get(page("find"), {"q": f"console_stock({filled}, branch=99)"}, follow=True)
    assert response.status_code == 404
    assert "Not cached now" in text_of(response)


def test_a_call_opens_entries_of_ones_own_tenants_only(filled):
    other = str(Tenant.objects.get(name="Gold & Sons").pk)
    console_stock(other, 2)
    bound = make_user("ruby", "view_keys", tenant=Tenant.objects.get(pk=filled))
    response = bound.get(page("find"), {"q": "console_stock(branch=2)"})
    entry = browser.entries("query", filled, "console_stock", search="branch=2").rows[0]
    assert response.url == page("entry_detail", ids.entry_id("query", filled, "console_stock", entry.member))
    assert "Nothing begins with" in text_of(bound.get(page("find"), {"q": f"console_stock({other}, 2)"}))


def test_a_group_of_every_tenant_leads_to_its_function(admin, filled):
    name = "console.console_stock"
    assert admin.get(page("find"), {"q": "console_st"}).url == page("function_detail", name)


def test_shared_groups_are_found_by_their_beginning(admin, filled):
    response = admin.get(page("find"), {"q": "console_ra"})
    assert response.url == page("entry_list", ids.tenant_id(None), ids.group_id("default", "console_rates"))


def test_a_site_without_tenants_has_groups_in_their_place(admin, settings):
    settings.CACHEADMIN = {}
    console_rates(22)
    text = admin.get(page("group_list")).content.decode()
    tabs = re.search(r'class="cacheadmin-tabs".*?</nav>', text, re.DOTALL)[0]
    assert ">Groups<" in tabs
    assert ">Tenants<" not in tabs
    assert "console_rates" in text
    assert admin.get(page("tenant_list")).url == page("group_list")
    assert admin.get(pages_of(None)["entries"]).status_code == 200


def test_an_alias_that_is_gone_is_said_so(admin, ruby):
    url = page("entry_list", ids.tenant_id(ruby), ids.group_id("old", "x"))
    response = admin.get(url)
    assert response.status_code == 404
    assert "The alias old is not configured any more." in text_of(response)
    assert admin.get(page("entry_detail", ids.entry_id("old", ruby, "x", "y"))).status_code == 404


@pytest.mark.usefixtures("stock")
def test_plain_keys_are_listed_with_a_bound(admin, ruby):
    caches["default"].set_many({f"tenant:{ruby}:list:{i}": "x" * i for i in range(40)}, 300)
    groups = admin.get(page("tenant_detail", ids.tenant_id(ruby)))
    assert "Plain keys default · written without a group" in text_of(groups)
    text = text_of(admin.get(page("plain_list", ids.tenant_id(ruby), alias="default")))
    assert re.search(rf"tenant:{ruby}:list:7 string (5 min|4 min \d+ s)", text)
    assert "40 found." in text


@pytest.fixture
def stock(settings):
    settings.CACHES = {n: {**each, "BACKEND": "django_redis.cache.RedisCache"} for n, each in settings.CACHES.items()}


@pytest.mark.usefixtures("stock")
def test_a_plain_key_shows_its_value_without_running_it(admin, ruby):
    caches["default"].set(f"tenant:{ruby}:list:1", {"a": [1, 2]}, 300)
    [url] = re.findall(
        r'href="([^"]*/entries/[^"]*)"',
        admin.get(page("plain_list", ids.tenant_id(ruby), alias="default")).content.decode(),
    )
    text = text_of(admin.get(url))
    assert f"tenant:{ruby}:list:1" in text
    assert "dict, 1 key" in text
    assert "Invalidate…" in text
    caches["default"].delete(f"tenant:{ruby}:list:1")
    assert admin.get(url).status_code == 404


@pytest.mark.usefixtures("stock")
def test_keys_that_are_no_text_or_no_strings_are_listed_and_opened(admin, ruby, redis):
    names = [f"jewelry_shop:1:tenant:{ruby}:{odd}:x".encode() for odd in ("a/b?c#d%41", "line\nbreak", "<b>", "\u202e")]
    names.append(f"jewelry_shop:1:tenant:{ruby}:".encode() + b"\xff\xfe:x")
    for name in names:
        redis.set(name, name)
    redis.rpush(f"jewelry_shop:1:tenant:{ruby}:a:queue", 1)
    body = admin.get(page("plain_list", ids.tenant_id(ruby), alias="default")).content.decode()
    urls = re.findall(r'href="([^"]*/entries/[^"]*)"', body)
    assert len(urls) == 6
    assert len(re.findall('name="chosen"', body)) == 5  # not the one whose name is no text
    pages = [text_of(admin.get(url, {"value": "hex"})) for url in urls]
    assert sum("\\udcff\\udcfe" in text for text in pages) == 1
    assert sum("A list of Redis." in text for text in pages) == 1
    for scope in re.findall('name="chosen" value="([^"]+)"', body):
        admin.post(page("invalidate"), {"on": scope, "confirmed": "yes"})
    assert redis.keys("jewelry_shop:1:*") == [names[-1]]


def test_tenants_can_be_narrowed_to_those_with_a_reason(admin, filled):
    recorder.flush()
    assert "Ruby" not in text_of(admin.get(page("tenant_list", show="quiet")))
    assert "Gold" in text_of(admin.get(page("tenant_list", show="quiet")))
    assert "No tenant misses more than usual." in text_of(admin.get(page("tenant_list", show="worse")))
    assert "No tenant waits for an invalidation." in text_of(admin.get(page("tenant_list", show="waiting")))
    Intent.objects.create(due="2026-01-01T00:00Z", payload={"targets": [Target("tenant", "", filled).to_json()]})
    assert "Ruby & Co" in text_of(admin.get(page("tenant_list", show="waiting")))


def test_a_group_says_how_many_rules_drop_it(admin, filled):
    url = pages_of(filled)["entries"]
    assert "Rules 1 drop this group" in text_of(admin.get(url))  # the shop's own: saving a tenant drops all of it
    InvalidationRule.objects.create(
        name="stock",
        model="shop.Branch",
        targets=[{"kind": "prefix", "name": "console", "alias": None, "tenant": "same"}],
    )
    assert "Rules 2 drop this group" in text_of(admin.get(url))


# --- frame ----------------------------------------------------------------------------------------------------------


def test_the_current_tab_is_marked_and_alias_and_range_stay(admin, filled):
    body = admin.get(page("tenant_list", alias="query", range="24h", q="x")).content.decode()
    assert re.search(r'href="[^"]*/tenants/\?[^"]*"\s+aria-current="page"', body)
    assert f'{page("activity_list")}?alias=query&amp;range=24h"' in body
    assert body.count("<h1") == 1


def test_breadcrumbs_lead_down_and_suit_each_django(admin, filled, monkeypatch):
    monkeypatch.setattr("django.VERSION", (5, 2, 0, "final", 0))
    body = admin.get(pages_of(filled)["entries"]).content.decode()
    crumbs = re.search(r'<div class="breadcrumbs">(.*?)</div>', body, re.DOTALL)[1]
    assert re.sub(r"<[^>]+>", "", crumbs).split(" &rsaquo; ") == [
        "Home",
        "Cache",
        "Tenants",
        "Ruby &amp; Co",
        "console_stock",
    ]
    monkeypatch.setattr("django.VERSION", (6, 1, 0, "final", 0))
    body = admin.get(pages_of(filled)["entries"]).content.decode()
    assert '<ol class="breadcrumbs"><li>' in body
    assert '<li aria-current="page">console_stock</li>' in body


def test_another_admin_site_has_its_own_links(filled):
    client = client_of(User.objects.create_superuser("second"))
    with override_settings(ROOT_URLCONF="console_urls"):
        body = client.get(f"/back/cacheadmin/console/tenants/{ids.tenant_id(filled)}/").content.decode()
    assert "/back/cacheadmin/console/" in body
    assert "/admin/cacheadmin/" not in body


# --- hostile --------------------------------------------------------------------------------------------------------


def test_hostile_names_and_values_are_text_on_every_page(admin):
    [shop] = make_shops(HOSTILE.replace("\x00", ""))
    tenant = str(shop.pk)
    console_stock(tenant, 1, HOSTILE)
    caches["default"].set(f"tenant:{tenant}:{HOSTILE}:{HOSTILE}", HOSTILE, 60)
    pages = all_pages(tenant)
    pages["hostile entries"] = page("entry_list", ids.tenant_id(tenant), ids.group_id("default", HOSTILE))
    pages["hostile entry"] = page("entry_detail", entry_of(tenant, "default", HOSTILE))
    for name, url in pages.items():
        body = admin.get(url, follow=True).content.decode()
        assert "<script>alert" not in body, name
        assert not {"\u202e", "\x1b", "\x00"} & set(body), name
    for shown in ("tree", "json", "text", "hex"):
        body = admin.get(pages["hostile entry"], {"value": shown}).content.decode()
        assert "<script>alert" not in body


def test_no_page_has_anything_inline(admin, filled):
    Activity.objects.create(kind="invalidate", source="user", who="amira", what=HOSTILE, targets=[])
    for name, url in all_pages(filled).items():
        assert inline_of(admin.get(url, follow=True).content.decode()) == [], name
    for url in (
        page("tenant_detail", "no~such"),
        page("invalidate"),
        page("entry_detail", entry_of(filled)) + "?value=json",
    ):
        assert inline_of(admin.get(url).content.decode()) == []


def test_opening_a_malicious_pickle_runs_nothing_and_says_what_it_names(admin, filled, tmp_path):
    canary = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    member = browser.entries("query", filled, "console_stock").rows[0].member
    key = browser.entry("query", filled, "console_stock", member).full_key
    link = store("query").link
    stored = link.call(("GET", key)).values[0]
    link.call(("SET", key, stored[: envelope.parse(stored).payload_start] + pickle.dumps(Evil())))
    for shown in ("tree", "json", "text", "hex"):
        response = admin.get(page("entry_detail", entry_of(filled)), {"value": shown})
        assert response.status_code == 200
        assert "names posix.system: loading it could run code" in text_of(response)
    assert not canary.exists()


def test_values_of_any_bytes_are_shown(admin, filled):
    member = browser.entries("query", filled, "console_stock").rows[0].member
    key = browser.entry("query", filled, "console_stock", member).full_key
    for stored in (b"", b"\xff" * 300, b"[" * 100_000, os.urandom(5000), b"\x80\x04" + b"(" * 50_000):
        store("query").link.call(("SET", key, b"\x01\x01" + stored))
        assert admin.get(page("entry_detail", entry_of(filled))).status_code in (200, 404)


def test_a_large_value_is_read_in_part(admin, filled):
    console_stock(filled, 9, "x" * 3_000_000)
    row = next(r for r in browser.entries("query", filled, "console_stock").rows if r.tags == ("branch:9",))
    response = admin.get(
        page("entry_detail", ids.entry_id("query", filled, "console_stock", row.member)), {"value": "text"}
    )
    assert "truncated at 64.0 KB" in text_of(response)
    assert len(response.content) < 400_000


# --- without Redis --------------------------------------------------------------------------------------------------


def all_pages_without_redis(tenant):
    """Return URLs that can be built while Redis is away."""
    scope = scope_of(Target("tenant", "", tenant))
    return {
        "tenants": page("tenant_list"),
        "groups": page("tenant_detail", ids.tenant_id(tenant)),
        "all groups": page("group_list"),
        "entries": page("entry_list", ids.tenant_id(tenant), ids.group_id("query", "console_stock")),
        "plain": page("plain_list", ids.tenant_id(tenant)),
        "find": page("find", q="zz"),
        "confirm": page("invalidate", on=scope),
        "warm": page("warm", on=scope),
        "clear": page("clear", on="query"),
        "pattern": page("pattern", pattern="*stock?:*"),
        **site_pages(),
    }


@pytest.fixture
def away(monkeypatch):
    monkeypatch.setattr(links, "server_url", lambda alias: "redis://127.0.0.1:1/0")
    connections.forget_links()
    yield
    monkeypatch.undo()
    connections.forget_links()


@pytest.mark.usefixtures("away")
def test_every_page_comes_and_says_that_redis_is_away(admin, ruby):
    for name, url in all_pages_without_redis(ruby).items():
        response = admin.get(url, follow=True)
        assert response.status_code == 200, name
        assert re.search(r"Redis \([\w, ]+\) does not answer since \d\d:\d\d:\d\d", text_of(response)), name
    entry = admin.get(page("entry_detail", ids.entry_id("query", ruby, "console_stock", "x")))
    assert entry.status_code == 503
    assert "while Redis is away" in text_of(entry)


@pytest.mark.usefixtures("away")
def test_without_redis_invalidate_stays_and_warm_is_absent(admin, ruby):
    text = text_of(admin.get(page("invalidate", on=scope_of(Target("tenant", "", ruby)))))
    assert "Will be recorded now and done as soon as Redis answers." in text
    assert "Invalidate" in text
    warm = admin.get(page("warm", on=scope_of(Target("tenant", "", ruby)))).content.decode()
    assert 'class="cacheadmin-button cacheadmin-button-main"' not in warm


# --- budget ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Count round trips by alias."""
    made = {}
    call = connections.Link.call

    def counted(self, *commands, **options):
        made[self.alias] = made.get(self.alias, 0) + 1
        return call(self, *commands, **options)

    monkeypatch.setattr(connections.Link, "call", counted)
    return made


def test_no_page_costs_more_than_twelve_queries_and_three_round_trips_a_database(admin, filled, calls):
    recorder.flush()
    by_tag = page("invalidate", on=scope_of(Target("tag", "branch:1", filled, "query")))
    pages = {**browsing_pages(filled), "tag": by_tag}
    for url in pages.values():
        admin.get(url, follow=True)  # scripts are loaded, content types and permissions known
    for name, url in pages.items():
        calls.clear()
        with CaptureQueriesContext(connection) as queries:
            admin.get(url)
        assert len(queries) <= 12, (name, [query["sql"][:90] for query in queries])
        assert max(calls.values(), default=0) <= 3, (name, calls)


def test_the_number_of_queries_does_not_grow_with_tenants_or_entries(admin, filled):
    def cost(url):
        with CaptureQueriesContext(connection) as queries:
            admin.get(url)
        return len(queries)

    urls = [page("tenant_list"), pages_of(filled)["groups"], pages_of(filled)["entries"]]
    few = [cost(url) for url in urls + urls][len(urls) :]  # content types and permissions are known
    Tenant.objects.bulk_create(Tenant(name=f"T{i}", slug=f"t{i}") for i in range(120))
    for i in range(30):
        console_stock(filled, 10 + i)
    assert [cost(url) for url in urls] == few


def test_all_tenants_confirm_within_the_budget(admin, filled, calls):
    url = page("invalidate", on=scope_of(Target("group", "console_stock", ALL, "query")))
    admin.get(url)
    calls.clear()
    assert admin.get(url).status_code == 200
    assert max(calls.values()) <= 3
