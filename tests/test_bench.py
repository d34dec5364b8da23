"""
The benchmark runs, and what it counts holds: round trips, commands, memory, what is stale.

Times are not looked at: they are for `make bench`, on a machine that does nothing else. Peers that are not installed
here are left out.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import cores
from bench.comparisons import ALL
from bench.measure import Bench, Target, Workers
from bench.peers import PEERS, VARIANTS
from bench.report import render
from server import Server

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def bench():
    """A server, and those peers as workers that this environment has."""
    peers = {name: peer.here() for name, peer in (PEERS | VARIANTS).items() if peer.is_here()}
    with Server.start() as server, Workers(server.url, peers) as workers, Bench(server, workers) as bench:
        yield bench


def counted(bench, name):
    """Run a comparison; return its tables, and its targets that are not about time."""
    tables = ALL[name](bench, quick=True)
    targets = {target.what: target for table in tables for target in table.targets}
    return tables, {what: target for what, target in targets.items() if not is_timed(target)}


def is_timed(target: Target) -> bool:
    return " × " in target.what or ", of the hit" in target.what or "while Redis hangs" in target.what


def test_a_hit_is_one_round_trip_and_one_mget(bench) -> None:
    tables, targets = counted(bench, "hits")
    assert {what: target.measured for what, target in targets.items()} == {
        "hit: round trips": "1",
        "hit: commands of ten": "10 mget",
    }
    rows = {row[0]: row for row in tables[0].rows}
    assert rows["redis-py GET + unpickle"][1] == "1.00"
    assert {row[3] for row in rows.values()} == {"1"}


def test_a_miss_is_three_round_trips_and_two_without_a_lease(bench) -> None:
    _, targets = counted(bench, "misses")
    assert [target.measured for target in targets.values()] == ["3", "2"]


def test_what_was_computed_before_an_invalidation_is_stale_for_others_only(bench) -> None:
    [table], targets = counted(bench, "late")
    said = dict(table.rows)
    assert said["cacheadmin"] == "the new value"
    assert said["django-redis"] == said["django-cache-memoize"] == "the old value"
    assert targets["late fill"].is_met


def test_dropping_a_tenant_or_a_group_is_one_round_trip(bench) -> None:
    [dropped, _, paged], targets = counted(bench, "drops")
    assert targets["drop of a tenant: round trips"].is_met
    assert targets["drop of a group of 2,000 entries: round trips"].is_met
    assert targets["first page: round trips"].is_met
    assert dropped.heads[1:] == paged.heads[1:] == ("10k keys",)


def test_no_kind_of_write_leaves_a_stale_value(bench) -> None:
    [table], targets = counted(bench, "writes")
    assert len(targets) == len(table.rows) == 6
    assert {target.measured for target in targets.values()} == {"fresh"}


def test_a_save_is_one_round_trip_and_so_are_hundreds_in_a_transaction(bench) -> None:
    ours = bench.workers["cacheadmin"]
    ours.do(make="save", **{"as": "save"})
    ours.do(make="atomic", **{"as": "atomic", "with": {"rows": 300}})
    ours.do(time=2, **{"as": "save"})
    assert ours.do(trips=5, **{"as": "save"}) == 5
    assert ours.do(trips=1, **{"as": "atomic"}) == 1


def test_giving_memory_back_costs_a_round_trip_for_a_hundred_entries(bench) -> None:
    ours = bench.workers["cacheadmin"]
    ours.do(make="drop", **{"as": "drop"})
    ours.do(make="reclaim", **{"as": "reclaim"})
    sent = {}
    for entries in (200, 1200):
        ours.do(ask="settle")
        ours.do(ask="fill_tenant", **{"with": {"entries": entries}})
        ours.do(time=1, **{"as": "drop"})
        sent[entries] = ours.do(trips=1, **{"as": "reclaim"})
    assert sent[200] <= 3 + 3
    assert sent[1200] <= 13 + 3


def test_the_index_takes_few_bytes_an_entry(bench) -> None:
    _, targets = counted(bench, "memory")
    assert len(targets) == 4
    of_the_index = [target for what, target in targets.items() if what.startswith("of these its index")]
    assert [target.is_met for target in of_the_index] == [True, True]


def test_a_second_hit_in_a_request_is_no_round_trip(bench) -> None:
    [table], targets = counted(bench, "again")
    assert [target.measured for target in targets.values()] == ["0"]
    assert {row[0]: row[3] for row in table.rows}["**cacheadmin, a function**"] == "1"


def test_twenty_callers_compute_once(bench) -> None:
    [table], targets = counted(bench, "stampede")
    assert [target.is_met for target in targets.values()] == [True]
    assert int(dict(row[:2] for row in table.rows)["django-redis"].removesuffix(" ×")) > 1  # 20, on an idle machine


def test_a_flush_of_a_thousand_counters_is_one_round_trip(bench) -> None:
    _, targets = counted(bench, "counting")
    assert [target.measured for target in targets.values()] == ["1"]


def test_the_report_marks_what_is_met(bench) -> None:
    tables, _ = counted(bench, "late")
    tables[0].targets.append(Target("the moon", "1", "2", is_met=False))
    text = render(tables, {"a": {"redis": "8"}, "b": {"redis": "8", "Django": "5"}}, quick=True)
    assert "1 of 2 met." in text
    assert "| late fill | fresh | fresh | met |" in text
    assert "| the moon | 1 | 2 | **not met** |" in text
    assert "Django 5; redis 8." in text
    assert "--quick" in text


def test_an_unknown_comparison_names_those_there_are() -> None:
    command = [sys.executable, "-m", "bench", "--only", "hits,jumps"]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such comparison: jumps; there are hits, again, parser" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere cores are left alone")
def test_cores_are_shared_out_and_given_back() -> None:
    before = os.sched_getaffinity(0)
    with cores.apart(lambda: os.sched_getaffinity(0)) as first:
        rest = os.sched_getaffinity(0)
    assert os.sched_getaffinity(0) == before
    assert (first | rest, first & rest) == (before, set() if len(before) > 1 else before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere cores are left alone")
def test_what_keeps_a_core_awake_yields_to_all_others_and_ends_with_us() -> None:
    with cores.awake() as spinning:
        deadline = time.monotonic() + 60
        while [os.sched_getscheduler(pid) for pid in spinning] != [os.SCHED_IDLE] * len(spinning):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert [os.sched_getaffinity(pid) for pid in spinning] == [{core} for core in sorted(os.sched_getaffinity(0))]
    for pid in spinning:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
