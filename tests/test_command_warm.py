"""`manage.py cache_warm`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from redis import Redis

from cacheadmin import cache_tenant_query, functions, progress
from cacheadmin.management.commands import cache_warm
from cacheadmin.models import Activity
from cacheadmin.store import ABSENT
from cacheadmin.warming import runs
from shop import inventory
from shop.models import Tenant, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def ruby():
    return Tenant.objects.create(name="Ruby & Co", slug="ruby")


@pytest.fixture
def gold():
    return Tenant.objects.create(name="Gold & Sons", slug="gold")


@pytest.fixture
def broken(monkeypatch):
    """A function that fails for every tenant."""
    monkeypatch.setattr(functions, "registry", dict(functions.registry))
    monkeypatch.setattr(runs, "registry", functions.registry)

    @cache_tenant_query(timeout=60, key_prefix="broken", warm_with=[(n,) for n in range(30)])
    def broken(tenant_id, n):
        raise LookupError("no such\nthing")


@pytest.fixture
def away(settings, monkeypatch):
    """A server that nobody listens to, and no patience."""
    monkeypatch.setattr(cache_warm, "AWAY_SECONDS", 0.0)
    settings.CACHES = settings.CACHES | {"query": settings.CACHES["query"] | {"LOCATION": "redis://127.0.0.1:1/1"}}


def warm(capsys, *args):
    call_command("cache_warm", *args)
    return capsys.readouterr().out


class TestWhose:
    def test_it_has_to_be_said(self):
        with pytest.raises(CommandError, match=r"Say whose: --tenant ID .*--shared, or --all-tenants"):
            call_command("cache_warm")

    def test_one_tenant_is_warmed_and_no_other(self, ruby, gold, capsys):
        assert "warmed" in warm(capsys, "--tenant", str(ruby.pk))
        assert inventory.inventory_card.peek(ruby.pk) is not ABSENT
        assert inventory.inventory_card.peek(gold.pk) is ABSENT

    def test_all_tenants_are_warmed_and_shared_data_too(self, ruby, gold, capsys):
        warm(capsys, "--all-tenants")
        assert inventory.inventory_card.peek(ruby.pk) is not ABSENT
        assert inventory.inventory_card.peek(gold.pk) is not ABSENT

    def test_a_tenant_that_does_not_exist_is_an_error(self, ruby):
        with pytest.raises(CommandError, match=r"No tenant has the id '999'\. Nothing was warmed"):
            call_command("cache_warm", "--tenant", str(ruby.pk), "--tenant", "999")
        assert inventory.inventory_card.peek(ruby.pk) is ABSENT

    def test_all_and_one_is_an_error_that_names_the_way_out(self, ruby):
        with pytest.raises(CommandError, match="leave --tenant and --shared out"):
            call_command("cache_warm", "--all-tenants", "--tenant", str(ruby.pk))


class TestWhat:
    def test_one_function_only(self, ruby, capsys):
        out = warm(capsys, "--tenant", str(ruby.pk), "--function", "inventory_card")
        assert out.startswith("1 warmed, 0 were cached already, of 1 call in ")
        assert inventory.category_counts.peek(ruby.pk) is ABSENT

    def test_an_unknown_function_is_an_error_with_the_nearest_name(self, ruby):
        with pytest.raises(CommandError, match=r"Did you mean shop\.inventory\.inventory_card"):
            call_command("cache_warm", "--tenant", str(ruby.pk), "--function", "inventory_crad")

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("--workers", "0"), "0 is not between 1 and 64"),
            (("--workers", "1000"), "1000 is not between"),
            (("--workers", "x"), "'x' is no whole number"),
            (("--rate", "-1"), "-1 is not between"),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, args, message):
        with pytest.raises(CommandError, match=message):
            call_command("cache_warm", "--all-tenants", *args)

    def test_dry_run_computes_nothing_and_leaves_no_activity(self, ruby, capsys):
        out = warm(capsys, "--tenant", str(ruby.pk), "--function", "inventory_list", "--dry-run")
        assert out.splitlines()[-1] == "Would warm 1 call of 1 tenant; what is cached is passed over."
        assert inventory.inventory_list.peek(ruby.pk) is ABSENT
        assert not Activity.objects.exists()

    def test_dry_run_as_json(self, ruby, capsys):
        out = warm(capsys, "--tenant", str(ruby.pk), "--function", "inventory_list", "--dry-run", "--format", "json")
        assert json.loads(out) == {
            "state": "dry-run",
            "calls": 1,
            "tenants": 1,
            "functions": [{"function": "shop.inventory.inventory_list", "calls": 1}],
            "failures": [],
        }


class TestWhatItSays:
    def test_a_second_run_says_that_all_was_cached(self, ruby, capsys):
        args = ("--tenant", str(ruby.pk), "--function", "inventory_card")
        warm(capsys, *args)
        assert warm(capsys, *args).startswith("0 warmed, 1 was cached already, of 1 call in ")

    def test_as_json(self, ruby, capsys):
        out = warm(capsys, "--tenant", str(ruby.pk), "--function", "inventory_card", "--format", "json")
        said = json.loads(out)
        assert said.pop("took_seconds") >= 0
        assert said == {
            "state": "done",
            "calls": 1,
            "warmed": 1,
            "fresh": 0,
            "refused": 0,
            "failed": 0,
            "left": 0,
            "failures": [],
        }

    @pytest.mark.parametrize("options", [(), ("--dry-run",)])
    def test_failures_read_the_same_whether_it_is_a_dry_run(self, options, ruby, capsys, monkeypatch):
        monkeypatch.setattr(inventory.inventory_card, "warm_with", ["rings"])
        with pytest.raises(CommandError) as raised:
            call_command(
                "cache_warm", "--tenant", str(ruby.pk), "--function", "inventory_card", "--format", "json", *options
            )
        assert raised.value.returncode == 1
        [failure] = json.loads(capsys.readouterr().out)["failures"]
        assert failure.keys() == {"call", "error"}
        assert "not 'rings'" in failure["error"]

    def test_failures_are_listed_counted_and_the_exit_code(self, ruby, broken, capsys):
        with pytest.raises(CommandError, match="30 calls failed") as raised:
            call_command("cache_warm", "--tenant", str(ruby.pk), "--function", "broken")
        assert raised.value.returncode == 1
        printed = capsys.readouterr()
        assert "30 failed" in printed.out
        assert printed.err.count("LookupError: no such thing") == 20
        assert "and 10 more" in printed.err

    def test_without_the_server_it_says_how_to_go_on(self, ruby, away, capsys):
        with pytest.raises(CommandError, match=r"Redis \(query\) does not answer: stopped after 0 of 1\. Run it again"):
            call_command("cache_warm", "--tenant", str(ruby.pk), "--function", "inventory_card")
        assert Activity.objects.get().state == "failed"

    def test_no_progress_bar_off_a_terminal(self, ruby, capsys):
        call_command("cache_warm", "--tenant", str(ruby.pk))
        assert capsys.readouterr().err == ""


class TestActivity:
    def test_nothing_to_warm_is_no_activity(self, capsys):
        assert warm(capsys, "--shared", "--function", "inventory_card").startswith("Nothing to warm")
        assert not Activity.objects.exists()

    def test_one_row_a_run(self, ruby, capsys):
        warm(capsys, "--tenant", str(ruby.pk), "--function", "inventory_card")
        row = Activity.objects.get()
        assert (row.kind, row.source, row.state, row.entries) == ("warm", "command", "done", 1)
        assert (row.tenants, row.what) == ([str(ruby.pk)], "warm inventory_card")
        assert "@" in row.who

    def test_it_is_followed_and_cancelled_on_its_page(self, ruby, client, monkeypatch):
        client.force_login(User.objects.create_superuser("amira"))
        monkeypatch.setattr(progress, "TELL_SECONDS", 0)
        step, seen = progress.Teller.step, []

        def on_its_page(teller, *told):
            seen.append(client.get(reverse("admin:cacheadmin_data_run", args=[teller.row.pk])).json()["state"])
            if len(seen) == 2:
                client.post(reverse("admin:cacheadmin_run_pace", args=[teller.row.pk]), {"pace": "normal"})
                client.post(reverse("admin:cacheadmin_run_cancel", args=[teller.row.pk]))
            step(teller, *told)

        monkeypatch.setattr(progress.Teller, "step", on_its_page)
        with pytest.raises(CommandError, match="Run it again to go on"):
            call_command("cache_warm", "--tenant", str(ruby.pk))
        assert seen == ["running", "running"]
        row = Activity.objects.get()
        assert (row.source, row.state, row.pace) == ("command", "cancelled", "normal")
        assert progress.progress_of(row).done == 2

    def test_a_run_with_failures_says_which(self, ruby, broken):
        with pytest.raises(CommandError):
            call_command("cache_warm", "--tenant", str(ruby.pk), "--function", "broken")
        row = Activity.objects.get()
        assert row.state == "failed"
        assert "LookupError: no such thing" in row.error


@pytest.mark.slow
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, "3"), (signal.SIGTERM, "1")])
def test_a_signal_ends_a_run_between_two_calls_and_the_next_one_goes_on(tmp_path, fresh_server, number, workers):
    server = fresh_server()
    tests = Path(__file__).parent
    environment = os.environ | {
        "SHOP_DB": str(tmp_path / "shop.sqlite3"),
        "REDIS_URL": server.url,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}",
    }

    def manage(*args, **options):
        env = environment | options.pop("env", {})
        command = [sys.executable, "-m", "django", *args]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    for args in (("migrate", "-v0"), ("seed_shop", "--scale", "0.01")):
        process = manage(*args)
        process.communicate(timeout=120)
        assert process.returncode == 0
    run = ("cache_warm", "--all-tenants", "--format", "json")
    process = manage(*run, "--workers", workers, env={"SHOP_SLOW_MS": "200"})
    with Redis.from_url(server.url_for(1)) as client:
        ends = time.monotonic() + 60
        while client.dbsize() == 0 and process.poll() is None and time.monotonic() < ends:
            time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out + err
    said = json.loads(out)
    assert said["state"] == "stopped"
    assert said["warmed"] >= 1
    assert said["left"] >= 1
    assert said["failed"] == said["refused"] == 0
    assert "Stopped. Run it again to go on." in err
    process = manage(*run)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    again = json.loads(out)
    assert again["fresh"] >= said["warmed"]
    assert again["fresh"] + again["warmed"] == again["calls"]
