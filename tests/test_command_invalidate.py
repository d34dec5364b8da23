"""`manage.py cache_invalidate`."""

import io
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.core.cache import caches
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction
from django.urls import reverse

from cacheadmin import cache_query_result, cache_tenant_query, invalidation, progress
from cacheadmin.dispatch import Stop
from cacheadmin.management.commands import cache_invalidate
from cacheadmin.models import Activity
from cacheadmin.store import ABSENT
from shop.cache import Tenancy
from shop.models import Tenant, User

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def tenants():
    """Two tenants with the ids 1 and 2."""
    return [Tenant.objects.create(pk=pk, name=name, slug=name.lower()) for pk, name in ((1, "Ruby"), (2, "Gold"))]


class Cached:
    """Three cached functions: the lists and the board of a tenant, and something shared."""

    @staticmethod
    @cache_tenant_query(timeout=60, key_prefix="inventory_list", tags=["branch:{branch}"])
    def items(tenant_id, branch=1):
        return "items"

    @staticmethod
    @cache_tenant_query(timeout=60, key_prefix="board", alias="default")
    def board(tenant_id):
        return "board"

    @staticmethod
    @cache_query_result(timeout=60, key_prefix="gold", shared=True)
    def gold():
        return "gold"


@pytest.fixture(autouse=True)
def cached(tenants):
    """Everything of both tenants, and what they share, is cached."""
    for tenant in (1, 2):
        for branch in (1, 2):
            Cached.items(tenant, branch)
        Cached.board(tenant)
    Cached.gold()


def standing():
    """Name what is still cached."""
    found = {f"items {t} {b}": Cached.items.peek(t, b) for t in (1, 2) for b in (1, 2)}
    found |= {f"board {t}": Cached.board.peek(t) for t in (1, 2)}
    found["gold"] = Cached.gold.peek()
    return {name for name, value in found.items() if value is not ABSENT}


EVERYTHING = {"items 1 1", "items 1 2", "items 2 1", "items 2 2", "board 1", "board 2", "gold"}


@pytest.fixture
def run(capsys):
    """Run the command with `--noinput`; return what it printed."""

    def run(*args):
        call_command("cache_invalidate", "--noinput", *args)
        return capsys.readouterr().out

    return run


@pytest.fixture
def says(monkeypatch):
    """`says("yes")` is what is typed when the command asks."""

    def type_in(text):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))

    return type_in


@pytest.fixture
def away(settings):
    """No server listens for any alias."""
    settings.CACHES = {
        alias: options | {"LOCATION": "redis://127.0.0.1:1/0"} for alias, options in settings.CACHES.items()
    }


