"""Activity: what people and rules did, in one order of time; filtered, paged, and cut to one's tenants."""

import datetime as dt
import re
import time
from contextlib import ExitStack

import pytest
from console import text_of
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from cacheadmin import outbox
from cacheadmin.admin import lines, summed, timeline
from cacheadmin.admin.access import access_of
from cacheadmin.admin.views.activity import SHOWN
from cacheadmin.connections import forget_links
from cacheadmin.models import Activity, Intent
from cacheadmin.stats import EVERY_TENANT, Mark, recorder
from cacheadmin.targets import ALL, Target
from cacheadmin.transactions import own_sql
from shop.models import Tenant, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("within_a_minute")]

URL = reverse("admin:cacheadmin_activity_list")
DATA = reverse("admin:cacheadmin_data_activity")


@pytest.fixture(autouse=True)
def _no_memory():
    recorder.reset()


@pytest.fixture
def shops():
    made = [Tenant.objects.create(name=name, slug=name[:4].lower()) for name in ("Ruby & Co", "Gold & Sons")]
    recorder.reset()  # a rule of the shop has fired
    return made


@pytest.fixture
def ruby(shops):
    user = User.objects.create_user("ruby", is_staff=True, tenant=shops[0])
    user.user_permissions.add(Permission.objects.get(codename="view_keys"))
    return user


@pytest.fixture
def bound(ruby) -> Client:
    client = Client()
    client.force_login(ruby)
    return client


def row(tenants="*", ago=0.0, **given) -> Activity:
    """A row of Activity, by default an invalidation of all tenants by amira."""
    made = {
        "kind": Activity.Kind.INVALIDATE,
        "source": Activity.Source.USER,
        "who": "amira",
        "what": "inventory_list",
        "at": timezone.now() - dt.timedelta(seconds=ago),
        "tenants": tenants,
    }
    return Activity.objects.create(**(made | given))


def by_rule(tenant, name="stock", times=1, what="group inventory_list", source="rule", aliases=("query",)) -> None:
    for alias in aliases:
        for _ in range(times):
            recorder.invalidated(alias, tenant, what, source, name)
    assert recorder.flush()


def table(response) -> list[str]:
    """The table's rows as text."""
    body = re.search(r"<tbody>(.*?)</tbody>", response.content.decode(), re.DOTALL)
    rows = re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL) if body else []
    return [text_of(found) for found in rows]


# --- what it shows --------------------------------------------------------------------------------------------------


def test_nothing_yet_is_said(admin) -> None:
    assert "Nothing was invalidated in this range." in text_of(admin.get(URL))


def test_people_and_rules_stand_in_one_order_of_time(admin, shops) -> None:
    by_rule(str(shops[0].pk), times=38)
    row(ago=3600, what="inventory")
    row(ago=-30, what="sales")
    found = table(admin.get(URL))
    assert [("sales" in found[0]), ("inventory_list" in found[1]), ("inventory " in found[2])] == [True] * 3
    assert "38 times rule stock Ruby & Co" in found[1]


def test_one_deed_in_several_aliases_is_one_line_and_one_time(admin, shops) -> None:
    tenant = str(shops[0].pk)
    by_rule(tenant, times=3, aliases=("query", "default", "api"))
    by_rule(tenant, times=3, what="tag branch:5")
    [line] = table(admin.get(URL))
    assert "3 times" in line
    assert "inventory_list" in line
    assert "tag branch:5" in line


def test_what_a_person_did_is_not_shown_twice(admin, shops) -> None:
    by_rule(str(shops[0].pk), source="user", name="amira")
    by_rule(str(shops[0].pk), source="command", name="cache_invalidate")
    assert table(admin.get(URL)) == []


def test_a_deploy_and_an_outage_are_among_the_lines(admin) -> None:
    for kind, text in (("deploy", "2026.11.3"), ("away", "query")):
        recorder.mark(Mark(kind, text, time.time()))
    assert recorder.flush()
    found = " ".join(table(admin.get(URL)))
    assert "Release 2026.11.3" in found
    assert "Redis stopped answering (query)" in found


def test_a_scope_is_a_link_to_its_page(admin, shops) -> None:
    tenant = str(shops[0].pk)
    row([tenant], targets=[Target("group", "inventory_list", tenant, "query").to_json()])
    html = admin.get(URL).content.decode()
    url = re.search(r'<a href="([^"]+)">inventory_<wbr>list</a>', html)[1]
    assert url.startswith("/admin/cacheadmin/console/tenants/")
    assert admin.get(url).status_code == 200


