"""The exported metrics: names, bounded labels, that they are what the recorder counted, and whose turn it is."""

import datetime as dt
import json
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings
from django.core.signals import request_started
from django.db import connections
from django.test import override_settings
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from cacheadmin import outbox, prometheus
from cacheadmin.connections import Gate, link
from cacheadmin.exceptions import CacheAway
from cacheadmin.invalidation import Invalidation
from cacheadmin.outbox import delivery
from cacheadmin.outbox.rows import Delivery, insert
from cacheadmin.prometheus import counting, gates, metrics, names, servers
from cacheadmin.stats import (
    EVENTS,
    LATENCY_BOUNDS_US,
    MISS_REASONS,
    REFUSE_REASONS,
    RESULTS,
    SOURCES,
    Delta,
    recorder,
)
from cacheadmin.stats.history import Reader
from cacheadmin.stats.servers import servers as servers_of_the_site
from cacheadmin.targets import Target


@pytest.fixture(autouse=True)
def _known_names(monkeypatch):
    """Begin with no group and no tenant known, and the counters as they are: tests look at differences."""
    monkeypatch.setattr(counting, "groups", names.Groups())
    monkeypatch.setattr(counting, "tenants", names.Tenants())
    recorder.reset()


def exported():
    """All samples of ours: (name, labels…) -> value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in REGISTRY.collect()
        if metric.name.startswith("cacheadmin_")
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


def grown(before):
    """What has been added since."""
    now = exported()
    return {name: value - before.get(name, 0.0) for name, value in now.items() if value != before.get(name, 0.0)}


def test_a_flush_is_added_under_alias_group_and_result():
    prometheus.install()
    before = exported()
    recorder.read("api", "prometheus_sales", "12", "hit", 300_000)
    recorder.read("api", "prometheus_sales", "13", "hit", 300_000)
    recorder.read("api", "prometheus_sales", None, "miss")
    recorder.read("api", "", "12", "bypassed")
    recorder.missed("api", "prometheus_sales", None, "expired")
    recorder.computed("api", "prometheus_sales", None, 0.5)
    recorder.filled("api", "prometheus_sales", None, 1024)
    recorder.refused("api", "prometheus_sales", None, "epoch")
    recorder.waited("api", "prometheus_sales", None)
    recorder.invalidated("api", "12", "group prometheus_sales", "rule", "sale")
    assert exported() == before  # nothing is counted before the flush
    recorder.flush()
    recorder.flush()
    found = grown(before)
    buckets = {name: value for name, value in found.items() if name[0] == "cacheadmin_read_seconds_bucket"}
    assert {name: value for name, value in found.items() if name not in buckets} == {
        ("cacheadmin_reads_total", "api", "prometheus_sales", "hit"): 2.0,
        ("cacheadmin_reads_total", "api", "prometheus_sales", "miss"): 1.0,
        ("cacheadmin_reads_total", "api", "-", "bypassed"): 1.0,
        ("cacheadmin_misses_total", "api", "expired"): 1.0,
        ("cacheadmin_computations_total", "api", "prometheus_sales"): 1.0,
        ("cacheadmin_compute_seconds_total", "api", "prometheus_sales"): 0.5,
        ("cacheadmin_group_read_seconds_total", "api", "prometheus_sales"): pytest.approx(0.0006),
        ("cacheadmin_fills_total", "api"): 1.0,
        ("cacheadmin_filled_bytes_total", "api"): 1024.0,
        ("cacheadmin_refused_fills_total", "api", "epoch"): 1.0,
        ("cacheadmin_lease_waits_total", "api"): 1.0,
        ("cacheadmin_invalidations_total", "api", "rule"): 1.0,
        ("cacheadmin_read_seconds_count", "api"): 2.0,
        ("cacheadmin_read_seconds_sum", "api"): pytest.approx(2 * 0.000275),
    }
    assert {name[2] for name, value in buckets.items() if value == 2.0} >= {"0.0005", "0.001", "1.0", "+Inf"}
    assert ("cacheadmin_read_seconds_bucket", "api", "0.00025") not in buckets


def test_groups_beyond_the_bound_are_other_and_their_sum_is_exact():
    before = exported()
    counts = {("query", f"many{number}", "12"): [1] + [0] * (len(EVENTS) - 1) for number in range(1000)}
    counting.count(Delta(counts=counts))
    counting.count(Delta(counts=counts))
    found = {name: value for name, value in grown(before).items() if name[0] == "cacheadmin_reads_total"}
    assert len(found) == names.MOST_GROUPS + 1
    assert found["cacheadmin_reads_total", "query", "other", "hit"] == 2.0 * (1000 - names.MOST_GROUPS)
    assert sum(found.values()) == 2000.0


def test_a_name_that_no_utf_8_can_hold_does_not_take_the_page_of_metrics_away():
    prometheus.install()
    before = exported()
    with some_tenants(1):
        for _ in range(2):
            recorder.read("query", "gr\ud800up", "\udfff", "hit", 1_000)
            assert recorder.flush()
            counting.tenants.refresh()
    assert grown(before)["cacheadmin_reads_total", "query", r"gr\ud800up", "hit"] == 2.0
    assert rb'group="gr\\ud800up"' in generate_latest()


def test_all_processes_name_the_same_groups_whichever_they_meet_first():
    """Workers' series are added up: 20 groups of each would be many more together."""
    one, other = names.Groups(), names.Groups()
    for number in range(30):
        one.learn({("query", f"one{number}")})
        other.learn({("query", f"other{number}")})
    assert len(one.named | other.named) == names.MOST_GROUPS
    third = names.Groups()
    third.learn({("query", "third")})
    assert third.named >= one.named | other.named
    assert (third.label("query", "one0"), third.label("query", "third")) == ("one0", "other")