class TestWhatGoes:
    def test_one_tenant(self, run):
        run("--tenant", "1")
        assert standing() == {"items 2 1", "items 2 2", "board 2", "gold"}

    def test_several_tenants(self, run):
        run("--tenant", "1", "--tenant", "2")
        assert standing() == {"gold"}

    def test_all_tenants_and_shared_data(self, run):
        run("--all-tenants")
        assert standing() == set()

    def test_shared_data_only(self, run):
        run("--shared")
        assert standing() == EVERYTHING - {"gold"}

    def test_groups_by_prefix(self, run):
        run("--tenant", "1", "--prefix", "inv")
        assert standing() == EVERYTHING - {"items 1 1", "items 1 2"}

    def test_groups_by_prefix_of_all_tenants(self, run):
        run("--all-tenants", "--prefix", "inventory", "--prefix", "gold")
        assert standing() == {"board 1", "board 2"}

    def test_a_tag(self, run):
        run("--tenant", "1", "--tag", "branch:2")
        assert standing() == EVERYTHING - {"items 1 2"}

    def test_one_alias(self, run):
        run("--tenant", "1", "--alias", "default")
        assert standing() == EVERYTHING - {"board 1"}

    def test_a_pattern_that_is_a_scope(self, run):
        run("--pattern", "tenant:1:inventory_list:*")
        assert standing() == EVERYTHING - {"items 1 1", "items 1 2"}

    def test_a_pattern_of_some_tenants(self, run):
        run("--tenant", "2", "--pattern", "inventory_list:*")
        assert standing() == EVERYTHING - {"items 2 1", "items 2 2"}

    def test_a_pattern_that_has_to_be_looked_for(self, run):
        out = run("--tenant", "2", "--pattern", "inventory_list:*branch=2")
        assert standing() == EVERYTHING - {"items 2 2"}
        assert "1 key deleted by name" in out

    def test_a_search_that_is_stopped_says_that_it_is_not_complete(self, run, monkeypatch):
        @contextmanager
        def stopped():
            stop = Stop()
            stop.signal = signal.SIGINT
            stop.set()
            yield stop

        monkeypatch.setattr(cache_invalidate, "stopping", stopped)
        with pytest.raises(CommandError, match=r"not complete. 0 values found and deleted") as caught:
            run("--pattern", "*list*branch=2")
        assert caught.value.returncode == 130
        assert standing() == EVERYTHING
        row = Activity.objects.get()
        assert (row.state, row.error, row.entries) == ("cancelled", "", 0)

    def test_a_pattern_of_everybody(self, run):
        run("--pattern", "*list*branch=2")
        assert standing() == EVERYTHING - {"items 1 2", "items 2 2"}

    def test_a_tenant_whose_id_is_a_glob_matches_only_itself(self, run):
        caches["query"].set("tenant:*:inventory_list:x1", 1)
        caches["query"].set("tenant:1:inventory_list:x1", 1)
        run("--tenant", "*", "--pattern", "inventory_list:x?")
        assert caches["query"].get("tenant:*:inventory_list:x1") is None
        assert caches["query"].get("tenant:1:inventory_list:x1") == 1

    def test_one_plain_key(self, run):
        caches["default"].set("test:key1", 1)
        caches["default"].set("test:key2", 1)
        run("--pattern", "test:key1")
        assert caches["default"].get_many(["test:key1", "test:key2"]) == {"test:key2": 1}

    def test_what_the_rules_of_a_model_drop(self, run):
        run("--tenant", "1", "--model", "shop.InventoryItem")
        assert not standing() & {"items 1 1", "items 1 2"}
        assert standing() >= {"items 2 1", "items 2 2"}


class TestWhatItRefuses:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ((), r"Say whose: --tenant ID \(may be repeated\), --shared, or --all-tenants"),
            (("--prefix", "x"), "Say whose"),
            (("--tag", "x"), "Say whose"),
            (("--model", "shop.Sale"), "Say whose"),
            (("--tenant", ""), "--tenant needs an id"),
            (("--all-tenants", "--tenant", "1"), "leave --tenant and --shared out"),
            (
                ("--tenant", "1", "--prefix", "a", "--tag", "b"),
                "--prefix and --tag cannot be combined; run the command",
            ),
            (("--tenant", "1", "--pattern", "tenant:1:x:*"), "names a tenant itself; leave --tenant"),
            (("--shared", "--pattern", "a*b"), "leave --shared out, or say --prefix"),
            (("--tenant", "1", "--model", "shop.Sale", "--alias", "query"), "the rules of the model name the aliases"),
            (("--tenant", "1", "--model", "shop.Inventoryitm"), r"Did you mean shop\.InventoryItem"),
            (("--tenant", "1", "--alias", "sessions"), "not managed; managed are query, default, template, api"),
            (("--pattern", "*x" * 150), "at most 200"),
        ],
    )
    def test_bad_combinations_name_the_way_out(self, run, args, message):
        with pytest.raises(CommandError, match=message) as raised:
            run(*args)
        assert raised.value.returncode == 1
        assert standing() == EVERYTHING
        assert not Activity.objects.exists()

    def test_an_unknown_tenant_is_a_warning_since_a_former_one_may_be_cached(self, run, capsys):
        call_command("cache_invalidate", "--noinput", "--tenant", "99")
        printed = capsys.readouterr()
        assert "No tenant has the id '99'. Going on" in printed.err
        assert printed.out.startswith("Invalidated everything of tenant 99")