def test_what_waits_comes_first_with_a_note(admin) -> None:
    row(what="later", state=Activity.State.DONE)
    row(what="held back", ago=9000, state=Activity.State.WAITING)
    Intent.objects.create(payload={}, due=timezone.now())
    response = admin.get(URL)
    assert ["held back" in line for line in table(response)] == [True, False]
    assert "1 invalidation waits for Redis since" in text_of(response)


def test_what_was_given_up_is_said_and_tried_again_on_demand(admin, bound) -> None:
    button = "Try again what was given up"
    assert button not in text_of(admin.get(URL))
    payload = {"targets": [Target("group", "stock", "1", "query").to_json()]}
    Intent.objects.create(due=timezone.now(), payload=payload, state="dead")
    page = text_of(admin.get(URL))
    assert "1 invalidation was given up. They name a cache alias that is not managed any more." in page
    assert button in page
    assert button not in text_of(bound.get(URL))
    answer = admin.post(reverse("admin:cacheadmin_activity_retry"), follow=True)
    assert "1 invalidation is tried again." in text_of(answer)
    assert Intent.objects.get().state == "pending"
    assert outbox.relay_once().delivered == 1
    assert button not in text_of(admin.get(URL))
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.get_change_message()) == (
        "waiting:1",
        "Changed state for waiting invalidations “waiting:1”.",
    )


def test_names_cannot_become_markup(admin) -> None:
    row(who="<b>amira</b>", what="<script>x</script>", reason="<i>why</i>")
    html = admin.get(URL).content.decode()
    assert "<b>amira" not in html
    assert "<script>x" not in html


# --- paging ---------------------------------------------------------------------------------------------------------


def test_pages_by_the_last_line_show_each_line_once(admin, shops) -> None:
    same = timezone.now() - dt.timedelta(seconds=40)
    for i in range(60):
        row(what=f"deed {i:03}.", at=same if i % 2 else same - dt.timedelta(seconds=i))
    for i in range(55):
        by_rule(str(shops[0].pk), name=f"rule {i:03}.")
    url, seen, pages = URL, [], 0
    while url:
        response = admin.get(url)
        seen += [found for line in table(response) for found in re.findall(r"(?:deed|rule) \d{3}\.", line)]
        html = response.content.decode()
        next_page = re.search(r'rel="next" href="([^"]+)"', html)
        url = URL + next_page[1].replace("&amp;", "&") if next_page else ""
        pages += 1
    assert sorted(seen) == sorted([f"deed {i:03}." for i in range(60)] + [f"rule {i:03}." for i in range(55)])
    assert pages == 3
    assert SHOWN == 50


@pytest.mark.parametrize(
    "before", ["x", "1e400~r1", "nan~r1", "1~", "1~r-5", "1~r" + "9" * 30, "~", "1~zzz", "-1e18~a1"]
)
def test_a_broken_place_is_the_first_page(admin, before) -> None:
    row()
    assert admin.get(URL, {"before": before}).status_code == 200


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.fixture
def history(shops):
    first, second = (str(shop.pk) for shop in shops)
    row([first], what="one", who="amira", source="user")
    row([second], what="two", who="cache_invalidate", source="command", state=Activity.State.FAILED)
    row(what="three", who="bela", source="user", ago=3 * 86400)
    by_rule(first, name="inventory")
    by_rule(second, name="sales")
    by_rule(EVERY_TENANT, name="gold rate")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"tenant": "ruby"}, {"one", "three", "inventory", "gold rate"}),
        ({"tenant": "nobody"}, {"three", "gold rate"}),
        ({"who": "amira"}, {"one"}),
        ({"source": "command"}, {"two"}),
        ({"source": "rule"}, {"inventory", "sales", "gold rate"}),
        ({"rule": "sales"}, {"sales"}),
        ({"model": "shop.Sale"}, {"sales"}),
        ({"state": "failed"}, {"two"}),
        ({"source": "nonsense", "state": "nonsense", "day": "nonsense"}, None),
    ],
)
def test_filters(admin, history, query, expected) -> None:
    everything = {"one", "two", "three", "inventory", "sales", "gold rate"}
    found = table(admin.get(URL, query))
    shown = {name for line in found for name in everything if re.search(rf" (rule )?{name} ", line)}
    assert shown == (everything if expected is None else expected)