def test_a_known_group_costs_nothing_and_neither_does_a_full_list(round_trips):
    known = names.Groups()
    known.learn({("query", "sales")})
    with round_trips() as sent:
        known.learn({("query", "sales"), ("query", "")})
    assert sent == []
    known.learn({("query", f"group{number}") for number in range(100)})
    with round_trips() as sent:
        known.learn({("query", "yet another")})
    assert sent == []


def test_while_redis_is_away_new_groups_are_other_and_nothing_is_lost(monkeypatch):
    def away(*_):
        raise CacheAway("away")

    before = exported()
    with monkeypatch.context() as patch:
        patch.setattr(names, "first_groups", away)
        counting.count(Delta(counts={("query", "late", "12"): [1] + [0] * (len(EVENTS) - 1)}))
    counting.count(Delta(counts={("query", "late", "12"): [2] + [0] * (len(EVENTS) - 1)}))
    found = {name: value for name, value in grown(before).items() if name[0] == "cacheadmin_reads_total"}
    assert found == {
        ("cacheadmin_reads_total", "query", "other", "hit"): 1.0,
        ("cacheadmin_reads_total", "query", "late", "hit"): 2.0,
    }


def test_a_series_begins_at_nought_so_that_its_first_event_is_an_increase():
    counting.count(Delta(counts={("api", "begins", "12"): [0] * len(EVENTS)}))
    assert exported()["cacheadmin_reads_total", "api", "begins", "error"] == 0.0
    assert ("cacheadmin_misses_total", "template", "foreign") in exported()


# --- tenants --------------------------------------------------------------------------------------------------------


def some_tenants(count):
    return override_settings(CACHEADMIN={**settings.CACHEADMIN, "METRICS_TENANTS": count})


def read(tenant, times):
    for _ in range(times):
        recorder.read("query", "sales", tenant, "hit")


def test_no_tenant_becomes_a_label():
    counting.count(Delta(counts={("query", "sales", "tenant-4711"): [1] * len(EVENTS)}))
    assert not [name for name in exported() if "tenant-4711" in name]


