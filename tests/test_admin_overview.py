"""The overview: a verdict, figures, charts, who misses; for those who may see it, and of their tenants only."""

import datetime as dt
import json
import re
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from console import text_of
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from cacheadmin import Target, outbox
from cacheadmin import overview as counters
from cacheadmin.admin.charts import Chart, Line, Moment, Sheet
from cacheadmin.admin.marks import LONGEST, named
from cacheadmin.admin.series import begun, memory
from cacheadmin.admin.views import overview as page_module
from cacheadmin.connections import Link, forget_links, link
from cacheadmin.doctor import registry as doctor_registry
from cacheadmin.functions import registry
from cacheadmin.models import Intent
from cacheadmin.overview import Cause, Note, Series
from cacheadmin.overview.drops import Drop
from cacheadmin.stats import EVERY_TENANT, Mark, recorder, rollups
from faults.waits import Sleeper
from shop.models import Tenant, User

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("within_a_minute")]

URL = reverse("admin:cacheadmin_console_changelist")
DATA = reverse("admin:cacheadmin_data_overview")


class Parts(HTMLParser):
    """What a page is made of that a strict Content-Security-Policy or a reader cares about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.parts: list[str] = []
        self.plots: dict[str, str] = {}
        self.heads = 0
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "style" or (tag == "script" and "src" not in given and given.get("type") != "application/json"):
            self.inline.append(tag)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.heads += tag == "h1"
        if "data-cacheadmin-part" in given:
            self.parts.append(given["data-cacheadmin-part"])
        if "data-cacheadmin-plot" in given:
            assert given["role"] == "img"
            self.plots[given["data-cacheadmin-plot"]] = given["aria-label"]


def charts_of(html: str) -> dict:
    return json.loads(re.search(r'<script id="cacheadmin-charts" type="application/json">(.*?)</script>', html)[1])


@pytest.fixture(autouse=True)
def _no_memory():
    doctor_registry._latest.clear()
    recorder.reset()


@pytest.fixture
def shops():
    return [Tenant.objects.create(name=name, slug=name[:4].lower()) for name in ("Ruby & Co", "Gold & Sons")]


@pytest.fixture
def bound(shops) -> Client:
    """A user who may see the cache of Ruby & Co and of nobody else."""
    user = User.objects.create_user("ruby", is_staff=True, tenant=shops[0])
    user.user_permissions.add(Permission.objects.get(codename="view_keys"))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def counted(shops):
    """Ninety hits and ten misses of each shop, and invalidations of the second."""
    rollups.measure()
    for shop in shops:
        tenant = str(shop.pk)
        for _ in range(90):
            recorder.read("query", "inventory_list", tenant, "hit", 400_000)
        for _ in range(10):
            recorder.read("query", "inventory_list", tenant, "miss", 900_000)
            recorder.missed("query", "inventory_list", tenant, "absent")
            recorder.computed("query", "inventory_list", tenant, 0.2)
    for _ in range(7):
        recorder.invalidated("query", str(shops[1].pk), "group inventory_list", "rule", "stock")
    assert recorder.flush()
    return shops


# --- what it shows --------------------------------------------------------------------------------------------------


def test_a_site_that_cached_nothing_is_told_what_to_do(admin) -> None:
    words = text_of(admin.get(URL))
    assert "Nothing has been cached yet." in words
    assert "No problems found." not in words


def test_the_figures_are_those_that_were_counted(admin, counted) -> None:
    response = admin.get(URL)
    words = text_of(response)
    assert "No problems found." in words
    assert "Hit ratio 90.0%" in words
    assert "Ruby & Co".replace("&", "&amp;") in response.content.decode()
    assert "stock" in words
    assert "7 times" in words


def test_each_tenant_that_misses_is_a_link_to_its_groups(admin, counted) -> None:
    html = admin.get(URL).content.decode()
    table = html[html.index('data-cacheadmin-part="misses"') :]
    found = re.findall(r'<a href="([^"]+)">(Ruby &amp; Co|Gold &amp; Sons)</a>', table[: table.index("</section>")])
    assert sorted(name for _, name in found) == ["Gold &amp; Sons", "Ruby &amp; Co"]
    for url, _ in found:
        assert admin.get(url).status_code == 200


def test_groups_may_be_ranked_in_their_place(admin, counted) -> None:
    html = admin.get(URL, {"who": "groups"}).content.decode()
    name = next(name for name, function in registry.items() if function.group == "inventory_list")
    assert f'<a href="{reverse("admin:cacheadmin_function_detail", args=[name])}">inventory_list</a>' in html


def test_rows_are_ranked_by_what_was_asked_for(admin, counted) -> None:
    html = admin.get(URL, {"o": "-churn"}).content.decode()
    assert html.index(">Gold &amp; Sons</a>") < html.index(">Ruby &amp; Co</a>")


def test_an_alias_limits_the_figures_to_its_own(admin, counted) -> None:
    words = text_of(admin.get(URL, {"alias": "template"}))
    assert "Hit ratio – " in words


@pytest.mark.parametrize("name", ["alias", "range", "o", "who", "before", "p"])
@pytest.mark.parametrize("value", ["\x00", "-1", "' OR 1=1 --", "<script>", "9" * 400, "é" * 300])
def test_nonsense_in_the_address_is_as_if_it_were_not_there(admin, name, value) -> None:
    assert admin.get(URL, {name: value}).status_code == 200


def test_a_verdict_names_the_tenant_the_rule_and_the_way_there(admin, counted, monkeypatch) -> None:
    tenant = str(counted[0].pk)
    cause = Cause("stock <b>", "rule", "group inventory_list", 38.2)
    note = Note("tenant", tenant=tenant, hit_ratio=0.61, before=0.94, since=time.time() - 900, cause=cause, deploy="9")
    ask = counters.overview
    monkeypatch.setattr(page_module.overview, "overview", lambda *a, **k: replace(ask(*a, **k), notes=(note,) * 5))
    html = admin.get(URL).content.decode()
    words = " ".join(re.sub(r"<[^>]+>", "", html).split())
    assert "Ruby &amp; Co misses more than usual. Hit ratio 61%, it was 94% until " in words
    assert "inventory_list is invalidated 38 times a minute by the rule stock &lt;b&gt;. Release 9 began then." in words
    assert html.count("misses more than usual") == 3
    assert "2 more in Health" in words
    assert f'?tenant={tenant}">Its activity</a>' in html
    assert "No problems found." not in words


def test_findings_of_the_doctor_are_not_called_no_problem(admin, counted, settings) -> None:
    settings.CACHES = settings.CACHES | {"api": settings.CACHES["api"] | {"KEY_PREFIX": "shop:api"}}
    words = text_of(admin.get(URL))
    assert "1 finding in Health" in words
    assert "No problems found." not in words


def test_the_label_of_a_tenant_cannot_become_markup(admin, counted) -> None:
    Tenant.objects.update(name="<script>alert(1)</script>")
    html = admin.get(URL).content.decode()
    assert "<script>alert" not in html
    assert "<script>alert" not in json.loads(admin.get(DATA).content)["html"]


# --- charts ---------------------------------------------------------------------------------------------------------


def test_each_chart_has_a_sentence_and_the_same_figures_as_a_table(admin, counted) -> None:
    html = admin.get(URL).content.decode()
    drawn, plots = charts_of(html)["charts"], Parts(html).plots
    assert list(plots) == ["ratio", "results", "latency", "memory", "invalidations"]
    assert plots == {name: chart["said"] for name, chart in drawn.items()}
    assert plots["ratio"].startswith("Hit ratio: all from 90% to 90%, lowest 90% at ")
    assert html.count('<details class="cacheadmin-figures" open') == 5
    assert '<td class="cacheadmin-number">90%</td>' in html


def test_no_reads_is_a_gap_and_not_nothing() -> None:
    chart = Chart("r", "Ratio", [0, 60, 120], [Line("all", [90.0, None, 95.5], "hit")], "%", 1)
    assert [cells for _, cells in chart.rows] == [["95.5%"], ["–"], ["90%"]]
    assert chart.to_json()["lines"][0]["values"] == [90.0, None, 95.5]
    assert chart.said == "Ratio: all from 90% to 95.5%, lowest 90% at 00:00."


def test_a_legend_reads_a_stack_from_its_top() -> None:
    lines = [Line(name, [1.0], name, "stack") for name in ("error", "miss", "hit")]
    assert [line.label for _, line, _ in Chart("r", "", [0], lines).legend] == ["hit", "miss", "error"]
    assert [i for i, _, _ in Chart("r", "", [0], lines).legend] == [2, 1, 0]


def test_a_long_series_is_a_table_of_bounded_length() -> None:
    times = list(range(0, 1440 * 60, 60))
    rows = list(Chart("r", "", times, [Line("all", [1.0] * 1440, "hit")]).rows)
    assert len(rows) <= 180
    assert rows[0][0] == "23:59"


def test_a_histogram_has_no_percent() -> None:
    chart = Chart("r", "", [0], [Line("all", [50.0], "hit"), Line("invalidations", [7.0], "waiting", "bars")], "%")
    assert [cells for _, cells in chart.rows] == [["50%", "7"]]
    assert [line["unit"] for line in chart.to_json()["lines"]] == ["%", ""]


def test_at_most_six_marks_carry_their_names_the_newest() -> None:
    sheet = Sheet([0], [], [Moment(float(i), f"deploy {i}", "") for i in range(9)])
    assert [mark["text"] for mark in sheet.to_json()["marks"]][:4] == ["", "", "", "deploy 3"]
    assert sheet.more_marks == 3


def test_the_time_a_server_was_away_is_a_gap_with_its_reason() -> None:
    marks = [Mark("away", "query", 100.0), Mark("deploy", "7", 120.0), Mark("back", "query", 160.0)]
    assert named(marks, 500.0) == (
        [Moment(120.0, "deploy 7", "deploy 7")],
        [(100.0, 160.0, "Redis away")],
    )
    assert named(marks[:1], 500.0)[1] == [(100.0, 500.0, "Redis away")]
    told = "Redis (query) away for 1 min"
    assert named(marks, 500.0, 3600) == ([Moment(100.0, "Redis away", told), Moment(120.0, "deploy 7", "deploy 7")], [])


def test_a_young_site_has_a_chart_of_its_minutes() -> None:
    known = [None] * 170 + [1.0] * 10
    times = list(range(180))
    parts = {name: list(known) for name in ("hit_ratio", "worst", "hit", "stale", "miss", "bypassed", "error")}
    parts |= {name: list(known) for name in ("p50_ms", "p95_ms", "cost", "invalidations", "used_bytes", "evicted")}
    cut = begun(Series(60, times, **parts))
    assert (len(cut.times), cut.times[-1]) == (16, 179)
    assert {len(getattr(cut, name)) for name in parts} == {16}


def test_memory_is_drawn_up_to_its_limit() -> None:
    series = Series(60, [0, 60], used_bytes=[1 << 30, None], limit_bytes=4 << 30, evicted=[None, 3])
    chart = memory(series)
    assert (chart.title, chart.top, chart.remark) == ("Memory, GB of 4", 4.0, "3 evictions")
    assert chart.lines[0].values == [1.0, None]


def test_numbers_in_attributes_are_html_in_each_language(admin, counted) -> None:
    with translation.override("de"):
        html = admin.get(URL, headers={"accept-language": "de"}).content.decode()
    assert re.findall(r'<meter[^>]* value="([^"]*)"', html)
    assert not re.search(r'<meter[^>]*"\d+,\d', html)


# --- renewing -------------------------------------------------------------------------------------------------------


def test_the_script_gets_each_part_that_the_page_has(admin, counted) -> None:
    page, data = admin.get(URL).content.decode(), json.loads(admin.get(DATA).content)
    assert set(Parts(page).parts) == set(Parts(data["html"]).parts)
    assert charts_of(data["html"])["charts"].keys() == charts_of(page)["charts"].keys()


def test_the_data_knows_the_pages_choices(admin, counted) -> None:
    data = json.loads(admin.get(DATA, {"who": "groups", "alias": "query", "range": "15m"}).content)
    assert ">inventory_list</a>" in data["html"]


# --- who may --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [URL, DATA])
def test_it_takes_the_permission_to_see_keys(url) -> None:
    client = Client()
    assert client.get(url).status_code == 302
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(url).status_code == 403
    assert client.post(url).status_code in (403, 405)


@pytest.mark.parametrize("url", [URL, DATA])
def test_a_bound_user_sees_the_figures_of_his_tenant_only(bound, counted, url) -> None:
    page = bound.get(url)
    html = json.loads(page.content)["html"] if url == DATA else page.content.decode()
    assert "Gold" not in html
    assert "stock" not in html
    assert ">Ruby &amp; Co</a>" in html
    assert "Clear alias" not in html
    assert set(charts_of(html)["charts"]) == {"ratio", "results", "latency", "invalidations"}
    assert "Memory" not in re.sub(r"<thead>.*?</thead>", "", html, flags=re.DOTALL)


def test_clearing_an_alias_is_offered_to_those_who_may(admin, counted) -> None:
    watcher = User.objects.create_user("watcher", is_staff=True)
    watcher.user_permissions.set(Permission.objects.filter(codename__in=["view_keys", "see_all_tenants"]))
    client = Client()
    client.force_login(watcher)
    assert "Clear alias…" not in client.get(URL).content.decode()
    url = re.search(r'<a href="([^"]+)">Clear alias…', admin.get(URL).content.decode())[1]
    assert admin.get(url).status_code == 200


# --- cost, and without Redis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?who=groups", "?alias=default", "?alias=query&range=24h"])
def test_it_costs_few_queries_and_round_trips(
    admin, counted, django_assert_max_num_queries, monkeypatch, query
) -> None:
    made: Counter[str] = Counter()
    call = Link.call

    def count(self, *commands, **options):
        made[self.alias] += 1
        return call(self, *commands, **options)

    monkeypatch.setattr(Link, "call", count)
    for url in (URL, DATA):
        admin.get(url + query)
        made.clear()
        with django_assert_max_num_queries(12):
            admin.get(url + query)
        assert max(made.values()) <= 3, made


def test_nothing_is_inline_and_there_is_one_head(admin, counted) -> None:
    html = admin.get(URL).content.decode()
    assert Parts(html).inline == []
    assert Parts(html).heads == 1


def test_without_redis_it_says_so_and_shows_what_the_database_knows(admin, counted, fresh_server, settings) -> None:
    server = fresh_server()
    settings.CACHES = {alias: made | {"LOCATION": server.url} for alias, made in settings.CACHES.items()}
    server.stop()
    for alias in settings.CACHES:
        assert not link(alias).is_away
    with Sleeper() as sleeper:
        begun_at = time.monotonic()
        response = admin.get(URL)
        ended_at = time.monotonic()
    assert ended_at - begun_at - sleeper.late_ms(begun_at, ended_at) / 1000 < 1.5
    assert response.status_code == 200
    words = text_of(response)
    assert "does not answer since" in words
    assert "No problems found." not in words
    assert "away since" in words
    assert "Clear alias" not in words
    assert charts_or_none(response) is None
    assert json.loads(admin.get(DATA).content)["html"].count("does not answer since") == 1
    forget_links()


def charts_or_none(response):
    found = re.search(r'id="cacheadmin-charts"', response.content.decode())
    return found and found[0]


def test_what_waits_in_the_database_and_in_this_process_is_counted_with_its_age(admin, counted) -> None:
    row = Intent.objects.create(due=timezone.now() - dt.timedelta(minutes=3), payload={"targets": []})
    Intent.objects.filter(pk=row.pk).update(created=timezone.now() - dt.timedelta(minutes=4))
    delivery = outbox.Delivery((Target("group", "sales", "12", "query"),))
    outbox.delivery.remember(delivery)  # in a transaction, so in memory
    words = " ".join(re.sub(r"<[^>]+>", " ", admin.get(URL).content.decode()).split())
    outbox.reset()
    assert "Waiting 2" in words
    assert "4 min" in words


def test_a_mark_on_a_chart_is_short_and_its_figures_tell_all(db) -> None:
    """A digest that stands for many names is shown nowhere."""
    digest = "~SWsBiksGyvtraSY_MmCMnw"
    ruby = str(Tenant.objects.create(name="Ruby & Co", slug="ruby").pk)
    many = (("rule", ", ".join(f"rule {i}" for i in range(9))), ("rule", digest), ("code", ""))
    aliases = ("default", "template", "api", "query")
    marks = [
        Drop("drop", "query", 1.0, ruby, ("query",), (ruby,), (("rule", "suppliers"), ("rule", digest))),
        Mark("clear", "query", 2.0, EVERY_TENANT),
        Mark("clear", "query", 3.0, ruby),
        Mark("clear", "api", 3.1, ruby),
        Mark("clear", "query", 99.0, ruby),
        Mark("rule", "stock, sales", 100.0),
        Mark("deploy", "0123456789abcdef0123456789abcdef01234567", 101.0),
        Drop("drop", ", ".join(aliases), 102.0, EVERY_TENANT, aliases, (EVERY_TENANT, ruby), many),
    ]
    moments, _gaps = named(marks, 200.0)
    assert [(moment.text, moment.told) for moment in moments] == [
        ("Ruby & Co dropped", "Ruby & Co dropped: query by suppliers, several rules"),
        ("query cleared", "query cleared"),
        ("Ruby & Co invalidated", "Ruby & Co invalidated: query, api"),
        ("Ruby & Co invalidated", "Ruby & Co invalidated: query"),
        ("2 rules edited", "2 rules edited: stock, sales"),
        ("deploy 0123456789abcdef0123…", "deploy 0123456789abcdef0123456789abcdef01234567"),
        (
            "4 aliases dropped",
            "4 aliases dropped: default, template, api, query by rule 0, rule 1, rule 2 and 8 more",
        ),
    ]
    assert max(len(moment.text) for moment in moments) <= LONGEST


def test_the_full_text_of_a_mark_stands_with_the_figures(admin, counted) -> None:
    recorder.mark(Mark("deploy", "0123456789abcdef0123456789abcdef01234567", time.time()))
    assert recorder.flush()
    told = admin.get(URL).content.decode().partition('data-cacheadmin-part="told-ratio"')[2].partition("</div>")[0]
    assert "<td>deploy 0123456789abcdef0123456789abcdef01234567</td>" in told
