"""When a thread may read and fill, and what happens at the end of its transactions."""

import contextlib
import threading
from contextlib import contextmanager

import pytest
from django.db import DatabaseError, ProgrammingError, connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic, TransactionManagementError
from django.test import TestCase

from cacheadmin import outbox, transactions
from cacheadmin.targets import Target
from cacheadmin.transactions import own_sql
from shop.models import Tenant

TARGETS = [Target("group", "inventory", "1")]
ON_POSTGRES = connection.vendor == "postgresql"
"""The same tests run there too, started by test_on_postgres.py."""


class Ends:
    """Stands in for the outbox: notes what was handed over at the end of each transaction."""

    def __init__(self):
        self.before, self.after, self.fail_with = [], [], None

    def write(self, connection, pending):
        self.before.append(list(pending.explicit))
        if self.fail_with is not None:
            raise self.fail_with
        return "receipt"

    def deliver(self, pending, receipt):
        names = [name for _, name in pending.explicit]
        self.after.append((names, receipt, transactions.may_read(), connection.get_autocommit()))


@pytest.fixture
def ends():
    noted = Ends()
    transactions.on_end(noted.write, noted.deliver)
    yield noted
    transactions.on_end(outbox.before_commit, outbox.after_commit)


def ask(name="asked"):
    return transactions.defer(TARGETS, "code", name)


@contextmanager
def failing():
    with pytest.raises(RuntimeError, match="on purpose"):
        yield


