"""An invalidation is written with its data, delivered after it, and waits where Redis is away."""

import datetime as dt
import threading
import time

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.utils import OperationalError
from django.utils import timezone

from cacheadmin import ALL, Rule, Target, invalidation, outbox, transactions
from cacheadmin.conf import in_tests
from cacheadmin.invalidation import Invalidation, request
from cacheadmin.models import Intent, InvalidationRule
from cacheadmin.outbox import Delivery, delivery, passes, relay, rows
from cacheadmin.transactions import own_sql
from shop.models import Tenant

TARGET = Target("group", "tenants", "7")


@pytest.fixture(autouse=True)
def tenant_rule(use_rules):
    rule = Rule("tenants", model="shop.Tenant", tenant="-", targets=["tenants"])
    use_rules(rule)
    return rule


class Redis:
    """Stands in for delivering: notes what was asked for, and is away when told to."""

    def __init__(self):
        self.asked, self.is_away, self.away_aliases = [], False, set()

    def deliver(self, targets, *, source="code", name="", reason="", quietly=False, watch=None):
        self.asked.append(list(targets))
        away = self.is_away or any(target.alias in self.away_aliases for target in targets)
        state, error = ("failed", "The server does not answer.") if away else ("done", "")
        return Invalidation(tuple(targets), state, source, name, error=error, identities={"default": "ab" * 8})


@pytest.fixture
def server(monkeypatch):
    stand_in = Redis()
    monkeypatch.setattr(invalidation, "deliver", stand_in.deliver)
    monkeypatch.setattr(invalidation.asking, "deliver", stand_in.deliver)
    monkeypatch.setattr(delivery, "_listeners", [])
    return stand_in


def write(name="a"):
    return Tenant.objects.create(name=name, slug=name)


def states():
    return list(Intent.objects.order_by("pk").values_list("state", flat=True))


def insert(*targets, due=0.0):
    return rows.insert(connection, Delivery(targets or (TARGET,)), dt.timedelta(seconds=due))


