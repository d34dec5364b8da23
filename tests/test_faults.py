"""Nothing stale, nothing lost, whatever breaks; and each safety mechanism is seen to be needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults.scenarios import SCENARIOS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def faults(*arguments: object) -> dict[str, object]:
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


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_counts_no_violation(name: str) -> None:
    told = faults(name, "--count", SCENARIOS[name].short)
    assert told["violations"] == []


@pytest.mark.parametrize(
    ("name", "mechanism"), [(s.name, mechanism) for s in SCENARIOS.values() for mechanism in s.watches]
)
def test_scenario_goes_red_without_a_mechanism(name: str, mechanism: str) -> None:
    told = faults(name, "--count", SCENARIOS[name].long, "--without", mechanism)
    assert told["violations"]
