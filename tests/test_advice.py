"""Advice: what each cached function is worth and what to change, from constructed counts; and silence."""

import math
import time

import pytest

from cacheadmin import cache_tenant_query
from cacheadmin.admin.worth import WRITER
from cacheadmin.functions import registry
from cacheadmin.overview import advised_groups, advised_tenants, sentence
from cacheadmin.overview.advice import COMPUTED, GAIN_PER_HOUR, READS, judge
from cacheadmin.overview.gains import Known, gains, residence
from cacheadmin.stats import EVENTS, INDEX, recorder, rollups

HOUR = 60.0
"""Minutes."""


def counts(hit=0, miss=0, *, compute=0.2, size=1000, **others):
    """Return the counts of a group: each miss is computed in `compute` seconds and stored with `size` bytes."""
    numbers = [0] * len(EVENTS)
    given = {"hit": hit, "miss": miss, "computed": miss, "compute_us": round(miss * compute * 1e6)}
    given |= {"filled": miss, "filled_bytes": miss * size} | others
    for event, number in given.items():
        numbers[INDEX[event]] = number
    return numbers


def kinds(numbers, known, minutes=HOUR):
    return [advice.kind for advice in judge(numbers, minutes, known).advice]


WELL = Known(timeout_seconds=900, read_seconds=0.0005, is_ruled=True)


# --- gains ----------------------------------------------------------------------------------------------------------


class TestGains:
    def test_saved_is_what_hits_spare_less_what_reading_takes(self) -> None:
        found = gains(counts(hit=900, miss=100, compute=0.2), 30.0, WELL)
        assert found.overhead_seconds_per_hour == pytest.approx((900 + 3 * 100) * 0.0005 * 2)
        assert found.saved_seconds_per_hour == pytest.approx(900 * 0.2 * 2 - found.overhead_seconds_per_hour)

    def test_memory_is_bytes_a_second_times_residence(self) -> None:
        found = gains(counts(miss=3600, size=2000), HOUR, WELL)
        assert found.held_bytes == pytest.approx(1 * 2000 * 900)
        assert found.held_entries == pytest.approx(900)
        assert found.saved_per_megabyte == pytest.approx(found.saved_seconds_per_hour / 1.8)

    def test_entries_are_those_of_one_tenant(self) -> None:
        known = Known(timeout_seconds=900, tenants=9)
        assert gains(counts(miss=3600), HOUR, known).held_entries == pytest.approx(100)

    def test_a_stale_value_served_is_a_hit(self) -> None:
        assert gains(counts(hit=1, miss=1, stale=2), HOUR, WELL).hit_ratio == 0.75

    def test_what_is_not_known_is_none(self) -> None:
        found = gains(counts(hit=5), HOUR, Known())
        assert (found.mean_compute_seconds, found.mean_bytes, found.saved_seconds_per_hour) == (None, None, None)
        assert (found.residence_seconds, found.held_bytes, found.saved_per_megabyte) == (None, None, None)
        assert gains(counts(), HOUR, Known()).hit_ratio is None

    @pytest.mark.parametrize(
        ("timeout", "drops", "lives"),
        [(900, 0, 900), (math.inf, 0, math.inf), (math.inf, 4, 900), (3600, 1, 3600 * (1 - math.exp(-1)))],
    )
    def test_an_entry_lives_until_its_timeout_or_a_drop(self, timeout, drops, lives) -> None:
        assert residence(timeout, drops) == pytest.approx(lives)


# --- each advice ----------------------------------------------------------------------------------------------------


def test_what_computes_faster_than_it_is_read_is_not_to_be_cached() -> None:
    [advice] = judge(counts(hit=9000, miss=1000, compute=0.0002), HOUR, WELL).advice
    assert advice.kind == "uncache"
    assert advice.figures == {"mean_compute_seconds": 0.0002, "read_seconds": 0.0005}
    assert advice.gain_seconds_per_hour == pytest.approx((9000 + 3000) * 0.0005 - 9000 * 0.0002)


def test_what_is_hardly_hit_and_cheap_is_not_to_be_cached() -> None:
    known = Known(timeout_seconds=900, read_seconds=0.002, tenants=50)
    [advice] = judge(counts(hit=50, miss=1000, compute=0.005), HOUR, known).advice
    assert advice.kind == "uncache"
    assert advice.figures["hit_ratio"] == pytest.approx(50 / 1050)


def test_a_loss_of_moments_is_not_worth_a_word() -> None:
    known = Known(timeout_seconds=900, read_seconds=0.0003, tenants=50)
    judged = judge(counts(hit=50, miss=120, compute=0.0012), HOUR, known)
    assert -GAIN_PER_HOUR < judged.gains.saved_seconds_per_hour < 0
    assert judged.advice == ()


