"""Memory of what nobody can read any more comes back, and nothing else goes."""

from __future__ import annotations

import pytest

from cacheadmin import cache_tenant_query, invalidate_tenant_cache, reclaiming
from cacheadmin.store import store

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    reclaiming.forget()


@cache_tenant_query(timeout=600, key_prefix="reclaimed")
def rows(tenant_id: int, number: int) -> list[int]:
    return [number]


def sizes() -> int:
    where = store("query")
    return len(where.link.call(("KEYS", "*:v:*")).values[0])


def test_orphans_of_a_group_are_freed_and_what_was_filled_since_stays() -> None:
    for number in range(450):
        rows(1, number)
        rows(2, number)
    rows.invalidate_all(tenant=1)
    for number in range(5):
        rows(1, number)
    assert sizes() == 900
    assert reclaiming.run_due() == 0, "it is left alone for some seconds"
    assert reclaiming.run_due(everything=True) == 445
    assert sizes() == 455
    assert rows.peek(1, 3) == [3]
    assert rows.peek(2, 440) == [440]


def test_orphans_of_a_whole_tenant_are_freed() -> None:
    for number in range(30):
        rows(1, number)
    invalidate_tenant_cache(1)
    assert reclaiming.run_due(everything=True) == 30
    assert sizes() == 0


def test_a_group_that_is_invalidated_again_and_again_is_looked_through_once(round_trips) -> None:
    rows(1, 1)
    for _ in range(20):
        rows.invalidate_all(tenant=1)
    with round_trips() as sent:
        assert reclaiming.run_due(everything=True) == 1
    assert [names for names in sent if names != "INFO INFO"][-2:] in (["RENAME", "EVALSHA"], ["EVALSHA", "EVAL"])


def test_no_command_looks_at_more_than_a_hundred_entries_and_all_of_them_come_back(commandstats) -> None:
    for number in range(500):
        rows(1, number)
    rows.invalidate_all(tenant=1)
    with commandstats() as calls:
        assert reclaiming.run_due(everything=True) == 500
    assert calls["zrange"] == calls["unlink"] == 6  # five chunks and their end; five times orphans, and the index
    assert "getrange" not in calls  # nothing of the group stands


def test_a_full_server_gets_its_memory_back(redis) -> None:
    for number in range(150):
        rows(1, number)
    rows.invalidate_all(tenant=1)
    rows(1, 3)
    where = store("query")
    index = where.place("1").group("reclaimed").index
    limit = where.link.call(("CONFIG", "GET", "maxmemory")).values[0]
    where.link.call(("CONFIG", "SET", "maxmemory", "1mb"))
    try:
        assert reclaiming.run_due(everything=True) == 149
    finally:
        where.link.call(("CONFIG", "SET", "maxmemory", limit[1]))
    assert rows.peek(1, 3) == [3]
    assert where.link.call(("EXISTS", index)).values == [0]  # only out of sight, since it was refused its place there
