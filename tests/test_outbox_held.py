"""What commits by itself is written down before it runs, and delivered when it has returned or its process is gone."""

import datetime as dt
import time

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from cacheadmin import Rule, Target, invalidation, outbox, rules
from cacheadmin.invalidation import Invalidation
from cacheadmin.models import Intent
from cacheadmin.outbox import held, relay, rows, waking
from cacheadmin.writes import cursors
from cacheadmin.writes.statements import statement
from shop.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)

CALL = "CALL something()"


@pytest.fixture(autouse=True)
def tenant_rule(use_rules):
    use_rules(Rule("tenants", model="shop.Tenant", tenant="-", targets=["tenants"]))


@pytest.fixture
def delivered(monkeypatch):
    """Stands in for Redis: the targets of each delivery; an empty list among them makes it stay away."""
    asked = []

    def deliver(targets, *, source="code", name="", reason="", quietly=False, watch=None):
        asked.append(list(targets))
        away = [] in asked
        return Invalidation(tuple(targets), "failed" if away else "done", source, name, identities={"default": "ab"})

    monkeypatch.setattr(invalidation, "deliver", deliver)
    return asked


def call(run, sql=CALL):
    """Run a statement that no test database knows, with what it does in the server's place."""
    return cursors.write(connection, statement(sql), sql, run)


def states():
    return list(Intent.objects.order_by("pk").values_list("state", flat=True))


def overdue():
    Intent.objects.update(due=timezone.now() - dt.timedelta(seconds=1))


def seen_meanwhile(delivered):
    """Return what the statement's intent looks like while it runs, and what a relay makes of it."""
    before = len(delivered)
    [row] = Intent.objects.all()
    report = outbox.relay_once()
    return row.state, row.due > timezone.now(), report, len(delivered) - before


def test_its_intent_stands_before_it_runs_and_no_relay_takes_it_meanwhile(delivered):
    assert call(lambda: seen_meanwhile(delivered)) == ("pending", True, outbox.RelayReport(), 0)
    assert states() == ["done"]
    assert delivered == [[Target("group", "tenants", None)]]
    assert outbox.pending() == outbox.Waiting(0, 0.0)


def test_a_real_one_has_its_intent_too(delivered):
    write = "INSERT INTO shop_tenant (name, slug, currency) VALUES ('a', 'a', 'EUR');"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"DO $$ BEGIN {write} COMMIT; END $$")
        else:
            cursor.executescript(write)
    assert Tenant.objects.count() == 1
    assert (states(), len(delivered)) == (["done"], 1)


def test_a_killed_process_leaves_a_row_that_others_deliver(delivered):
    def die():
        raise KeyboardInterrupt  # nothing of ours catches it: what is left is what kill -9 leaves

    with pytest.raises(KeyboardInterrupt):
        call(die)
    assert (states(), delivered) == (["pending"], [])
    assert not held.renew(["default"]), "nobody holds it any longer"
    overdue()
    assert outbox.relay_once().delivered == 1
    assert (states(), len(delivered)) == (["done"], 1)


def test_it_is_held_back_as_long_as_it_runs(delivered):
    def run_for_long():
        overdue()
        assert held.renew(["default"])
        assert not held.renew(["another"])
        return seen_meanwhile(delivered)

    assert call(run_for_long) == ("pending", True, outbox.RelayReport(), 0)
    assert held.HOLD < rows.CLOCK_SLACK, "else a relay takes it for one of a host whose clock is ahead"
    assert held.HOLD.total_seconds() / 2 > held.RENEW_SECONDS


def test_the_relays_thread_holds_it_back(delivered, monkeypatch):
    renewed = []
    monkeypatch.setattr(held, "renew", lambda aliases: renewed.append(list(aliases)) or len(renewed) < 3)
    monkeypatch.setattr(held, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(waking, "has_thread", lambda connection: True)
    monkeypatch.setattr(relay, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(relay.Relay, "_relay", classmethod(lambda cls: outbox.RelayReport()))
    thread = relay.Relay()
    thread.wake(0.01)
    deadline = time.monotonic() + 60
    while len(renewed) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    ended = len(renewed)
    time.sleep(0.2)
    thread.stop(60)
    assert len(renewed) == ended >= 3, "It comes back as long as there is something to renew, and not for longer."
    assert "default" in renewed[0]


def test_one_that_fails_is_delivered_at_once_and_once_more_later(delivered):
    """It may go on at the server, for example when only the connection to it was lost."""

    def fail():
        raise DatabaseError("on purpose")

    with pytest.raises(DatabaseError, match="on purpose"):
        call(fail)
    assert (states(), len(delivered)) == (["pending"], 1)
    overdue()
    assert outbox.relay_once().delivered == 1
    assert (states(), len(delivered)) == (["done"], 2)


def test_what_redis_does_not_take_waits(delivered):
    delivered.append([])
    call(lambda: None)
    assert states() == ["pending"]
    delivered.clear()
    assert outbox.relay_once().delivered == 1, "and not for its holder, who has returned"
    assert states() == ["done"]


def test_a_rule_that_it_makes_is_among_what_is_delivered(delivered, monkeypatch):
    """What is foreseen goes by the rules from before it; what is delivered, by those from after it."""

    def edit():
        rule = Rule("more", model="shop.Tenant", tenant="-", targets=["group:more"])
        monkeypatch.setattr(rules.current, "_code", (*rules.current._code, rule))
        rules.forget()

    call(edit)
    assert [{target.name for target in targets} for targets in delivered] == [{"tenants", "more"}]


def test_a_database_that_refuses_the_row_does_not_keep_it_from_running(delivered, monkeypatch, caplog):
    def refuse(*args):
        raise DatabaseError("read only")

    monkeypatch.setattr(rows, "insert", refuse)
    assert call(lambda: "ran") == "ran"
    assert "not kept in the database while it runs: read only" in caplog.text
    assert len(delivered) == 1


@pytest.mark.parametrize("outbox_setting", ["on_failure", "off"])
def test_without_the_outbox_there_is_no_row(delivered, settings, outbox_setting):
    settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": outbox_setting}
    assert call(states) == []
    assert (states(), len(delivered)) == ([], 1)


def test_what_no_rule_names_leaves_no_row(delivered):
    call(states, "EXPLAIN ANALYZE UPDATE shop_sale SET quantity = 1")
    assert (states(), delivered) == ([], [])


def test_what_changes_our_own_table_leaves_none_there(delivered):
    assert call(states, "ALTER TABLE cacheadmin_intent ADD x int; UPDATE shop_tenant SET name = 'b'") == []
    assert len(delivered) == 1


def test_in_a_transaction_it_shares_the_row_of_all(delivered):
    with transaction.atomic():
        Tenant.objects.create(name="a", slug="a")
        assert call(states) == []
    assert (states(), len(delivered)) == (["done"], 1)


def test_a_forked_process_holds_nothing(delivered):
    """Its parent runs the statement; a child that held the row too would do so for as long as it lives."""

    def fork():
        held._forked()  # what a child calls first
        return held.renew(["default"])

    assert not call(fork)
    assert states() == ["done"]