@pytest.mark.django_db(transaction=True)
class TestAlone:
    def test_nothing_is_open_outside_a_transaction(self, ends):
        Tenant.objects.count()
        assert (transactions.is_open(), transactions.may_read(), transactions.may_fill()) == (False, True, True)
        assert not ask()

    def test_a_transaction_that_has_only_read_reads_the_cache(self):
        with transaction.atomic():
            Tenant.objects.count()
            assert transactions.is_open()
            assert transactions.may_read()

    def test_a_transaction_that_has_only_read_fills_where_it_sees_what_others_commit(self):
        with transaction.atomic():
            Tenant.objects.count()
            assert transactions.may_fill() == ON_POSTGRES

    def test_a_transaction_that_has_written_reads_nothing_until_it_ends(self):
        with transaction.atomic():
            Tenant.objects.create(name="a", slug="a")
            assert not transactions.may_read()
        assert transactions.may_read()

    def test_a_rollback_gives_reading_back(self):
        with failing(), transaction.atomic():
            Tenant.objects.create(name="a", slug="a")
            raise RuntimeError("on purpose")
        assert transactions.may_read()

    def test_a_rollback_that_django_refuses_loses_nothing(self, ends):
        with transaction.atomic():
            Tenant.objects.create(name="a", slug="a")
            assert ask()
            with pytest.raises(TransactionManagementError):
                transaction.rollback()
            assert not transactions.may_read()
        assert [names for names, *_ in ends.after] == [["asked"]]

    def test_raw_sql_counts_as_writing(self):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("UPDATE shop_tenant SET name = name")
            assert not transactions.may_read()

    def test_another_thread_is_not_kept_from_reading(self):
        answers = []
        with transaction.atomic():
            Tenant.objects.create(name="a", slug="a")
            thread = threading.Thread(target=lambda: answers.append(transactions.may_read()))
            thread.start()
            thread.join()
        assert answers == [True]

    def test_what_was_asked_for_is_delivered_after_the_commit_before_other_callbacks(self, ends):
        seen = []
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(list(ends.after)))
            Tenant.objects.create(name="a", slug="a")
            assert ask()
            assert ends.before == []
        assert ends.before == [[("code", "asked")]]
        assert ends.after == [(["asked"], "receipt", True, True)]
        assert seen == [ends.after]

    def test_a_callback_that_raises_does_not_drop_it(self, ends):
        def burst():
            raise RuntimeError("on purpose")

        with failing(), transaction.atomic():
            transaction.on_commit(burst)
            ask()
        assert len(ends.after) == 1

    def test_a_rollback_drops_it(self, ends):
        with failing(), transaction.atomic():
            ask()
            raise RuntimeError("on purpose")
        with transaction.atomic():
            ask("after")
            transaction.set_rollback(True)
        with transaction.atomic():
            pass
        assert ends.after == []

    def test_a_rolled_back_savepoint_keeps_it(self, ends):
        """Too wide is safe; a savepoint rolled back by hand is reported to nobody."""
        with transaction.atomic(), failing(), transaction.atomic():
            ask("inner")
            raise RuntimeError("on purpose")
        assert [names for names, *_ in ends.after] == [["inner"]]

    def test_closing_the_connection_drops_it(self, ends, monkeypatch, tmp_path):
        other = connection.copy(alias="other")
        if not ON_POSTGRES:
            other.settings_dict["NAME"] = tmp_path / "other.sqlite3"
        other.connect()
        monkeypatch.setattr(transactions.state, "connections", Both(other))
        other.set_autocommit(False)
        transactions.mark_written(other)
        assert ask()
        other.close()
        assert transactions.may_read()
        other.set_autocommit(False)
        other.commit()
        other.close()
        assert ends.after == []

    @staticmethod
    def write_and_ask():
        with transaction.atomic():
            Tenant.objects.create(name="a", slug="a")
            ask()

    def test_an_error_before_the_commit_rolls_back(self, ends):
        for error in (KeyError("on purpose"), KeyboardInterrupt("on purpose"), DatabaseError("on purpose")):
            ends.fail_with = error
            with pytest.raises(type(error)):
                self.write_and_ask()
            ends.fail_with = None
            assert not Tenant.objects.exists()
            assert connection.get_autocommit()
            assert transactions.may_read()
        assert ends.after == []

    def test_an_error_after_the_commit_is_the_callers_success(self, monkeypatch, caplog):
        def burst(pending, receipt):
            raise RuntimeError("on purpose")

        transactions.on_end(None, burst)
        try:
            with transaction.atomic():
                Tenant.objects.create(name="a", slug="a")
                ask()
        finally:
            transactions.on_end(outbox.before_commit, outbox.after_commit)
        assert Tenant.objects.count() == 1
        assert "could not be delivered" in caplog.text

    def test_manual_mode_delivers_at_its_commit(self, ends):
        transaction.set_autocommit(False)
        try:
            assert ask("rolled back")
            connection.rollback()
            assert ask("committed")
            connection.commit()
            assert ends.after == [(["committed"], "receipt", True, False)]
        finally:
            connection.rollback()
            transaction.set_autocommit(True)
        assert len(ends.after) == 1

    def test_autocommit_that_commits_what_was_open_delivers_it(self, ends):
        """SQLite's driver commits then; Django's `commit` is not called. PostgreSQL's refuses."""
        transaction.set_autocommit(False)
        expected = [] if connection.vendor == "postgresql" else [["committed by the driver"]]
        try:
            assert ask("committed by the driver")
            Tenant.objects.create(name="written")
            with contextlib.suppress(ProgrammingError):
                transaction.set_autocommit(True)
            assert [targets for targets, *_ in ends.after] == expected
            assert transaction.get_autocommit() == bool(expected)
        finally:
            connection.rollback()
            transaction.set_autocommit(True)
        assert Tenant.objects.filter(name="written").exists() == bool(expected)

    def test_atomic_in_manual_mode_waits_for_the_manual_commit(self, ends):
        transaction.set_autocommit(False)
        try:
            with transaction.atomic():
                Tenant.objects.create(name="a", slug="a")
                ask()
            assert ends.after == []
            assert not transactions.may_read()
            connection.commit()
            assert len(ends.after) == 1
        finally:
            connection.rollback()
            transaction.set_autocommit(True)

    def test_the_stale_flag_of_commit_hooks_is_no_commit(self, ends):
        def burst():
            raise RuntimeError("on purpose")

        with failing(), transaction.atomic():
            transaction.on_commit(burst)
        with transaction.atomic():
            ask()
            transaction.set_rollback(True)
        assert ends.after == []

    def test_a_commit_that_may_have_happened_is_delivered(self, ends, monkeypatch):
        def lost(self):
            raise DatabaseError("server closed the connection")

        monkeypatch.setattr(BaseDatabaseWrapper, "_commit", lost)
        with pytest.raises(DatabaseError, match="server closed"):
            self.write_and_ask()
        assert [names for names, *_ in ends.after] == [["asked"]]

    def test_each_open_transaction_gets_what_was_asked_for(self, ends, monkeypatch):
        other = connection.copy(alias="other")
        other.connect()
        monkeypatch.setattr(transactions.state, "connections", Both(connection, other))
        other.set_autocommit(False)
        with transaction.atomic():
            ask()
        assert len(ends.after) == 1
        other.commit()
        assert len(ends.after) == 2
        other.connection.close()


