"""What the console and the commands list: groups, entries, plain keys, and what an invalidation would hit."""

import os
import pickle
import time
from importlib import import_module

import pytest
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import browser, connections, envelope
from cacheadmin.browser import counts
from cacheadmin.exceptions import CacheAway
from cacheadmin.functions import cache_query_result, cache_tenant_query, registry
from cacheadmin.invalidation import request
from cacheadmin.keys import Entry
from cacheadmin.models import Intent
from cacheadmin.store import store
from cacheadmin.targets import ALL, Target

HOSTILE = (
    "a*b?[c]",
    "\\",
    "x:y",
    "{z}",
    "50%",
    "line\nbreak",
    "tab\t",
    "Ñandú ✓",
    "\u202eevil",
    "-",
    "~~",
    "a" * 10_000,
)


@pytest.fixture(autouse=True)
def _own_functions():
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


@pytest.fixture(autouse=True)
def _takes_its_time(monkeypatch):
    """A look ends where it is complete, not where a busy machine has used up its second."""
    monkeypatch.setattr(import_module("cacheadmin.browser.entries"), "SEARCH_SECONDS", 3600.0)
    assert "seconds" in browser.plain_keys.__kwdefaults__
    monkeypatch.setitem(browser.plain_keys.__kwdefaults__, "seconds", 3600.0)


@pytest.fixture
def stock():
    @cache_tenant_query(timeout=900, key_prefix="stock_list", tags=["branch:{branch}"], grace=60)
    def stock_list(tenant_id, branch=1, text=""):
        return [{"branch": branch, "text": text, "tenant": tenant_id}]

    return stock_list


def fill(function, count, tenant="12", **kwargs):
    """Cache `count` entries, each a millisecond or more after the one before: the index is in order of expiry."""
    for branch in range(count):
        function(tenant, branch, **kwargs)
        time.sleep(0.002)


def clone(alias, tenant, group, count):
    """Copy the one entry of a group `count` times, with rising expiry, without computing anything."""
    where = store(alias)
    names = where.place(tenant).group(group)
    [member] = where.link.call(("ZRANGE", names.index, 0, 0)).values[0]
    stored = where.link.call(("GET", names.values + member.decode())).values[0]
    now = int(time.time() * 1000)
    for start in range(0, count, 1000):
        batch = range(start, min(start + 1000, count))
        commands = [("SET", f"{names.values}abcdef!n={i:06}", stored, "PX", 10_000_000) for i in batch]
        scores = [x for i in batch for x in (now + 1_000_000 + i * 10, f"abcdef!n={i:06}")]
        where.link.call(*commands, ("ZADD", names.index, *scores))


# --- groups ---------------------------------------------------------------------------------------------------------


def test_groups_of_a_tenant_are_counted_and_weighed(stock):
    fill(stock, 5)
    fill(stock, 2, tenant="13")
    [group] = browser.groups_of(["12"])
    assert (group.alias, group.tenant, group.group, group.entries) == ("query", "12", "stock_list", 5)
    assert group.kind == "function"
    assert group.is_weighed_whole
    assert group.size_bytes > 500
    assert not group.is_orphaned


def test_groups_of_another_tenant_are_not_among_them(stock):
    fill(stock, 2, tenant="13")
    assert browser.groups_of(["12", None]) == []


def test_shared_data_is_a_tenant_of_its_own():
    @cache_query_result(timeout=None, key_prefix="rates", shared=True)
    def rates(karat):
        return karat

    rates(18)
    caches["default"].set("site:banner", "hello")
    assert [(g.alias, g.group, g.kind) for g in browser.groups_of([None])] == [
        ("query", "rates", "function"),
        ("default", "site", "plain"),
    ]


def test_an_invalidated_group_is_all_orphans(stock):
    fill(stock, 3)
    request([Target("group", "stock_list", "12", "query")])
    [group] = browser.groups_of(["12"])
    assert group.is_orphaned
    assert group.entries == 3


