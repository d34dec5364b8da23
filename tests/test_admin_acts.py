"""What a person may do in the console, and what is written down about it."""

import html
import re
import time
from types import SimpleNamespace

import pytest
from console import (
    calls,
    console_rates,
    console_stock,
    entry_of,
    make_shops,
    make_user,
    page,
    pages_of,
    scope_of,
    text_of,
)
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.core.cache import caches
from django.utils import timezone

from cacheadmin import browser, connections, dispatch, outbox, progress
from cacheadmin.admin import asking, ids, runs
from cacheadmin.connections import links
from cacheadmin.models import Activity, Intent
from cacheadmin.store import store
from cacheadmin.targets import ALL, Target

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _runs_in_place(monkeypatch):
    monkeypatch.setattr(runs, "launch", lambda job: job())


@pytest.fixture
def ruby():
    return str(make_shops("Ruby & Co", "Gold & Sons")[0].pk)


@pytest.fixture
def filled(ruby):
    for branch in range(1, 4):
        console_stock(ruby, branch)
        console_stock(str(int(ruby) + 1), branch)
    console_rates(18)
    return ruby


def message_of(response):
    """Return the message that a redirect carries."""
    *_, message = get_messages(response.wsgi_request)
    return html.unescape(re.sub(r"<[^>]+>", "", str(message)))


def live(tenant):
    """Return how many entries of a tenant's group the next read would hit."""
    return browser.entries("query", tenant, "console_stock").counts["live"]


def confirm(client, *targets, **data):
    """Answer the question about some targets."""
    return client.post(page("invalidate"), {"on": scope_of(*targets), "confirmed": "yes", **data})


GROUP = "console_stock"


# --- invalidate -----------------------------------------------------------------------------------------------------


def test_the_question_says_what_would_be_hit_and_changes_nothing(admin, filled):
    url = page("invalidate", on=scope_of(Target("tenant", "", filled)))
    text = text_of(admin.get(url))
    assert "Invalidate everything cached for Ruby & Co?" in text
    assert re.search(r"Tenant 1 .*Group 1 in 1 alias .*Entries 3 ", text)
    assert "Only console_stock 3 entries" in text
    assert "Invalidate 3 entries" in text
    assert "No, take me back" in text
    assert live(filled) == 3
    assert not Activity.objects.exists()
    assert not LogEntry.objects.exists()


def test_a_confirmed_invalidation_is_done_written_down_and_told(admin, amira, filled):
    response = confirm(admin, Target("group", GROUP, filled, "query"), reason="wrong prices", counted="3")
    assert response.status_code == 302
    assert response.url == page("entry_list", ids.tenant_id(filled), ids.group_id("query", GROUP))
    assert message_of(response) == "Invalidated 3 entries of console_stock of Ruby & Co. Activity"
    assert live(filled) == 0
    assert live(str(int(filled) + 1)) == 3
    row = Activity.objects.get()
    assert (row.kind, row.source, row.who, row.user, row.state) == ("invalidate", "user", "amira", amira, "done")
    assert (row.tenants, row.alias, row.entries, row.reason) == ([filled], "query", 3, "wrong prices")
    assert [Target.from_json(data) for data in row.targets] == [Target("group", GROUP, filled, "query")]
    entry = LogEntry.objects.get()
    assert entry.user == amira
    assert "console_stock" in entry.change_message
    assert "wrong prices" in entry.change_message


def test_one_entry_goes_alone(admin, filled):
    row = browser.entries("query", filled, GROUP).rows[0]
    target = browser.key_target("query", filled, GROUP, row.member, row.about)
    assert "Invalidate one entry of Ruby & Co?" in text_of(admin.get(page("invalidate", on=scope_of(target))))
    confirm(admin, target)
    assert live(filled) == 2
    response = confirm(admin, target)
    assert message_of(response) == "Nothing to do: it was already gone."
    assert Activity.objects.count() == 1


def test_a_selection_is_asked_about_first_and_then_done(admin, filled):
    body = admin.get(pages_of(filled)["entries"]).content.decode()
    chosen = re.findall(r'name="chosen" value="([^"]+)"', body)
    assert len(chosen) == 3
    question = admin.post(page("invalidate"), {"chosen": chosen[:2], "action": "invalidate"})
    assert "Invalidate 2 entries of Ruby & Co?" in text_of(question)
    assert live(filled) == 3
    token = re.search(r'name="on" value="([^"]+)"', question.content.decode())[1]
    assert admin.post(page("invalidate"), {"on": token, "confirmed": "yes"}).status_code == 302
    assert live(filled) == 1


