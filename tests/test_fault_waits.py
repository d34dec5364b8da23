"""What an outage is judged by, on figures made for it: each bound turns it red, and none before it is reached."""

from __future__ import annotations

import time

import pytest

from faults import Outcome
from faults.waits import (
    ENOUGH_OUTAGES,
    ENOUGH_READS,
    MOST_ADDED_MS,
    MOST_LAG_P99_MS,
    TIMEOUT_MS,
    Read,
    Sleeper,
    judge_lag,
    judge_reads,
)

QUICK = Read(0.1, 0)


def judged_reads(*reads: Read, outages: int = ENOUGH_OUTAGES, sleeper: Sleeper | None = None) -> Outcome:
    outcome = Outcome()
    judge_reads(outcome, "hung", reads, outages, sleeper or Sleeper())
    return outcome


def judged_lag(*lags_ms: float, outages: int = ENOUGH_OUTAGES) -> Outcome:
    outcome = Outcome()
    judge_lag(outcome, lags_ms, outages)
    return outcome


def test_what_waits_a_second_and_more_once_redis_answers_is_late():
    outcome = judged_lag(*[50.0] * 90, *[MOST_LAG_P99_MS + 1.0] * 10)
    assert outcome.kinds == {"late"}
    assert outcome.figures["relay_lag_p99_ms"] == MOST_LAG_P99_MS + 1


def test_one_in_a_hundred_is_a_second_at_most():
    assert judged_lag(*[50.0] * 90, *[float(MOST_LAG_P99_MS)] * 10).is_green
    assert judged_lag(*[50.0] * 999, 4_000.0).is_green, "One in a thousand is within what any outage may take."


def test_few_outages_have_no_percentiles_to_be_judged_by():
    outcome = judged_lag(50.0, 3_000.0, outages=ENOUGH_OUTAGES - 1)
    assert outcome.is_green
    assert outcome.figures["relay_lag_p99_ms"] > MOST_LAG_P99_MS, "It is printed all the same."


@pytest.mark.parametrize("outages", [1, ENOUGH_OUTAGES])
def test_a_read_that_waits_twice_is_red_however_few_there_are(outages):
    assert judged_reads(QUICK, Read(TIMEOUT_MS, 1), outages=outages).is_green
    outcome = judged_reads(QUICK, Read(TIMEOUT_MS, 2), outages=outages)
    assert outcome.kinds == {"too_slow"}
    assert outcome.figures["hung_timeouts_a_read"] == 2


def test_half_of_enough_reads_take_a_millisecond_more_at_most():
    slow, half = Read(MOST_ADDED_MS + 0.1, 0), ENOUGH_READS // 2
    assert judged_reads(*[QUICK] * (half + 1), *[slow] * half).is_green
    assert judged_reads(*[QUICK] * half, *[slow] * (half + 1)).kinds == {"too_slow"}
    assert judged_reads(*[slow] * 10).is_green


def test_no_read_takes_as_long_as_two_timeouts():
    assert judged_reads(QUICK, Read(2 * TIMEOUT_MS - 1, 1)).is_green
    assert judged_reads(QUICK, Read(2 * TIMEOUT_MS, 1)).kinds == {"too_slow"}
    assert judged_reads(QUICK, Read(2 * TIMEOUT_MS, 1), outages=ENOUGH_OUTAGES - 1).is_green


def test_what_the_machine_itself_kept_waiting_is_taken_off():
    sleeper = Sleeper()
    sleeper._late = [(10.0, 10.1), (10.2, 10.5)]
    assert sleeper.late_ms(10.05, 10.3) == pytest.approx(150)
    stalled = Read(2 * TIMEOUT_MS + 100, 1, 10.0, 10.3)
    assert judged_reads(QUICK, stalled, sleeper=sleeper).is_green
    assert judged_reads(QUICK, Read(2 * TIMEOUT_MS, 1, 11.0, 11.2), sleeper=sleeper).kinds == {"too_slow"}


def test_a_sleeper_notes_when_nobody_could_run():
    with Sleeper() as sleeper:
        begun = time.monotonic()
        sum(range(3_000_000))  # one long call into C: no other thread has the interpreter meanwhile
        ended = time.monotonic()
        time.sleep(0.02)
    assert sleeper.late_ms(begun, ended) > 500 * (ended - begun)
    assert sleeper.late_ms(ended + 1, ended + 2) == 0.0


def test_what_is_judged_is_printed():
    outcome = judged_reads(*[QUICK] * 9, Read(104.0, 1))
    assert outcome.figures == {
        "hung_reads": 10,
        "hung_added_p50_ms": 0.1,
        "hung_added_worst_ms": 104.0,
        "hung_worst_but_for_stalls_ms": 104.0,
        "hung_timeouts_a_read": 1,
    }
