"""Invalidating by pattern from the console: what it means, the run that looks for it, and how it ends early."""

import html
import re
import time
from types import SimpleNamespace

import pytest
from console import console_rates, console_stock, make_shops, make_sweep, make_user, page, scope_of, text_of
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.core.cache import caches

from cacheadmin import browser, connections, dispatch, invalidation, progress
from cacheadmin.admin import runs
from cacheadmin.admin.access import access_of
from cacheadmin.connections import links
from cacheadmin.models import Activity
from cacheadmin.store import store
from cacheadmin.targets import ALL, Target
from shop.cache import Tenancy
from shop.models import Tenant, User

pytestmark = pytest.mark.django_db

GROUP, GLOB = "console_stock", "*stoc?:*"


@pytest.fixture(autouse=True)
def _runs_in_place(monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda job: job())


@pytest.fixture
def ruby():
    ruby, gold = make_shops("Ruby & Co", "Gold & Sons")
    for branch in range(1, 4):
        console_stock(str(ruby.pk), branch)
        console_stock(str(gold.pk), branch)
    console_rates(18)
    return str(ruby.pk)


def live(tenant):
    """Return how many entries of a tenant's stock can be read."""
    return sum(row.state == "live" for row in browser.entries("query", tenant, GROUP).rows)


def search(pattern=GLOB, alias="query"):
    """Return what the form of a search posts."""
    return {"on": scope_of(Target("pattern", pattern, ALL, alias)), "name": pattern, "reason": "again"}


# --- what a pattern means -------------------------------------------------------------------------------------------


def test_the_question_says_that_a_pattern_is_looked_for_and_changes_nothing(admin, ruby):
    text = text_of(admin.get(page("pattern"), {"pattern": GLOB, "alias": "query"}))
    assert f"Invalidate what matches {GLOB}?" in text
    assert re.search(r"Keys to pass ~ [\d,]+ twice each", text)
    assert "What matches is counted while it is looked for." in text
    assert f"Type {GLOB} to confirm" in text
    assert live(ruby) == 3
    assert not Activity.objects.exists()


def test_a_pattern_that_is_a_scope_shows_its_blast_radius_and_is_done_at_once(admin, ruby):
    response = admin.get(page("pattern"), {"pattern": f"tenant:{ruby}:{GROUP}:*", "alias": "query"})
    text, body = text_of(response), response.content.decode()
    assert "is a scope, or one key: it is done at once" in text
    assert "Invalidate 3 entries" in text
    token = re.search(r'name="on" value="([^"]+)"', body)[1]
    assert re.search(r'<form class="cacheadmin-confirm" method="post" action="([^"]+)"', body)[1] == page("invalidate")
    admin.post(page("invalidate"), {"on": token, "confirmed": "yes", "counted": 3})
    assert live(ruby) == 0
    assert live(str(int(ruby) + 1)) == 3
    assert Activity.objects.get().state == "done"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("  ", "Type a pattern, such as"),
        ("*x" * 101, "at most 200"),
        ("tenant:%41:x:*", "This is no pattern:"),
    ],
)
def test_what_is_no_pattern_is_said_beside_the_form(admin, pattern, said):
    response = admin.get(page("pattern"), {"pattern": pattern})
    assert response.status_code == 200
    assert said in text_of(response)
    assert html.escape(pattern) in response.content.decode()


def test_the_plain_keys_of_a_tenant_ask_for_patterns_of_its_own(admin, ruby):
    from cacheadmin.admin import ids

    body = admin.get(page("plain_list", ids.tenant_id(ruby))).content.decode()
    assert f'name="pattern" value="tenant:{ruby}:"' in body
    bound = make_user("ruby", "view_keys", "invalidate", tenant=Tenant.objects.get(pk=ruby))
    assert 'name="pattern"' not in bound.get(page("plain_list", ids.tenant_id(ruby))).content.decode()


# --- the run --------------------------------------------------------------------------------------------------------


def test_a_search_is_a_run_that_deletes_what_matches_and_nothing_else(admin, ruby, redis):
    caches["default"].set("overstock:all", 1)
    redis.set("somebody:stock:else", 1)
    response = admin.post(page("pattern"), search(alias=None))
    run = Activity.objects.get()
    assert response.url == page("run_detail", run.pk)
    assert (run.kind, run.state, run.tenants, run.reason, run.entries) == ("invalidate", "done", "*", "again", 7)
    assert live(ruby) == live(str(int(ruby) + 1)) == 0
    assert caches["default"].get("overstock:all") is None
    assert browser.entries("default", None, "console_rates").total == 1
    assert redis.get("somebody:stock:else") == b"1"
    text = text_of(admin.get(response.url))
    assert f"Invalidate what matches {GLOB}" in text
    assert "7 found and deleted" in text
    assert "Not complete" not in text
    assert LogEntry.objects.count() == 1
    assert f"invalidate what matches {GLOB}" in text_of(admin.get(page("activity_list")))


def test_without_the_pattern_typed_nothing_begins(admin, ruby):
    assert "is not the name" in text_of(admin.post(page("pattern"), search() | {"name": "*"}))
    assert live(ruby) == 3
    assert not Activity.objects.exists()


def test_the_page_of_scopes_takes_no_pattern_and_that_of_patterns_no_scope(admin, ruby):
    assert admin.post(page("invalidate"), search() | {"confirmed": "yes"}).status_code == 404
    scope = scope_of(Target("tenant", "", ALL, "query"))
    assert admin.post(page("pattern"), {"on": scope, "name": "query"}).status_code == 404
    assert live(ruby) == 3