def test_selecting_nothing_is_said_so(admin):
    assert "Nothing was selected" in text_of(admin.post(page("invalidate"), {"action": "invalidate"}))


def test_wide_acts_ask_for_the_name(admin, filled, settings):
    everywhere = Target("group", GROUP, ALL, "query")
    assert "Type console_stock to confirm" in text_of(admin.get(page("invalidate", on=scope_of(everywhere))))
    for wrong in ({}, {"name": "console"}, {"name": ""}):
        response = confirm(admin, everywhere, **wrong)
        assert response.status_code == 200
        assert "Type console_stock to confirm" in text_of(response)
    assert "“console” is not the name." in text_of(confirm(admin, everywhere, name="console"))
    assert live(filled) == 3
    assert confirm(admin, everywhere, name=" console_stock ").status_code == 302
    assert live(filled) == live(str(int(filled) + 1)) == 0


def test_many_entries_and_many_tenants_ask_for_the_name_too(admin, filled, settings):
    settings.CACHEADMIN = {**settings.CACHEADMIN, "CONFIRM_ABOVE": 2}
    assert "Type Ruby & Co to confirm" in text_of(
        admin.get(page("invalidate", on=scope_of(Target("tenant", "", filled))))
    )
    both = [Target("tenant", "", tenant) for tenant in (filled, str(int(filled) + 1))]
    assert "Type 2 tenants to confirm" in text_of(admin.get(page("invalidate", on=scope_of(*both))))
    assert confirm(admin, *both, name="2 tenants").status_code == 302
    assert Activity.objects.get().tenants == sorted((filled, str(int(filled) + 1)))


def test_what_grew_meanwhile_is_shown_again(admin, filled):
    response = confirm(admin, Target("group", GROUP, filled, "query"), counted="1")
    assert response.status_code == 200
    assert "It grew from 1 to 3 entries. Please look again." in text_of(response)
    assert live(filled) == 3
    assert confirm(admin, Target("group", GROUP, filled, "query"), counted="3").status_code == 302


def test_plain_keys_of_a_stock_backend_are_invalidated_from_their_list(admin, ruby, settings):
    settings.CACHES = {n: {**each, "BACKEND": "django_redis.cache.RedisCache"} for n, each in settings.CACHES.items()}
    caches["default"].set_many({f"tenant:{ruby}:list:{i}": i for i in range(3)})
    body = admin.get(page("plain_list", ids.tenant_id(ruby), alias="default")).content.decode()
    chosen = re.findall(r'name="chosen" value="([^"]+)"', body)
    question = admin.post(page("invalidate"), {"chosen": chosen[:1]})
    assert "Invalidate 1 entry" in text_of(question)
    admin.post(page("invalidate"), {"on": chosen[0], "confirmed": "yes"})
    assert [caches["default"].get(f"tenant:{ruby}:list:{i}") for i in range(3)] == [None, 1, 2]


@pytest.mark.parametrize("token", ["", "x", "a~b", ids.tenant_id("1"), ids.scope_id(Target("tenant", "", "1", "gone"))])
def test_what_is_no_scope_is_not_found(admin, token):
    assert admin.get(page("invalidate"), {"on": token}).status_code == 404
    assert admin.post(page("invalidate"), {"on": token, "confirmed": "yes"}).status_code == 404
    assert admin.get(page("warm"), {"on": token}).status_code == 404


def test_a_forged_next_or_referer_leads_nowhere_else(admin, filled):
    response = admin.post(
        page("invalidate") + "?next=https://evil.example/",
        {"on": scope_of(Target("group", GROUP, filled, "query")), "confirmed": "yes", "next": "//evil.example"},
        headers={"referer": "https://evil.example/"},
    )
    assert response.url.startswith("/admin/cacheadmin/console/")


def test_line_breaks_in_names_and_reasons_do_not_reach_the_logs(admin, filled):
    confirm(admin, Target("group", "a\nb\r\x1b[31m", filled, "query"), reason="one\u2028two")
    row, entry = Activity.objects.get(), LogEntry.objects.get()
    for text in (row.what, row.reason, entry.object_repr, entry.change_message):
        assert text.isprintable(), text


# --- Redis away -----------------------------------------------------------------------------------------------------


