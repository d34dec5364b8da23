"""The recorder and the roll-ups: nothing lost, nothing twice, bounded, cheap."""

import collections
import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from cacheadmin import cache_tenant_query, invalidate_cache, invalidate_tenant_cache, reclaiming
from cacheadmin.connections import Link, link
from cacheadmin.exceptions import CacheAway
from cacheadmin.models import InvalidationRule
from cacheadmin.stats import EVENTS, EVERY_TENANT, INDEX, OTHER, Delta, layout, recorder, recording, rollups, sending
from cacheadmin.stats.counts import MISS_REASONS, REFUSE_REASONS, RESULTS, SOURCES
from cacheadmin.stats.history import DroppedLine, Reader
from server import free_port

NOW = 1_795_000_200
"""The beginning of a minute and of ten minutes: 2026-11-18 11:10:00 UTC."""


@pytest.fixture(autouse=True)
def _start_afresh(monkeypatch):
    """Begin with nothing counted and no sinks: Prometheus' names its groups in Redis, once a process."""
    monkeypatch.setattr(recorder, "sinks", [])
    recorder.reset()
    yield
    recorder.reset()


@pytest.fixture
def deltas():
    """What each flush hands to the sinks."""
    found = []
    recorder.sinks.append(found.append)
    yield found
    recorder.sinks.remove(found.append)


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` sets the time that flushes see."""

    def set_to(seconds):
        monkeypatch.setattr(time, "time", lambda: float(seconds))

    set_to(NOW)
    return set_to


def numbers(**events):
    """The numbers of a cell that counted these events."""
    found = [0] * len(EVENTS)
    for event, count in events.items():
        found[INDEX[event]] = count
    return found


def ask(*questions):
    """Answers of the roll-ups to (method, arguments…), in one round trip."""
    reader = Reader()
    asked = [getattr(reader, method)(*arguments) for method, *arguments in questions]
    reader.run()
    return [answer.value for answer in asked]


def whole(kind, step=layout.MINUTE, start=NOW):
    """Everything that one bucket of a kind counted, added up over its names."""
    [found] = ask((kind, [start], step))
    return [sum(column) for column in zip(*found[start].values(), strict=True)]


@contextlib.contextmanager
def caches_at(server):
    """Point the four aliases at another server."""
    caches = {a: {**c, "LOCATION": server.url_for(i)} for i, (a, c) in enumerate(settings.CACHES.items())}
    with override_settings(CACHES=caches):
        yield


# --- counting -------------------------------------------------------------------------------------------------------


def test_each_call_counts_its_own_event(deltas):
    for result in ("hit", "hit", "stale", "miss", "bypassed", "error"):
        recorder.read("default", "sales", "12", result)
    for reason in ("absent", "invalidated", "expired", "undecodable", "foreign", "cold", "evicted"):
        recorder.missed("default", "sales", "12", reason)
    for reason in ("epoch", "full", "size", "transaction", "condition"):
        recorder.refused("default", "sales", "12", reason)
    recorder.computed("default", "sales", "12", 0.25)
    recorder.filled("default", "sales", "12", 1000)
    recorder.filled("default", "sales", "12", 24)
    recorder.waited("default", "sales", "12")
    recorder.invalidated("default", "12", "group sales", "rule", "sale")
    recorder.dropped("default", "sales", "12", 38)
    recorder.dropped("default", "stock", "12", 0)
    recorder.flush()
    assert [d.counts for d in deltas] == [
        {
            ("default", "sales", "12"): numbers(
                hit=2,
                stale=1,
                miss=1,
                bypassed=1,
                error=1,
                computed=1,
                compute_us=250_000,
                filled=2,
                filled_bytes=1024,
                waited=1,
                invalidated=1,
                missed_absent=1,
                missed_invalidated=1,
                missed_expired=1,
                missed_undecodable=1,
                missed_foreign=1,
                refused_epoch=1,
                refused_full=1,
                refused_size=1,
                refused_transaction=1,
                refused_condition=1,
                missed_cold=1,
                missed_evicted=1,
                dropped=38,
            )
        }
    ]
    assert deltas[0].dropped == {("default", "12", "group sales", "rule", "sale"): 1}


def test_latency_falls_into_the_bucket_whose_upper_bound_it_does_not_exceed(deltas):
    for took_us in (1, 50, 51, 1000, 2_000_000):
        recorder.read("query", "sales", None, "hit", took_us * 1000)
    recorder.read("query", "sales", None, "hit")  # not measured
    recorder.flush()
    [latency] = [d.latency["query"] for d in deltas]
    assert {i: n for i, n in enumerate(latency) if n} == {0: 2, 1: 1, 9: 1, 25: 1}
    assert deltas[0].counts["query", "sales", None] == numbers(hit=6)


def test_a_read_that_was_timed_is_counted_with_how_long_it_took_by_alias_group_and_tenant(deltas, clock):
    recorder.read("default", "sales", "12", "hit", 300_400)
    recorder.read("default", "sales", "12", "hit", 299_600)
    recorder.read("default", "sales", "12", "bypassed")  # nobody was asked
    recorder.read("default", "sales", "13", "miss", 1_000_000)
    recorder.read("default", "stock", "13", "bypassed")
    recorder.flush()
    recorder.read("default", "sales", "12", "hit", 100_000)
    recorder.flush()
    assert [d.times for d in deltas] == [
        {("default", "sales", "12"): [2, 600], ("default", "sales", "13"): [1, 1000]},
        {("default", "sales", "12"): [1, 100]},
    ]
    [groups, tenants] = ask(
        ("group_times", layout.starts(600, NOW, NOW), 600), ("tenant_times", layout.starts(3600, NOW, NOW), 3600)
    )
    assert [*groups.values()] == [{("default", "sales"): [4, 1700]}]
    assert [*tenants.values()] == [{("default", "12"): [3, 700], ("default", "13"): [1, 1000]}]


def test_a_flush_hands_over_what_is_new_and_nothing_when_nothing_is(deltas):
    recorder.read("default", "sales", "12", "hit")
    recorder.flush()
    recorder.flush()
    recorder.read("default", "sales", "12", "hit")
    recorder.read("default", "sales", "13", "miss")
    recorder.flush()
    assert [d.counts for d in deltas] == [
        {("default", "sales", "12"): numbers(hit=1)},
        {("default", "sales", "12"): numbers(hit=1), ("default", "sales", "13"): numbers(miss=1)},
    ]


def test_no_count_is_lost_while_threads_count_and_another_flushes(deltas):
    threads, flushes = 4, 50
    ready, enough = threading.Barrier(threads + 1), threading.Event()
    counted = [0] * threads

    def count(number):
        ready.wait()
        while not counted[number] or not enough.is_set():
            for i in range(700):
                recorder.read("default", f"group{i % 7}", str(number), "hit", 100_000)
            counted[number] += 700

    def flush():
        ready.wait()
        while len(deltas) < flushes:  # each with counts of threads that go on meanwhile
            recorder.flush()
        enough.set()

    workers = [threading.Thread(target=count, args=(n,)) for n in range(threads)]
    flusher = threading.Thread(target=flush)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in (*workers, flusher):
            thread.start()
        for thread in (*workers, flusher):
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    recorder.flush()
    assert sum(n[INDEX["hit"]] for d in deltas for n in d.counts.values()) == sum(counted)
    assert sum(sum(d.latency["default"]) for d in deltas if d.latency) == sum(counted)
    assert all(counted)


def test_a_thread_that_has_ended_is_counted_and_then_forgotten(deltas):
    thread = threading.Thread(target=lambda: recorder.read("default", "sales", "12", "hit"))
    thread.start()
    thread.join()
    assert len(recorder._shards) == 1
    recorder.flush()
    assert deltas[0].counts == {("default", "sales", "12"): numbers(hit=1)}
    assert recorder._shards == []


def test_names_beyond_the_bound_are_counted_together_until_the_next_flush(deltas, monkeypatch):
    monkeypatch.setattr(recording, "CELLS_PER_THREAD", 3)
    for tenant in range(10):
        recorder.read("default", "sales", str(tenant), "hit")
    recorder.flush()
    assert deltas[0].counts == {
        **{("default", "sales", str(tenant)): numbers(hit=1) for tenant in range(3)},
        ("default", OTHER, OTHER): numbers(hit=7),
    }
    recorder.read("default", "sales", "9", "hit")
    recorder.flush()
    assert deltas[1].counts == {("default", "sales", "9"): numbers(hit=1)}


def test_counting_a_known_name_is_one_call_without_a_lock_or_an_allocation():
    recorder.read("default", "sales", "12", "hit", 1000)
    called = []
    gc.disable()  # whoever is told of a collection would be called as well
    sys.setprofile(lambda frame, event, arg: called.append((event, getattr(arg, "__name__", frame.f_code.co_name))))
    try:
        recorder.read("default", "sales", "12", "hit", 1000)
    finally:
        sys.setprofile(None)
        gc.enable()
    calls = [name for event, name in called if event in ("call", "c_call")]
    assert calls == ["read", "bisect_left", "setprofile"]


def test_a_sink_that_fails_harms_neither_the_caller_nor_the_other_sinks(deltas, caplog):
    def broken(delta):
        raise ValueError("no")

    recorder.sinks.insert(0, broken)
    try:
        recorder.read("default", "sales", "12", "hit")
        assert recorder.flush() is True
    finally:
        recorder.sinks.remove(broken)
    assert len(deltas) == 1
    assert "A sink of the recorder failed." in caplog.text


def test_an_unknown_result_is_not_worth_an_exception(deltas):
    recorder.read("default", "sales", "12", "hit")
    recorder.read("default", "sales", "12", "no such result")
    recorder.flush()
    assert deltas[0].counts == {("default", "sales", "12"): numbers(hit=1)}


# --- roll-ups -------------------------------------------------------------------------------------------------------


def test_a_flush_costs_one_round_trip_and_none_if_nothing_was_counted(round_trips, clock):
    recorder.read("default", "sales", "12", "hit")
    recorder.flush()  # connects, and teaches the server the script
    with round_trips() as sent:
        assert recorder.flush() is True
    assert sent == []
    for tenant in range(40):
        recorder.read("default", "sales", str(tenant), "hit")
    with round_trips() as sent:
        assert recorder.flush() is True
    assert len(sent) == 1
    assert set(sent[0].split()) <= {"EVALSHA", "INFO"}


def test_counts_add_up_by_alias_group_tenant_and_both(clock):
    recorder.read("default", "sales", "12", "hit")
    recorder.read("default", "sales", None, "miss")
    recorder.read("query", "stock", "12", "hit", 400_000)
    recorder.flush()
    recorder.read("query", "stock", "12", "stale")
    recorder.flush()
    later = NOW + 59
    [totals, groups, tenants, some, both] = ask(
        ("totals", 60, NOW, later),
        ("groups", [NOW], 60),
        ("tenants", [NOW], 60),
        ("tenants", [NOW], 60, ["12", "77"]),
        ("groups_of", ["12"], [NOW], 600),
    )
    assert totals.counts == {NOW: {"default": numbers(hit=1, miss=1), "query": numbers(hit=1, stale=1)}}
    assert totals.latency[NOW]["query"][6] == 1
    assert groups == {NOW: {("default", "sales"): numbers(hit=1, miss=1), ("query", "stock"): numbers(hit=1, stale=1)}}
    assert tenants == {
        NOW: {
            ("default", "12"): numbers(hit=1),
            ("default", None): numbers(miss=1),
            ("query", "12"): numbers(hit=1, stale=1),
        }
    }
    assert some == {NOW: {("default", "12"): numbers(hit=1), ("query", "12"): numbers(hit=1, stale=1)}}
    assert both == {NOW: {("default", "sales"): numbers(hit=1), ("query", "stock"): numbers(hit=1, stale=1)}}


def test_most_flushes_send_only_the_minutes_and_the_next_whole_one_sends_the_rest(redis, clock):
    for _ in range(3):
        recorder.read("default", "sales", "12", "hit")
        recorder.invalidated("default", "12", "group sales", "rule", "sale")
        assert recorder.flush(everything=False) is True
    kinds = {tuple(key.decode().split(":")[2:4]) for key in redis.scan_iter()}
    assert kinds - {("n", rollups._process)} == {("a", "60"), ("g", "60"), ("t", "60"), ("d", "3600")}
    clock(NOW + 601)
    recorder.read("default", "sales", "12", "hit")
    assert recorder.flush() is True
    [tens, both] = ask(("groups", [NOW, NOW + 600], 600), ("groups_of", ["12"], [NOW, NOW + 600], 600))
    assert [names["default", "sales"][0] for names in tens.values()] == [3, 1]
    assert both == tens
    assert whole("groups") == numbers(hit=3, invalidated=3)


def test_minutes_add_up_to_ten_minutes_and_hours(clock):
    for minute in range(0, 25, 5):
        clock(NOW + 60 * minute)
        recorder.read("default", "sales", "12", "hit")
        recorder.flush()
    hour = NOW // 3600 * 3600
    [minutes, tens, hours] = ask(
        ("groups", range(NOW, NOW + 1500, 60), 60),
        ("groups", range(NOW, NOW + 1500, 600), 600),
        ("groups", [hour], 3600),
    )
    assert [len(names) for names in minutes.values()] == ([1] + [0] * 4) * 5
    assert [names["default", "sales"][0] for names in tens.values()] == [2, 2, 1]
    assert hours == {hour: {("default", "sales"): numbers(hit=5)}}


def test_the_next_process_adds_to_the_same_buckets(clock):
    for _process in range(3):
        recorder.read("default", "sales", "12", "hit")
        recorder.flush()
        recorder.reset()
    assert whole("groups") == numbers(hit=3)


def test_every_key_lies_in_one_slot_and_goes_by_itself(redis, clock):
    recorder.read("default", "sales", "12", "hit")
    recorder.invalidated("default", "12", "tenant", "user", "amira")
    rollups.measure()
    recorder.flush()
    keys = [key.decode() for key in redis.scan_iter()]
    assert {key.partition("{")[0] + key.partition("{")[2].partition("}")[0] for key in keys} == {
        "jewelry_shop:cacheadmin"
    }
    assert all(0 < redis.ttl(key) <= 31 * 86_400 for key in keys)
    kinds = {key.split(":")[2] for key in keys}
    assert kinds == {"a", "g", "t", "b", "d", "k", "n", "s", "born"}


@pytest.mark.parametrize("name", ["-", "*", "a:b", "{x}", "%2D", "~", "a b\n", "é", "x" * 150, "\0other"])
def test_no_name_meets_another_in_a_field(clock, name):
    recorder.read("default", name, None, "hit")
    recorder.read("default", "sales", name, "miss")
    recorder.flush()
    [groups, tenants] = ask(("groups", [NOW], 60), ("tenants", [NOW], 60))
    assert groups[NOW] == {("default", name): numbers(hit=1), ("default", "sales"): numbers(miss=1)}
    assert tenants[NOW] == {("default", None): numbers(hit=1), ("default", name): numbers(miss=1)}


def test_names_beyond_the_bound_of_a_bucket_are_added_to_other_and_sums_stay_exact(clock, monkeypatch):
    monkeypatch.setattr(sending, "FIELDS_A_HASH", 2)
    for tenant in range(100):
        recorder.read("default", f"group{tenant}", str(tenant), "hit")
    recorder.flush()
    [tenants, both] = ask(("tenants", [NOW], 60), ("groups", [NOW], 600))
    assert len(tenants[NOW]) <= 2 * layout.TENANTS.shards + 1
    assert tenants[NOW]["default", OTHER][0] == 100 - (len(tenants[NOW]) - 1)
    assert whole("tenants") == whole("groups") == numbers(hit=100)
    assert both[NOW]["default", OTHER][0] > 90


def test_numbers_stay_whole_where_a_double_would_be_written_with_an_exponent(clock):
    recorder.filled("default", "sales", "12", 10**15)
    recorder.flush()
    recorder.filled("default", "sales", "12", 1)
    recorder.flush()
    assert whole("groups") == numbers(filled=2, filled_bytes=10**15 + 1)


def test_memory_of_a_thousand_tenants_and_twenty_groups_is_bounded(redis, clock):
    """docs/metrics.md has the figures. All together read 1,500 times a second: an hour's worth in one flush."""
    for tenant in range(1000):
        for group in range(20):
            name = ("default", f"inventory_list_{group}", str(10_000 + tenant))
            cell = recorder._cell(*name)
            usual = {"hit": 240, "miss": 24, "computed": 24, "compute_us": 4_800_000, "filled": 24}
            more = {"filled_bytes": 240_000, "invalidated": 18, "missed_cold": 6, "missed_expired": 12}
            for event, count in {**usual, **more, "missed_invalidated": 6, "dropped": 24}.items():
                cell[INDEX[event]] += count
            cell[len(EVENTS) :] = [264, 264 * 480]
        if tenant % 200 == 199:
            recorder.flush()  # 4,000 names, as many as one thread keeps apart
    used = collections.Counter()
    for key in redis.scan_iter():
        letter, step, *_ = key.decode().split(":")[2:]
        if letter in "tbhu":
            assert redis.object("encoding", key) in (b"listpack", b"ziplist")  # a third of a hash table's memory
            used[letter, int(step)] += redis.memory_usage(key, samples=0)
    assert whole("tenants")[0] == 240 * 20_000
    [both] = ask(("groups_of", [str(10_000 + t) for t in range(1000)], [NOW], 600))
    assert sum(n[0] for n in both[NOW].values()) == 240 * 20_000
    # All of them active all the time: each bucket that is kept is as full as this one.
    buckets = {("t", step): keep // step for step, keep in layout.TENANTS.keep.items()}
    buckets |= {("b", step): keep // step for step, keep in layout.BOTH.keep.items()}
    tenants = sum(used[kind] * count for kind, count in buckets.items() if kind[0] == "t")
    both_together = sum(used[kind] * count for kind, count in buckets.items() if kind[0] == "b")
    text = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    said = re.search(r"take (\d+) MB for the tenants and (\d+) MB for their groups", text).groups()
    assert [tenants / 1e6, both_together / 1e6] == pytest.approx([float(figure) for figure in said], rel=0.15)
    # Of latency a bucket keeps 500 tenants apart: as full as it can be, and still compact.
    [times] = ask(("tenant_times", [NOW], 600))
    assert len(times[NOW]) == 501
    assert [sum(column) for column in zip(*times[NOW].values(), strict=True)] == [264 * 20_000, 264 * 480 * 20_000]
    latency = sum(used["u", step] * keep // step for step, keep in layout.TENANT_TIMES.keep.items())
    [said] = re.search(r"500 groups and 500 tenants, it takes (\d+) MB", text).groups()
    assert 2 * latency / 1e6 == pytest.approx(float(said), rel=0.15)


# --- Redis is not always there --------------------------------------------------------------------------------------


def test_counts_wait_while_redis_is_away_and_arrive_once_in_their_own_minutes(fresh_server, clock, tmp_path):
    port = free_port()
    server = fresh_server(port=port)
    with caches_at(server):
        server.kill()
        for minute in range(3):
            clock(NOW + 60 * minute)
            recorder.read("default", "sales", "12", "bypassed")
            assert recorder.flush() is False
            link("default").reset()
        again = fresh_server(port=port)
        link("default").reset()
        assert recorder.flush() is True
        [found] = ask(("groups", range(NOW, NOW + 180, 60), 60))
        again.stop()
    assert [names["default", "sales"] for names in found.values()] == [numbers(bypassed=1)] * 3


def test_a_batch_whose_answer_was_lost_is_added_once(clock, monkeypatch):
    recorder.read("default", "sales", "12", "hit")
    recorder.flush()
    call = Link.call

    def lose(self, *commands, again=True):
        call(self, *commands, again=again)
        raise CacheAway("The answer was lost.")

    recorder.read("default", "sales", "12", "hit")
    with monkeypatch.context() as patch:
        patch.setattr(Link, "call", lose)
        assert recorder.flush() is False
        recorder.read("default", "sales", "12", "hit")
        assert recorder.flush() is False
    assert recorder.flush() is True
    assert whole("groups") == numbers(hit=3)


def test_a_full_redis_refuses_counts_and_takes_them_later(fresh_server, clock):
    server = fresh_server()
    with caches_at(server):
        recorder.read("default", "sales", "12", "hit")
        assert recorder.flush() is True
        link("default").call(("CONFIG", "SET", "maxmemory", "1"))
        recorder.read("default", "sales", "12", "hit")
        assert recorder.flush() is False
        recorder.read("default", "sales", "12", "hit")
        assert recorder.flush() is False
        link("default").call(("CONFIG", "SET", "maxmemory", "0"))
        assert recorder.flush() is True
        assert whole("groups") == numbers(hit=3)


def test_what_waits_is_bounded_and_its_sum_exact(clock, monkeypatch):
    monkeypatch.setattr(sending, "WAITING_CELLS", 5)
    waiting = Delta()
    for tenant in range(20):
        cell = ("default", "sales", str(tenant))
        sending.merge(waiting, Delta(counts={cell: numbers(hit=1)}, times={cell: [1, 300]}))
    assert len(waiting.counts) == len(waiting.times) == 6
    assert waiting.counts["default", OTHER, OTHER] == numbers(hit=15)
    assert waiting.times["default", OTHER, OTHER] == [15, 15 * 300]


def test_a_site_without_redis_counts_for_its_sinks_only(deltas, round_trips):
    local = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    with override_settings(CACHES=local, CACHEADMIN={"ALIASES": ["default"]}), round_trips() as sent:
        recorder.read("default", "sales", "12", "hit")
        assert recorder.flush() is True
        rollups.measure()
        assert ask(("tenants", [NOW], 60)) == [{NOW: {}}]
    assert sent == []
    assert len(deltas) == 1


# --- invalidations, marks, memory -----------------------------------------------------------------------------------


def test_invalidations_come_as_one_line_a_minute_and_thing(clock):
    for _ in range(38):
        recorder.invalidated("query", "12", "group inventory_list", "rule", "inventory item")
    recorder.flush()
    clock(NOW + 60)
    recorder.invalidated("query", "12", "group inventory_list", "rule", "inventory item")
    recorder.invalidated("query", EVERY_TENANT, "prefix price: 100%", "command", "")
    recorder.flush()
    [lines] = ask(("dropped", NOW, NOW + 119))
    assert lines == [
        DroppedLine(NOW + 60, "query", "12", "group inventory_list", "rule", "inventory item", 1),
        DroppedLine(NOW + 60, "query", "*", "prefix price: 100%", "command", "", 1),
        DroppedLine(NOW, "query", "12", "group inventory_list", "rule", "inventory item", 38),
    ]


def marks():
    [found] = ask(("marks", NOW - 3600, NOW + 3600))
    return [(mark.kind, mark.text, mark.tenant, int(mark.at) - NOW) for mark in found]


def test_a_person_who_drops_a_tenant_leaves_one_mark_for_all_aliases(clock):
    for alias in ("default", "query"):
        recorder.invalidated(alias, "12", "tenant", "user", "amira")
        recorder.invalidated(alias, "13", "tenant", "rule", "tenant settings")
    recorder.flush()
    assert marks() == [("clear", "default, query", "12", 0)]


def test_an_alias_that_is_cleared_is_marked_for_all_tenants(clock):
    recorder.invalidated("query", EVERY_TENANT, "tenant", "user", "amira")
    recorder.invalidated("api", EVERY_TENANT, "tenant", "rule", "a wide rule")  # no person's: not named
    recorder.flush()
    assert marks() == [("clear", "query", "*", 0)]


def test_a_release_is_marked_when_any_process_sees_it_first(clock):
    config = settings.CACHEADMIN
    for at, release in ((0, "2026.11.2"), (5, "2026.11.3"), (9, "2026.11.2"), (60, "2026.11.3")):
        clock(NOW + at)
        recorder.reset()  # another process
        with override_settings(CACHEADMIN={**config, "RELEASE": release}):
            rollups.measure()
            rollups.measure()
            recorder.flush()
    assert marks() == [("deploy", "2026.11.2", "*", 0), ("deploy", "2026.11.3", "*", 5)]


@pytest.mark.django_db(transaction=True)
def test_an_edited_rule_is_marked_when_it_is_in_force_and_has_changed(clock):
    def marked():
        recorder.flush()
        found = [text for kind, text, *_ in marks() if kind == "rule"]
        clock(time.time() + 60)  # one mark a minute and rule
        return found

    rule = InvalidationRule.objects.create(name="branch", model="shop.Branch", targets=["prefix:branch"])
    assert marked() == ["branch"]
    rule.note = "only a note"
    rule.save()
    assert marked() == ["branch"]
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        InvalidationRule.objects.update(targets=["prefix:other"])
        raise ZeroDivisionError
    assert marked() == ["branch"]
    InvalidationRule.objects.filter(pk=rule.pk).update(enabled=False)
    InvalidationRule.objects.create(name="off", model="shop.Branch", targets=["prefix:x"], enabled=False)
    assert marked() == ["branch", "branch"]
    InvalidationRule.objects.bulk_create(
        [InvalidationRule(name=name, model="shop.Branch", targets=["prefix:x"]) for name in ("b", "a")]
    )
    assert marked() == ["branch", "branch", "a, b"]


@pytest.mark.django_db
def test_a_server_that_goes_and_another_that_comes_are_marked(fresh_server, clock, monkeypatch):
    port = free_port()
    server = fresh_server(port=port)
    with caches_at(server):
        recorder.read("default", "sales", "12", "hit")
        recorder.flush()
        rollups.measure()
        server.kill()
        clock(NOW + 60)
        with pytest.raises(CacheAway):
            link("default").call(("PING",))
        rollups.measure()
        fresh_server(port=port)
        clock(NOW + 180)
        monkeypatch.setattr("cacheadmin.connections.Link._may_try", lambda self: True)
        link("default").call(("PING",))
        rollups.measure()
        recorder.flush()
        all_aliases = "query, default, template, api"
        assert marks() == [
            ("away", all_aliases, "*", 60),
            ("back", all_aliases, "*", 180),
            ("server", all_aliases, "*", 180),
        ]


def test_memory_is_measured_once_a_minute_by_one_process(clock, round_trips, redis):
    rollups.measure()
    recorder.reset()
    with round_trips() as sent:
        rollups.measure()
        rollups.measure()
    assert [trip.removeprefix("INFO INFO ") for trip in sent] == ["HSETNX EXPIRE SET EXPIRE"]
    clock(NOW + 60)
    rollups.measure()
    [samples, born] = ask(("samples", NOW, NOW + 60), ("born",))
    assert [(s.at, s.alias, s.limit_bytes) for s in samples] == [
        (NOW, "query", 256 * 1024 * 1024),
        (NOW + 60, "query", 256 * 1024 * 1024),
    ]
    assert all(s.used_bytes > 100_000 for s in samples)
    assert born == NOW


# --- why a read missed ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_miss_says_why_where_that_can_be_told(deltas, redis_server):
    @cache_tenant_query(timeout=300, key_prefix="stats_reasons", alias="query")
    def listing(tenant_id, branch_id):
        return [branch_id]

    @cache_tenant_query(timeout=1, key_prefix="stats_short", alias="query")
    def short(tenant_id, branch_id):
        return [branch_id]

    client = link("query")

    def reasons(branch_id=1, function=listing):
        """Read once and return why it missed."""
        deltas.clear()
        function(12, branch_id)
        recorder.flush()
        counted = [name for d in deltas for n in d.counts.values() for name, i in INDEX.items() if n[i]]
        return [name.removeprefix("missed_") for name in counted if name.startswith("missed_")]

    assert reasons() == ["absent"]  # the group's first entry: nothing is known of the group yet
    assert reasons(2) == ["cold"]
    assert reasons(2) == []
    client.call(("UNLINK", listing.entry(12, 2).key))  # what a full server does
    assert reasons(2) == ["evicted"]
    listing.invalidate(12, 2)
    assert reasons(2) == ["cold"]  # by its name
    caches["query"].delete(listing.key(12, 2))
    assert reasons(2) == ["cold"]
    invalidate_tenant_cache(12, "stats_reasons")
    assert reasons(2) == ["invalidated"]
    assert reasons(1, short) == ["absent"]
    while client.call(("EXISTS", short.entry(12, 1).key)).values[0]:
        time.sleep(0.05)
    assert reasons(1, short) == ["expired"]


@pytest.mark.django_db
def test_entries_that_invalidations_drop_are_counted_when_they_go(deltas):
    @cache_tenant_query(timeout=300, key_prefix="stats_dropped", alias="query")
    def listing(tenant_id, branch_id):
        return [branch_id]

    for branch_id in range(5):
        listing(12, branch_id)
    caches["query"].set("plain-key", 1)
    recorder.flush()
    deltas.clear()
    invalidate_tenant_cache(12, "stats_dropped")
    invalidate_cache("plain-key", alias="query")
    recorder.flush()
    assert sum(n[INDEX["dropped"]] for d in deltas for n in d.counts.values()) == 1
    reclaiming.run_due(everything=True)
    recorder.flush()
    dropped = {cell: n[INDEX["dropped"]] for d in deltas for cell, n in d.counts.items() if n[INDEX["dropped"]]}
    assert dropped == {("query", "", None): 1, ("query", "stats_dropped", "12"): 5}


# --- processes ------------------------------------------------------------------------------------------------------

WORKERS = """
import collections, json, os, random, signal, sys, threading
import django
django.setup()
from cacheadmin.conf import config
from cacheadmin.stats import recorder
from cacheadmin.stats.counts import MISS_REASONS, REFUSE_REASONS, RESULTS, SOURCES

ENOUGH = 13_000
recorder.read("default", "parent", None, "hit")        # not flushed: the parent's, not its children's

def work(number):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    counted, enough = [collections.Counter(), collections.Counter()], threading.Semaphore(0)

    def count(mine, seed):
        chance, told = random.Random(seed), False
        while not stop.is_set():
            for i in range(100):
                alias, group = chance.choice(("default", "query")), f"group{i % 7}"
                tenant = str(chance.randrange(50))
                result = chance.choices(RESULTS, (80, 2, 14, 2, 2))[0]
                recorder.read(alias, group, tenant, result, 300_000)
                mine[result] += 1
                mine["alias", alias] += 1
                mine["group", alias, group] += 1
                mine["tenant", tenant] += 1
                if result == "miss":
                    reason = chance.choice(MISS_REASONS)
                    recorder.missed(alias, group, tenant, reason)
                    mine["missed_" + reason] += 1
                    recorder.computed(alias, group, tenant, 0.25)
                    mine["computed"] += 1
                    if chance.random() < 0.9:
                        recorder.filled(alias, group, tenant, 1000)
                        mine["filled"] += 1
                    else:
                        refusal = chance.choice(REFUSE_REASONS)
                        recorder.refused(alias, group, tenant, refusal)
                        mine["refused_" + refusal] += 1
                if i % 50 == 0:
                    source = chance.choice(SOURCES)
                    recorder.waited(alias, group, tenant)
                    recorder.invalidated(alias, tenant, "group " + group, source, "r")
                    recorder.invalidated(alias, tenant, "tag " + group, source, "r", is_first=False)
                    recorder.dropped(alias, group, tenant, 3)
                    mine["waited"] += 1
                    mine["source", source] += 1
                    mine["dropped"] += 3
            mine["reads"] += 100
            if not told and mine["reads"] >= ENOUGH:
                told = True
                enough.release()

    threads = [threading.Thread(target=count, args=(mine, number * 2 + i)) for i, mine in enumerate(counted)]
    [t.start() for t in threads]
    [enough.acquire() for _ in threads]
    os.write(1, f"{os.getpid()}\\n".encode())  # one write: lines of several processes must not mix
    [t.join() for t in threads]
    total = counted[0] + counted[1]
    line = json.dumps([["/".join(k) if isinstance(k, tuple) else k, n] for k, n in total.items()]) + "\\n"
    os.write(1, line.encode())
    sys.exit(0)

for number in range(4):
    if os.fork() == 0:
        work(number)
for _ in range(4):
    os.wait()
"""


CHILD_OF_MULTIPROCESSING = """
import multiprocessing
import os

def count(number):
    from cacheadmin.stats import recorder

    for _ in range(100):
        recorder.read("default", f"child{number}", "1", "hit")

if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    django.setup()
    for number, how in enumerate(("fork", "spawn")):
        child = multiprocessing.get_context(how).Process(target=count, args=(number,))
        child.start()
        child.join()
"""


@pytest.mark.slow
def test_a_child_of_multiprocessing_flushes_when_it_ends(tmp_path, redis_server):
    """It ends by `os._exit`, which runs nothing of `atexit`."""
    script = tmp_path / "counting.py"
    script.write_text(CHILD_OF_MULTIPROCESSING)
    root = Path(__file__).parent.parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]), "PYTHONWARNINGS": "ignore"}
    began = time.time()
    subprocess.run([sys.executable, str(script)], env=env, check=True, timeout=120)
    [groups] = ask(("groups", layout.starts(60, began, time.time()), 60))
    counted = collections.Counter()
    for names in groups.values():
        for (_alias, group), numbers in names.items():
            counted[group] += numbers[INDEX["hit"]]
    assert {group: n for group, n in counted.items() if group.startswith("child")} == {"child0": 100, "child1": 100}


IN_CELERY = """
import os

import celery
import django

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
app = celery.Celery("counting", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True

@app.task
def count(number):
    from cacheadmin.stats import recorder

    for _ in range(100):
        recorder.read("default", f"task{number}", "1", "hit")
    return os.getpid()

if __name__ == "__main__":
    print(*(count.delay(number).get(timeout=90) for number in range(2)))
"""


@pytest.mark.slow
def test_a_child_of_celerys_pool_flushes_when_it_is_replaced(tmp_path, redis_server):
    """A child a task: each ends right after it has counted, by `os._exit`, long before it would flush."""
    (tmp_path / "counting.py").write_text(IN_CELERY)
    root = Path(__file__).parent.parent
    paths = os.pathsep.join(map(str, (tmp_path, root, root / "tests")))
    env = os.environ | {"PYTHONPATH": paths, "PYTHONWARNINGS": "ignore", "BROKER": redis_server.url_for(9)}
    options = ("--pool", "prefork", "-c", "1", "--max-tasks-per-child", "1", "--loglevel", "ERROR")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    command = [sys.executable, "-m", "celery", "-A", "counting", "worker", *options, *quiet]
    began = time.time()
    with subprocess.Popen(command, env=env, cwd=tmp_path) as worker:
        try:
            called = [sys.executable, str(tmp_path / "counting.py")]
            done = subprocess.run(called, env=env, check=True, timeout=200, stdout=subprocess.PIPE, text=True)
            assert len({*done.stdout.split()}) == 2  # processes
        finally:
            worker.terminate()
            worker.wait(90)
    [groups] = ask(("groups", layout.starts(60, began, time.time()), 60))
    counted = collections.Counter()
    for names in groups.values():
        for (_alias, group), numbers in names.items():
            counted[group] += numbers[INDEX["hit"]]
    assert {g: n for g, n in counted.items() if g.startswith("task")} == {"task0": 100, "task1": 100}


@pytest.mark.slow
def test_roll_ups_prometheus_and_the_truth_agree_over_workers_that_are_terminated(tmp_path, redis_server):
    """Four workers of two threads count 100,000 reads and more, flush meanwhile, and end by SIGTERM in the middle."""
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    root = Path(__file__).parent.parent
    env = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        "SHOP_DEMO": "1",  # flushes every 3 s
        "PYTHONWARNINGS": "ignore",
    }
    began = time.time()
    process = subprocess.Popen(
        [sys.executable, "-c", WORKERS], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        children = [int(process.stdout.readline()) for _ in range(4)]
        time.sleep(max(0.0, began + 4 - time.time()))  # longer than FLUSH_SECONDS: some flush in the middle
        for child in children:
            os.kill(child, signal.SIGTERM)
        said, _ = process.communicate(timeout=90)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    truth = collections.Counter()
    for line in said.splitlines():
        truth.update(dict(json.loads(line)))
    truth.update({"reads": 1, "hit": 1, "alias/default": 1, "group/default/parent": 1})  # the parent's own
    assert len(said.splitlines()) == 4
    assert truth["reads"] > 100_000

    minutes = layout.starts(60, began, time.time())
    [groups, tenants, totals] = ask(
        ("groups", minutes, 60), ("tenants", minutes, 60), ("totals", 60, began, time.time())
    )
    everything = [sum(column) for column in zip(*(n for c in totals.counts.values() for n in c.values()), strict=True)]
    rolled_up = {event: number for event, number in zip(EVENTS, everything, strict=True) if number}
    assert rolled_up == {
        **{event: truth[event] for event in EVENTS if truth[event]},
        "compute_us": truth["computed"] * 250_000,
        "filled_bytes": truth["filled"] * 1000,
        "invalidated": truth["waited"],
    }
    assert sum(sum(n) for c in totals.latency.values() for n in c.values()) == truth["reads"] - 1
    [group_times, tenant_times] = ask(
        ("group_times", layout.starts(600, began, time.time()), 600),
        ("tenant_times", layout.starts(600, began, time.time()), 600),
    )
    timed = collections.Counter()
    for bucket in (*group_times.values(), *tenant_times.values()):
        for (alias, name), (count, read_us) in bucket.items():
            assert read_us == count * 300  # each read took as long
            timed[f"tenant/{name}" if name.isdigit() else f"group/{alias}/{name}"] += count
    untimed = ("group/default/parent",)
    assert timed == {n: c for n, c in truth.items() if n.startswith(("group/", "tenant/")) and n not in untimed}

    def reads(numbers):
        return sum(numbers[INDEX[result]] for result in RESULTS)

    by_name = collections.Counter()
    for bucket in (*groups.values(), *tenants.values()):
        for (alias, name), numbers in bucket.items():
            kind = f"group/{alias}/{name}" if name and not name.isdigit() else f"tenant/{name}"
            by_name[kind] += reads(numbers)
    by_name.pop("tenant/None")
    assert by_name == {name: n for name, n in truth.items() if name.startswith(("group/", "tenant/"))}

    samples = exported(metrics)
    assert summed(samples, "cacheadmin_reads_total", "result") == {r: truth[r] for r in RESULTS}
    assert summed(samples, "cacheadmin_reads_total", "alias") == {a: truth[f"alias/{a}"] for a in ("default", "query")}
    assert summed(samples, "cacheadmin_reads_total", "alias", "group") == {
        tuple(name.split("/")[1:]): n for name, n in truth.items() if name.startswith("group/")
    }
    assert summed(samples, "cacheadmin_group_read_seconds_total", "alias", "group") == {
        tuple(name.split("/")[1:]): pytest.approx(n * 0.0003) for name, n in timed.items() if name.startswith("group/")
    }
    assert summed(samples, "cacheadmin_misses_total", "reason") == {r: truth[f"missed_{r}"] for r in MISS_REASONS}
    assert summed(samples, "cacheadmin_refused_fills_total", "reason") == {
        r: truth[f"refused_{r}"] for r in REFUSE_REASONS
    }
    assert summed(samples, "cacheadmin_invalidations_total", "source") == {s: truth[f"source/{s}"] for s in SOURCES}
    for metric, number in {
        "cacheadmin_computations_total": truth["computed"],
        "cacheadmin_compute_seconds_total": truth["computed"] * 0.25,
        "cacheadmin_fills_total": truth["filled"],
        "cacheadmin_filled_bytes_total": truth["filled"] * 1000,
        "cacheadmin_lease_waits_total": truth["waited"],
        "cacheadmin_dropped_entries_total": truth["dropped"],
        "cacheadmin_read_seconds_count": truth["reads"] - 1,
    }.items():
        assert summed(samples, metric) == {(): pytest.approx(number)}, metric


def exported(metrics):
    """What a scrape of these processes would give: [(name, labels, value)]."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(metrics))
    return [(s.name, s.labels, s.value) for metric in registry.collect() for s in metric.samples]


def summed(samples, name, *labels):
    """The samples of a metric added up by some of its labels."""
    found = collections.Counter()
    for sample, of, value in samples:
        if sample == name:
            key = tuple(of[label] for label in labels)
            found[key[0] if len(key) == 1 else key] += value
    return found