class TestAsking:
    @pytest.mark.parametrize(
        "args",
        [("--all-tenants",), ("--all-tenants", "--prefix", "board"), ("--pattern", "board:*"), ("--pattern", "*")],
    )
    def test_a_wide_act_needs_a_yes(self, says, capsys, args):
        says("no\n")
        with pytest.raises(CommandError, match="Nothing was done"):
            call_command("cache_invalidate", *args)
        assert standing() == EVERYTHING
        assert "Type 'yes' to go on" in capsys.readouterr().err

    def test_a_yes_is_enough(self, says):
        says("yes\n")
        call_command("cache_invalidate", "--all-tenants")
        assert standing() == set()

    def test_where_nobody_answers_it_names_noinput(self, says):
        says("")
        with pytest.raises(CommandError, match="Say --noinput if you are sure"):
            call_command("cache_invalidate", "--all-tenants")
        assert standing() == EVERYTHING

    @pytest.mark.parametrize("args", [(), ("--prefix", "inv"), ("--tag", "branch:1"), ("--model", "shop.Sale")])
    def test_one_tenant_is_not_asked_for(self, says, args):
        says("")
        call_command("cache_invalidate", "--tenant", "1", *args)

    def test_one_key_is_not_asked_for(self, says):
        says("")
        call_command("cache_invalidate", "--pattern", "test:key1")

    def test_many_entries_are(self, says, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"CONFIRM_ABOVE": 2}
        says("")
        with pytest.raises(CommandError, match="--noinput"):
            call_command("cache_invalidate", "--tenant", "1")
        assert standing() == EVERYTHING

    def test_the_question_says_how_much_it_is_and_stays_out_of_the_json(self, says, capsys):
        says("yes\n")
        call_command("cache_invalidate", "--all-tenants", "--format", "json")
        printed = capsys.readouterr()
        assert "7 entries in 3 groups" in printed.err
        assert json.loads(printed.out)["state"] == "done"


class TestWhatItSays:
    def test_in_a_sentence(self, run):
        out = run("--tenant", "1")
        assert out.startswith("Invalidated everything of tenant 1 (3 entries in 2 groups, ")

    def test_as_json(self, run):
        said = json.loads(run("--tenant", "1", "--prefix", "inv", "--format", "json"))
        [group] = said.pop("groups")
        assert (group["alias"], group["tenant"], group["group"], group["entries"]) == (
            "query",
            "1",
            "inventory_list",
            2,
        )
        assert said.pop("took_ms") > 0
        assert said.pop("size_bytes") > 0
        assert said == {
            "state": "done",
            "targets": [{"kind": "prefix", "name": "inv", "tenant": ["1"], "alias": None}],
            "places": 4,
            "keys": 0,
            "error": "",
            "entries": 2,
            "is_exact": True,
        }

    def test_dry_run_counts_and_leaves_everything(self, run):
        out = run("--tenant", "1", "--dry-run")
        lines = out.splitlines()
        assert lines[0].split() == ["Alias", "Tenant", "Group", "Entries", "Size"]
        assert [line.split()[:4] for line in lines[1:3]] == [
            ["query", "1", "inventory_list", "2"],
            ["default", "1", "board", "1"],
        ]
        assert lines[3].startswith("Would invalidate everything of tenant 1 (3 entries in 2 groups, ")
        assert standing() == EVERYTHING
        assert not Activity.objects.exists()

    def test_dry_run_as_json(self, run):
        said = json.loads(run("--tenant", "1", "--tag", "branch:2", "--dry-run", "--format", "json"))
        assert (said["state"], said["entries"]) == ("dry-run", 1)
        assert [group["group"] for group in said["groups"]] == ["inventory_list"]

    def test_dry_run_asks_nothing(self, says):
        says("")
        call_command("cache_invalidate", "--all-tenants", "--dry-run")

    def test_nothing_in_a_name_steers_the_terminal(self, run):
        out = run("--tenant", "1\x1b[2J\nDone")
        assert "\x1b" not in out

    def test_inside_a_transaction_it_says_that_it_waits_for_the_commit(self, run):
        with transaction.atomic():
            out = run("--tenant", "1")
            with ThreadPoolExecutor(1) as others:
                assert others.submit(standing).result() == EVERYTHING
            assert standing() == set()
        assert out == "Will invalidate everything of tenant 1 when the open transaction commits.\n"


class TestActivity:
    def test_one_row_an_act(self, run):
        run("--tenant", "1", "--prefix", "inv", "--reason", "price list was wrong\nFAKE")
        row = Activity.objects.get()
        assert (row.kind, row.source, row.state, row.tenants) == ("invalidate", "command", "done", ["1"])
        assert (row.entries, row.what, row.reason) == (2, "prefix inv of tenant 1", "price list was wrong\\nFAKE")
        assert row.targets == [{"kind": "prefix", "name": "inv", "tenant": ["1"], "alias": None}]
        assert row.bytes > 0
        assert "@" in row.who

    def test_everything_is_a_clear(self, run):
        run("--all-tenants", "--alias", "default")
        row = Activity.objects.get()
        assert (row.kind, row.tenants, row.alias) == ("clear", "*", "default")


