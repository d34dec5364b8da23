"""What the counters mean: figures, charts, who misses, the verdict."""

import json
import time

import pytest
from django.conf import settings
from django.test import override_settings

from cacheadmin.admin.charts import Sheet
from cacheadmin.admin.marks import named
from cacheadmin.connections import link
from cacheadmin.overview import RANGES, group_rows, overview, stats_report, tenant_rows
from cacheadmin.overview.drops import Drop
from cacheadmin.overview.figures import figure, figures, hit_ratio, percentile_ms
from cacheadmin.overview.notes import fell_at
from cacheadmin.stats import EVERY_TENANT, INDEX, OTHER, Mark, recorder, recording, rollups
from cacheadmin.stats.counts import EVENTS
from cacheadmin.stats.sending import Rollups

NOW = 1_795_003_620 + 30
"""2026-11-18 12:07:30 UTC."""

MINUTE = 60


@pytest.fixture(autouse=True)
def _start_afresh():
    recorder.reset()
    yield
    recorder.reset()


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` sets the time that flushes and pages see."""

    def set_to(seconds):
        monkeypatch.setattr(time, "time", lambda: float(seconds))

    set_to(NOW)
    return set_to


def read(tenant, hits, misses, *, alias="query", group="inventory_list", cost=0.1, took_us=400):
    """Count reads of one tenant, and a computation of `cost` seconds for each miss."""
    for _ in range(hits):
        recorder.read(alias, group, tenant, "hit", took_us * 1000)
    for _ in range(misses):
        recorder.read(alias, group, tenant, "miss", took_us * 1000)
        recorder.missed(alias, group, tenant, "invalidated")
        recorder.computed(alias, group, tenant, cost)


def minutes(clock, ago, until=0):
    """Yield how many minutes ago each of some minutes was, oldest first, with the clock set into it; flush each."""
    for back in range(ago, until, -1):
        clock(NOW - back * MINUTE)
        if back % 30 == 0 or back <= 2:
            rollups.measure()
        yield back
        assert recorder.flush()
    clock(NOW)


@pytest.fixture
def story(clock):
    """
    Three hours: at 12:07 one tenant misses too much, and has since 11:41; one rule drops its list all the time.

    12 is Ruby & Co, 3 to 9 are others; 9 hardly reads.
    """
    for back in minutes(clock, 180):
        fell = back <= 26
        read("12", 12 if fell else 19, 8 if fell else 1, cost=0.2)
        for tenant in "345678":
            read(tenant, 19, 1)
        read("9", 1, 0)
        read(None, 4, 0, alias="default", group="gold_rate")
        for _ in range(38 if fell else 2):
            recorder.invalidated("query", "12", "group inventory_list", "rule", "inventory item")
        recorder.invalidated("query", "3", "prefix inventory", "user", "amira")
        if back == 60:
            with override_settings(CACHEADMIN={**settings.CACHEADMIN, "RELEASE": "2026.11.3"}):
                rollups.measure()


# --- pure figures ---------------------------------------------------------------------------------------------------


def counts(**events):
    found = [0] * len(EVENTS)
    for event, count in events.items():
        found[INDEX[event]] = count
    return found


def test_no_reads_is_unknown_and_neither_nought_nor_everything():
    assert hit_ratio(None) is None
    assert hit_ratio(counts(bypassed=10, error=3)) is None
    assert hit_ratio(counts(hit=0, miss=5)) == 0.0
    assert hit_ratio(counts(hit=2, stale=1, miss=1, bypassed=9)) == 0.75
    assert figures(counts(), 5).mean_compute is None
    assert figures(None, 5).requests is None


def test_rates_are_a_minute_and_savings_are_hits_times_the_mean_compute_time():
    found = figures(counts(hit=90, miss=10, computed=10, compute_us=5_000_000, missed_expired=10, invalidated=5), 5)
    assert (found.requests, found.misses, found.cost, found.mean_compute, found.saved) == (20, 2, 1, 0.5, 9)
    assert found.reasons == {"expired": 2}
    assert (found.invalidations, found.reads) == (1, 100)


def test_percentiles_lie_within_their_bucket():
    buckets = [0] * 26
    assert percentile_ms(buckets, 0.5) is None
    buckets[6] = 100  # 300 to 400 microseconds
    assert percentile_ms(buckets, 0.5) == pytest.approx(0.35)
    buckets[9] = 10  # 0.7 to 1 ms
    assert percentile_ms(buckets, 0.95) == pytest.approx(0.7 + 0.3 * 4.5 / 10)
    buckets[25] = 1000
    assert percentile_ms(buckets, 0.95) == 1000.0


def test_a_figure_is_worse_only_if_it_is_far_above_its_median():
    assert figure(10.0, [1.0, 1.0, None], times=1.5, least=1.0).is_worse
    assert not figure(1.4, [1.0, 1.0], times=1.5).is_worse
    assert not figure(0.01, [0.001], times=1.5, least=1.0).is_worse
    assert not figure(10.0, [1.0]).is_worse
    assert figure(10.0, []).change is None


def test_a_fall_begins_at_the_first_bad_bucket_of_the_newest_run_and_gaps_do_not_end_it():
    ratios = {0: 0.5, 60: 0.9, 120: 0.7, 180: None, 240: 0.6}
    assert fell_at(ratios, 0.9) == 120
    assert fell_at({**ratios, 300: 0.9}, 0.9) == 0


# --- the first page -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("story")
def test_the_page_names_who_misses_more_than_usual_since_when_and_why():
    page = overview()
    [tenant] = page.notes
    assert (tenant.kind, tenant.tenant, tenant.since) == ("tenant", "12", NOW - 30 - 26 * MINUTE)
    assert (tenant.hit_ratio, tenant.before) == (pytest.approx(0.6), pytest.approx(0.95))
    assert (tenant.cause.name, tenant.cause.source, tenant.cause.what) == (
        "inventory item",
        "rule",
        "group inventory_list",
    )
    assert tenant.cause.a_minute == pytest.approx(38, rel=0.1)
    assert tenant.deploy == ""


def test_the_page_names_a_group_that_misses_more_than_usual_and_the_release_that_began_then(clock):
    for back in minutes(clock, 60):
        if back == 9:
            with override_settings(CACHEADMIN={**settings.CACHEADMIN, "RELEASE": "2026.11.3"}):
                rollups.measure()
        for tenant in range(30):
            read(str(tenant), 0 if back <= 9 else 2, 2 if back <= 9 else 0, cost=0.01)
    [note] = overview(RANGES["1h"]).notes
    assert (note.kind, note.aliases, note.group) == ("group", ("query",), "inventory_list")
    assert (note.hit_ratio, note.before, note.cause) == (0.0, 1.0, None)
    assert (note.since, note.deploy) == (NOW - 30 - 9 * MINUTE, "2026.11.3")


@pytest.mark.usefixtures("story")
def test_the_strip_shows_the_last_five_whole_minutes_against_the_median_of_the_range():
    strip = overview().strip
    reads, hits = 20 * 7 + 1 + 4, 12 + 19 * 6 + 1 + 4
    usual = 19 * 7 + 1 + 4
    assert strip.hit_ratio.value == pytest.approx(hits / reads)
    assert strip.hit_ratio.median == pytest.approx(usual / reads)
    assert strip.hit_ratio.is_worse
    assert strip.requests.value == pytest.approx(reads / 60)
    assert not strip.requests.is_worse
    assert strip.cost.value == pytest.approx(8 * 0.2 + 6 * 0.1)
    assert strip.cost.is_worse
    assert (strip.invalidations.value, strip.invalidations.is_worse) == (pytest.approx(39), True)
    assert 0.3 <= strip.p50_ms.value <= strip.p95_ms.value <= 0.4
    assert strip.used_bytes > 100_000
    assert strip.limit_bytes == 256 * 1024 * 1024
    assert (strip.evicted, strip.waiting) == (0, None)


@pytest.mark.usefixtures("story")
def test_columns_of_who_misses_add_up_to_the_strip():
    page = overview()
    rows = page.tenants.rows
    assert rows[0].name == "12"
    assert len(rows) == 6
    assert page.tenants.others_count == 3
    everything = [*(row.figures for row in rows), page.tenants.others]
    assert sum(f.requests for f in everything) == pytest.approx(page.strip.requests.value * 60)
    assert sum(f.cost for f in everything) == pytest.approx(page.strip.cost.value)
    assert rows[0].figures.change == pytest.approx(-0.35)
    assert rows[1].figures.change == pytest.approx(0.0)


@pytest.mark.usefixtures("story")
def test_who_misses_is_ranked_by_what_was_asked():
    assert overview(order="misses").tenants.rows[0].name == "12"
    churn = overview(order="churn").tenants.rows
    assert [(row.name, row.figures.invalidations) for row in churn[:2]] == [("12", 38.0), ("3", 1.0)]
    groups = overview(order="churn").groups.rows
    assert [row.name for row in groups] == [("query", "inventory_list"), ("default", "gold_rate")]
    assert groups[0].figures.invalidations == pytest.approx(39)  # by its name and by a prefix of it


@pytest.mark.usefixtures("story")
def test_the_chart_has_a_point_a_minute_and_a_line_for_the_worst():
    page = overview()
    points = page.series
    assert (points.step, len(points.times)) == (60, 181)
    assert points.times[-1] == NOW - 30
    assert points.hit_ratio[-1] is None  # nobody has read in the minute that is not over yet
    assert page.worst.name == "12"
    assert [points.worst[-2], points.worst[5]] == [pytest.approx(0.6), pytest.approx(0.95)]
    assert points.requests[-2] == pytest.approx(145 / 60)
    assert points.used_bytes[-2] > 100_000
    assert points.limit_bytes == 256 * 1024 * 1024
    assert [m.text for m in page.marks] == ["2026.11.3"]


@pytest.mark.usefixtures("story")
def test_before_the_site_began_to_count_there_is_a_gap_and_no_nought():
    points = overview(RANGES["24h"]).series
    assert points.times[0] == (NOW - 86_400) // 60 * 60
    assert points.requests[:3] == [None, None, None]
    assert points.requests[-2] > 0
    week = overview(RANGES["7d"])
    assert (week.series.step, len(week.series.times)) == (3600, 169)
    assert week.strip.hit_ratio.value == pytest.approx(131 / 145)


@pytest.mark.usefixtures("story")
def test_an_alias_is_looked_at_alone():
    page = overview(alias="default")
    assert page.strip.requests.value == pytest.approx(4 / 60)
    assert page.strip.hit_ratio.value == 1.0
    assert [row.name for row in page.tenants.rows] == [None]
    assert [row.name for row in page.groups.rows] == [("default", "gold_rate")]
    assert page.worst is None


@pytest.mark.usefixtures("story")
def test_a_user_bound_to_tenants_sees_their_sums_and_nothing_of_the_servers():
    page = overview(tenants={"3", "4"})
    assert page.strip.requests.value == pytest.approx(40 / 60)
    assert page.strip.hit_ratio.value == pytest.approx(0.95)
    assert {row.name for row in page.tenants.rows} == {"3", "4"}
    assert page.tenants.others is None
    assert [row.name for row in page.groups.rows] == [("query", "inventory_list")]
    assert page.strip.invalidations.value == pytest.approx(1)
    assert (page.aliases, page.strip.used_bytes, page.strip.evicted) == ((), None, None)
    assert page.series.used_bytes == [None] * len(page.series.times)
    assert page.notes == ()
    shown = repr(page)
    assert "'12'" not in shown
    assert "gold_rate" not in shown


@pytest.mark.usefixtures("story")
def test_a_whole_tenants_drop_is_marked_for_those_who_may_see_it(clock):
    recorder.invalidated("query", "3", "tenant", "user", "amira")
    recorder.flush()
    assert [m.kind for m in overview(tenants={"3"}).marks] == ["deploy", "clear"]
    assert [m.kind for m in overview(tenants={"4"}).marks] == ["deploy"]


def test_what_rules_and_code_drop_of_a_whole_tenant_is_marked_once_where_it_began(clock):
    """One mark for as long as it goes on, however often: no row of a database and no field of Redis is for it."""
    for back in minutes(clock, 180):
        if 100 >= back > 20:  # each minute, for many tenants
            for tenant in range(40):
                recorder.invalidated("query", str(tenant), "tenant", "rule", "branch moved")
        if back in (100, 5):
            recorder.invalidated("api", None, "tenant", "code", "")
        recorder.invalidated("query", "3", "group inventory_list", "rule", "item")
    drops = [mark for mark in overview().marks if mark.kind == "drop"]
    assert [(mark.text, mark.by, NOW - mark.at) for mark in drops] == [
        ("query, api", (("rule", "branch moved"), ("code", "")), pytest.approx(100 * MINUTE, abs=MINUTE)),
        ("api", (("code", ""),), pytest.approx(5 * MINUTE, abs=MINUTE)),
    ]
    assert [len(mark.tenants) for mark in drops] == [41, 1]
    assert [mark.text for mark in overview(alias="api").marks] == ["api"] * 2
    assert [(mark.text, mark.tenants) for mark in overview(tenants=["3"]).marks] == [("query", ("3",))]
    assert [mark.kind for mark in overview(tenants=["41"]).marks] == []
    moments, _ = named(overview().marks, NOW)
    assert [moment.text for moment in moments] == ["41 tenants dropped", "Shared data dropped"]
    assert [moment.told for moment in moments] == [
        "41 tenants dropped: query, api by branch moved, code",
        "Shared data dropped: api by code",
    ]


def test_an_alias_that_code_drops_is_marked_for_everybody_and_the_marks_are_few(clock):
    for back in minutes(clock, 170):
        if back % 7 == 0:
            recorder.invalidated("query", EVERY_TENANT, "tenant", "code", "nightly")
            recorder.invalidated("default", EVERY_TENANT, "tenant", "relay", "")
            recorder.invalidated("query", "3", "tenant", "rule", "moved")
    marks = overview().marks
    assert {mark.tenant for mark in marks} == {EVERY_TENANT, "3"}
    assert len(marks) <= 2 * 12
    assert [mark.text for mark in overview(tenants=["9"]).marks][:1] == ["query, default"]
    quarter = overview(RANGES["15m"]).marks
    assert len(quarter) == 2 * 2  # each of the two times, for all and for one


def test_what_happens_by_itself_takes_no_names_from_deeds():
    marks = [Drop("drop", f"alias-{at}", at, EVERY_TENANT, (f"alias-{at}",), (EVERY_TENANT,)) for at in range(20)]
    moments, _ = named([Mark("deploy", "2026.11.3", 0.0), *marks], NOW)
    shown = [mark["text"] for mark in Sheet([], [], moments).to_json()["marks"] if mark["text"]]
    assert shown == ["deploy 2026.11.3", "alias-18 dropped", "alias-19 dropped"]
    assert Sheet([], [], moments).more_marks == 18


@pytest.mark.usefixtures("story")
def test_the_page_costs_two_round_trips_whatever_the_range(round_trips):
    for within in RANGES.values():
        with round_trips() as sent:
            overview(within)
        assert len(sent) == 2
    with round_trips() as sent:
        overview(tenants={"3", "4"})
    assert len(sent) == 2


@pytest.mark.usefixtures("story")
def test_aliases_show_their_server_and_their_own_hit_ratio():
    rows = {row.alias: row for row in overview().aliases}
    assert list(rows) == ["query", "default", "template", "api"]
    assert rows["query"].backend == settings.CACHES["query"]["BACKEND"]
    assert {row.state for row in rows.values()} == {"up"}
    assert rows["default"].hit_ratio == 1.0
    assert rows["template"].hit_ratio is None
    assert (rows["query"].policy, rows["query"].keys) == ("noeviction", 0)
    assert rows["default"].keys > 0
    assert "password" not in repr(rows).lower()


def test_nothing_cached_yet_is_said(clock):
    rollups.measure()
    page = overview()
    assert [note.kind for note in page.notes] == ["empty"]
    assert page.is_known
    assert (page.strip.hit_ratio.value, page.strip.requests.value) == (None, None)
    assert (page.tenants.rows, page.tenants.others, page.worst) == ((), None, None)


def test_a_site_that_has_just_begun_shows_its_first_seconds(clock):
    rollups.measure()
    clock(NOW + 10)
    read("12", 90, 10)
    recorder.flush()
    strip = overview().strip
    assert strip.hit_ratio.value == 0.9
    assert strip.requests.value == pytest.approx(10)
    assert tenant_rows()["12"].requests == pytest.approx(600)


def test_a_site_or_a_tenant_that_has_just_begun_is_not_held_against_its_first_misses(clock):
    """What is filled first misses; there is no before from which anything could have fallen or risen."""
    for back in minutes(clock, 4):
        read("12", 0 if back == 1 else 40, 40 if back == 1 else 0)
        recorder.invalidated("query", "12", "group inventory_list", "rule", "item")
    page = overview(RANGES["15m"])
    assert page.notes == ()
    strip = page.strip
    assert [strip.hit_ratio.change, strip.requests.change, strip.cost.change, strip.invalidations.change] == [None] * 4
    assert page.tenants.rows[0].figures.change is None
    for within in RANGES.values():
        assert tenant_rows(within)["12"].change is None
        assert group_rows(within)["query", "inventory_list"].change is None
        assert group_rows(within, tenants={"12"})["query", "inventory_list"].change is None


def test_a_tenant_that_has_just_begun_is_not_judged_on_a_site_that_has_not(clock):
    for back in minutes(clock, 60):
        read("3", 40, 0)
        if back <= 5:
            read("12", 40 if back >= 4 else 0, 0 if back >= 4 else 40)
    page = overview(RANGES["15m"])
    assert "tenant" not in {note.kind for note in page.notes}
    assert {row.name: row.figures.change for row in page.tenants.rows} == {"3": 0.0, "12": None}
    assert page.strip.hit_ratio.change is not None


def test_few_reads_are_not_judged(clock):
    for back in minutes(clock, 60):
        read("12", 0 if back <= 10 else 9, 9 if back <= 10 else 0)
    assert overview(RANGES["1h"]).notes == ()


def test_a_server_that_is_away_is_a_note_and_not_an_error(fresh_server):
    server = fresh_server()
    caches = {a: {**c, "LOCATION": server.url_for(i)} for i, (a, c) in enumerate(settings.CACHES.items())}
    with override_settings(CACHES=caches):
        link("default").call(("PING",))
        server.kill()
        page = overview(waiting=412, lag_seconds=3.5)
        [note] = page.notes
        assert (note.kind, note.aliases) == ("away", ("query", "default", "template", "api"))
        assert note.since == pytest.approx(time.time(), abs=60)
        assert not page.is_known
        assert (page.strip.waiting, page.strip.lag_seconds, page.strip.used_bytes) == (412, 3.5, None)
        assert {row.state for row in page.aliases} == {"away"}
        assert set(page.series.hit_ratio) == {None}
        assert overview(tenants={"3"}).notes[0].kind == "away"


def test_only_the_server_that_is_away_is_reported(fresh_server, clock):
    server = fresh_server()
    caches = {**settings.CACHES, "api": {**settings.CACHES["api"], "LOCATION": server.url}}
    with override_settings(CACHES=caches):
        server.kill()
        read("12", 9, 1)
        recorder.flush()
        page = overview()
        assert [(note.kind, note.aliases) for note in page.notes] == [("away", ("api",))]
        assert page.is_known
        assert page.strip.hit_ratio.value == 0.9
        assert {row.alias: row.state for row in page.aliases} == {
            "query": "up",
            "default": "up",
            "template": "up",
            "api": "away",
        }


# --- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("story")
def test_rows_of_tenants_are_over_the_range(round_trips):
    with round_trips() as sent:
        rows = tenant_rows()
    assert len(sent) == 1
    assert set(rows) == {"12", *"3456789", None}
    assert rows["3"].requests == pytest.approx(20, rel=0.02)
    assert rows["3"].hit_ratio == pytest.approx(0.95)
    assert rows["3"].mean_read == pytest.approx(0.0004)
    assert rows["12"].hit_ratio == pytest.approx((154 * 19 + 26 * 12) / 3600)
    assert rows["12"].change == pytest.approx(-0.35)
    assert rows["12"].is_worse
    assert rows["12"].reasons.keys() == {"invalidated"}
    assert set(tenant_rows(alias="default")) == {None}
    assert tenant_rows(tenants=["3"]) == {"3": rows["3"]}


@pytest.mark.usefixtures("story")
def test_rows_of_groups_are_over_all_tenants_or_over_some(round_trips):
    with round_trips() as sent:
        everyone = group_rows(RANGES["1h"])
    assert len(sent) == 1
    assert set(everyone) == {("query", "inventory_list"), ("default", "gold_rate")}
    assert everyone["query", "inventory_list"].requests == pytest.approx(141, rel=0.02)
    assert everyone["query", "inventory_list"].mean_read == pytest.approx(0.0004)
    ruby = group_rows(RANGES["1h"], tenants=["12"])
    assert set(ruby) == {("query", "inventory_list")}
    assert ruby["query", "inventory_list"].requests == pytest.approx(20, rel=0.02)
    assert ruby["query", "inventory_list"].mean_compute == pytest.approx(0.2)
    assert ruby["query", "inventory_list"].mean_read is None  # of a tenant's groups it is not kept
    assert ruby["query", "inventory_list"].change < -0.05
    amira = group_rows(RANGES["1h"], tenants=["3"])
    assert amira["query", "inventory_list"].invalidations == pytest.approx(1, rel=0.05)
    assert group_rows(tenants=[None]).keys() == {("default", "gold_rate")}


def test_tenants_that_were_not_counted_apart_stand_among_the_others(clock, monkeypatch):
    monkeypatch.setattr(recording, "CELLS_PER_THREAD", 5)  # one is the latency
    for tenant in range(20):
        read(str(tenant), 10, 0)
    recorder.flush()
    page = overview()
    assert len(page.tenants.rows) == 4
    assert page.tenants.others.reads == 160
    assert OTHER not in repr(page)
    assert OTHER not in repr(tenant_rows())


@pytest.mark.usefixtures("story")
def test_the_report_is_plain_data():
    report = json.loads(json.dumps(stats_report()))
    assert report["now"]["hit_ratio"]["now"] == pytest.approx(131 / 145)
    assert [row["alias"] for row in report["aliases"]] == ["query", "default", "template", "api"]
    assert report["groups"][0]["group"] == "inventory_list"
    assert report["tenants"][0]["tenant"] == "12"
    assert report["tenants_counted"] == 9
    assert report["notes"][0]["cause"]["name"] == "inventory item"
    assert report["at"] == "2026-11-18T12:07:30+00:00"


def test_two_processes_make_one_picture(clock):
    read("12", 9, 1)
    recorder.flush()
    other = Rollups()
    delta_of_another = []
    recorder.sinks.append(delta_of_another.append)
    try:
        read("12", 9, 1)
        recorder.flush()
    finally:
        recorder.sinks.remove(delta_of_another.append)
    other.push(delta_of_another[0])
    assert tenant_rows()["12"].reads == 30