def test_a_day_shows_that_day(admin, history) -> None:
    day = timezone.localtime() - dt.timedelta(days=3)
    [line] = table(admin.get(URL, {"day": f"{day:%Y-%m-%d}"}))
    assert "three" in line


# --- one line -------------------------------------------------------------------------------------------------------


def test_a_line_tells_what_was_hit_why_and_what_went_wrong(admin, shops) -> None:
    tenant = str(shops[0].pk)
    made = row(
        [tenant],
        targets=[Target("group", "inventory_list", tenant, "query").to_json(), {"kind": "of a later version"}],
        reason="wrong prices",
        entries=38412,
        bytes=5 << 20,
        took_ms=2500,
        state=Activity.State.FAILED,
        error="The server is full.",
    )
    text = text_of(admin.get(reverse("admin:cacheadmin_activity_detail", args=[made.pk])))
    for expected in (
        "wrong prices",
        "38,412",
        "5.0",
        "2.5 s",
        "Failed",
        "The server is full.",
        "inventory_list",
        "amira",
    ):
        assert expected in text


@pytest.mark.parametrize("pk", [0, 999, 2**63, 10**40])
def test_a_line_that_never_was_is_a_404(admin, pk) -> None:
    assert admin.get(reverse("admin:cacheadmin_activity_detail", args=[pk])).status_code == 404


# --- who may --------------------------------------------------------------------------------------------------------


def test_it_takes_the_permission_to_see_keys() -> None:
    made = row()
    client = Client()
    for url in (URL, DATA, reverse("admin:cacheadmin_activity_detail", args=[made.pk])):
        client.logout()
        assert client.get(url).status_code == 302
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    for url in (URL, DATA, reverse("admin:cacheadmin_activity_detail", args=[made.pk])):
        assert client.get(url).status_code == 403
        assert client.post(url).status_code in (403, 405)


def test_a_bound_user_sees_what_touched_his_tenant(bound, shops) -> None:
    mine, other = (str(shop.pk) for shop in shops)
    row([mine], what="mine only", entries=5)
    row([other], what="not mine")
    row(what="of all", entries=777)
    row(
        [mine, other],
        what="of both",
        entries=888,
        targets=[Target("tenant", "", t, None).to_json() for t in (mine, other)],
    )
    row([], what="of shared data")
    by_rule(mine, name="my rule")
    by_rule(other, name="other rule")
    by_rule(None, name="shared rule")
    by_rule(EVERY_TENANT, name="rule for all")
    response = bound.get(URL)
    text = text_of(response)
    assert {w for w in ("mine only", "of all", "of both", "my rule", "rule for all") if w in text} == {
        "mine only",
        "of all",
        "of both",
        "my rule",
        "rule for all",
    }
    for hidden in ("not mine", "of shared data", "other rule", "shared rule", "Gold &amp; Sons", "777", "888"):
        assert hidden not in text
    assert "mine only" in text
    assert " 5 " in " ".join(table(response))


def test_a_bound_user_cannot_open_another_tenants_line(bound, shops) -> None:
    mine, other = (str(shop.pk) for shop in shops)
    hidden, both = (
        row([other]),
        row([mine, other], targets=[Target("tenant", "", t, None).to_json() for t in (mine, other)]),
    )
    assert bound.get(reverse("admin:cacheadmin_activity_detail", args=[hidden.pk])).status_code == 404
    response = bound.get(reverse("admin:cacheadmin_activity_detail", args=[both.pk]))
    assert response.status_code == 200
    assert "Gold" not in response.content.decode()
    assert "What belongs to other tenants is not listed." in text_of(response)


def test_a_bound_user_is_not_told_how_much_others_lost(bound, shops) -> None:
    mine, other = (str(shop.pk) for shop in shops)
    whole = row([mine], entries=8231, bytes=5 << 20)
    for tenants in ([mine, other], "*"):
        made = row(tenants, entries=8231, bytes=5 << 20)
        text = text_of(bound.get(reverse("admin:cacheadmin_activity_detail", args=[made.pk])))
        assert "8,231" not in text
        assert "5.0" not in text
    text = text_of(bound.get(reverse("admin:cacheadmin_activity_detail", args=[whole.pk])))
    assert "8,231" in text
    assert "5.0" in text


def test_a_run_has_a_way_to_its_page(admin) -> None:
    run, plain = row(kind=Activity.Kind.WARM, targets=[{"run": {"done": 3, "total": 9}}]), row()
    for made, is_run in ((run, True), (plain, False)):
        html = admin.get(reverse("admin:cacheadmin_activity_detail", args=[made.pk])).content.decode()
        assert (f'href="{reverse("admin:cacheadmin_run_detail", args=[made.pk])}"' in html) is is_run