def test_groups_are_listed_in_two_round_trips_an_alias_whatever_their_size(stock, round_trips):
    fill(stock, 1)
    clone("query", "12", "stock_list", 3000)
    browser.groups_of(["12"])
    with round_trips() as sent:
        [group] = browser.groups_of(["12", "13", None])
    assert group.entries == 3001
    assert not group.is_weighed_whole
    assert all("SCAN" not in item.split() for item in sent)
    assert len(sent) <= 2 * len(browser.indexed_aliases())


def test_a_lost_registry_hides_no_group_of_a_known_function(stock, redis):
    fill(stock, 2)
    store("query").link.call(("UNLINK", store("query").place("12").registry()))
    assert [group.group for group in browser.groups_of(["12"])] == ["stock_list"]


def test_an_alias_that_is_away_is_left_out_and_all_away_is_an_error(stock, monkeypatch):
    fill(stock, 1)
    link = connections.link("default")
    monkeypatch.setattr(link, "call", lambda *a, **k: (_ for _ in ()).throw(CacheAway("gone")))
    assert [group.alias for group in browser.groups_of(["12"])] == ["query"]
    with pytest.raises(CacheAway):
        browser.groups_of(["12"], alias="default")


@pytest.mark.parametrize("tenant", HOSTILE)
def test_hostile_tenants_are_browsed_like_any(stock, tenant):
    stock(tenant, 1)
    [group] = browser.groups_of([tenant])
    [row] = browser.entries("query", tenant, "stock_list").rows
    view = browser.entry("query", tenant, "stock_list", row.member)
    assert group.entries == 1
    assert view.state == row.state == "live"
    request([browser.key_target("query", tenant, "stock_list", row.member, row.about)])
    assert browser.entries("query", tenant, "stock_list").total == 0


@pytest.mark.parametrize("group", [name for name in HOSTILE if name != "-"])
def test_hostile_groups_and_keys_are_browsed_like_any(group):
    key = f"tenant:12:{group.replace(':', ';')}:{group.replace(':', ';')}"
    caches["default"].set(key, "value", 60)
    [found] = browser.groups_of(["12"])
    [row] = browser.entries("default", "12", found.group).rows
    target = browser.key_target("default", "12", found.group, row.member, row.about)
    assert browser.entry("default", "12", found.group, row.member).state == "live"
    if target.kind == "key":
        assert browser.blast([target]).entries == 1
    request([target])
    assert caches["default"].get(key) is None


# --- entries --------------------------------------------------------------------------------------------------------


def test_entries_come_soonest_to_expire_first_with_what_is_known_of_them(stock):
    fill(stock, 3)
    page = browser.entries("query", "12", "stock_list")
    assert [row.arguments for row in page.rows] == ["branch=0", "", "branch=2"]  # 1 is the default
    assert {row.state for row in page.rows} == {"live"}
    assert page.rows[0].tags == ("branch:0",)
    assert 890 < page.rows[0].expires_in <= 900
    assert page.rows[0].function == f"{__name__}.stock.<locals>.stock_list"
    assert page.rows[0].size_bytes > 100
    assert (page.total, page.is_whole, page.has_next) == (3, True, False)


def test_states_tell_what_the_next_read_would_do(stock, redis):
    fill(stock, 4)
    rows = {row.tags[0]: row for row in browser.entries("query", "12", "stock_list").rows}
    names = store("query").place("12").group("stock_list")
    soon = int(time.time() * 1000) + 30_000
    store("query").link.call(("ZADD", names.index, soon, rows["branch:0"].member))
    request([Target("tag", "branch:2", "12", "query")])
    waiting = [Target("key", rows["branch:3"].key, "12", "query")]
    page = browser.entries("query", "12", "stock_list", waiting=waiting)
    assert {row.tags[0]: row.state for row in page.rows} == {
        "branch:0": "stale",
        "branch:1": "live",
        "branch:2": "orphan",
        "branch:3": "waiting",
    }
    assert page.counts == {"live": 1, "stale": 1, "waiting": 1, "orphan": 1}
    assert 0 < page.rows[0].expires_in <= 30  # of grace


