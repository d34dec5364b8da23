"""Every piece of the protocol that can be dropped has a mechanism, and every mechanism a scenario that needs it."""

from __future__ import annotations

import itertools

import pytest
from test_faults import faults

from faults.dropped import BESIDES, DROPPED, HARMLESS
from faults.mechanisms import MECHANISMS
from faults.scenarios import SCENARIOS

WATCHED = {name for scenario in SCENARIOS.values() for name in scenario.watches}
NAMED = set(itertools.chain.from_iterable([*DROPPED.values(), *BESIDES.values()]))


@pytest.mark.parametrize("line", [*DROPPED, *BESIDES])
def test_each_line_has_a_mechanism_that_turns_a_scenario_red(line: str) -> None:
    mechanisms = (DROPPED | BESIDES)[line]
    assert mechanisms
    assert set(mechanisms) <= set(MECHANISMS)
    assert set(mechanisms) <= WATCHED


def test_scenarios_watch_all_that_can_be_taken_away_and_nothing_else() -> None:
    assert set(MECHANISMS) - set(HARMLESS.values()) == WATCHED


def test_what_is_harmless_to_drop_is_watched_by_nobody() -> None:
    assert set(HARMLESS.values()) <= set(MECHANISMS)
    assert not set(HARMLESS.values()) & (NAMED | WATCHED)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", HARMLESS.values())
@pytest.mark.parametrize("scenario", ["stale_set", "key_loss"])
def test_scenario_stays_green_without_what_is_harmless(scenario: str, mechanism: str) -> None:
    told = faults(scenario, "--count", SCENARIOS[scenario].short // 3, "--without", mechanism)
    assert told["violations"] == []