def test_the_busiest_tenants_have_series_and_the_rest_are_other():
    for tenant, times in (("gold", 30), ("ruby", 20), ("opale", 10), (None, 50)):
        read(tenant, times)
    recorder.flush()
    before = exported()
    with some_tenants(2):
        counting.tenants.refresh()
        for tenant in ("gold", "ruby", "opale", "karat", None):
            read(tenant, 1)
        recorder.flush()
    found = {name[1:]: value for name, value in grown(before).items() if name[0] == "cacheadmin_tenant_reads_total"}
    assert found == {("gold", "hit"): 1.0, ("ruby", "hit"): 1.0, ("other", "hit"): 2.0, ("-", "hit"): 1.0}


def test_all_processes_name_the_same_tenants_for_a_day_and_those_still_busy_after_it(redis):
    with some_tenants(2):
        for tenant, times in (("gold", 30), ("ruby", 20), ("opale", 10)):
            read(tenant, times)
        recorder.flush()
        one, other = names.Tenants(), names.Tenants()
        one.refresh()
        read("opale", 90)
        recorder.flush()
        other.refresh()
        assert [*one.named] == [*other.named] == ["gold", "ruby"]
        [fresh] = redis.keys("*:tops:fresh")
        redis.delete(fresh)  # a day later
        read("gold", 40)
        recorder.flush()
        tomorrow = names.Tenants()
        tomorrow.refresh()
        assert [*tomorrow.named] == ["gold", "opale"]  # 70 reads against 100 are not enough to push gold out
        one._due = 0.0
        one.refresh()
        assert [*one.named] == ["gold", "ruby", "opale"]  # a series cannot be taken back
        redis.delete(fresh)
        read("lapis", 900)
        recorder.flush()
        one._due = 0.0
        one.refresh()
        assert [*one.named] == ["gold", "ruby", "opale"]  # but their number is bounded


def test_every_exported_bucket_is_one_that_is_counted():
    assert set(metrics.BUCKETS_US) <= set(LATENCY_BOUNDS_US)


def test_observing_many_at_once_is_observing_them_one_by_one():
    registry = CollectorRegistry()
    one = metrics.CountedHistogram("one", "x", registry=registry, buckets=(0.1, 1.0))
    many = metrics.CountedHistogram("many", "x", registry=registry, buckets=(0.1, 1.0))
    for amount, count in ((0.05, 3), (0.1, 2), (0.5, 1), (7.0, 4)):
        many.observe_many(amount, count)
        for _ in range(count):
            one.observe(amount)

    def samples(name):
        [metric] = [m for m in registry.collect() if m.name == name]
        return [
            (s.name.removeprefix(name), s.labels, pytest.approx(s.value))
            for s in metric.samples
            if not s.name.endswith("_created")
        ]

    assert samples("many") == samples("one")


def test_installing_twice_counts_once():
    prometheus.install()
    prometheus.install()
    assert recorder.sinks.count(counting.count) == 1


def test_every_metric_wears_our_prefix_and_a_base_unit():
    found = {metric.name: metric.type for metric in REGISTRY.collect() if "cacheadmin" in metric.name}
    assert {name for name, kind in found.items() if kind == "counter"} == {
        "cacheadmin_reads",
        "cacheadmin_misses",
        "cacheadmin_computations",
        "cacheadmin_compute_seconds",
        "cacheadmin_fills",
        "cacheadmin_filled_bytes",
        "cacheadmin_refused_fills",
        "cacheadmin_group_read_seconds",
        "cacheadmin_lease_waits",
        "cacheadmin_invalidations",
        "cacheadmin_dropped_entries",
        "cacheadmin_tenant_reads",
        "cacheadmin_tenant_compute_seconds",
        "cacheadmin_server_evicted_keys",
    }
    assert {name for name, kind in found.items() if kind != "counter"} == {
        "cacheadmin_read_seconds",
        "cacheadmin_server_up",
        "cacheadmin_server_memory_bytes",
        "cacheadmin_server_memory_limit_bytes",
        "cacheadmin_server_clients",
        "cacheadmin_database_keys",
        "cacheadmin_outbox_waiting",
        "cacheadmin_relay_lag_seconds",
        "cacheadmin_breakers_open",
        "cacheadmin_memory_lag_seconds",
    }


