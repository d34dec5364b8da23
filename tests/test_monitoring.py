"""docs/monitoring, tried: Prometheus scrapes the demo's two workers, and board, rules and charts are asked."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.test import override_settings
from prometheus_server import Prometheus

from cacheadmin.overview import RANGES, Series, overview, promql
from cacheadmin.stats import EVENTS, MISS_REASONS, RESULTS
from cacheadmin.stats.history import Reader
from cacheadmin.stats.layout import MINUTE
from server import Server
from shop.smoke import Demo
from shop.traffic import Traffic

TESTS = Path(__file__).resolve().parent
MONITORING = TESTS.parent / "docs" / "monitoring"
BOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = MONITORING / "alerts.yml"
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in BOARD["panels"] for target in panel.get("targets", ())]
VARIABLES = {variable["name"]: variable for variable in BOARD["templating"]["list"]}

FLUSH_SECONDS = 1

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(require, tmp_path_factory):
    """The demo with two workers and a server of its own, scraped by a Prometheus, after some visits."""
    program, directory = require("prometheus"), tmp_path_factory.mktemp("monitoring")
    with Server.start() as redis, pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", redis.url)
        patch.setenv("SHOP_FLUSH_SECONDS", str(FLUSH_SECONDS))
        patch.setenv("PYTHONPATH", os.pathsep.join([os.fspath(TESTS.parent), os.fspath(TESTS)]))
        # The paths of sockets below the test's own directory would be too long.
        options = ("--port", "0", "--scale", "0.1", "--rate", "0", "--slow-ms", "2", "--workers", "2")
        with Demo([sys.executable, "-m", "shop.demo", *options], os.fspath(directory)) as demo:
            address = demo.url.removeprefix("http://").rstrip("/")
            data = directory / "prometheus"
            data.mkdir()
            with Prometheus(program, data, [address], [RULES]) as prometheus:
                traffic = Traffic(demo.url, 1, seed=7)
                found = SimpleNamespace(url=demo.url, redis=redis, prometheus=prometheus, visit=visitor(traffic))
                found.visit(5)
                for series in ("cacheadmin_relay_lag_seconds", 'cacheadmin_tenant_reads_total{tenant!~"other|-"}'):
                    prometheus.wait_for(lambda one=series: prometheus.query(one) or found.visit(1), series, 120)
                # What began while nobody looked has no rate: now everything has begun.
                found.visit(20)
                settled(found)
                yield found


def visitor(traffic):
    def visit(times):
        for deed in ("inventory", "dashboard", "report", "odd_report", "office", "customer", "buy", "mark_down"):
            getattr(traffic, deed)("ruby")
        for page in ("products", "today", "stock"):
            traffic.browser.get(f"/shops/ruby/api/{page}/")
        traffic.browser.get("/")
        for _ in range(times):
            traffic.visit()

    return visit


def settled(site):
    """Return when all workers have flushed, and all that has been scraped."""
    before = None
    while before != (before := scraped(site)):
        time.sleep(FLUSH_SECONDS + 0.5)
    total = sum(value for name, value in before.items() if name.startswith("cacheadmin_reads_total"))
    site.prometheus.wait_for(lambda: site.prometheus.value("sum(cacheadmin_reads_total)") == total, "a scrape", 60)


def scraped(site):
    """What one scrape gives: `name{labels}` -> value, of counters of ours."""
    with urlopen(f"{site.url}metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("cacheadmin_")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines) if "_total" in name}


def is_finite(series):
    return any(math.isfinite(float(one["value"][1])) for one in series)


# --- rules ----------------------------------------------------------------------------------------------------------


def promtool(require, *arguments):
    program = Path(require("prometheus")).with_name("promtool")
    return subprocess.run([program, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)


def test_the_rules_are_well_formed_and_fire_when_they_should(require):
    checked = promtool(require, "check", "rules", "alerts.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = promtool(require, "test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_unit_test_in_which_it_fires():
    alerts = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    tests = (MONITORING / "alerts_test.yml").read_text()
    fired = set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", tests))
    assert alerts == fired
    assert len(alerts) == 9


def test_rules_that_were_changed_fail_their_tests(require, tmp_path):
    """The unit tests notice: one number of each alert is moved."""
    text = RULES.read_text()
    moved = [
        ("> 60", "> 600"),
        ("> 0.9", "> 0.99"),
        ("< 0.7 *", "< 0.1 *"),
        ("> 0.01", "> 0.5"),
        ("< -0.01", "< -0.5"),
        ("m])) > 1", "m])) > 9"),
    ]
    for before, after in (*moved, ("open) > 0", "open) > 5"), ("up) == 0", "up) == 2"), ("[10m])) > 0", "[10m])) > 1")):
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / "alerts.yml").write_text(text)
    shutil.copy(MONITORING / "alerts_test.yml", tmp_path)
    program = Path(require("prometheus")).with_name("promtool")
    command = [program, "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    failed = set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))
    assert failed == set(re.findall(r"alert: (\w+)", text))


# --- a real one -----------------------------------------------------------------------------------------------------


def test_every_expression_of_the_rules_finds_series(site):
    rules = site.prometheus.rules()
    assert len(rules) == 14
    for rule in rules:
        # With `bool` a comparison says 0 or 1 of each series, where it would leave out those that raise no alarm.
        expression = re.sub(r"(==|[<>])", r"\1 bool", rule["query"])
        assert is_finite(site.prometheus.query(expression)), rule["query"]
        assert rule["health"] == "ok", rule.get("lastError")
        # Where a busy machine holds up some reads, reading is as slow as it says; of an hour of that it would warn.
        quiet = {"inactive", "pending"} if rule["name"] == "CacheCostsMoreThanItSaves" else {"inactive"}
        assert rule.get("state", "inactive") in quiet, rule["query"]


def test_every_expression_of_the_board_finds_series(site):
    site.visit(5)
    settled(site)
    assert len(EXPRESSIONS) > 30
    missing = []
    for title, expression in EXPRESSIONS:
        asked = expression.replace("$__rate_interval", "2m")
        for name in VARIABLES:
            asked = asked.replace(f"${name}", ".*")
        assert "$" not in asked
        if not is_finite(site.prometheus.query(asked)):
            missing.append((title, asked))
    assert missing == []


def test_the_variables_of_the_board_find_something_to_choose(site):
    found = {}
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
            found[name] = site.prometheus.label_values(label, re.sub(r"\$\w+", ".*", series))
    assert found["job"] == ["shop"]
    assert {"query", "default", "template", "api"} >= set(found["alias"]) >= {"query", "api"}
    assert "inventory_list" in found["group"] or len(found["group"]) > 3
    assert len(set(found["tenant"]) - {"other", "-"}) >= 3


def test_the_board_can_be_imported_anywhere():
    assert BOARD["id"] is None
    assert BOARD["schemaVersion"] >= 36
    assert VARIABLES["datasource"]["type"] == "datasource"
    chosen = {json.dumps(panel["datasource"]) for panel in BOARD["panels"] if panel["type"] != "row"}
    assert chosen == {json.dumps({"type": "prometheus", "uid": "${datasource}"})}
    numbers = [panel["id"] for panel in BOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    cells = [
        (x, y)
        for panel in BOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))  # no two panels lie on each other
    assert max(x for x, _ in cells) == 23


def test_promtool_finds_no_fault_with_what_is_exported(site, require):
    """Names with base units, `_total` for counters and for nothing else, a help and a type for each."""
    with urlopen(f"{site.url}metrics", timeout=60) as answer:
        lines = [line for line in answer.read().decode().splitlines() if "cacheadmin_" in line]
    assert len(lines) > 100
    program = Path(require("prometheus")).with_name("promtool")
    done = subprocess.run(
        [program, "check", "metrics"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_servers_are_exported_once_by_two_workers(site):
    for metric in ("cacheadmin_server_up", "cacheadmin_server_memory_bytes", "cacheadmin_relay_lag_seconds"):
        assert len(site.prometheus.query(metric)) == 1, metric
    assert site.prometheus.value("cacheadmin_server_up") == 1.0
    assert site.prometheus.value("cacheadmin_breakers_open") == 0.0
    with_pid = [name for name in scraped(site) if 'pid="' in name]
    assert with_pid == []


def totals(points):
    """How much of everything charts show, rates times time."""
    lists = {name: getattr(points, name) for name in promql.RESULTS}
    found = {name: sum(rate or 0.0 for rate in rates) * points.step for name, rates in lists.items()}
    found["cost"] = sum(cost or 0.0 for cost in points.cost) * points.step / 60
    found["invalidations"] = sum(rate or 0.0 for rate in points.invalidations) * points.step / 60
    return found


def test_the_overview_shows_the_same_totals_from_prometheus_as_from_the_roll_ups(site):
    caches = {a: {**c, "LOCATION": site.redis.url_for(i)} for i, (a, c) in enumerate(settings.CACHES.items())}

    def both():
        """The page from either source. Of three minutes ahead, so that each event is in every window it is to be in."""
        settled(site)
        now = time.time() + 180
        with override_settings(CACHES=caches):
            rolled_up = overview(RANGES["15m"], now=now)
            with override_settings(CACHEADMIN={**settings.CACHEADMIN, "PROMETHEUS_URL": site.prometheus.url}):
                asked = overview(RANGES["15m"], now=now)
        assert (rolled_up.charts_from, asked.charts_from, asked.charts_error) == ("rollups", "prometheus", "")
        return rolled_up, asked

    before = [totals(page.series) for page in both()]
    site.visit(60)
    pages = both()
    rolled_up, asked = (
        {name: value - earlier[name] for name, value in totals(page.series).items()}
        for page, earlier in zip(pages, before, strict=True)
    )
    assert rolled_up["hit"] > 100
    assert rolled_up["miss"] > 10
    assert rolled_up["invalidations"] >= 5
    assert asked == pytest.approx(rolled_up, rel=1e-9, abs=1e-6)  # the same, but for how floats add up
    for page in pages:  # nothing waits for long, and both say so
        assert [count for count in page.series.waiting if count is not None][-1] == 0
        assert [lag for lag in page.series.lag_seconds if lag is not None][-1] == 0
    memory = [[used for used in page.series.used_bytes if used][-1] for page in pages]
    assert memory[0] == pytest.approx(memory[1], rel=0.5)  # looked at once a minute, and four times
    assert pages[0].series.limit_bytes == pages[1].series.limit_bytes == 256 * 1024 * 1024


def test_the_counters_that_are_scraped_are_those_of_the_roll_ups(site):
    site.visit(1)
    settled(site)
    caches = {a: {**c, "LOCATION": site.redis.url_for(i)} for i, (a, c) in enumerate(settings.CACHES.items())}
    reader = Reader()
    with override_settings(CACHES=caches):
        asked = reader.totals(MINUTE, time.time() - 3600, time.time())
        reader.run()
    sums = [sum(column) for column in zip(*(n for c in asked.value.counts.values() for n in c.values()), strict=True)]
    rolled_up = dict(zip(EVENTS, sums, strict=True))
    found = {result: site.prometheus.value(f'sum(cacheadmin_reads_total{{result="{result}"}})') for result in RESULTS}
    assert found == {result: rolled_up[result] for result in RESULTS}
    assert found["hit"] > 50
    for metric, event in {
        "invalidations": "invalidated",
        "computations": "computed",
        "fills": "filled",
        "filled_bytes": "filled_bytes",
        "lease_waits": "waited",
        "dropped_entries": "dropped",
    }.items():
        assert site.prometheus.value(f"sum(cacheadmin_{metric}_total)") == rolled_up[event], metric
    took = site.prometheus.value("sum(cacheadmin_read_seconds_sum)")  # of the middles of buckets
    assert site.prometheus.value("sum(cacheadmin_group_read_seconds_total)") == pytest.approx(took, rel=0.25)
    for reason in MISS_REASONS:
        value = site.prometheus.value(f'sum(cacheadmin_misses_total{{reason="{reason}"}})')
        assert value == rolled_up[f"missed_{reason}"], reason


# --- what happens to counters ---------------------------------------------------------------------------------------

EVERY = 30
"""Seconds between two scrapes of the histories below."""


class History:
    """Scrapes of some hours, made up: what `count` says is what the processes counted."""

    def __init__(self, until):
        self.until, self.lines, self.values = until, [], {}

    def scrape(self, at, host, **counted):
        """One scrape of a host: what each result has risen by since the last one."""
        self.lines.append(("up", f'job="shop",instance="{host}"', 1, at))
        for result, more in counted.items():
            labels = f'alias="query",group="g",instance="{host}",job="shop",result="{result}"'
            self.values[labels] = self.values.get(labels, 0) + more
            self.lines.append(("cacheadmin_reads_total", labels, self.values[labels], at))

    def restart(self, host):
        """The host's processes begin again."""
        for labels in [labels for labels in self.values if f'instance="{host}"' in labels]:
            self.values[labels] = 0

    def text(self):
        """OpenMetrics, which wants each series in one place."""
        lines = sorted(self.lines, key=lambda line: line[:2])
        kinds = {"up": "# TYPE up gauge", "cacheadmin_reads_total": "# TYPE cacheadmin_reads counter"}
        text = []
        for name, kind in kinds.items():
            text += [kind, *(f"{n}{{{labels}}} {value} {at}" for n, labels, value, at in lines if n == name)]
        return "\n".join([*text, "# EOF", ""])