def test_entries_that_nobody_reads_again_mean_a_key_that_varies_too_much() -> None:
    [advice] = judge(counts(hit=100, miss=2000), HOUR, WELL).advice
    assert advice.kind == "key"
    assert advice.figures["entries_per_tenant"] == pytest.approx(500)
    assert advice.figures["hits_per_miss"] == 0.05


BROAD = Known(
    timeout_seconds=3600,
    read_seconds=0.0005,
    drops_per_hour=60,
    is_ruled=True,
    rule="inventory",
    rule_drops="prefix inventory",
    rule_per_hour=58,
)


def test_a_rule_that_drops_entries_before_they_are_read_is_too_broad() -> None:
    [advice] = judge(counts(hit=500, miss=500), HOUR, BROAD).advice
    assert advice.kind == "rule"
    assert (advice.figures["rule"], advice.figures["drops"]) == ("inventory", "prefix inventory")
    assert advice.figures["lives_seconds"] == pytest.approx(60, rel=0.01)
    lives_then = residence(3600, 2)
    ratio_then = lives_then / 60 / (1 + lives_then / 60)
    assert advice.gain_seconds_per_hour == pytest.approx((ratio_then - 0.5) * 1000 * 0.2, rel=0.01)


def test_entries_that_end_though_rules_keep_them_fresh_may_live_longer() -> None:
    [advice] = judge(counts(hit=1000, miss=1000), HOUR, WELL).advice
    assert advice.kind == "timeout"
    assert (advice.figures["timeout_seconds"], advice.figures["longer_seconds"]) == (900, 3600)
    assert advice.figures["hit_ratio_then"] == pytest.approx(0.8)
    assert advice.gain_seconds_per_hour == pytest.approx((0.8 - 0.5) * 2000 * 0.2)


def test_big_values_are_said_to_be_big() -> None:
    [advice] = judge(counts(hit=9900, miss=100, size=600_000), HOUR, WELL).advice
    assert (advice.kind, advice.figures) == ("size", {"mean_bytes": 600_000})


def test_values_too_big_to_be_stored_are_said_to_be() -> None:
    found = judge(counts(hit=100, miss=100, filled=60, filled_bytes=60_000, refused_size=40), HOUR, WELL)
    assert [advice.figures for advice in found.advice if advice.kind == "size"] == [{"refused": 40, "computed": 100}]


# --- silence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "known", "minutes"),
    [
        pytest.param(counts(hit=9900, miss=100), WELL, HOUR, id="all is well"),
        pytest.param(counts(hit=READS // 2, miss=READS // 2 - 1), WELL, HOUR, id="few reads"),
        pytest.param(counts(hit=1000, miss=1000, computed=COMPUTED - 1), WELL, HOUR, id="few computations"),
        pytest.param(counts(hit=1000, miss=1000), WELL, 9.0, id="a short time"),
        pytest.param(counts(hit=1000, miss=1000), WELL, 29.0, id="fewer than two timeouts: still warming up"),
        pytest.param(counts(hit=1000, miss=1000), Known(900, 0.0005), HOUR, id="no rule would keep it fresh"),
        pytest.param(counts(hit=1000, miss=1000, compute=0.005), WELL, HOUR, id="nothing to gain"),
        pytest.param(counts(hit=1000, miss=1000), Known(math.inf, 0.0005, is_ruled=True), HOUR, id="kept for ever"),
        pytest.param(counts(hit=100, miss=2000), Known(900, 0.0005, tenants=50), HOUR, id="few entries a tenant"),
        pytest.param(counts(hit=100, miss=2000), Known(None, 0.0005), HOUR, id="a function nobody imported"),
        pytest.param(counts(hit=9000, miss=1000, compute=0.0002), Known(900), HOUR, id="no read was timed"),
        pytest.param(counts(hit=9900, miss=19, size=600_000), WELL, HOUR, id="few values"),
        pytest.param(counts(hit=1000), WELL, HOUR, id="never computed: plain keys"),
        pytest.param(counts(hit=1820, miss=180), WELL, HOUR, id="hit well enough"),
        pytest.param(counts(hit=950, miss=50), BROAD, HOUR, id="dropped often, hit all the same"),
        pytest.param(
            counts(hit=500, miss=500),
            Known(3600, 0.0005, 60, is_ruled=True, rule="r", rule_drops="tenant", rule_per_hour=20),
            HOUR,
            id="no one rule to blame",
        ),
    ],
)
def test_nothing_is_said_of(numbers, known, minutes) -> None:
    assert kinds(numbers, known, minutes) == []


def test_silence_is_not_for_want_of_reads_alone() -> None:
    """The cases above differ from these in the one thing that their name says."""
    assert kinds(counts(hit=1000, miss=1000), WELL, 31.0) == ["timeout"]
    assert kinds(counts(hit=100, miss=2000), Known(900, 0.0005, tenants=5), HOUR) == ["key"]
    assert judge(counts(hit=1000, miss=1000), HOUR, WELL).advice[0].gain_seconds_per_hour > GAIN_PER_HOUR


# --- in words -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "known", "said"),
    [
        (
            counts(hit=9000, miss=1000, compute=0.0002),
            WELL,
            "Do not cache it: computing takes 0.2 ms, reading the cache 0.5 ms. It would save up to 4.2 s an hour.",
        ),
        (
            counts(hit=100, miss=2000),
            WELL,
            (
                "Its key varies too much: a tenant has about 500 entries at a time, and 100 of them are read again 5 "
                "times. Leave out arguments that rarely repeat, round them, or do not cache it."
            ),
        ),
        (
            counts(hit=500, miss=500),
            BROAD,
            (
                "The rule inventory is too broad: it drops prefix inventory of a tenant 58 times an hour, so an entry "
                "lives 1 min and the hit ratio is 50%. Name the fields that matter, or drop by a tag. It would save "
                "up to 1 min 33 s an hour."
            ),
        ),
        (
            counts(hit=1000, miss=1000),
            WELL,
            (
                "Give it a longer timeout: rules drop it when it changes, yet it ends after 15 min. With 1 h its hit "
                "ratio could rise from 50% to 80%. It would save up to 2 min an hour."
            ),
        ),
        (
            counts(hit=9900, miss=100, size=600_000),
            WELL,
            "Its values are too big: 585.9\xa0KB on average. Cache only what is shown, or page it.",
        ),
    ],
)
def test_the_sentence_names_its_figures(numbers, known, said) -> None:
    [advice] = judge(numbers, HOUR, known).advice
    assert sentence(advice, WRITER) == said