@pytest.fixture
def away(monkeypatch):
    def leave():
        monkeypatch.setattr(links, "server_url", lambda alias: "redis://127.0.0.1:1/0")
        connections.forget_links()

    yield leave
    monkeypatch.undo()
    connections.forget_links()


def test_without_redis_what_cannot_be_recorded_is_not_promised(admin, filled, away):
    away()
    promise = "Will be recorded now and done as soon as Redis answers."
    assert promise in text_of(admin.get(page("invalidate", on=scope_of(Target("group", GROUP, filled, "query")))))
    cleared = text_of(admin.get(page("clear", on="query")))
    assert "Nothing can be cleared while Redis is away." in cleared
    looked_for = text_of(admin.get(page("pattern", pattern="*stock?:*", alias="query")))
    assert "Nothing can be looked for while Redis is away." in looked_for
    assert promise not in cleared + looked_for


@pytest.mark.django_db(transaction=True)
def test_without_redis_an_invalidation_is_recorded_and_done_when_it_is_back(admin, filled, away, monkeypatch):
    target = Target("group", GROUP, filled, "query")
    away()
    response = confirm(admin, target)
    assert response.status_code == 302
    assert "will be invalidated as soon as Redis answers" in message_of(response)
    row = Activity.objects.get()
    assert (row.state, row.entries) == ("waiting", None)
    assert Intent.objects.filter(state="pending").count() == 1
    monkeypatch.undo()
    connections.forget_links()
    waiting = text_of(admin.get(pages_of(filled)["entries"]))
    assert "Waiting 3" in waiting
    Intent.objects.update(due=timezone.now())
    outbox.relay_once()
    row.refresh_from_db()
    assert row.state == "done"
    assert live(filled) == 0


def test_without_redis_a_wide_act_still_asks_for_the_name(admin, filled, away):
    away()
    everywhere = Target("tenant", "", ALL, "query")
    assert "Type query to confirm" in text_of(confirm(admin, everywhere))
    assert not Activity.objects.exists()


# --- recompute ------------------------------------------------------------------------------------------------------


def recompute(client, entry):
    """Press the button and open the page it leads to."""
    response = client.post(page("entry_recompute", entry))
    assert response.status_code == 302
    return text_of(client.get(response.url))


def test_recompute_says_that_the_value_was_right(admin, filled):
    text = recompute(admin, entry_of(filled))
    assert re.search(r"The value was right. Recomputed in [\d.]+ m?s, nothing differs.", text)
    row = Activity.objects.get()
    assert (row.kind, row.entries, row.state) == ("warm", 1, "done")
    assert LogEntry.objects.count() == 1
    assert "The value was right" not in text_of(admin.get(page("entry_detail", entry_of(filled))))


def test_recompute_marks_what_differs(admin, ruby):
    console_stock(ruby, 1, "counts")
    calls.extend(["counts"] * 3)
    try:
        text = recompute(admin, entry_of(ruby))
    finally:
        calls.clear()
    assert "This value was out of date." in text
    assert "1 of 4 fields differs; the new value is stored." in text
    assert "calls: 3 was 0" in text


def test_what_differs_is_not_told_to_those_who_may_not_see_values(ruby):
    console_stock(ruby, 1, "counts")
    client = make_user("keys", "view_keys", "warm", "see_all_tenants")
    calls.extend(["counts"] * 3)
    try:
        text = recompute(client, entry_of(ruby))
    finally:
        calls.clear()
    assert "1 of 4 fields differs" in text
    assert "was 0" not in text
    stored = client.session.get("cacheadmin.recomputed")
    assert stored is None


def test_a_function_that_raises_leaves_the_value_and_shows_no_detail(admin, ruby, monkeypatch):
    monkeypatch.setattr("console.console_stock.function", lambda *args: {"fine": 1})
    console_stock(ruby, 1, "explode")
    entry = entry_of(ruby)
    monkeypatch.undo()
    text = recompute(admin, entry)
    assert "raised RuntimeError. The cached value was left as it is." in text
    assert "secret-detail" not in text
    assert live(ruby) == 1


def test_notes_are_not_trusted_when_recomputing(admin, filled, tmp_path):
    row = browser.entries("query", filled, GROUP).rows[0]
    key = browser.entry("query", filled, GROUP, row.member).full_key
    link = store("query").link
    stored = link.call(("GET", key)).values[0]
    for forged in (b'"args":"branch=9"', b'"args":"__import__(1)"', b'"args":"branch=[x for x in y]"'):
        link.call(("SET", key, _with_notes(stored, forged)))
        entry = ids.entry_id("query", filled, GROUP, row.member)
        assert "Recompute now" not in admin.get(page("entry_detail", entry)).content.decode()
        assert "Nothing was recomputed" in recompute(admin, entry)