def test_all_labels_together_make_at_most_500_series():
    """Of four aliases, each on a server of its own, ten tenants asked for, and two databases with an outbox."""
    aliases = servers_ = 4
    groups = names.MOST_GROUPS + 2 * aliases  # `other` and `-` of each alias
    sizes = {
        ("alias",): aliases,
        ("alias", "group"): groups,
        ("alias", "group", "result"): groups * len(RESULTS),
        ("alias", "reason"): 0,  # below
        ("alias", "source"): aliases * len(SOURCES),
        ("tenant",): 10 + 10 // 2 + 2,
        ("tenant", "result"): (10 + 10 // 2 + 2) * len(RESULTS),
        ("server",): servers_,
        ("server", "database"): servers_,
        ("database",): 2,
        (): 1,
    }
    ours = [one for one in vars(metrics).values() if isinstance(one, (Counter, Gauge, Histogram))]
    count = sum(sizes[one._labelnames] for one in ours if one is not metrics.READ_SECONDS)
    count += aliases * (len(MISS_REASONS) + len(REFUSE_REASONS))
    count += aliases * (len(metrics.BUCKETS_US) + 3)  # +Inf, _sum, _count
    count -= 3 * aliases  # nothing is computed or timed for no group
    assert len(ours) == len([name for name in exported_names() if name.startswith("cacheadmin_")])
    assert count <= 500


def exported_names():
    return {metric.name for metric in REGISTRY.collect()}


def test_what_belongs_to_no_group_has_no_series_that_stay_at_nought():
    prometheus.install()
    recorder.read("api", "", "77", "hit", 300_000)
    recorder.flush()
    found = exported()
    assert found["cacheadmin_reads_total", "api", "-", "hit"] >= 1
    for name in ("computations_total", "compute_seconds_total", "group_read_seconds_total"):
        assert (f"cacheadmin_{name}", "api", "-") not in found


MANY_TENANTS = """
import json, resource, sys
import django
django.setup()
from django.conf import settings
from django.test import override_settings
from cacheadmin.prometheus import names
from cacheadmin.stats import recorder
from cacheadmin.stats.counts import MISS_REASONS, REFUSE_REASONS, RESULTS, SOURCES

aliases, number_of_this = ("default", "query", "template", "api"), int(sys.argv[1])

def count(numbers):
    for number in numbers:
        # Each process meets other groups first, and every kind of event of each.
        alias, group = aliases[number % 4], f"group{(number + 17 * number_of_this) % 61}"
        tenant = f"tenant-{number_of_this}-{number}"
        recorder.read(alias, group, tenant, RESULTS[number // 4 % 5], 1000 * number % 2_000_000_000)
        recorder.read(alias, "", None, RESULTS[number // 4 % 5])
        recorder.missed(alias, group, tenant, MISS_REASONS[number % 7])
        recorder.refused(alias, group, tenant, REFUSE_REASONS[number // 4 % 5])
        recorder.computed(alias, group, tenant, 0.1)
        recorder.invalidated(alias, tenant, "tenant", SOURCES[number // 4 % 3 + 2], "")
        if number % 2000 == 1999:
            recorder.flush()

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

with override_settings(CACHEADMIN={**settings.CACHEADMIN, "METRICS_TENANTS": 10}):
    count(range(2000))
    names.tenants.refresh()
    recorder.keeper = None  # the roll-ups have a test of their own
    count(range(2000, 10_000))
    before = memory()
    count(range(10_000, 50_000))
    print(json.dumps({"grown": memory() - before, "named": len(names.tenants.named)}))
"""


@pytest.mark.slow
def test_a_hundred_thousand_tenants_make_at_most_500_series_and_no_more_memory(tmp_path, redis_server):
    root = Path(__file__).parent.parent
    env = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        "PYTHONWARNINGS": "ignore",
    }
    said = []
    for number in ("0", "1"):
        command = [sys.executable, "-c", MANY_TENANTS, number]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        said.append(json.loads(done.stdout))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(tmp_path))
    samples = [sample for metric in registry.collect() for sample in metric.samples if "cacheadmin" in sample.name]
    assert 300 < len(samples) <= 500
    assert 10 <= max(told["named"] for told in said) <= 15
    reads = sum(sample.value for sample in samples if sample.name == "cacheadmin_reads_total")
    by_tenant = sum(sample.value for sample in samples if sample.name == "cacheadmin_tenant_reads_total")
    assert reads == by_tenant == 200_000
    assert max(told["grown"] for told in said) < 4_000_000