class Both:
    """Two connections in the place of Django's handler."""

    def __init__(self, *wrapped):
        self.wrapped = wrapped

    def all(self, initialized_only=False):
        return self.wrapped


class TestInsideATestCase(TestCase):
    """The blocks around a test are no transaction."""

    def setUp(self):
        self.ends = Ends()
        transactions.on_end(self.ends.write, self.ends.deliver)
        self.addCleanup(transactions.on_end, outbox.before_commit, outbox.after_commit)

    def test_reads_and_fills_are_allowed(self):
        Tenant.objects.create(name="a", slug="a")
        assert not transactions.is_open()
        assert transactions.may_read()
        assert transactions.may_fill()
        assert not ask()

    def test_leaving_a_block_of_the_tested_code_is_its_commit(self):
        with transaction.atomic():
            with transaction.atomic(savepoint=False):
                Tenant.objects.create(name="a", slug="a")
                assert ask()
                assert not transactions.may_read()
            assert self.ends.after == []
        assert [names for names, *_ in self.ends.after] == [["asked"]]
        assert self.ends.before == []
        assert transactions.may_read()

    def test_a_block_that_fails_delivers_nothing(self):
        with failing(), transaction.atomic():
            ask()
            raise RuntimeError("on purpose")
        with transaction.atomic():
            ask()
            transaction.set_rollback(True)
        assert self.ends.after == []

    def test_captured_callbacks_are_not_ours(self):
        with self.captureOnCommitCallbacks() as callbacks, transaction.atomic():
            ask()
            transaction.on_commit(lambda: None)
        assert len(callbacks) == 1

    def test_a_write_in_a_captured_callback_is_delivered_at_once(self):
        with self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: Tenant.objects.create(name="a", slug="a"))
        assert len(self.ends.after) == 1

    @classmethod
    def setUpTestData(cls):
        Tenant.objects.create(name="before", slug="before")


@pytest.mark.django_db(transaction=True)
class TestOwnSql:
    def test_it_is_neither_counted_nor_logged(self, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert own_sql.fetch(connection, "SELECT %s + 1", [41]) == [(42,)]
            assert own_sql.has_table(connection, "cacheadmin_intent")
            assert not own_sql.has_table(connection, "cacheadmin_nothing")
            with own_sql.quiet(), transaction.atomic():
                Tenant.objects.count()

    def test_a_blocker_of_queries_does_not_see_it(self):
        def refuse(*args):
            raise AssertionError("no queries here")

        with connection.execute_wrapper(refuse):
            assert own_sql.run(connection, "UPDATE shop_tenant SET name = name WHERE 1 = 0") == 0


class TestReplicas:
    def test_a_query_to_a_replica_forbids_the_fill(self, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"REPLICAS": ["default"]}
        with transactions.replica_watch():
            assert transactions.may_fill()
            with transactions.replica_watch():
                transactions.note_query(connection)
                assert not transactions.may_fill()
            assert not transactions.may_fill()
        assert transactions.may_fill()

    def test_without_replicas_nothing_is_watched(self):
        with transactions.replica_watch():
            transactions.note_query(connection)
            assert transactions.may_fill()


def test_hooks_are_installed_once_and_can_be_taken_out():
    installed = BaseDatabaseWrapper.commit, Atomic.__exit__
    transactions.install()
    assert (BaseDatabaseWrapper.commit, Atomic.__exit__) == installed
    transactions.uninstall()
    try:
        assert BaseDatabaseWrapper.commit is installed[0].__wrapped__
        assert Atomic.__exit__ is installed[1].__wrapped__
    finally:
        transactions.install()