@pytest.fixture(scope="module")
def past(require, tmp_path_factory):
    """Four hours, ended: a host that goes on, one that begins again, one that comes, and two troubles. -> (url, end)"""
    program, directory = require("prometheus"), tmp_path_factory.mktemp("past")
    end = int(time.time()) // 3600 * 3600
    history = History(end)
    for at in range(end - 4 * 3600, end + 1, EVERY):
        second = at - (end - 4 * 3600)
        if not 5000 <= second < 5600:  # Prometheus was away for ten minutes; what was counted meanwhile comes after
            history.scrape(at, "a", hit=7 if second < 5600 else 20, **({"error": 3} if second in (600, 900) else {}))
        if second in (3990, 9030):
            history.restart("b")  # less than an hour after each other, but each in an hour of its own
        history.scrape(at, "b", hit=0 if second < 60 else 11)
        if second == 7260:
            history.scrape(at, "c", hit=100_000)  # it counted for days before anybody looked
        elif second > 7260:
            history.scrape(at, "c", hit=2, miss=1)
    (directory / "past.txt").write_text(history.text())
    promtool = Path(program).with_name("promtool")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "past.txt", "data"]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with Prometheus(program, directory, []) as prometheus:
        yield prometheus.url, end


@pytest.mark.parametrize(("step", "unknown"), [(60, 0), (3600, 1)])
def test_restarts_gaps_and_series_that_begin_add_up_to_what_was_counted(past, step, unknown):
    """`unknown` is what the first sample of a series says whose host was first looked at in the same bucket."""
    (url, end), hours = past, 3
    begin = end - hours * 3600
    points = Series(step=step, times=list(range(begin, end, step)))
    with override_settings(CACHEADMIN={**settings.CACHEADMIN, "PROMETHEUS_URL": url, "PROMETHEUS_LABELS": {}}):
        found = totals(promql.redrawn(points, "query", end))
    scrapes = hours * 3600 // EVERY
    seconds = range(3600 + EVERY, 4 * 3600 + 1, EVERY)
    a = sum(7 if second < 5600 else 20 for second in seconds if not 5000 <= second < 5600)
    c = sum(second > 7260 for second in seconds)
    assert found["hit"] == pytest.approx(a + 11 * scrapes + 2 * c)
    assert found["miss"] == pytest.approx(c - unknown)
    assert found["error"] == found["stale"] == found["bypassed"] == 0.0


def test_a_result_that_is_seen_for_the_first_time_counts_from_nothing(past):
    url, end = past
    begin = end - 4 * 3600
    points = Series(step=60, times=list(range(begin + 120, begin + 1800, 60)))
    with override_settings(CACHEADMIN={**settings.CACHEADMIN, "PROMETHEUS_URL": url, "PROMETHEUS_LABELS": {}}):
        drawn = promql.redrawn(points, None, end)
    assert totals(drawn)["error"] == pytest.approx(6)
    # At the end of its bucket, as everything is.
    assert [at - begin for at, rate in zip(points.times, drawn.error, strict=True) if rate] == [540, 840]