def _with_notes(stored, notes):
    from cacheadmin import envelope

    header = envelope.parse(stored)
    about = b'{"fn":"console.console_stock",' + notes + b',"tags":["branch:1"]}'
    fixed = 27 + 24 + 8 * (len(header.epochs) - 2)
    return stored[:fixed] + len(about).to_bytes(2) + about + stored[header.payload_start :]


def test_plain_entries_cannot_be_recomputed(admin, ruby):
    caches["default"].set(f"tenant:{ruby}:site:x", 1, 60)
    entry = entry_of(ruby, "default", "site")
    assert "Recompute now" not in admin.get(page("entry_detail", entry)).content.decode()
    assert "Nothing was recomputed" in recompute(admin, entry)


# --- warm, clear, runs ----------------------------------------------------------------------------------------------


def test_warm_asks_then_runs_and_shows_what_was_done(admin, ruby):
    scope = scope_of(Target("group", GROUP, ruby, "query"))
    text = text_of(admin.get(page("warm", on=scope)))
    assert "Warm console_stock of Ruby & Co?" in text
    assert "Warm 2 entries" in text
    assert live(ruby) == 0
    response = admin.post(page("warm"), {"on": scope})
    run = Activity.objects.get()
    assert response.url == page("run_detail", run.pk)
    text = text_of(admin.get(response.url))
    assert "Done" in text
    assert "2 of 2" in text
    assert "2 computed and kept" in text
    assert live(ruby) == 2
    assert (run.kind, run.state, run.entries, run.tenants) == ("warm", "done", 2, [ruby])


def test_warming_what_says_nothing_to_warm_explains_itself(admin, ruby):
    text = text_of(admin.get(page("warm", on=scope_of(Target("group", "nothing", ruby, "query")))))
    assert "No function here says what to warm." in text


def test_what_was_invalidated_can_be_warmed_at_once(admin, filled):
    target = Target("group", GROUP, filled, "query")
    assert "Warm afterwards" in text_of(admin.get(page("invalidate", on=scope_of(target))))
    confirm(admin, target, warm="on")
    assert live(filled) == 2  # what `warm_with` names
    assert sorted(Activity.objects.values_list("kind", "state")) == [("invalidate", "done"), ("warm", "done")]
    assert "Warm afterwards" not in text_of(admin.get(page("invalidate", on=scope_of(Target("group", "x", filled)))))


def test_pages_offer_warming_where_there_is_something_to_warm(admin, filled):
    for url in (pages_of(filled)["groups"], pages_of(filled)["entries"]):
        assert "Warm…" in text_of(admin.get(url))
    assert "Warm…" not in text_of(admin.get(pages_of(None)["entries"]))


def test_clearing_an_alias_takes_its_name_and_only_its_keys(admin, filled, redis):
    caches["query"].set("without-a-group", 1)
    redis.set("somebody-else", 1)
    assert "Clear the alias query?" in text_of(admin.get(page("clear", on="query")))
    assert "Type query to confirm" in text_of(admin.post(page("clear"), {"on": "query", "name": "default"}))
    assert live(filled) == 3
    response = admin.post(page("clear"), {"on": "query", "name": "query", "reason": "again"})
    run = Activity.objects.get()
    assert response.url == page("run_detail", run.pk)
    assert (run.kind, run.state, run.tenants, run.reason) == ("clear", "done", "*", "again")
    assert browser.entries("query", filled, GROUP).total == 0
    assert caches["query"].get("without-a-group") is None
    assert redis.get("somebody-else") == b"1"
    assert browser.groups_of([None]) != []  # shared rates live in another alias
    assert LogEntry.objects.count() == 1


def test_clearing_tells_how_far_it_is_and_can_be_stopped(filled, monkeypatch):
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)
    for i in range(1500):
        caches["query"].set(f"letter{i}", i)
    row = Activity.objects.create(kind="clear", source="user", what="clear", tenants="*", state="running")
    teller = progress.Teller(row)
    tell, told = teller.tell, []

    def note(*args, **options):
        told.append(teller.progress.done)
        if teller.progress.done > 100:
            runs.cancel(row)
        tell(*args, **options)

    monkeypatch.setattr(teller, "tell", note)
    runs.clear("query", "amira", "")(teller)
    assert told == sorted(told)
    assert 100 < told[-1] < 1500
    assert live(filled) == 0  # the epochs went first
    row.refresh_from_db()
    assert (row.state, row.entries) == ("cancelled", told[-1])