# --- of the site: one speaks ----------------------------------------------------------------------------------------


@pytest.fixture
def process(monkeypatch):
    """`process()` makes another worker of the site, as far as its turn is concerned; `as_it(worker)` acts as it."""
    workers = []

    def make():
        workers.append(servers._Speaker())
        workers[-1].answers_requests = True
        return workers[-1]

    def look(worker):
        monkeypatch.setattr(servers, "_speaker", worker)
        worker.looked = worker.visited = float("-inf")
        servers.look()
        return worker.has_turn

    make.look = look
    yield make
    for gauge in metrics.OF_THE_SITE:
        gauge.clear()


def of_servers():
    return {name: value for name, value in exported().items() if name[0].startswith("cacheadmin_server_")}


def test_one_process_of_the_site_speaks_of_the_servers_until_it_ends(process, round_trips, monkeypatch):
    one, other = process(), process()
    assert process.look(one)
    with round_trips() as sent:
        assert not process.look(other)
    assert len(sent) == 1  # whose turn is it?
    assert process.look(one)
    monkeypatch.setattr(servers, "_speaker", one)
    servers.leave()
    assert process.look(other)
    assert not process.look(one)


def test_a_forked_child_has_not_its_parents_turn(process, monkeypatch):
    one = process()
    assert process.look(one)
    monkeypatch.setattr(servers, "_speaker", one)
    child = os.fork()
    if not child:
        os._exit(int(servers._speaker.has_turn))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert servers._speaker.has_turn


def test_a_turn_that_was_not_given_up_ends_by_itself(process, redis):
    one, other = process(), process()
    process.look(one)
    [turn] = redis.keys("*:turn")
    assert 0 < redis.ttl(turn) <= 60
    redis.delete(turn)  # a minute after a kill -9
    assert process.look(other)
    before = of_servers()
    assert before["cacheadmin_server_up", next(iter(servers_of_the_site()))] == 1.0
    assert not process.look(one)  # it was only slow
    assert {name for name, value in of_servers().items() if not name[0].endswith("evicted_keys_total")} == set()


def test_what_was_said_is_taken_back_in_multiprocess_files_too(process):
    metrics.SERVER_MEMORY.labels("old:6379").set(5)
    child = metrics.SERVER_MEMORY.labels("old:6379")
    servers.withdraw()
    assert math.isnan(child._value.get())


@pytest.mark.django_db
def test_a_process_that_answers_no_requests_does_not_take_the_turn(process, round_trips, monkeypatch):
    command = servers._Speaker()
    monkeypatch.setattr(servers, "_speaker", command)
    with round_trips() as sent:
        servers.look()
    assert sent == []
    request_started.send(None, environ={})
    servers.look()
    assert command.has_turn


def test_what_the_servers_say_is_exported(process, redis):
    link("query").call(("SET", "a-key", 1))
    process.look(process())
    [server] = servers_of_the_site()
    info = redis.info()
    found = exported()
    assert found["cacheadmin_server_up", server] == 1.0
    assert found["cacheadmin_server_memory_bytes", server] == pytest.approx(info["used_memory"], rel=0.2)
    assert found["cacheadmin_server_memory_limit_bytes", server] == 256 * 1024 * 1024
    assert found["cacheadmin_server_clients", server] >= 1
    assert found["cacheadmin_database_keys", server, "1"] == 1.0
    assert found["cacheadmin_database_keys", server, "3"] == 0.0


