"""Nothing stale, nothing lost, whatever breaks; and each safety mechanism is seen to be needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.scenarios import ALL, SCENARIOS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def faults(*arguments: object) -> dict[str, Any]:
    """Run one scenario in a process of its own, with its own server, and return what it printed."""
    command = [sys.executable, "-m", "faults", *map(str, arguments), "--json"]
    path = os.pathsep.join(map(os.fspath, (ROOT / "tests", ROOT)))
    # The suite names settings and a server of its own; a scenario makes both.
    environment = {k: v for k, v in os.environ.items() if k not in ("DJANGO_SETTINGS_MODULE", "REDIS_URL")}
    ran = subprocess.run(
        command, env=environment | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.stdout, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """`address("postgres")` makes an empty database on the suite's server; SQLite needs none."""

    def find(database: str) -> str:
        return database if database == "sqlite" else request.getfixturevalue("postgres").create()

    return find


@pytest.mark.parametrize(("name", "database"), [(s.name, database) for s in ALL for database in s.databases])
def test_scenario_counts_no_violation(name: str, database: str, address: Callable[[str], str]) -> None:
    told = faults(name, "--count", SCENARIOS[name].short, "--database", address(database))
    assert told["violations"] == []


@pytest.mark.parametrize(("name", "mechanism"), [(s.name, mechanism) for s in ALL for mechanism in s.watches])
def test_scenario_goes_red_without_a_mechanism(name: str, mechanism: str, address: Callable[[str], str]) -> None:
    scenario = SCENARIOS[name]
    database = address(scenario.databases[0])
    told = faults(name, "--count", scenario.long, "--database", database, "--without", mechanism)
    assert told["is_broken"], told


def test_a_procedure_of_postgresql_is_lost_in_a_crash_without_its_intent(address: Callable[[str], str]) -> None:
    """On SQLite, where the other mutations run, a script stands for it, which the server cannot go on with alone."""
    asked = ("--database", address("postgres"), "--without", "intent_of_what_commits_by_itself")
    assert faults("crash", "--count", SCENARIOS["crash"].long, *asked)["is_broken"]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_race_without_leases_is_lost_often_enough_to_be_a_race(database: str, address: Callable[[str], str]) -> None:
    """Nothing stale in a million reads means little where nothing could have been: at least 1 in 100 without them."""
    # An old value is read again and again until the next write, so that few races say little of how often one is lost.
    told = faults("race", "--count", 60_000, "--database", address(database), "--without", "lease", "--to-the-end")
    assert told["figures"]["stale"] >= 600
    assert told["figures"]["exceptions"] == 0