def test_whoever_may_clear_an_alias_may_stop_it_and_nobody_else(filled):
    made = {"kind": "clear", "source": "user", "what": "clear", "tenants": "*", "alias": "query", "state": "running"}
    row = Activity.objects.create(**made, targets=[{"run": {"told_at": time.time()}}])
    warmer = make_user("warmer", "view_keys", "warm", "see_all_tenants")
    assert warmer.post(page("run_cancel", row.pk)).status_code == 403
    assert "Cancel</button>" not in warmer.get(page("run_detail", row.pk)).content.decode()
    assert warmer.post(page("run_pace", row.pk), {"pace": "slow"}).status_code == 403
    clearer = make_user("clearer", "view_keys", "clear_alias", "see_all_tenants")
    assert "Cancel</button>" in clearer.get(page("run_detail", row.pk)).content.decode()
    assert clearer.post(page("run_cancel", row.pk)).status_code == 302
    row.refresh_from_db()
    assert row.state == "cancelled"


@pytest.mark.parametrize(
    ("pace", "per_second"), [("slow", 2.0), ("normal", 20.0), ("fast", None), ("", None), ("x", None)]
)
def test_a_person_chooses_the_pace_of_warming(admin, ruby, monkeypatch, pace, per_second):
    asked, run = [], runs.warming.run

    def note(steps, **options):
        asked.append(options["per_second"]())
        return run([], **options)

    monkeypatch.setattr(runs.warming, "run", note)
    scope = scope_of(Target("group", "console_stock", ruby, "query"))
    assert "at most 2 a second" in text_of(admin.get(page("warm", on=scope)))
    admin.post(page("warm"), {"on": scope, "pace": pace})
    assert asked == [per_second]


@pytest.mark.parametrize("alias", ["", "nope", "query' OR 1=1"])
def test_only_managed_aliases_can_be_cleared(admin, alias):
    assert admin.get(page("clear"), {"on": alias}).status_code == 404
    assert admin.post(page("clear"), {"on": alias, "name": alias}).status_code == 404


def test_a_run_can_be_cancelled_and_keeps_what_is_done(admin, ruby, monkeypatch):
    row = Activity.objects.create(kind="warm", source="user", who="amira", what="warm", tenants=[ruby], state="running")
    teller = progress.Teller(row, total=3)
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)
    teller.step("first", "warmed")
    data = admin.get(page("data_run", row.pk)).json()
    assert (data["state"], data["done"], data["total"]) == ("running", 1, 3)
    assert data["steps"] == ["first"]
    response = admin.post(page("run_cancel", row.pk))
    assert message_of(response) == "Cancelled. What is done is kept."
    assert not teller.stop.is_set
    teller.step("second", "failed", "ValueError: no")
    assert teller.stop.is_set
    row.refresh_from_db()
    assert (row.state, row.entries) == ("cancelled", 2)
    text = text_of(admin.get(page("run_detail", row.pk)))
    assert "Cancelled" in text
    assert "second ValueError: no" in text
    assert admin.post(page("run_cancel", row.pk)).status_code == 302


@pytest.fixture
def clock(monkeypatch):
    """A clock that a run's waits move on: `clock.waited` is how long each was."""

    fake = SimpleNamespace(now=1000.0, waited=[])

    def wait(stop, seconds):
        if seconds > 0:
            fake.waited.append(round(seconds, 3))
            fake.now += seconds
        return stop.is_set

    monkeypatch.setattr(dispatch.Stop, "wait", wait)
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: fake.now))
    return fake


def changed_while_running(admin, row, monkeypatch, paces):
    """Return a teller whose run is given another pace by its page after so many tellings."""
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)
    teller = progress.Teller(row)
    tell, told = teller.tell, []

    def note(*args, **options):
        told.append(1)
        if (pace := paces.get(len(told))) is not None:
            response = admin.post(page("run_pace", row.pk), {"pace": pace})
            assert response.url == page("run_detail", row.pk)
        tell(*args, **options)

    monkeypatch.setattr(teller, "tell", note)
    return teller


