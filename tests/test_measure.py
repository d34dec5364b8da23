"""The figures of `make measure` and of the demo's traffic."""

import os
import random
import sys
import time
from pathlib import Path
from subprocess import run

import pytest

from shop import measure, traffic

ROOT = Path(__file__).resolve().parent.parent


def test_percentiles_are_those_of_the_values() -> None:
    values = list(range(1, 101))
    random.Random(1).shuffle(values)
    assert (traffic.percentile(values, 0.5), traffic.percentile(values, 0.95)) == (50, 95)
    assert traffic.percentile([7], 0.95) == 7
    assert measure.figures([1.0] * 19 + [100.0]) == (1.0, pytest.approx(5.95))


def test_the_traffic_says_every_minute_how_long_each_kind_of_visit_took(monkeypatch, capsys) -> None:
    visitors = traffic.Traffic("http://127.0.0.1:1/", 6.0)
    visitors.taken = {"inventory": [0.01] * 9 + [0.2], "api": [0.005]}
    visitors.report_times()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(visitors, "last_report", time.monotonic() - 61)
    visitors.report_times()
    api, inventory = (line.split()[1:] for line in capsys.readouterr().out.splitlines())
    assert api == ["api", "p50", "5", "ms", "p95", "5", "ms", "1", "times"]
    assert inventory == ["inventory", "p50", "10", "ms", "p95", "200", "ms", "10", "times"]
    assert visitors.taken == {}


def test_each_way_is_timed_as_often_and_compared_with_its_target() -> None:
    called = []
    calls = {("API", "slow"): {"on": lambda: called.append("on"), "off": lambda: time.sleep(0.002)}}
    [row] = measure.measured(calls, rounds=5)
    assert called == ["on"] * 8
    assert row["off"][0] >= 2
    text = measure.table([row, {"kind": "question", "name": "x", "off": (200, 300), "on": (90, 100)}])
    assert "| API: slow | " in text
    assert "| < 500 ms | met |" in text
    assert text.splitlines()[-1] == (
        "| question: x | 200.0 ms | 300.0 ms | 90.0 ms | 100.0 ms | < 100 ms | **not met** |"
    )


@pytest.mark.slow
def test_a_small_shop_is_measured_with_its_cache_and_without() -> None:
    command = [sys.executable, "-m", "shop.measure", "--scale", "0.02", "--rounds", "2"]
    done = run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| page:", "| API:", "| question:"))]
    assert len([line for line in rows if line.startswith("| page:")]) == 8, done.stdout + done.stderr
    assert len([line for line in rows if line.startswith("| API:")]) == 3
    assert len([line for line in rows if line.startswith("| question:")]) >= 5


def _environment() -> dict[str, str]:

    return {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"} | {
        "PYTHONPATH": str(ROOT / "tests")
    }