# --- from the roll-ups ----------------------------------------------------------------------------------------------

NOW = 1_795_003_620 + 30


@pytest.fixture
def listed():
    """A cached function of its own; its timeout is ten minutes."""

    @cache_tenant_query(timeout=600, key_prefix="inventory_advised")
    def inventory_advised(tenant_id):
        return tenant_id

    yield inventory_advised
    del registry[inventory_advised.name]


@pytest.fixture
def counted(monkeypatch, listed):
    """An hour: tenant 12's list is dropped by a rule every minute and missed as often as hit; 13's is read in peace."""
    recorder.reset()
    for back in range(60, 0, -1):
        monkeypatch.setattr(time, "time", lambda back=back: float(NOW - back * 60))
        if back in (60, 1):
            rollups.measure()
        for tenant, hits, misses in (("12", 10, 10), ("13", 19, 1)):
            for _ in range(hits):
                recorder.read("query", "inventory_advised", tenant, "hit", 400_000)
            for _ in range(misses):
                recorder.read("query", "inventory_advised", tenant, "miss", 400_000)
                recorder.computed("query", "inventory_advised", tenant, 0.2)
                recorder.filled("query", "inventory_advised", tenant, 1000)
        recorder.invalidated("query", "12", "prefix inventory", "rule", "inventory item")
        recorder.invalidated("query", "12", "tag branch:5", "rule", "sales")
        recorder.invalidated("default", "12", "tenant", "user", "amira")
        assert recorder.flush()
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    yield listed
    recorder.reset()


@pytest.mark.django_db
class TestOverTenants:
    def test_each_group_is_judged_over_all_of_them(self, counted) -> None:
        found = advised_groups()["query", "inventory_advised"]
        assert found.functions == (counted.name,)
        of = found.judged.gains
        assert (of.hits, of.misses, of.computed) == (60 * 29, 60 * 11, 60 * 11)
        assert of.saved_seconds_per_hour == pytest.approx(60 * 29 * 0.2, rel=0.05)
        assert of.read_seconds == pytest.approx(0.0004, rel=0.3)
        assert of.residence_seconds == pytest.approx(residence(600, 30), rel=0.05)

    def test_only_those_a_user_may_see(self, counted) -> None:
        of = advised_groups(tenants=["13"])["query", "inventory_advised"].judged.gains
        assert (of.hits, of.residence_seconds) == (60 * 19, 600)

    def test_each_tenant_is_judged_by_itself(self, counted) -> None:
        found = {each.tenant: each for each in advised_tenants() if each.group == "inventory_advised"}
        assert set(found) == {"12", "13"}
        [advice] = found["12"].judged.advice
        assert (advice.kind, advice.figures["rule"]) == ("rule", "inventory item")
        assert advice.figures["drops_per_hour"] == pytest.approx(60, rel=0.05)
        assert found["13"].judged.advice == ()

    def test_it_takes_one_round_trip_and_two_for_tenants(self, counted, round_trips) -> None:
        advised_groups()
        with round_trips() as sent:
            advised_groups()
        assert len(sent) == 1
        with round_trips() as sent:
            advised_tenants()
        assert len(sent) == 2