def test_the_pace_of_clearing_is_changed_while_it_goes_on(admin, filled, monkeypatch, clock):
    for i in range(9000):
        caches["query"].set(f"letter{i}", i)
    row = Activity.objects.create(kind="clear", source="user", what="clear", tenants="*", state="running", pace="fast")
    runs.clear("query", "amira", "")(changed_while_running(admin, row, monkeypatch, {3: "slow", 6: "fast"}))
    assert clock.waited
    assert set(clock.waited) == {0.5}
    assert len(clock.waited) <= 3
    row.refresh_from_db()
    assert (row.pace, row.entries > 9000) == ("fast", True)
    assert LogEntry.objects.count() == 2


def test_the_pace_of_warming_is_changed_while_it_goes_on(admin, ruby, monkeypatch, clock):
    function = console_stock
    steps = [runs.warming.Step(function, ruby, (), {"tenant_id": ruby, "branch": n}) for n in range(12)]
    row = Activity.objects.create(kind="warm", source="user", what="warm", tenants=[ruby], state="running", pace="slow")
    runs.warm(steps)(changed_while_running(admin, row, monkeypatch, {4: "normal", 8: "fast"}))
    assert clock.waited == [0.5] * 4 + [0.05] * 3  # the turn after the change was given before
    row.refresh_from_db()
    assert row.entries == 12


def test_the_page_of_a_run_offers_its_paces_and_takes_no_other(admin, ruby):
    made = {"source": "user", "what": "it", "tenants": [ruby], "state": "running"}
    warm, clear = (Activity.objects.create(kind=kind, pace="slow", **made) for kind in ("warm", "clear"))
    body = admin.get(page("run_detail", warm.pk)).content.decode()
    assert '<option value="slow" selected>at most 2 a second</option>' in body
    assert "Change pace" in body
    assert "at most 2,000 keys a second" in admin.get(page("run_detail", clear.pk)).content.decode()
    assert message_of(admin.post(page("run_pace", warm.pk), {"pace": "normal"})) == "From now on: at most 20 a second."
    for odd in ("", "x", "0"):
        assert admin.post(page("run_pace", warm.pk), {"pace": odd}).status_code == 302
    warm.refresh_from_db()
    assert warm.pace == "normal"
    Activity.objects.update(state="done")
    admin.post(page("run_pace", warm.pk), {"pace": "fast"})
    warm.refresh_from_db()
    assert warm.pace == "normal"
    assert "Change pace" not in admin.get(page("run_detail", warm.pk)).content.decode()
    assert LogEntry.objects.count() == 1


def test_a_run_whose_process_ended_is_shown_as_failed_and_written_down_by_the_next(admin, amira, rf):
    row = Activity.objects.create(
        kind="warm",
        source="user",
        who="amira",
        what="warm",
        state="running",
        at="2026-01-01T00:00Z",
        targets=[{"run": {"done": 7, "told_at": 1.0}}],
    )
    assert "Failed" in text_of(admin.get(page("run_detail", row.pk)))
    listed = text_of(admin.get(page("activity_list")))
    assert "Failed" in listed.partition("amira")[2]
    assert "Running" not in listed.partition("amira")[2]
    request = rf.post("/")
    request.user = amira
    runs.start(request, lambda teller: None, kind="warm", what="the next one", tenants=[])
    row.refresh_from_db()
    assert row.state == "failed"


def test_a_run_that_raises_is_failed_and_says_why(admin, amira, rf):
    request = rf.post("/")
    request.user = amira

    def work(teller):
        teller.step("one", "warmed")
        raise ValueError("broken")

    row = runs.start(request, work, kind="warm", what="x", tenants=[])
    row.refresh_from_db()
    assert (row.state, row.error, row.entries) == ("failed", "ValueError: broken", 1)


@pytest.mark.django_db(transaction=True)
def test_a_run_is_done_in_a_thread_of_its_own(admin, amira, rf, monkeypatch):
    import threading

    monkeypatch.undo()
    request, seen = rf.post("/"), []
    request.user = amira
    runs.start(request, lambda teller: seen.append(threading.current_thread().name), kind="warm", what="x", tenants=[])
    for thread in threading.enumerate():
        if thread.name == "cacheadmin-run":
            thread.join(60)
    assert seen == ["cacheadmin-run"]


def test_narrow_acts_need_no_name():
    assert not asking.must_type([Target("group", "a", "12")], 100)
    assert asking.must_type([Target("group", "a", "12")], 10_001)
    assert asking.must_type([Target("pattern", "a*", "12")], None)
    assert asking.must_type([Target("tenant", "", ALL)], 0)