def test_a_filter_opens_no_other_tenant(bound, shops) -> None:
    row([str(shops[1].pk)], what="not mine")
    for tenant in ("Gold", str(shops[1].pk)):
        assert "not mine" not in text_of(bound.get(URL, {"tenant": tenant}))


# --- new lines, cost, without Redis ---------------------------------------------------------------------------------


def test_the_script_is_told_how_many_lines_are_new(admin) -> None:
    newest = row(ago=50).at.timestamp()
    assert admin.get(DATA, {"newest": repr(newest)}).json() == {"new": 0, "text": ""}
    row(), row(), row()
    assert admin.get(DATA, {"newest": repr(newest)}).json() == {"new": 3, "text": "3 new."}
    assert admin.get(DATA, {"newest": "x"}).json()["new"] == 4


def test_the_page_tells_its_script_where_to_ask(admin) -> None:
    row()
    html = admin.get(URL).content.decode()
    newest = re.search(r'data-cacheadmin-newest="([^"]+)"', html)[1]
    assert f'data-cacheadmin-news="{DATA}"' in html
    assert admin.get(DATA, {"newest": newest}).json()["new"] == 0


def test_a_full_page_costs_few_queries_and_round_trips(
    admin, shops, django_assert_max_num_queries, round_trips
) -> None:
    for i in range(80):
        row([str(shops[i % 2].pk)], targets=[Target("group", f"g{i}", str(shops[i % 2].pk), "query").to_json()])
    by_rule(str(shops[0].pk))
    admin.get(URL)
    with django_assert_max_num_queries(12), round_trips() as sent:
        admin.get(URL)
    assert len(sent) <= 6


def test_without_redis_the_rows_of_the_database_are_shown(admin, fresh_server, settings) -> None:
    row(what="kept")
    server = fresh_server()
    settings.CACHES = {alias: made | {"LOCATION": server.url} for alias, made in settings.CACHES.items()}
    server.stop()
    response = admin.get(URL)
    assert "kept" in text_of(response)
    assert "does not answer since" in text_of(response)
    forget_links()


def test_what_happened_by_itself_has_targets_that_can_be_opened(amira, shops) -> None:
    tenant = str(shops[0].pk)
    by_rule(tenant)
    by_rule(EVERY_TENANT, name="gold rate", what="tenant")
    found, _ = timeline.newest(lines.Wish(access_of(amira)), 10)
    assert {line.who: line.targets for line in found} == {
        "stock": (Target("group", "inventory_list", tenant, "query"),),
        "gold rate": (),
    }
    assert {line.who: line.what for line in found}["gold rate"] == "everything"
    assert ALL.value == EVERY_TENANT


def test_the_overviews_few_lines_are_not_all_of_rules(amira, shops) -> None:
    for i in range(8):
        for shop in shops:
            by_rule(str(shop.pk), name=f"rule {i}", times=5)
    by_rule(str(shops[0].pk), name="rule 0", source="relay")
    row(ago=7200, what="by hand")
    found = timeline.latest(access_of(amira), 0.0, 6)
    assert [line.what for line in found if line.pk] == ["by hand"]
    assert len([line for line in found if line.pk is None]) == 3
    by_name = {line.who: line for line in summed.by_rule(lines.Wish(access_of(amira)), 0.0)}
    assert (by_name["rule 0"].count, by_name["rule 1"].count) == (11, 10)
    assert set(by_name["rule 1"].tenants) == {str(shop.pk) for shop in shops}