def test_an_invalidated_group_lists_its_orphans_and_a_deleted_entry_is_not_listed(stock):
    fill(stock, 3)
    first = browser.entries("query", "12", "stock_list").rows[0]
    request([browser.key_target("query", "12", "stock_list", first.member, first.about)])
    assert browser.entries("query", "12", "stock_list").total == 2
    request([Target("tenant", "", "12", "query")])
    assert browser.entries("query", "12", "stock_list").counts["orphan"] == 2


def test_another_server_makes_orphans(stock, monkeypatch):
    fill(stock, 1)
    monkeypatch.setattr(connections.lines, "identity_of", lambda sections: bytes(range(8)))
    connections.forget_links()
    [row] = browser.entries("query", "12", "stock_list").rows
    assert row.state == "orphan"
    assert not browser.entry("query", "12", "stock_list", row.member).same_server


def test_a_small_group_is_sorted_by_size_and_searched_as_plain_text(stock):
    for text in ("aaa", "a" * 300, "100% off*", "sale"):
        stock("12", 1, text)
    sizes = [row.size_bytes for row in browser.entries("query", "12", "stock_list", order="-size").rows]
    assert sizes == sorted(sizes, reverse=True)
    assert len(browser.entries("query", "12", "stock_list", search="% OFF*").rows) == 1
    assert browser.entries("query", "12", "stock_list", search="*").total == 1  # no pattern
    assert browser.entries("query", "12", "stock_list", search="branch:1").total == 4  # the tag
    assert browser.entries("query", "12", "stock_list", state="orphan").rows == ()


def test_a_group_of_a_thousand_is_sorted_by_size_in_two_round_trips(stock, commandstats, round_trips):
    fill(stock, 1)
    clone("query", "12", "stock_list", 997)
    stock("12", 7, "a" * 5000)
    stock("12", 8, "a" * 300)
    names, link = store("query").place("12").group("stock_list"), store("query").link
    browser.entries("query", "12", "stock_list")  # loads the script
    with commandstats() as calls, round_trips() as sent:
        page = browser.entries("query", "12", "stock_list", order="-size", limit=3)
    assert (page.is_whole, page.total, len(sent)) == (True, 1000, 2)
    assert calls["getrange"] == 1000
    assert calls["evalsha"] == 2  # none looks at more than 500 values
    known = {m.decode(): link.call(("STRLEN", names.values + m.decode())).values[0] for m in _members(names, link)}
    assert len(known) == 1000
    listed = browser.entries("query", "12", "stock_list", order="size", limit=1000).rows
    assert {row.member: row.size_bytes for row in listed} == known
    assert [row.size_bytes for row in listed] == sorted(known.values())
    stock("12", 9)
    assert not browser.entries("query", "12", "stock_list", order="size").is_whole


def _members(names, link):
    return link.call(("ZRANGE", names.index, 0, -1)).values[0]


def test_a_page_costs_two_round_trips_and_no_scan_for_ten_and_for_many(stock, commandstats, round_trips):
    fill(stock, 10)
    browser.entries("query", "12", "stock_list")  # loads the script
    with commandstats() as few, round_trips() as sent_few:
        browser.entries("query", "12", "stock_list")
    clone("query", "12", "stock_list", 5000)
    with commandstats() as many, round_trips() as sent_many:
        page = browser.entries("query", "12", "stock_list", offset=3000, limit=10)
    assert sent_few == sent_many == ["EVALSHA", "MGET"]
    assert page.round_trips == 2
    assert "scan" not in few | many
    assert {name: calls for name, calls in many.items() if name not in ("strlen", "getrange")} == {
        name: calls for name, calls in few.items() if name not in ("strlen", "getrange")
    }
    assert many["getrange"] == 10


def test_a_large_group_is_paged_from_its_index(stock):
    fill(stock, 1)
    clone("query", "12", "stock_list", 1200)
    seen, offset = [], 0
    while True:
        page = browser.entries("query", "12", "stock_list", offset=offset, limit=200)
        assert not page.is_whole
        assert page.total == 1201
        seen += [row.member for row in page.rows]
        if not page.has_next:
            break
        offset += 200
    assert len(seen) == len(set(seen)) == 1201
    last = browser.entries("query", "12", "stock_list", limit=1, order="-expires")
    assert last.rows[0].member == "abcdef!n=001199"


