"""`manage.py cache_browse`."""

import json
import pickle

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from redis import Redis

from cacheadmin import cache_query_result, cache_tenant_query
from shop.models import Tenant

pytestmark = pytest.mark.django_db


@cache_tenant_query(timeout=60, key_prefix="browse_list", tags=["branch:{branch}"])
def listed(tenant_id, branch=1):
    return {"branch": branch, "items": ["ring", "chain"]}


@cache_query_result(timeout=60, key_prefix="browse_gold", shared=True)
def gold():
    return [24, 22]


class Trap:
    """Would leave a mark if it were unpickled."""

    marks = []

    def __reduce__(self):
        return (Trap.marks.append, ("unpickled",))


@cache_tenant_query(timeout=60, key_prefix="browse_trap")
def trap(tenant_id):
    return Trap()


@pytest.fixture(autouse=True)
def tenants():
    return [Tenant.objects.create(pk=pk, name=name, slug=name.lower()) for pk, name in ((1, "Ruby"), (2, "Gold"))]


@pytest.fixture
def run(capsys):
    """Run the command and return what it printed."""

    def run(*args):
        call_command("cache_browse", *args)
        return capsys.readouterr().out

    return run


@pytest.fixture
def read(run):
    """Run the command with `--format json` and return what it said."""
    return lambda *args: json.loads(run(*args, "--format", "json"))


class TestTenants:
    def test_each_with_what_is_cached_of_it_shared_data_first(self, read):
        listed(1, 1), listed(1, 2), gold()
        said = read("tenants")
        assert [(r["tenant"], r["label"], r["groups"], r["entries"]) for r in said["tenants"]] == [
            (None, "shared data", 1, 1),
            ("1", "Ruby", 1, 2),
            ("2", "Gold", 0, 0),
        ]
        assert said["has_more"] is False

    def test_as_a_table(self, run):
        listed(1)
        assert [line.split()[:4] for line in run("tenants").splitlines()] == [
            ["Tenant", "Name", "Groups", "Entries"],
            ["–", "shared", "data", "0"],
            ["1", "Ruby", "1", "1"],
            ["2", "Gold", "0", "0"],
        ]

    def test_page_by_page(self, run, read):
        assert "There are more: --offset 1." in run("tenants", "--limit", "1")
        assert [r["tenant"] for r in read("tenants", "--limit", "1", "--offset", "1")["tenants"]] == ["2"]

    def test_found_by_the_beginning_of_the_name(self, read):
        assert [r["tenant"] for r in read("tenants", "--search", "gol")["tenants"]] == ["2"]


class TestGroups:
    def test_of_a_tenant(self, read):
        listed(1), gold()
        [group] = read("groups", "--tenant", "1")["groups"]
        assert (group["alias"], group["group"], group["entries"], group["is_orphaned"]) == (
            *("query", "browse_list", 1, False),
        )

    def test_of_shared_data(self, read):
        gold()
        assert [group["group"] for group in read("groups", "--shared")["groups"]] == ["browse_gold"]

    def test_an_invalidated_group_is_marked(self, run):
        listed(1)
        listed.invalidate_all(1)
        assert "invalidated" in run("groups", "--tenant", "1")

    def test_none_is_said_in_a_sentence(self, run):
        assert run("groups", "--tenant", "2") == "Nothing is cached now for tenant 2.\n"

    def test_whose_has_to_be_said(self, run):
        with pytest.raises(CommandError, match="--tenant ID, or --shared"):
            run("groups")