def sweeping(monkeypatch, after):
    """Return the teller of a search that is cancelled when it told of its progress so many times, and what it told."""
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)
    row = make_sweep(state="running", targets=[])
    teller = progress.Teller(row, total=100)
    tell, told = teller.tell, []

    def note(*args, **options):
        told.append((teller.progress.done, teller.progress.found))
        if len(told) == after:
            runs.cancel(row)
        tell(*args, **options)

    monkeypatch.setattr(teller, "tell", note)
    return teller, told


def test_a_search_tells_how_far_it_is(admin, ruby, monkeypatch):
    for i in range(2500):
        caches["query"].set(f"letter{i}", i)
    teller, told = sweeping(monkeypatch, 0)
    runs.sweep([Target("pattern", GLOB, ALL, "query")], "amira", "")(teller)
    assert told == sorted(told)
    assert len(told) > 5
    assert told[-1] == (2 * store("query").database_size() + 2 * 6, 6)
    row = Activity.objects.get()
    text = admin.get(page("data_run", row.pk)).json()["text"]
    assert re.match(r"5,\d\d\d of ~ 5,\d\d\d keys passed, each in two passes", text)


def test_a_search_that_is_cancelled_in_its_first_pass_deletes_no_value_and_says_so(admin, ruby, monkeypatch):
    for i in range(2500):
        caches["query"].set(f"letter{i}", i)
    teller, told = sweeping(monkeypatch, 2)
    runs.sweep([Target("pattern", "*", ALL, "query")], "amira", "")(teller)
    row = Activity.objects.get()
    assert (row.state, row.entries) == ("cancelled", 0)
    assert len(told) == 2
    assert live(ruby) == 3
    text = text_of(admin.get(page("run_detail", row.pk)))
    assert "Not complete. What was found is deleted; what it did not come to may still be served." in text


def test_cancelling_a_search_says_that_it_is_not_complete_and_leads_back_to_it(admin):
    row = make_sweep(state="running")
    row.targets[-1]["run"]["told_at"] += 60
    response = admin.post(page("run_cancel", row.pk))
    [message] = get_messages(response.wsgi_request)
    assert "not complete" in str(message)
    body = admin.get(page("run_detail", row.pk)).content.decode()
    assert "3 found and deleted" in body
    assert html.escape(page("pattern") + "?pattern=%2Astock%3F%3A%2A&alias=query") in body


def test_who_may_invalidate_everything_may_cancel_a_search_and_nobody_else(ruby):
    row = make_sweep(state="running")
    for who, permissions in (("warmer", ["warm"]), ("clearer", ["clear_alias"])):
        client = make_user(who, "view_keys", "see_all_tenants", *permissions)
        assert client.post(page("run_cancel", row.pk)).status_code == 403
    bound = make_user("ruby", "view_keys", "invalidate", tenant=Tenant.objects.get(pk=ruby))
    assert bound.post(page("run_cancel", row.pk)).status_code == 404
    drops = make_user("drops", "view_keys", "see_all_tenants", "invalidate")
    assert drops.post(page("run_cancel", row.pk)).status_code == 302
    assert Activity.objects.get().state == "cancelled"


def test_the_pace_of_a_search_is_changed_while_it_goes_on(admin, monkeypatch):
    for i in range(4000):
        caches["query"].set(f"letter{i}", i)
    teller, _told = sweeping(monkeypatch, 0)
    waited, now = [], time.monotonic()
    monkeypatch.setattr(dispatch.Stop, "wait", lambda _stop, seconds: waited.append(seconds))
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: now))
    assert admin.post(page("run_pace", teller.row.pk), {"pace": "slow"}).status_code == 302
    runs.sweep([Target("pattern", GLOB, ALL, "query")], "amira", "")(teller)
    assert teller.pace == "slow"
    assert len(waited) >= 8  # a turn for each page of two passes
    assert 0.4 < max(waited) * 2 / len(waited) < 1.1  # nobody waited, so the turns pile up: half a second each


def test_a_stopped_search_is_not_handed_to_the_outbox(ruby):
    kept = []
    result = invalidation.request([Target("pattern", GLOB, ALL, "query")], watch=lambda *_: bool(kept.append(1)))
    assert (result.state, result.is_stopped, len(kept)) == ("failed", True, 1)
    assert result.pending == (Target("pattern", GLOB, ALL, "query"),)
    assert live(ruby) == 3


def test_without_redis_no_search_begins(admin, monkeypatch):
    monkeypatch.setattr(links, "server_url", lambda alias: "redis://127.0.0.1:1/0")
    connections.forget_links()
    response = admin.post(page("pattern"), search())
    monkeypatch.undo()
    connections.forget_links()
    [message] = get_messages(response.wsgi_request)
    assert "Nothing was looked for" in str(message)
    assert not Activity.objects.exists()


class OneAlias(Tenancy):
    """The shop's, with a user who may see one alias only."""

    def allowed_aliases(self, user):
        return ["default"]


def test_who_sees_some_aliases_searches_these_only(ruby, settings):
    settings.CACHEADMIN = {**settings.CACHEADMIN, "TENANCY": f"{__name__}.OneAlias"}
    client = make_user("some", "view_keys", "see_all_tenants", "invalidate")
    assert access_of(User.objects.get(username="some")).aliases == ("default",)
    assert "Choose one of the aliases." in text_of(client.get(page("pattern"), {"pattern": GLOB, "alias": "query"}))
    assert client.post(page("pattern"), search()).status_code == 404
    body = client.get(page("pattern"), {"pattern": GLOB}).content.decode()
    token = re.search(r'name="on" value="([^"]+)"', body)[1]
    caches["default"].set("overstock:all", 1)
    assert client.post(page("pattern"), {"on": token, "name": GLOB}).status_code == 302
    assert Activity.objects.get().alias == "default"
    assert caches["default"].get("overstock:all") is None
    assert live(ruby) == 3