def test_a_search_in_a_large_group_goes_on_where_it_stopped(stock):
    fill(stock, 1)
    clone("query", "12", "stock_list", 2500)
    names = store("query").place("12").group("stock_list")
    marked = browser.entries("query", "12", "stock_list", offset=2400, limit=3).rows
    for row in marked:
        key = names.values + row.member
        stored = store("query").link.call(("GET", key)).values[0]
        store("query").link.call(("SET", key, stored.replace(b'"branch=0"', b'"needle=7"')))
    found, offset, steps = [], 0, 0
    while offset is not None:
        page = browser.entries("query", "12", "stock_list", search="needle", offset=offset, limit=2)
        found += [row.member for row in page.rows]
        offset, steps = page.next_offset, steps + 1
    assert found == [row.member for row in marked]
    assert steps == 2
    assert page.searched == page.total == 2501


def test_a_group_that_is_not_there_or_whose_index_is_broken_is_empty(stock, redis):
    assert browser.entries("query", "12", "nothing").total == 0
    fill(stock, 1)
    store("query").link.call(("SET", store("query").place("12").group("stock_list").index, "not a set"))
    assert browser.entries("query", "12", "stock_list").rows == ()
    assert browser.groups_of(["12"]) == []


def test_foreign_bytes_and_wrong_types_among_entries_break_nothing(stock):
    fill(stock, 1)
    names, link = store("query").place("12").group("stock_list"), store("query").link
    link.call(("SET", names.values + "raw", bytes(range(255, 105, -1)) * 2), ("HSET", names.values + "hash", "a", "b"))
    soon = int(time.time() * 1000) + 60_000
    link.call(("ZADD", names.index, soon, "raw", soon, "hash", soon, b"\xff\xfe"))
    page = browser.entries("query", "12", "stock_list")
    assert [(row.member, row.state) for row in page.rows] == [("raw", "orphan"), (page.rows[1].member, "live")]
    view = browser.entry("query", "12", "stock_list", "raw")
    assert not view.is_ours
    assert len(view.payload) == 300
    assert browser.entry("query", "12", "stock_list", "hash") is None


def test_backends_without_an_index_list_nothing():
    caches_with_local = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(CACHES=caches_with_local, CACHEADMIN={"ALIASES": ["default"]}):
        assert browser.indexed_aliases() == []
        assert browser.groups_of([None]) == []
        assert browser.entries("default", None, "any").rows == ()
        assert browser.entry("default", None, "any", "x") is None
        assert browser.away() == []


# --- one entry ------------------------------------------------------------------------------------------------------


def test_an_entry_shows_what_it_stands_on(stock):
    fill(stock, 2)
    row = browser.entries("query", "12", "stock_list").rows[0]
    view = browser.entry("query", "12", "stock_list", row.member)
    assert [(scope.kind, scope.name, scope.matches) for scope in view.scopes] == [
        ("tenant", "12", True),
        ("group", "stock_list", True),
        ("tag", "branch:0", True),
    ]
    assert view.about["fn"].endswith("stock_list")
    assert view.full_key == Entry(store("query").place("12").group("stock_list"), row.member).key
    request([Target("tag", "branch:0", "12", "query")])
    view = browser.entry("query", "12", "stock_list", row.member)
    assert view.state == "orphan"
    assert [scope.kind for scope in view.scopes if not scope.matches] == ["tag"]
    assert browser.entry("query", "12", "stock_list", "gone") is None
    assert browser.entry("query", "13", "stock_list", row.member) is None


def test_only_the_beginning_of_a_large_value_is_read():
    @cache_tenant_query(timeout=60, key_prefix="blob", alias="default")
    def blob(tenant_id):
        return os.urandom(3_000_000)

    blob("12")
    [row] = browser.entries("default", "12", "blob").rows
    view = browser.entry("default", "12", "blob", row.member)
    assert len(view.payload) == 64 * 1024
    assert view.payload_bytes > 3_000_000
    assert view.round_trips == 1


