"""What waited in the outbox over a range of time: noted by minute, never lost to an outage, drawn and printed."""

import json
import time

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from cacheadmin.admin import verdict
from cacheadmin.admin.series import invalidations
from cacheadmin.conf import config
from cacheadmin.connections import link
from cacheadmin.exceptions import CacheAway
from cacheadmin.overview import RANGES, overview
from cacheadmin.stats.history import Reader, WaitingSample
from cacheadmin.stats.layout import DAY, waiting_key
from cacheadmin.stats.waiting import MOST_UNSENT, WaitingNotes

MINUTE = 1_795_003_620
"""A whole minute, though no whole hour."""


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` sets the time that pages see."""

    def set_to(seconds):
        monkeypatch.setattr(time, "time", lambda: float(seconds))

    set_to(MINUTE + 200)
    return set_to


def noted(since=MINUTE, until=MINUTE + 3600):
    reader = Reader()
    asked = reader.waiting(since, until)
    reader.run()
    return asked.value


def test_the_most_of_each_minute_is_kept(redis, round_trips):
    notes = WaitingNotes()
    for second, (count, oldest) in {0: (0, 0.0), 15: (3, 0.5), 30: (2, 15.5), 45: (0, 0.0), 60: (0, 0.0)}.items():
        notes.note("default", count, oldest, MINUTE + second)
        notes.send()
    assert noted() == [WaitingSample(MINUTE, "default", 3, 15.5), WaitingSample(MINUTE + 60, "default", 0, 0.0)]
    with round_trips() as sent:
        notes.send()
        notes.note("default", 0, 0.0, MINUTE + 75)  # as before: nothing to say
        notes.send()
    assert sent == []
    notes.note("default", 1, 0.1, MINUTE + 90)
    with round_trips() as sent:
        notes.send()
    assert sent == ["HSET EXPIRE"]
    assert 8 * DAY - 60 <= redis.ttl(waiting_key(MINUTE)) <= 8 * DAY


@pytest.mark.usefixtures("redis")
def test_who_takes_the_turn_over_within_a_minute_hides_nothing_of_it():
    first, second = WaitingNotes(), WaitingNotes()
    first.note("default", 40, 20.0, MINUTE + 5)
    first.send()
    second.note("default", 1, 50.0, MINUTE + 50)
    second.note("archive: old", 2, 1.0, MINUTE + 50)
    second.send()
    assert noted() == [
        WaitingSample(MINUTE, "archive: old", 2, 1.0),
        WaitingSample(MINUTE, "default", 40, 50.0),
    ]


def test_what_was_seen_while_redis_was_away_arrives_later_in_its_own_minutes(fresh_server):
    """That is when something waits."""
    notes, server = WaitingNotes(), fresh_server()
    caches = {a: {**c, "LOCATION": server.url_for(i)} for i, (a, c) in enumerate(settings.CACHES.items())}
    with override_settings(CACHES=caches, CACHEADMIN={**settings.CACHEADMIN, "TIMEOUT_MS": 1000}):
        notes.note("default", 0, 0.0, MINUTE)
        notes.send()
        server.pause()
        for minute in range(1, 3):
            notes.note("default", minute, 60.0 * minute, MINUTE + 60 * minute)
            with pytest.raises(CacheAway):
                notes.send()
        server.resume()
        link(config().stats_alias).reset()
        notes.send()
        assert [(s.at, s.count, s.oldest_seconds) for s in noted()] == [
            (MINUTE, 0, 0.0),
            (MINUTE + 60, 1, 60.0),
            (MINUTE + 120, 2, 120.0),
        ]


def test_no_outage_fills_the_memory_of_who_looks():
    notes = WaitingNotes()
    for minute in range(2 * MOST_UNSENT):
        notes.note("default", 1, 1.0, MINUTE + 60 * minute)
    assert len(notes._most) == len(notes._unsent) == MOST_UNSENT
    assert min(notes._unsent)[0] == MINUTE // 60 + MOST_UNSENT


@pytest.fixture
def outage():
    """Two databases; what waits grows for three minutes and is delivered in the fourth."""
    notes = WaitingNotes()
    for minute, (count, oldest) in enumerate([(0, 0.0), (5, 58.0), (9, 118.0), (0, 0.0)]):
        notes.note("default", count, oldest, MINUTE + 60 * minute)
        notes.note("archive", 1 if count else 0, oldest / 2, MINUTE + 60 * minute)
    notes.send()


@pytest.mark.usefixtures("redis", "outage")
def test_the_charts_have_what_waited_and_for_how_long_and_a_gap_where_nobody_looked(clock):
    points = overview(RANGES["15m"]).series
    assert points.waiting[-5:] == [None, 0, 6, 10, 0]
    assert points.lag_seconds[-5:] == [None, 0.0, 58.0, 118.0, 0.0]
    hours = overview(RANGES["7d"]).series
    assert (hours.waiting[-1], hours.lag_seconds[-1]) == (10, 118.0)
    chart = invalidations(points)
    assert [line.label for line in chart.lines] == ["invalidations", "waiting", "lag, s"]
    assert [cells[1:] for _at, cells in chart.rows][:4] == [["0", "0"], ["10", "118"], ["6", "58"], ["0", "0"]]
    notes = {figure.label: figure.note for figure in verdict.strip(overview(RANGES["15m"]), has_server=True)}
    assert notes["Waiting"].replace("\xa0", " ") == "lag up to 1 min 58 s"
    bound = overview(RANGES["15m"], tenants=["12"])
    assert {*bound.series.waiting, *bound.series.lag_seconds} == {None}  # others' invalidations are not his
    assert [line.label for line in invalidations(bound.series).lines] == ["invalidations"]


@pytest.mark.django_db
@pytest.mark.usefixtures("redis", "outage")
def test_the_most_of_the_range_is_printed(clock, capsys):
    call_command("cache_stats", "--range", "15m", "--format", "json")
    now = json.loads(capsys.readouterr().out)["now"]
    assert (now["waited_most"], now["lag_most_seconds"]) == (10, 118.0)
    call_command("cache_stats", "--range", "15m")
    assert (
        "Waiting:        0 invalidations; at most 10 in the last 15m, for up to 1 min 58 s" in capsys.readouterr().out
    )
    clock(MINUTE + 3600)
    call_command("cache_stats", "--range", "15m")
    assert "Waiting:        0 invalidations\n" in capsys.readouterr().out


@pytest.mark.usefixtures("redis")
def test_a_site_without_redis_keeps_none():
    notes = WaitingNotes()
    locmem = {alias: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"} for alias in settings.CACHES}
    with override_settings(CACHES=locmem, CACHEADMIN={"ALIASES": list(locmem)}):
        notes.note("default", 1, 1.0, MINUTE)
        notes.send()
    assert not notes._unsent


def test_eight_days_of_a_database_take_little(redis):
    notes = WaitingNotes()
    for minute in range(120):
        notes.note("default", 1234, 56.789, MINUTE // 3600 * 3600 + 60 * minute)
        notes.send()
    used = [redis.memory_usage(waiting_key(MINUTE + 3600 * hour), samples=0) for hour in (0, 1)]
    assert max(used) * 24 * 8 < 500_000