def test_a_line_that_waits_says_how_often_it_was_tried_and_why_in_vain(admin, ruby, shops) -> None:
    tenant = str(shops[0].pk)
    mine, other = (Target("group", name, tenant, "query").to_json() for name in ("inventory_list", "sales_list"))
    made = row([tenant], targets=[mine], state=Activity.State.WAITING)
    url = reverse("admin:cacheadmin_activity_detail", args=[made.pk])
    away = "The cache server of the alias does not answer: TimeoutError."
    kept = {"due": timezone.now(), "attempts": 7, "error": "<b>another's</b>"}
    Intent.objects.create(payload={"targets": [other]}, **kept)
    Intent.objects.create(payload={"targets": [mine]}, created=made.at - dt.timedelta(hours=1), **kept)
    assert "Tried again" not in text_of(admin.get(url))  # those are of other deeds
    held = Intent.objects.create(payload={"targets": [other, mine]}, created=made.at, due=timezone.now())
    assert "Tried again not yet" in text_of(admin.get(url))
    for attempts, shown in ((1, "1 time"), (3, "3 times")):
        Intent.objects.filter(pk=held.pk).update(attempts=attempts, error=away)
        assert f"Tried again {shown} {away}" in text_of(admin.get(url))
    made.state = Activity.State.DONE
    made.save()
    Intent.objects.filter(pk=held.pk).update(state=Intent.State.DONE, error="")
    text = text_of(admin.get(url))
    assert "Tried again 3 times" in text  # retried until it was done
    assert away not in text
    Intent.objects.filter(pk=held.pk).update(attempts=0)
    assert "Tried again" not in text_of(admin.get(url))
    bound = Client()
    bound.force_login(ruby)
    everyone = row("*", targets=[mine], state=Activity.State.WAITING)
    Intent.objects.filter(pk=held.pk).update(attempts=2, error=away, created=everyone.at)
    url = reverse("admin:cacheadmin_activity_detail", args=[everyone.pk])
    assert away in text_of(admin.get(url))
    assert "Tried again" not in text_of(bound.get(url))


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Six more databases, of which one has our outbox and one cannot be read; the aliases of these two."""
    kept = dict(connections.databases)
    for i in range(6):
        monkeypatch.setitem(connections.databases, f"other{i}", kept["default"] | {"NAME": f"{tmp_path}/{i}.sqlite3"})
        connections[f"other{i}"].connect()  # pytest-django forbids to open what it did not set up
    for alias in ("other2", "other3"):
        with connections[alias].schema_editor() as editor:
            editor.create_model(Intent)
    own_sql.forget_tables()
    assert outbox.databases() == ["default", "other2", "other3"]
    with connections["other2"].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {Intent._meta.db_table} RENAME COLUMN due TO lost")
    yield "other3", "other2"
    for i in range(6):
        connections[f"other{i}"].close()
        del connections[f"other{i}"]
    own_sql.forget_tables()


def test_what_waits_in_another_database_is_found_though_one_cannot_be_read(admin, shops, elsewhere, caplog) -> None:
    mine = Target("group", "inventory_list", str(shops[0].pk), "query").to_json()
    made = row([str(shops[0].pk)], targets=[mine], state=Activity.State.WAITING)
    intents = Intent.objects.using(elsewhere[0])
    intents.create(payload={"targets": [mine]}, created=made.at, due=timezone.now(), attempts=3, error="Away.")
    with ExitStack() as stack:
        counts = [stack.enter_context(CaptureQueriesContext(connections[name])) for name in ("default", *elsewhere)]
        text = text_of(admin.get(reverse("admin:cacheadmin_activity_detail", args=[made.pk])))
    assert "Tried again 3 times Away." in text
    assert sum(map(len, counts)) <= 12
    assert "The outbox of database 'other2' cannot be read" in caplog.text


def test_what_happened_up_to_a_time_is_found_without_paging(admin, settings, monkeypatch) -> None:
    settings.TIME_ZONE = "Asia/Dubai"  # what people type is their own time
    now = timezone.make_aware(dt.datetime(2026, 11, 22, 3, 7))
    monkeypatch.setattr(timezone, "now", lambda: now)
    for name, back in (("noon", dt.timedelta(hours=15)), ("two", dt.timedelta(minutes=57)), ("three", dt.timedelta())):
        row("*", what=name, at=now - back)
    cases = (
        ({"time": "03:07"}, ["three", "two", "noon"]),
        ({"time": "02:10"}, ["two", "noon"]),
        ({"time": "02:09"}, ["noon"]),
        ({"time": "12:30"}, ["noon"]),  # it is not half past twelve yet: yesterday's is meant
        ({"time": "12:30", "day": "2026-11-21"}, ["noon"]),
        ({"time": "02:10", "day": "2026-11-22"}, ["two"]),
        ({"time": "25:99"}, ["three", "two", "noon"]),
    )
    for query, names in cases:
        page = admin.get(URL, query)
        assert re.findall(r">(noon|two|three)</a>", page.content.decode()) == names, query
    page = admin.get(URL, {"time": "02:10", "source": "user"}).content.decode()
    assert 'name="time" value="02:10"' in page
    assert 'href="?source=user">Newest<' in page