def test_opening_a_malicious_pickle_runs_nothing(stock, tmp_path):
    fill(stock, 1)
    canary = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    [row] = browser.entries("query", "12", "stock_list").rows
    key = browser.entry("query", "12", "stock_list", row.member).full_key
    link = store("query").link
    stored = link.call(("GET", key)).values[0]
    header = envelope.parse(stored)
    link.call(("SET", key, stored[: header.payload_start] + pickle.dumps(Evil())))
    view = browser.entry("query", "12", "stock_list", row.member)
    assert b"touch" in view.payload
    assert not canary.exists()


def test_a_key_that_is_known_by_its_digest_only_is_invalidated_with_its_group():
    caches["default"].set("tenant:12:notes:" + "x" * 100, 1, 60)
    [row] = browser.entries("default", "12", "notes").rows
    assert row.member.startswith("~")
    target = browser.key_target("default", "12", "notes", row.member, row.about)
    assert (target.kind, target.name) == ("key", "notes:" + "x" * 100)
    assert browser.key_target("default", "12", "notes", row.member, {}).kind == "group"
    assert browser.key_target("default", "12", "notes", row.member, {"key": "tenant:13:notes:y"}).kind == "group"


# --- plain keys -----------------------------------------------------------------------------------------------------


STOCK = "django_redis.cache.RedisCache"


@pytest.fixture
def stock_backend(settings):
    settings.CACHES = {name: {**each, "BACKEND": STOCK} for name, each in settings.CACHES.items()}


@pytest.mark.usefixtures("stock_backend")
def test_plain_keys_of_a_tenant_are_found_by_a_bounded_scan():
    cache = caches["default"]
    cache.set_many({f"tenant:12:list:{i}": i for i in range(30)}, 60)
    cache.set_many({f"tenant:123:list:{i}": i for i in range(5)} | {"site:a": 1, "session": 2})
    page = browser.plain_keys("default", "12")
    assert [row.key for row in page.rows] == sorted(f"tenant:12:list:{i}" for i in range(30))
    assert page.cursor == 0
    assert page.rows[0].type_name == "string"
    assert 50 < page.rows[0].expires_in <= 60
    assert {row.key for row in browser.plain_keys("default", None).rows} == {"site:a", "session"}
    assert browser.place_count("12", alias="default").plain == {"default": 30}


@pytest.mark.usefixtures("stock_backend")
def test_plain_keys_come_page_by_page_and_none_twice(redis):
    caches["default"].set_many({f"tenant:12:n:{i}": i for i in range(3000)})
    seen, cursor = [], 0
    while True:
        page = browser.plain_keys("default", "12", cursor=cursor, limit=200)
        seen += [row.key for row in page.rows]
        cursor = page.cursor
        if not cursor:
            break
    assert len(set(seen)) == 3000
    estimate = browser.place_count("12", alias="default").plain["default"]
    assert 2500 < estimate < 3500


@pytest.mark.usefixtures("stock_backend")
def test_keys_that_are_no_text_are_listed_and_keys_of_others_are_not(redis):
    caches["default"].set("tenant:12:a:b", 1)
    redis.set(b"jewelry_shop:1:tenant:12:\xff\xfe:x", "bytes")
    redis.set("somebody-else:1:tenant:12:a:b", "not ours")
    redis.rpush("jewelry_shop:1:tenant:12:a:list", 1)
    rows = {row.key: row.type_name for row in browser.plain_keys("default", "12").rows}
    assert rows == {
        "tenant:12:a:b": "string",
        "tenant:12:a:list": "list",
        "tenant:12:\udcff\udcfe:x": "string",
    }


@pytest.mark.usefixtures("stock_backend")
def test_a_plain_value_is_read_in_part_and_only_for_its_tenant():
    caches["default"].set("tenant:12:a:b", "x" * 100_000)
    full_key = "jewelry_shop:1:tenant:12:a:b"
    assert len(browser.plain_value("default", "12", full_key).payload) == 64 * 1024
    assert browser.plain_value("default", "13", full_key) is None
    assert browser.plain_value("default", None, "another:1:key") is None


# --- what would be hit ----------------------------------------------------------------------------------------------


