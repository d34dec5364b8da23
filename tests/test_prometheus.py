"""The exported metrics: names, bounded labels, and that they are what the recorder counted."""

import pytest
from prometheus_client import REGISTRY, CollectorRegistry

from cacheadmin import prometheus
from cacheadmin.prometheus import counting, metrics, names
from cacheadmin.stats import EVENTS, LATENCY_BOUNDS_US, Delta, recorder


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


def test_no_tenant_becomes_a_label():
    counting.count(Delta(counts={("query", "sales", "tenant-4711"): [1] * len(EVENTS)}))
    assert not [name for name in exported() if "tenant-4711" in name]


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
    }
