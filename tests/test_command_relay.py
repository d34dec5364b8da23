"""`manage.py cache_relay`."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from redis import Redis

from cacheadmin import cache_tenant_query, outbox
from cacheadmin.models import Intent
from cacheadmin.store import ABSENT
from cacheadmin.targets import Target

pytestmark = pytest.mark.django_db(transaction=True)


@cache_tenant_query(timeout=60, key_prefix="relay_list")
def listed(tenant_id):
    return "old"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    yield
    outbox.reset()


@pytest.fixture
def away(settings):
    """Take the server away; call it to bring it back."""
    before = settings.CACHES
    settings.CACHES = {a: o | {"LOCATION": "redis://127.0.0.1:1/0"} for a, o in settings.CACHES.items()}

    def back():
        settings.CACHES = before

    return back


def intent(*targets, state="pending"):
    payload = {"targets": [target.to_json() for target in targets], "rules": [], "source": "rule", "name": ""}
    return Intent.objects.create(due=timezone.now() - timezone.timedelta(seconds=1), payload=payload, state=state)


@pytest.fixture
def run(capsys):
    """Run the command; return what it printed and the exit code."""

    def run(*args):
        code = 0
        try:
            call_command("cache_relay", *args)
        except CommandError as error:
            code = error.returncode
        return capsys.readouterr().out, code

    return run


def test_delivers_what_waits_and_marks_it_done(run):
    listed(1)
    row = intent(Target("group", "relay_list", "1"))
    assert run() == ("Delivered 1 invalidation.\n", 0)
    assert listed.peek(1) is ABSENT
    row.refresh_from_db()
    assert row.state == "done"


def test_nothing_to_do_is_said_too(run):
    assert run() == ("Delivered 0 invalidations.\n", 0)


def test_more_than_one_batch_is_delivered(run, monkeypatch):
    for n in range(5):
        intent(Target("tenant", "", str(n)))
    once = outbox.relay_once
    monkeypatch.setattr(outbox, "relay_once", lambda: once(limit=2))
    assert run() == ("Delivered 5 invalidations.\n", 0)


def test_without_the_server_it_is_exit_code_3(run, away):
    intent(Target("tenant", "", "1"))
    out, code = run("--format", "json")
    said = json.loads(out)
    assert said.pop("oldest_seconds") >= 0
    assert (said, code) == ({"delivered": 0, "dead": 0, "waiting": 1}, 3)


def test_what_was_invalidated_while_redis_was_away_is_done_when_it_is_back(run, away):
    listed_before = Intent.objects.count()
    with pytest.raises(CommandError) as raised:
        call_command("cache_invalidate", "--tenant", "1", "--noinput")
    assert raised.value.returncode == 3
    assert Intent.objects.count() == listed_before + 1
    away()
    Intent.objects.update(due=timezone.now() - timezone.timedelta(seconds=1))
    listed(1)
    assert run() == ("Delivered 1 invalidation.\n", 0)
    assert listed.peek(1) is ABSENT


def test_an_invalidation_that_only_this_process_remembers_is_not_called_recorded(away, settings):
    settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "off"}
    with pytest.raises(CommandError, match="Not invalidated") as raised:
        call_command("cache_invalidate", "--tenant", "1", "--noinput")
    assert raised.value.returncode == 1


def test_an_intent_for_an_alias_that_is_gone_is_reported(run, capsys):
    intent(Target("tenant", "", "1", "gone"))
    call_command("cache_relay")
    assert "1 invalidation cannot be delivered" in capsys.readouterr().err


def test_what_was_given_up_is_taken_up_again_when_asked(run):
    intent(Target("group", "relay_list", "1"), state="dead")
    assert run()[1] == 0
    assert Intent.objects.get().state == "dead"
    assert run("--retry-dead") == ("Delivered 1 invalidation.\n", 0)
    assert Intent.objects.get().state == "done"


@pytest.mark.parametrize("interval", ["0", "x", "1e9"])
def test_intervals_are_bounded(interval):
    with pytest.raises(CommandError, match=r"is no number of seconds|is not between"):
        call_command("cache_relay", "--loop", "--interval", interval)


DJANGO = [sys.executable, "-m", "django"]


def shop_of_its_own(directory, server):
    """Make the shop's database in a directory; return the environment of processes that use it and the server."""
    tests = Path(__file__).parent
    environment = os.environ | {
        "SHOP_DB": str(directory / "shop.sqlite3"),
        "REDIS_URL": server.url,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}",
        "PYTHONUNBUFFERED": "1",
    }
    subprocess.run([*DJANGO, "migrate", "-v0"], env=environment, check=True, timeout=120)
    return environment


@pytest.mark.slow
def test_the_loop_delivers_as_rows_come_and_ends_cleanly_on_sigterm(tmp_path, fresh_server):
    server = fresh_server()
    environment = shop_of_its_own(tmp_path, server)
    relay = subprocess.Popen(
        [*DJANGO, "cache_relay", "--loop", "--interval", "0.1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    insert = (
        "import django; django.setup()\n"
        "from django.utils import timezone\n"
        "from cacheadmin.models import Intent\n"
        "target = {'kind': 'tenant', 'name': '', 'tenant': ['1'], 'alias': 'query'}\n"
        "Intent.objects.create(due=timezone.now(), payload={'targets': [target]})\n"
    )
    with relay, Redis.from_url(server.url_for(1)) as client, contextlib.ExitStack() as stack:
        stack.callback(relay.kill)  # after a failure; one that has ended does not mind
        key = "jewelry_shop_query:1:{query:1}:t"
        client.set(key, b"12345678")
        subprocess.run([sys.executable, "-c", insert], env=environment, check=True, timeout=60)
        ends = time.monotonic() + 90
        while client.exists(key) and time.monotonic() < ends:
            time.sleep(0.02)
        assert not client.exists(key)
        relay.send_signal(signal.SIGTERM)
        out, _ = relay.communicate(timeout=60)
    assert relay.returncode == 0
    assert out == "Delivered 1 invalidation.\nStopped; what waits stays recorded.\n"


@pytest.mark.slow
def test_a_process_that_ends_right_after_a_write_leaves_no_row_to_others(tmp_path, fresh_server):
    environment = shop_of_its_own(tmp_path, fresh_server())
    write = (
        "import django; django.setup()\n"
        "from shop.models import Category, Tenant\n"
        "tenant = Tenant.objects.create(name='Ruby & Co', slug='ruby')\n"
        "Category.objects.create(tenant=tenant, name='Rings', slug='rings')\n"
    )
    subprocess.run([sys.executable, "-c", write], env=environment, check=True, timeout=60)
    with contextlib.closing(sqlite3.connect(environment["SHOP_DB"])) as database:
        states = [state for (state,) in database.execute("SELECT state FROM cacheadmin_intent")]
    assert states == ["done"] * 2
