"""`manage.py cache_stats`."""

import json
import time

import pytest
from django.core.management import CommandError, call_command

from cacheadmin.management.commands import cache_stats
from cacheadmin.stats import recorder, rollups

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(capsys):
    """Run the command and return what it printed."""

    def run(*args):
        call_command("cache_stats", *args)
        return capsys.readouterr().out

    return run


@pytest.fixture
def counted():
    """Nine hits and a miss of tenant 12, some invalidations, and a read of shared data."""
    for _ in range(9):
        recorder.read("query", "inventory_list", "12", "hit", 400_000)
    recorder.read("query", "inventory_list", "12", "miss", 500_000)
    recorder.missed("query", "inventory_list", "12", "absent")
    recorder.computed("query", "inventory_list", "12", 0.2)
    recorder.read("default", "gold_rate", None, "hit", 400_000)
    recorder.invalidated("query", "12", "group inventory_list", "rule", "inventory")
    assert recorder.flush()


@pytest.mark.usefixtures("counted")
class TestFigures:
    def test_as_tables(self, run):
        lines = run("--range", "15m").splitlines()
        assert lines[0].startswith("Hit ratio:      90.9%")
        [group] = [line for line in lines if line.startswith("inventory_list (query)")]
        assert group.split()[2] == "90.0%"
        [tenant] = [line for line in lines if line.startswith("12 ")]
        assert tenant.split()[1] == "90.0%"
        assert any(line.startswith("shared data") for line in lines)
        assert any(line.split()[:2] == ["template", "up"] for line in lines)
        assert "Waiting:        0 invalidations" in lines

    def test_as_json(self, run):
        said = json.loads(run("--range", "1h", "--format", "json"))
        assert said["range_seconds"] == 3600
        assert (said["waiting"], said["oldest_seconds"]) == (0, 0.0)
        by_group = {(row["alias"], row["group"]): row for row in said["groups"]}
        assert by_group["query", "inventory_list"]["hit_ratio"] == 0.9
        assert by_group["query", "inventory_list"]["mean_compute_seconds"] == 0.2
        assert by_group["query", "inventory_list"]["mean_read_seconds"] == pytest.approx(0.00041)
        assert {row["tenant"] for row in said["tenants"]} == {"12", None}

    def test_of_one_alias(self, run):
        said = json.loads(run("--alias", "default", "--format", "json"))
        assert {row["alias"] for row in said["groups"]} == {"default"}


@pytest.fixture
def advised(monkeypatch):
    """Half an hour of what computes faster than it is read, and of a list that is worth its memory."""
    now = time.time()
    for back in range(30, 0, -1):
        monkeypatch.setattr(time, "time", lambda back=back: now - back * 60)
        if back == 30:
            rollups.measure()
        for group, seconds in (("cheap", 0.0001), ("inventory_list", 0.2)):
            for _ in range(46):
                recorder.read("query", group, "12", "hit", 400_000)
            for _ in range(4):
                recorder.read("query", group, "12", "miss", 400_000)
                recorder.computed("query", group, "12", seconds)
                recorder.filled("query", group, "12", 2000)
        assert recorder.flush()
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.usefixtures("advised")
class TestAdvice:
    def test_as_text(self, run):
        out = run("--advice", "--range", "1h")
        groups, tenants, said = out.split("\n\n")
        heads, best, worst = groups.splitlines()
        assert heads.split()[:3] == ["Group", "Saved", "s/h"]
        assert best.split()[:2] == ["inventory_list", "(query)"]
        assert best.split()[3] == "92.0%"
        assert float(best.split()[2]) == pytest.approx(30 * 46 * 0.2 * 2, rel=0.05)
        assert worst.split()[0] == "cheap"
        assert worst.split()[2].startswith("-")
        assert [line.split()[:3] for line in tenants.splitlines()[1:]] == [
            ["12:", "inventory_list", "(query)"],
            ["12:", "cheap", "(query)"],
        ]
        assert said.splitlines()[0] == "cheap (query)"
        assert said.splitlines()[1].startswith("    Do not cache it: computing takes 0.1 ms, reading the cache 0.3")
        assert said.splitlines()[2] == "cheap (query, tenant 12)"

    def test_as_json(self, run):
        said = json.loads(run("--advice", "--range", "1h", "--format", "json"))
        assert said["range_seconds"] == 3600
        best, worst = said["groups"]
        assert (best["group"], best["functions"], best["advice"]) == (
            "inventory_list",
            ["shop.inventory.inventory_list"],
            [],
        )
        assert (best["hits"], best["mean_compute_seconds"], best["mean_bytes"]) == (1380, 0.2, 2000)
        [advice] = worst["advice"]
        assert advice["kind"] == "uncache"
        assert advice["figures"]["mean_compute_seconds"] == 0.0001
        assert advice["text"].startswith("Do not cache it")
        assert {row["tenant"] for row in said["tenants"]} == {"12"}

    def test_of_one_alias(self, run):
        said = json.loads(run("--advice", "--alias", "default", "--format", "json"))
        assert (said["groups"], said["tenants"]) == ([], [])

    def test_a_broken_urlconf_is_said_and_does_not_keep_it_from_answering(self, run, monkeypatch, capsys):
        def broken():
            raise ImportError("No module named 'shop.gone'")

        monkeypatch.setattr(cache_stats, "load_functions", broken)
        call_command("cache_stats", "--advice", "--range", "1h")
        told = capsys.readouterr()
        assert "cheap (query)" in told.out
        assert "No module named 'shop.gone'" in told.err


def test_no_counts_are_no_advice(run):
    recorder.reset()
    assert "Nothing was computed by group in the last 3h." in run("--advice")
    assert "too little was counted to say" in run("--advice")


def test_no_reads_is_no_ratio(run):
    recorder.flush()
    out = run()
    assert out.startswith("Hit ratio:      – (median –)")
    assert "No reads by group in the last 3h." in out
    assert "0%" not in out


def test_an_unknown_alias_names_those_there_are(run):
    with pytest.raises(CommandError, match="managed are query, default, template, api"):
        run("--alias", "sessions")


def test_an_unknown_range_names_those_there_are(run):
    with pytest.raises(CommandError, match="'15m', '1h', '3h', '24h', '7d'"):
        run("--range", "2h")


def test_without_the_server_it_says_so(settings, run):
    settings.CACHES = {a: o | {"LOCATION": "redis://127.0.0.1:1/0"} for a, o in settings.CACHES.items()}
    with pytest.raises(CommandError, match=r"The cache server of alias 'default' (does not answer|is away)"):
        run()