def test_evictions_are_counted_once_whoever_counts_them(process, monkeypatch):
    """The server's own number, of which every process sees another part; and it begins again with a restart."""
    one, other = process(), process()
    [server] = servers_of_the_site()
    said = iter([100, 100, 130, 131, 4])
    real = servers.info
    monkeypatch.setattr(servers, "info", lambda alias: replace(real(alias), evicted=next(said)))

    def counted():
        return exported().get(("cacheadmin_server_evicted_keys_total", server), 0.0)

    began = counted()
    process.look(one)
    assert counted() == began  # of before anybody looked
    process.look(one)
    process.look(one)
    assert counted() == began + 30
    servers.leave()
    process.look(other)
    assert counted() == began + 31
    process.look(other)
    assert counted() == began + 35


def test_a_server_that_is_away_is_said_to_be_down(process, monkeypatch):
    def away(alias):
        raise CacheAway("away")

    worker = process()
    process.look(worker)
    monkeypatch.setattr(servers, "info", away)
    process.look(worker)
    [server] = servers_of_the_site()
    assert exported()["cacheadmin_server_up", server] == 0.0
    monkeypatch.setattr(worker.turn, "is_mine", lambda: away("default"))
    process.look(worker)
    assert worker.has_turn  # nobody can take it: he who had it goes on


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("outbox_setting", ["off", "on_failure"])
def test_what_waits_in_memory_alone_has_a_lag_too(outbox_setting, settings, monkeypatch):
    settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": outbox_setting}
    monkeypatch.setattr("cacheadmin.outbox.rows.own_sql.has_table", lambda *args: False)
    target = Target("group", "sales", "12", "query")
    assert outbox.keep(Invalidation((target,), "waiting", "code", ""))
    try:
        delivery._remembered[target] -= 90
        gates.look()
        assert 90 <= exported()["cacheadmin_memory_lag_seconds",] < 100
        assert 90 <= outbox.pending().oldest_seconds < 100, "the same that Overview shows"
    finally:
        outbox.reset()
    gates.look()
    assert exported()["cacheadmin_memory_lag_seconds",] == 0.0


@pytest.mark.django_db(transaction=True)
def test_what_waits_in_the_outbox_is_exported_and_relayed_by_who_has_the_turn(process, monkeypatch):
    woken = []
    monkeypatch.setattr(servers, "wake", lambda **how: woken.append(how))
    connection = connections["default"]
    insert(connection, Delivery((Target("group", "sales", "12", "query"),)), delay=dt.timedelta(seconds=-5))
    worker = process()
    process.look(worker)
    done = []

    def visit():
        # In a thread of its own, as there; SQLite in memory is shared with it.
        connections["default"] = connection
        connection.inc_thread_sharing()
        try:
            servers.visit()
        finally:
            connection.dec_thread_sharing()
            done.append(True)

    thread = threading.Thread(target=visit)
    thread.start()
    thread.join()
    assert done
    found = exported()
    assert found["cacheadmin_outbox_waiting", "default"] == 1.0
    assert 0.0 <= found["cacheadmin_relay_lag_seconds", "default"] < 60
    assert woken == [{"at_once": True}]
    reader = Reader()
    noted = reader.waiting(time.time() - 60, time.time())
    reader.run()
    assert [(sample.database, sample.count) for sample in noted.value] == [("default", 1)]
    assert 0.0 < noted.value[0].oldest_seconds < 60


def test_processes_that_keep_off_a_cache_are_counted(monkeypatch):
    gates.look()
    assert exported()["cacheadmin_breakers_open", "query"] == 0.0
    monkeypatch.setattr(link("query"), "_gate", Gate.HALF)
    gates.look()
    assert exported()["cacheadmin_breakers_open", "query"] == 1.0
    assert exported()["cacheadmin_breakers_open", "api"] == 0.0