def test_the_blast_of_a_tenant_a_group_and_a_prefix(stock):
    fill(stock, 4)
    fill(stock, 3, tenant="13")
    caches["default"].set("tenant:12:dash:1", 1)
    assert browser.blast([Target("tenant", "", "12")]).entries == 5
    blast = browser.blast([Target("prefix", "stock", "12", "query")])
    assert (blast.entries, blast.tenants, len(blast.rows), blast.is_exact) == (4, 1, 1, True)
    both = browser.blast([Target("group", "stock_list", t, "query") for t in ("12", "13")])
    assert (both.entries, both.tenants) == (7, 2)


@pytest.mark.django_db
def test_the_blast_of_all_tenants_counts_those_that_are_listed(stock):
    from shop.models import Tenant

    tenants = [Tenant.objects.create(name=f"Shop {i}", slug=f"s{i}") for i in range(3)]
    for tenant in tenants:
        fill(stock, 2, tenant=str(tenant.pk))
    blast = browser.blast([Target("group", "stock_list", ALL, "query")])
    assert (blast.entries, blast.tenants, blast.tenants_total, blast.hits_shared) == (6, 3, 3, True)


def test_the_blast_of_a_tag_and_of_keys_is_what_they_reach(stock, round_trips):
    fill(stock, 4)
    fill(stock, 4, text="more")
    tag = Target("tag", "branch:2", "12", "query")
    assert browser.blast([tag]).entries == 2
    row = browser.entries("query", "12", "stock_list").rows[0]
    key = browser.key_target("query", "12", "stock_list", row.member, row.about)
    with round_trips() as sent:
        assert browser.blast([key]).entries == 1
    assert len(sent) == 1
    assert browser.blast([Target("key", "stock_list:nothing", "12", "query")]).entries == 0
    assert browser.blast([Target("pattern", "stock*", "12", "query")]).entries is None


def test_a_key_is_counted_in_a_group_of_any_size(stock):
    fill(stock, 1)
    clone("query", "12", "stock_list", 2000)
    assert browser.blast([Target("key", "stock_list:abcdef!n=001999", "12", "query")]).entries == 1
    tag = browser.blast([Target("tag", "branch:0", "12", "query")])
    assert not tag.is_exact
    assert 1900 < tag.entries < 2100


# --- reach ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target("tenant", "", "12"), True),
        (Target("tenant", "", ALL, "query"), True),
        (Target("tenant", "", "13"), False),
        (Target("tenant", "", None), False),
        (Target("tenant", "", "12", "api"), False),
        (Target("group", "stock", "12"), True),
        (Target("group", "sto", "12"), False),
        (Target("prefix", "sto", "12"), True),
        (Target("tag", "branch:1", "12"), True),
        (Target("tag", "branch:2", "12"), False),
        (Target("key", "stock:a=1", "12"), True),
        (Target("key", "stock:a=2", "12"), False),
        (Target("pattern", "stock:*", ALL), True),
    ],
)
def test_what_an_invalidation_reaches(target, expected):
    assert browser.covers(target, "query", "12", "stock", ("branch:1",), "stock:a=1") is expected


@pytest.mark.django_db
def test_invalidations_that_wait_are_read_from_the_outbox():
    good = Target("group", "a", "12").to_json()
    Intent.objects.create(due="2026-01-01T00:00Z", payload={"targets": [good, {"kind": "?"}]})
    Intent.objects.create(due="2026-01-01T00:00Z", payload=["not a dict"])
    Intent.objects.create(due="2026-01-01T00:00Z", payload={"targets": [good]}, state=Intent.State.DONE)
    assert browser.waiting_targets() == [Target("group", "a", "12")]


def test_a_server_that_just_answered_is_not_asked_and_one_that_is_gone_is_named(
    fresh_server, settings, round_trips, monkeypatch
):
    server = fresh_server()
    settings.CACHES = {
        "default": {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": server.url},
    }
    settings.CACHEADMIN = {}
    monkeypatch.setattr(counts, "FRESH_SECONDS", 3600)
    with round_trips() as sent:
        assert browser.away() == []
        assert browser.away() == []
    assert sent.count("PING") == 1
    server.stop()
    monkeypatch.setattr(counts, "FRESH_SECONDS", 0)
    [gone] = browser.away()
    assert gone.alias == "default"
    assert gone.since > 0