class TestDatabaseAway:
    @pytest.fixture(autouse=True)
    def _refused(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise OperationalError("could not connect")

        monkeypatch.setattr(Tenancy, "labels", refuse)
        monkeypatch.setattr(Tenancy, "list", refuse)
        monkeypatch.setattr(Activity, "save", refuse)

    def test_a_tenant_is_invalidated_all_the_same(self, run, capsys):
        call_command("cache_invalidate", "--tenant", "1")
        assert standing() == {"items 2 1", "items 2 2", "board 2", "gold"}
        assert "This was not noted among the activity: could not connect" in capsys.readouterr().err

    def test_all_tenants_need_it(self, run):
        with pytest.raises(CommandError, match="The database refused: could not connect"):
            run("--all-tenants")


class TestRedisAway:
    def test_recorded_is_exit_code_3(self, away, monkeypatch, capsys):
        monkeypatch.setattr(invalidation.asking, "_keep", lambda result: True)
        with pytest.raises(CommandError, match=r"Redis does not answer\. Recorded: everything of tenant 1") as raised:
            call_command("cache_invalidate", "--noinput", "--tenant", "1", "--format", "json")
        assert raised.value.returncode == 3
        said = json.loads(capsys.readouterr().out)
        assert (said["state"], said["entries"]) == ("waiting", None)
        assert Activity.objects.get().state == "waiting"

    def test_not_even_recorded_is_exit_code_1(self, away, monkeypatch):
        monkeypatch.setattr(invalidation.asking, "_keep", None)
        with pytest.raises(CommandError, match=r"Not invalidated: everything of tenant 1.*Try again") as raised:
            call_command("cache_invalidate", "--noinput", "--tenant", "1")
        assert raised.value.returncode == 1
        assert Activity.objects.get().state == "failed"

    def test_a_dry_run_cannot_count(self, away):
        with pytest.raises(CommandError, match="Nothing can be counted now"):
            call_command("cache_invalidate", "--tenant", "1", "--dry-run")

    def test_one_alias_away_is_not_everything_away(self, settings, monkeypatch):
        """Its part waits; whoever retries does the others again, in order."""
        monkeypatch.setattr(invalidation.asking, "_keep", lambda result: True)
        settings.CACHES = settings.CACHES | {"api": settings.CACHES["api"] | {"LOCATION": "redis://127.0.0.1:1/3"}}
        with pytest.raises(CommandError) as raised:
            call_command("cache_invalidate", "--noinput", "--tenant", "1")
        assert raised.value.returncode == 3


def test_a_site_without_tenants_need_not_say_whose(settings, monkeypatch, run, says):
    settings.CACHEADMIN = {}
    run("--prefix", "gold")
    assert standing() == EVERYTHING - {"gold"}
    says("")
    with pytest.raises(CommandError, match="--noinput"):
        call_command("cache_invalidate")


def test_a_search_is_followed_and_cancelled_on_its_page(client, monkeypatch):
    client.force_login(User.objects.create_superuser("amira"))
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)
    for i in range(2500):
        caches["query"].set(f"letter{i}", i)
    looked, seen = progress.Teller.looked, []

    def on_its_page(teller, *numbers):
        looked(teller, *numbers)
        seen.append(client.get(reverse("admin:cacheadmin_data_run", args=[teller.row.pk])).json())
        if len(seen) == 2:
            client.post(reverse("admin:cacheadmin_run_pace", args=[teller.row.pk]), {"pace": "normal"})
            assert client.post(reverse("admin:cacheadmin_run_cancel", args=[teller.row.pk])).status_code == 302

    monkeypatch.setattr(progress.Teller, "looked", on_its_page)
    with pytest.raises(CommandError, match="not complete"):
        call_command("cache_invalidate", "--noinput", "--pattern", "*x*y?", "--alias", "query")
    assert [each["state"] for each in seen] == ["running", "running", "cancelled"]
    assert "keys passed" in seen[0]["text"]
    row = Activity.objects.get()
    assert (row.source, row.state, row.pace, row.what) == (
        "command",
        "cancelled",
        "normal",
        "pattern *x*y? of all tenants in query",
    )
    assert "Not complete." in client.get(reverse("admin:cacheadmin_run_detail", args=[row.pk])).content.decode()