@pytest.mark.django_db(transaction=True)
class TestDurable:
    def test_one_row_a_transaction_beside_its_data(self, server):
        with transaction.atomic():
            for name in "abc":
                write(name)
            assert states() == []
        [row] = Intent.objects.all()
        assert row.payload == {
            "targets": [{"kind": "group", "name": "tenants", "tenant": [], "alias": None}],
            "rules": ["tenants"],
            "source": "rule",
            "name": "tenants",
            "warm": [],
        }
        assert len(server.asked) == 1

    def test_a_delivered_row_is_done_and_says_to_whom(self, server):
        write()
        [row] = Intent.objects.all()
        assert (row.state, row.delivered_to) == ("done", {"default": "ab" * 8})
        assert row.delivered_at >= row.created
        assert row.due - row.created == dt.timedelta(milliseconds=500)

    def test_a_write_alone_is_committed_with_its_row(self, server, monkeypatch):
        """What a crash right after the COMMIT would leave: the data, and the intent that waits."""

        def crash(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(invalidation, "deliver", crash)
        with pytest.raises(KeyboardInterrupt):
            write()
        connection.rollback()
        assert Tenant.objects.count() == 1
        assert states() == ["pending"]

    def test_a_row_that_cannot_be_written_takes_the_data_with_it(self, server, monkeypatch):
        def refuse(*args):
            raise OperationalError("disk full")

        monkeypatch.setattr(rows, "insert", refuse)
        with pytest.raises(OperationalError):
            write()
        assert not Tenant.objects.exists()
        assert server.asked == []
        assert connection.get_autocommit()

    def test_a_rollback_leaves_neither(self, server):
        with transaction.atomic():
            write()
            transaction.set_rollback(True)
        assert (states(), server.asked) == ([], [])

    def test_what_code_asks_for_shares_the_row(self, server):
        with transaction.atomic():
            write()
            assert request([TARGET], name="by hand").state == "deferred"
        [row] = Intent.objects.all()
        assert len(row.payload["targets"]) == 2
        assert (row.payload["source"], row.payload["name"]) == ("code", "tenants, by hand")
        assert len(server.asked) == 1

    def test_what_code_asks_for_in_a_transaction_that_only_reads_is_kept_too(self, server):
        with transaction.atomic():
            Tenant.objects.count()
            request([TARGET])
        assert states() == ["done"]
        assert server.asked == [[TARGET]]

    def test_a_transaction_that_cannot_write_delivers_all_the_same(self, server, monkeypatch):
        def refuse(*args):
            raise DatabaseError("cannot execute INSERT in a read-only transaction")

        monkeypatch.setattr(rows, "insert", refuse)
        with transaction.atomic():
            request([TARGET])
        assert server.asked == [[TARGET]]

    def test_a_listener_hears_of_what_was_delivered(self, server, monkeypatch):
        heard = []
        monkeypatch.setattr(delivery, "_listeners", [lambda d, i: 1 / 0, lambda d, i: heard.append((d.rules, i.state))])
        write()
        assert heard == [(("tenants",), "done")]

    def test_flushing_the_database_leaves_the_table_empty(self, server):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("DELETE FROM shop_tenant")
            cursor.execute("DELETE FROM cacheadmin_intent")
        assert states() == []
        assert len(server.asked) == 1


@pytest.mark.django_db
class TestInsideATestCase:
    def test_there_are_no_rows(self, server):
        write()
        with transaction.atomic():
            write("b")
        assert len(server.asked) == 2
        assert states() == []

    def test_what_waits_is_remembered_by_the_process(self, server):
        server.is_away = True
        write()
        assert states() == []
        assert outbox.pending().count == 1
        server.is_away = False
        assert outbox.relay_once().delivered == 1
        assert outbox.pending() == outbox.Waiting(0, 0.0)


@pytest.mark.django_db(transaction=True)
class TestSettings:
    def test_on_failure_there_is_a_row_only_then(self, server, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "on_failure"}
        write()
        assert states() == []
        server.is_away = True
        write("b")
        assert states() == ["pending"]

    def test_off_means_memory(self, server, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "off"}
        server.is_away = True
        write()
        assert states() == []
        assert len(delivery.remembered()) == 1

    def test_without_our_table_memory_serves(self, server, monkeypatch):
        monkeypatch.setattr("cacheadmin.outbox.rows.own_sql.has_table", lambda *args: False)
        server.is_away = True
        write()
        request([TARGET])
        assert set(delivery.remembered()) == {Target("group", "tenants", None), TARGET}
        server.is_away = False
        assert outbox.relay_once() == outbox.RelayReport(delivered=1)
        assert delivery.remembered() == ()

    def test_a_replica_gets_no_rows(self, server, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"REPLICAS": ["default"]}
        assert not outbox.keeps_rows(connection)


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    def test_a_write_succeeds_and_its_row_waits(self, server):
        server.is_away = True
        write()
        assert states() == ["pending"]
        server.is_away = False
        Intent.objects.update(due=timezone.now())
        assert outbox.relay_once() == outbox.RelayReport(delivered=1)
        assert states() == ["done"]

    def test_what_code_asks_for_outside_a_transaction_is_recorded(self, server):
        server.is_away = True
        assert request([TARGET]).state == "waiting"
        assert states() == ["pending"]

    def test_a_delivery_that_raises_waits(self, server, monkeypatch, caplog):
        def burst(*args, **kwargs):
            raise RuntimeError("on purpose")

        monkeypatch.setattr(invalidation, "deliver", burst)
        write()
        assert states() == ["pending"]
        assert "on purpose" in caplog.text

    def test_pending_counts_what_is_not_its_writers_any_more(self, server):
        assert outbox.pending() == outbox.Waiting(0, 0.0)
        insert()
        insert(due=60)
        Intent.objects.update(created=timezone.now() - dt.timedelta(seconds=5))
        found = outbox.pending()
        assert found.count == 1
        assert 5 <= found.oldest_seconds < 65

    def test_very_much_memory_becomes_everything(self, server, monkeypatch):
        monkeypatch.setattr(delivery, "MOST_REMEMBERED", 3)
        monkeypatch.setattr(delivery, "_kept_in_a_row", lambda d: False)
        delivery.remember(Delivery(tuple(Target("group", str(n), "1") for n in range(4))))
        assert delivery.remembered() == (Target("tenant", tenant=ALL),)


@pytest.mark.django_db(transaction=True)
class TestRelay:
    def test_rows_are_delivered_together_and_only_when_due(self, server):
        insert()
        insert(Target("group", "b", "7"))
        insert(due=30)
        assert outbox.relay_once() == outbox.RelayReport(delivered=2)
        assert server.asked == [[TARGET, Target("group", "b", "7")]]
        assert states() == ["done", "done", "pending"]

    def test_a_row_of_a_host_whose_clock_is_ahead_is_taken(self, server):
        insert(due=3600)
        assert outbox.relay_once().delivered == 1

    def test_twice_is_harmless(self, server):
        insert()
        outbox.relay_once()
        assert outbox.relay_once() == outbox.RelayReport()

    def test_a_server_that_is_away_holds_up_only_its_alias(self, server):
        insert(Target("group", "a", "7", "query"))
        insert(Target("group", "a", "7", "default"))
        server.away_aliases = {"query"}
        assert outbox.relay_once() == outbox.RelayReport(delivered=1, waiting=1)
        waiting = Intent.objects.get(state="pending")
        assert (waiting.attempts, waiting.error) == (1, "The server does not answer.")

    def test_a_row_that_cannot_be_read_widens(self, server):
        for payload in ({"targets": [{"kind": "zzz", "alias": "query"}]}, {"nothing": 1}, [1], "text"):
            Intent.objects.create(due=timezone.now(), payload=payload)
        outbox.relay_once()
        everything = {Target("tenant", tenant=ALL, alias="query"), Target("tenant", tenant=ALL)}
        assert {target for asked in server.asked for target in asked} == everything
        assert set(states()) == {"done"}

    def test_a_row_whose_delivery_raises_holds_up_no_other_and_is_widened(self, server, monkeypatch):
        deliver = server.deliver

        def poisoned(targets, **how):
            if any(target.name == "poison" for target in targets):
                raise RuntimeError("on purpose")
            return deliver(targets, **how)

        monkeypatch.setattr(invalidation, "deliver", poisoned)
        for name in ("a", "poison", "b"):
            insert(Target("group", name, "7", "query"))
        assert outbox.relay_once() == outbox.RelayReport(delivered=3)
        assert server.asked == [
            [Target("group", "a", "7", "query")],
            [Target("tenant", "", "7", "query")],
            [Target("group", "b", "7", "query")],
        ]
        insert(Target("group", "poison", "7", "query"), Target("group", "c", "7", "query"))
        server.asked.clear()
        assert outbox.drain("query", has_changed=False)
        assert sorted(map(str, [t for asked in server.asked for t in asked])) == sorted(
            map(str, (Target("group", "c", "7", "query"), Target("tenant", "", "7", "query")))
        )

    def test_a_row_that_can_never_be_delivered_is_dead_in_the_end(self, server, monkeypatch):
        def burst(targets, **how):
            raise RuntimeError("on purpose")

        monkeypatch.setattr(invalidation, "deliver", burst)
        insert(Target("group", "a", None, "query"))
        reports = []
        for _ in range(passes.MOST_ATTEMPTS):
            reports.append(outbox.relay_once())
            Intent.objects.update(due=timezone.now() - dt.timedelta(seconds=1))
        assert reports[:-1] == [outbox.RelayReport(waiting=1)] * (passes.MOST_ATTEMPTS - 1)
        assert (reports[-1], states()) == (outbox.RelayReport(dead=1), ["dead"])
        assert not outbox.drain("query", has_changed=True) or outbox.dead() == 1

    def test_a_row_for_an_alias_that_is_gone_is_dead_and_holds_nothing_up(self, server):
        insert(Target("group", "a", "7", "long gone"), TARGET)
        insert(Target("group", "a", "7", "long gone"))
        insert()
        report = outbox.relay_once()
        assert (report.delivered, report.dead) == (1, 2)
        assert states() == ["dead", "dead", "done"]
        assert "long gone is not configured any more" in Intent.objects.first().error
        assert [TARGET] in server.asked

    def test_a_dead_row_is_delivered_once_its_alias_is_back(self, server, settings):
        insert(Target("group", "a", "7", "newcomer"))
        outbox.relay_once()
        assert (states(), outbox.dead()) == (["dead"], 1)
        assert outbox.retry_dead() == 1
        assert outbox.relay_once().dead == 1  # it is not back yet
        settings.CACHES = settings.CACHES | {"newcomer": settings.CACHES["query"]}
        settings.CACHEADMIN = settings.CACHEADMIN | {"ALIASES": ["query", "default", "newcomer"]}
        outbox.retry_dead()
        assert outbox.relay_once().delivered == 1
        assert (states(), outbox.dead(), outbox.retry_dead()) == (["done"], 0, 0)

    def test_old_done_rows_go(self, server):
        insert()
        outbox.relay_once()
        Intent.objects.update(due=timezone.now() - dt.timedelta(minutes=11))
        assert rows.prune(connection) == 1
        assert states() == []

    def test_limits_bound_one_pass(self, server):
        for _ in range(3):
            insert()
        assert outbox.relay_once(limit=2).delivered == 2
        assert outbox.relay_once(limit=2).delivered == 1

    def test_rows_that_wait_for_a_server_do_not_fill_each_pass(self, server):
        for _ in range(2):
            insert(Target("group", "a", "7", "query"))
        insert(Target("group", "b", "7", "default"))
        server.away_aliases = {"query"}
        assert outbox.relay_once(limit=2) == outbox.RelayReport(waiting=2)
        assert outbox.relay_once(limit=2) == outbox.RelayReport(delivered=1, waiting=1)

    def test_a_database_that_is_away_holds_up_no_other(self, server, monkeypatch, caplog):
        has_table = own_sql.has_table

        def has(connection, table):
            if connection.alias == "gone":
                raise OperationalError("on purpose")
            return has_table(connection, table)

        gone = connection.copy(alias="gone")
        monkeypatch.setattr(passes, "connections", {"gone": gone, "default": connection})
        monkeypatch.setattr(rows, "connections", {"gone": gone, "default": connection})
        monkeypatch.setattr(own_sql, "has_table", has)
        insert()
        assert outbox.relay_once() == outbox.RelayReport(delivered=1, waiting=1)
        assert "The outbox of database 'gone' cannot be relayed now." in caplog.text

    def test_it_costs_no_counted_query(self, server, django_assert_num_queries):
        insert()
        with django_assert_num_queries(0):
            outbox.relay_once()
            outbox.pending()

    def test_a_database_that_fails_does_not_stop_the_others(self, server, monkeypatch, caplog):
        def burst(*args):
            raise DatabaseError("on purpose")

        monkeypatch.setattr(passes, "_relay_database", burst)
        assert outbox.relay_once() == outbox.RelayReport(waiting=1)
        assert "cannot be relayed" in caplog.text


@pytest.mark.django_db(transaction=True)
class TestRuleEdits:
    def test_the_targets_of_a_new_rule_are_dropped_now_and_again_later(self, server):
        InvalidationRule.objects.create(name="new", model="shop.Branch", targets=["prefix:branch"])
        again, now = Intent.objects.order_by("-due")
        assert (now.state, again.state) == ("done", "pending")
        assert now.payload["targets"] == again.payload["targets"]
        assert again.due - again.created == dt.timedelta(seconds=2)

    def test_they_are_dropped_again_also_where_other_writes_have_no_row(self, server, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "on_failure"}
        InvalidationRule.objects.create(name="new", model="shop.Branch", targets=["prefix:branch"])
        again = Intent.objects.get()
        assert (again.state, again.due - again.created) == ("pending", dt.timedelta(seconds=2))
        assert server.asked == [[Target("prefix", "branch", ALL)]]


@pytest.mark.django_db(transaction=True)
class TestDeferredTransactions:
    """SQLite refuses a transaction that has read and then writes, if marking rows came between."""

    @pytest.fixture
    def looks(self, monkeypatch):
        looks = []
        monkeypatch.setattr(relay, "_is_deferred", lambda connection: True)
        monkeypatch.setattr(relay, "PATIENCE_SECONDS", 60.0)
        monkeypatch.setattr(relay.transactions, "any_begun", lambda: looks.append(1) or len(looks) < 5)
        return looks

    def test_the_relay_waits_while_this_process_has_one_open(self, looks):
        relay._let_others_finish()
        assert len(looks) == 5

    def test_but_not_for_long(self, looks, monkeypatch):
        monkeypatch.setattr(relay, "PATIENCE_SECONDS", 0.0)
        relay._let_others_finish()
        assert len(looks) == 1

    def test_nor_where_transactions_begin_with_their_lock(self, looks, monkeypatch):
        monkeypatch.setattr(relay, "_is_deferred", lambda connection: False)
        relay._let_others_finish()
        assert looks == []

    def test_an_open_transaction_of_any_thread_is_known(self):
        seen = []
        with transaction.atomic():
            Tenant.objects.count()
            looking = threading.Thread(target=lambda: seen.append(transactions.any_begun()))
            looking.start()
            looking.join()
        assert seen == [True]


class TestTheThread:
    """Alone, with a stand-in for the database: while tests run the real one is not started."""

    @pytest.fixture
    def thread(self, monkeypatch):
        self.passes = []
        self.reports = []

        def relay_now():
            self.passes.append(time.monotonic())
            return self.reports.pop(0) if self.reports else outbox.RelayReport()

        monkeypatch.setattr(relay.Relay, "_relay", staticmethod(relay_now))
        monkeypatch.setattr(relay, "RELAY_SECONDS", 0.05)
        monkeypatch.setattr(relay, "GATHER_SECONDS", 0.01)
        started = relay.Relay()
        yield started
        started.stop()

    def wait_until(self, is_so):
        deadline = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_for(self, count):
        self.wait_until(lambda: len(self.passes) >= count)
        assert len(self.passes) == count

    def wait_for_one_at(self, moment):
        self.wait_until(lambda: self.passes and self.passes[-1] >= moment)

    def test_it_works_when_woken_and_sleeps_otherwise(self, thread):
        thread.wake(0.0)
        self.wait_for(1)
        time.sleep(0.2)
        self.wait_for(1)
        thread.wake(0.0)
        self.wait_for(2)

    def test_it_comes_back_while_something_waits(self, thread):
        self.reports = [outbox.RelayReport(waiting=1)] * 2
        thread.wake(0.0)
        self.wait_for(3)

    def test_it_survives_an_error(self, thread, monkeypatch, caplog):
        monkeypatch.setattr(relay.marking, "flush", lambda: 1 / 0)
        thread.wake(0.0)
        self.wait_until(lambda: "cannot be relayed now" in caplog.text)
        monkeypatch.setattr(relay.marking, "flush", lambda: None)
        self.wait_for(1)

    def test_it_can_be_woken_for_later(self, thread):
        later = time.monotonic() + 0.3
        thread.wake(0.3)
        self.wait_for_one_at(later)
        time.sleep(0.3)
        assert len(self.passes) <= 2, "one now, one then"

    def test_what_is_due_soon_does_not_wait_for_what_is_due_later(self, thread):
        """One row comes due, then another, and somebody has asked for a look in a minute."""
        thread.wake(60.0)
        thread.wake(0.2)
        time.sleep(0.1)
        second = time.monotonic() + 0.3
        thread.wake(0.3)
        self.wait_for_one_at(second)

    def test_what_is_due_later_is_looked_after_then(self, thread, monkeypatch):
        monkeypatch.setattr(relay, "OWN_SECONDS", 0.1)
        later = time.monotonic() + 0.35
        thread.wake(0.35)
        thread.wake(0.35)
        self.wait_for_one_at(later)
        time.sleep(0.3)
        assert len(self.passes) <= 2, "one now, one then"
        assert not thread._later

    def test_one_thread_a_process(self, thread):
        for _ in range(5):
            thread.wake(0.0)
        assert [t.name for t in threading.enumerate()].count("cacheadmin-relay") == 1

    def test_a_stopped_one_is_started_again(self, thread):
        thread.wake(0.0)
        self.wait_for(1)
        thread.stop()
        thread.wake(0.0)
        self.wait_for(2)

    def test_a_forked_process_starts_its_own(self, thread):
        thread.wake(0.0)
        started, event = thread._thread, thread._event
        thread._pid = -1  # as a child finds it: the parent's thread is not there
        thread.wake(0.0)
        assert thread._thread is not started
        event.set()
        self.wait_until(lambda: thread._event.set() or not started.is_alive())  # it may have seen the new one already

    def test_tests_do_without(self):
        assert in_tests()
        outbox.wake()
        assert relay._thread._thread is None