class TestEntries:
    def test_soonest_to_expire_first_with_the_key_that_shows_one(self, read):
        listed(1, 1), listed(1, 2)
        said = read("entries", "--tenant", "1", "--group", "browse_list")
        assert (said["alias"], said["total"], said["next_offset"]) == ("query", 2, None)
        assert [entry["arguments"] for entry in said["entries"]] == ["", "branch=2"]
        assert [entry["tags"] for entry in said["entries"]] == [["branch:1"], ["branch:2"]]
        assert said["entries"][1]["key"] == listed.key(1, 2)
        assert said["entries"][1]["state"] == "live"

    def test_as_a_table(self, run):
        listed(1, 2)
        lines = run("entries", "--tenant", "1", "--group", "browse_list").splitlines()
        assert lines[0].split()[:3] == ["Arguments", "State", "Expires"]
        assert lines[1].startswith("branch=2")
        assert lines[-1] == "1 entry of 1 in browse_list of tenant 1, query."

    def test_searched_and_paged(self, read, run):
        for branch in range(1, 6):
            listed(1, branch)
        args = ("entries", "--tenant", "1", "--group", "browse_list")
        assert [e["arguments"] for e in read(*args, "--search", "branch=4")["entries"]] == ["branch=4"]
        assert "There are more: --offset 2." in run(*args, "--limit", "2")
        assert len(read(*args, "--limit", "2", "--offset", "4")["entries"]) == 1

    def test_a_group_in_two_aliases_has_to_be_told_apart(self, run):
        listed(1)
        caches["default"].set("tenant:1:browse_list:x", 1)
        with pytest.raises(CommandError, match="is in query and default; say --alias"):
            run("entries", "--tenant", "1", "--group", "browse_list")
        assert "1 entry of 1" in run("entries", "--tenant", "1", "--group", "browse_list", "--alias", "default")

    def test_a_group_that_holds_nothing_is_an_error(self, run):
        with pytest.raises(CommandError, match="Nothing is cached now in a group 'browse_list' of tenant 2"):
            run("entries", "--tenant", "2", "--group", "browse_list")

    @pytest.mark.parametrize("limit", ["0", "1001", "-1", "x"])
    def test_limits_are_bounded(self, run, limit):
        with pytest.raises(CommandError, match="is no whole number from 1 to 1000"):
            run("entries", "--tenant", "1", "--group", "x", "--limit", limit)


class TestEntry:
    def test_facts_and_value(self, read):
        listed(1, 2)
        said = read("entry", listed.key(1, 2))
        assert (said["alias"], said["tenant"], said["group"], said["arguments"]) == (
            *("query", "1", "browse_list", "branch=2"),
        )
        assert (said["state"], said["tags"], said["gone"]) == ("live", ["branch:2"], [])
        assert 50 < said["expires_in_seconds"] <= 60
        assert said["function"].endswith("listed")
        assert said["value"]["kind"] == "dict, 2 keys"
        assert "ring" in said["value"]["text"]

    def test_as_text(self, run):
        listed(1, 2)
        out = run("entry", listed.key(1, 2))
        assert "Tags:                 branch:2\n" in out
        assert "read without running it" in out

    def test_an_orphan_names_what_is_gone(self, read):
        listed(1, 2)
        listed.invalidate_all(1)
        said = read("entry", listed.key(1, 2))
        assert (said["state"], said["gone"]) == ("orphan", ["group browse_list"])

    def test_a_plain_key_of_a_stock_backend(self, read, redis_server):
        with Redis.from_url(redis_server.url_for(0)) as client:
            client.set(caches["default"].make_key("test:key1"), pickle.dumps({"a": 1}))
        said = read("entry", "test:key1")
        assert (said["key"], said["alias"], said["state"]) == ("test:key1", "default", "plain")
        assert said["value"]["kind"] == "dict, 1 key"

    def test_nothing_is_unpickled(self, read):
        trap(1)
        said = read("entry", trap.key(1))
        assert Trap.marks == []
        assert said["value"]["warnings"] != []

    def test_a_mask_hides_here_too(self, read, settings):
        listed(1)
        settings.CACHEADMIN = settings.CACHEADMIN | {"MASK_VALUE": "test_command_browse.no_items"}
        said = read("entry", listed.key(1))
        assert "ring" not in json.dumps(said)

    def test_what_is_not_there_is_an_error(self, run):
        with pytest.raises(CommandError, match="'tenant:1:browse_list:x' is not cached now in any alias"):
            run("entry", "tenant:1:browse_list:x")

    def test_keys_do_not_steer_the_terminal(self, run):
        caches["default"].set("evil\x1b[2J:a\nb", "value\x1b[31m")
        out = run("entry", "evil\x1b[2J:a\nb")
        assert "\x1b" not in out


def no_items(path, label):
    """A mask."""
    return label == "items"


def test_without_the_server_it_says_so(settings, run):
    settings.CACHES = {a: o | {"LOCATION": "redis://127.0.0.1:1/0"} for a, o in settings.CACHES.items()}
    with pytest.raises(CommandError, match="does not answer"):
        run("groups", "--tenant", "1")


def test_looking_changes_nothing(run, redis_server):
    listed(1)
    with Redis.from_url(redis_server.url_for(1)) as client:
        before = set(client.scan_iter())
        for args in (("tenants",), ("groups", "--tenant", "1"), ("entries", "--tenant", "1", "--group", "browse_list")):
            run(*args)
        assert set(client.scan_iter()) == before
