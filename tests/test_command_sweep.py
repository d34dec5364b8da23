"""`manage.py cache_sweep`."""

import json

import pytest
from django.core.management import CommandError, call_command

from cacheadmin import cache_tenant_query, invalidate_tags, invalidate_tenant_cache, reclaiming
from cacheadmin.store import ABSENT, store

pytestmark = pytest.mark.django_db


@cache_tenant_query(timeout=None, key_prefix="swept", tags=["branch:{branch}"])
def rows(tenant_id, branch):
    return [branch]


@cache_tenant_query(timeout=600, key_prefix="s" * 300)
def long_named(tenant_id):
    return 1


@pytest.fixture(autouse=True)
def _lost_sight_of():
    """As if the process that invalidated had ended: what it noted for reclaiming is gone."""
    yield
    reclaiming.forget()


def values():
    return len(store("query").link.call(("KEYS", "*:v:*")).values[0])


def swept(capsys, *options):
    capsys.readouterr()
    call_command("cache_sweep", "--alias", "query", "--format", "json", *options)
    return json.loads(capsys.readouterr().out)["query"]


def test_orphans_without_a_timeout_are_freed_and_what_is_valid_stays(capsys):
    for branch in range(30):
        rows(1, branch)
        rows(2, branch)
    long_named(1), long_named(2)
    invalidate_tenant_cache(1)
    invalidate_tags(2, "branch:7")
    reclaiming.forget()
    assert swept(capsys, "--dry-run") == {"seen": 62, "orphans": 32}
    assert values() == 62
    assert swept(capsys) == {"seen": 62, "orphans": 32}
    assert values() == 30
    assert rows.peek(2, 3) == [3]
    assert rows.peek(2, 7) is ABSENT
    assert long_named.peek(2) == 1
    assert swept(capsys) == {"seen": 30, "orphans": 0}


def test_an_index_that_was_left_aside_is_gone_through(capsys):
    for branch in range(5):
        rows(1, branch)
    where = store("query")
    group = where.place("1").group("swept")
    aside = where.set_aside(group)
    assert swept(capsys)["orphans"] == 0
    members, left = where.link.call(("ZCARD", group.index), ("EXISTS", aside)).values
    assert (members, left) == (5, 0)


def test_what_another_server_filled_is_freed(capsys, monkeypatch):
    rows(1, 1)
    where = store("query")
    name = where.place("1").group("swept").values
    (key,) = where.link.call(("KEYS", name + "*")).values[0]
    where.link.call(("SETRANGE", key, 18, b"another!"))
    assert swept(capsys) == {"seen": 1, "orphans": 1}


def test_text_says_what_was_freed_in_each_alias(capsys):
    rows(1, 1)
    call_command("cache_sweep")
    out = capsys.readouterr().out
    assert "query: 1 value seen, 0 freed." in out
    assert "template: 0 values seen, 0 freed." in out


def test_an_unknown_alias_is_named():
    with pytest.raises(CommandError, match="nowhere"):
        call_command("cache_sweep", "--alias", "nowhere")
