"""What only a database with several isolation levels, locks and roles can show. `test_on_postgres.py` runs this."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.core.cache import caches
from django.db import DatabaseError, connection, connections, transaction
from django.test import Client
from psycopg import IsolationLevel

from cacheadmin import Rule, Target, cache_tenant_query, outbox, transactions
from cacheadmin.models import Intent
from cacheadmin.outbox import Delivery, delivery, rows
from cacheadmin.signals import cache_read
from cacheadmin.tenancy import tenancy
from cacheadmin.testing import captured_invalidations
from cacheadmin.transactions import own_sql, state
from shop.management.commands.seed_shop import fill
from shop.models import InventoryItem, Tenant, User

# The same database by another name: what counts is that its lag is not known. Set up before pytest-django looks.
connections.databases["replica"] = connections.databases["default"] | {
    "TEST": connections.databases["default"]["TEST"] | {"MIRROR": "default"}
}

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "replica"])


@pytest.fixture(autouse=True)
def replica(settings):
    assert connection.vendor == "postgresql"
    settings.CACHEADMIN = settings.CACHEADMIN | {"REPLICAS": ["replica"]}


@pytest.fixture
def shop(use_rules):
    use_rules(Rule("tenants", model="shop.Tenant", tenant="*", targets=["group:names"]))
    return Tenant.objects.create(name="a", slug="a").pk


@pytest.fixture
def reads():
    """Count what becomes of each cached read, and whether it was inside a transaction."""
    counted = Counter()

    def note(sender, group, result, **_):
        counted[group, result, transactions.is_open()] += 1

    cache_read.connect(note)
    yield counted
    cache_read.disconnect(note)


@cache_tenant_query(timeout=60, key_prefix="names")
def names(tenant_id):
    return sorted(Tenant.objects.values_list("name", flat=True))


@pytest.fixture
def beside():
    """Do something in another thread, on a connection of its own."""
    with ThreadPoolExecutor(1) as other:
        yield lambda act: other.submit(act).result()
        other.submit(connections.close_all).result()


def sql(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


class TestAtomicRequests:
    """Each view in a transaction of its own, as many sites have it."""

    @pytest.fixture
    def clerk(self, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        fill(scale=0.01, random_seed=7)
        client = Client()
        client.force_login(User.objects.get(username="ruby"))
        return client

    def test_pages_are_filled_and_hit_inside_their_transaction(self, clerk, reads):
        assert clerk.get("/shops/ruby/inventory/").status_code == 200
        assert reads["inventory_list", "miss", True] == 1
        reads.clear()
        assert clerk.get("/shops/ruby/inventory/").status_code == 200
        assert reads["inventory_list", "hit", True] == 1
        assert {(result, inside) for _, result, inside in reads} == {("hit", True)}

    def test_a_request_that_writes_is_seen_by_the_next(self, clerk, reads):
        page = "/shops/ruby/inventory/"
        item = InventoryItem.objects.filter(tenant__slug="ruby").first()
        clerk.get(page)
        done = clerk.post(f"/shops/ruby/items/{item.pk}/price/", {"price": "1234.50"})
        assert done.status_code == 302
        reads.clear()
        clerk.get(page)
        assert reads["inventory_list", "miss", True] == 1
        clerk.get(page)
        assert reads["inventory_list", "hit", True] == 1

    def test_a_request_that_fails_drops_nothing(self, clerk, reads, monkeypatch):
        page = "/shops/ruby/inventory/"
        item = InventoryItem.objects.filter(tenant__slug="ruby").first()
        clerk.get(page)
        clerk.raise_request_exception = False
        monkeypatch.setattr("shop.views.messages.success", lambda *_: 1 / 0)
        assert clerk.post(f"/shops/ruby/items/{item.pk}/price/", {"price": "1234.50"}).status_code == 500
        assert InventoryItem.objects.get(pk=item.pk).price == item.price
        reads.clear()
        clerk.get(page)
        assert reads["inventory_list", "hit", True] == 1


@contextmanager
def of_the_transaction(level):
    with transaction.atomic():
        sql(f"SET TRANSACTION ISOLATION LEVEL {level}")
        yield


@contextmanager
def of_the_role(level):
    sql(f"ALTER ROLE CURRENT_USER SET default_transaction_isolation = '{level.lower()}'")
    connection.close()
    try:
        with transaction.atomic():
            yield
    finally:
        sql("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
        connection.close()


@contextmanager
def of_the_settings(level):
    options = connection.settings_dict["OPTIONS"]
    options["isolation_level"] = IsolationLevel[level.replace(" ", "_")]
    connection.close()
    try:
        with transaction.atomic():
            yield
    finally:
        del options["isolation_level"]
        connection.close()


@pytest.mark.parametrize("chosen", [of_the_transaction, of_the_role, of_the_settings])
class TestIsolation:
    @pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
    def test_a_snapshot_fills_nothing_but_hits(self, level, chosen, reads):
        with chosen(level):
            Tenant.objects.exists()
            names(7)
            names(7)
        assert reads == {("names", "miss", True): 2}
        names(7)
        with chosen(level):
            names(7)
        assert reads == {("names", "miss", True): 2, ("names", "miss", False): 1, ("names", "hit", True): 1}

    def test_what_is_asked_for_before_the_snapshot_is_taken_fills(self, chosen, reads):
        with chosen("SERIALIZABLE"):
            names(7)
            names(7)
        is_known = chosen is not of_the_transaction  # there a statement went before, which may choose a snapshot
        assert reads["names", "hit", True] == is_known

    def test_read_committed_fills(self, chosen, reads):
        with chosen("READ COMMITTED"):
            names(7)
            names(7)
        assert reads == {("names", "miss", True): 1, ("names", "hit", True): 1}


def test_asking_for_the_level_takes_no_snapshot(shop, beside):
    """Else what is read after it could be older than a stamp that is taken for older."""
    with of_the_role("REPEATABLE READ"):
        assert not state._is_read_committed(connection)
        beside(lambda: Tenant.objects.filter(pk=shop).update(name="newer"))
        assert Tenant.objects.filter(name="newer").exists()


def test_snapshot_of_another_transaction_fills_nothing(shop, beside):
    """What is shown by `SET TRANSACTION SNAPSHOT` may be older than any stamp that is known."""
    chosen = "REPEATABLE READ"
    with connection.cursor() as cursor, of_the_transaction(chosen):
        cursor.execute("SELECT pg_export_snapshot()")
        exported = cursor.fetchone()[0]

        def look_back():
            Tenant.objects.filter(pk=shop).update(name="newer")
            with of_the_role(chosen):
                Tenant.objects.exists()
                names(shop)
            with of_the_role(chosen):
                sql(f"SET TRANSACTION SNAPSHOT '{exported}'")
                return names(shop)

        assert beside(look_back) == ["a"]
    assert names(shop) == ["newer"]


def test_a_level_set_for_one_transaction_does_not_stay(reads):
    with of_the_transaction("SERIALIZABLE"):
        assert not transactions.may_fill()
    with transaction.atomic():
        assert transactions.may_fill()


def test_what_a_replica_says_is_stored_nowhere(reads):
    asked = []

    @cache_tenant_query(timeout=60, key_prefix="names_of_the_replica")
    def lagging(tenant_id):
        asked.append(tenant_id)
        return list(Tenant.objects.using("replica").values_list("name", flat=True))

    for _ in range(2):
        lagging(7)
        names(7)
    assert asked == [7, 7]
    assert reads == {
        ("names_of_the_replica", "miss", False): 2,
        ("names", "miss", False): 1,
        ("names", "hit", False): 1,
    }


class TestSavepoints:
    def test_a_statement_that_fails_in_a_savepoint_costs_no_invalidation_after_it(self, shop):
        names(shop)
        with transaction.atomic():
            with pytest.raises(DatabaseError), transaction.atomic():
                Tenant.objects.create(name="again", slug="a")
            Tenant.objects.create(name="b", slug="b")
            assert names(shop) == ["a", "b"]
        assert names(shop) == ["a", "b"]

    def test_a_write_in_a_savepoint_rolled_back_is_read_by_nobody(self, shop):
        names(shop)
        with transaction.atomic():
            create = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # renamed in Django 6.1
            point = create()
            Tenant.objects.create(name="b", slug="b")
            assert names(shop) == ["a", "b"]
            transaction.savepoint_rollback(point)
            assert names(shop) == ["a"]
        assert names(shop) == ["a"]

    def test_a_transaction_that_is_broken_neither_fills_nor_fails_twice(self, shop):
        with transaction.atomic():
            with pytest.raises(DatabaseError):
                sql("SELECT 1 / 0")
            assert not transactions.may_fill()
            transaction.set_rollback(True)
        assert names(shop) == ["a"]


def test_a_callback_of_another_app_that_raises_does_not_lose_ours(shop):
    names(shop)

    def burst():
        raise RuntimeError("on purpose")

    def write():
        with transaction.atomic():
            transaction.on_commit(burst)
            Tenant.objects.create(name="b", slug="b")

    with captured_invalidations() as dropped, pytest.raises(RuntimeError, match="on purpose"):
        write()
    assert len(dropped) == 1
    assert names(shop) == ["a", "b"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE shop_tenant SET name = 'b' RETURNING txid_current()",
        "INSERT INTO shop_tenant (name, slug, currency) VALUES ('b', 'b', 'EUR') RETURNING txid_current()",
        "DELETE FROM shop_tenant\nRETURNING txid_current()",
        "WITH x AS (UPDATE shop_tenant SET name = 'b' RETURNING id) SELECT txid_current() FROM x",
    ],
)
def test_a_write_that_returns_rows_is_committed_together_with_its_intent(shop, statement, monkeypatch):
    insert, inserted_in = rows.insert, []

    def noting(connection, *args):
        inserted_in.extend(own_sql.fetch(connection, "SELECT txid_current()"))
        return insert(connection, *args)

    monkeypatch.setattr(rows, "insert", noting)
    with connection.cursor() as cursor:
        cursor.execute(statement)
        assert cursor.fetchall() == inserted_in
    assert connection.get_autocommit()


class TestTwoRelays:
    """One holds its rows locked while it delivers; the other neither waits for them nor delivers them again."""

    def test_the_second_leaves_out_what_the_first_has_taken(self, monkeypatch):
        target = Target("group", "names", "7")
        ids = [rows.insert(connection, Delivery((target,), name=f"row {n}"), delay=-rows.DUE_AFTER) for n in range(6)]
        is_delivering, may_end, seen, reports = threading.Event(), threading.Event(), {}, {}
        take, deliver = rows.take, delivery.deliver

        def taken(connection, limit):
            found = take(connection, limit)
            seen[threading.current_thread().name] = [pk for pk, *_ in found]
            return found

        def slow(delivery):
            if threading.current_thread().name == "first":
                is_delivering.set()
                assert may_end.wait(60)
            return deliver(delivery)

        def run():
            try:
                reports[threading.current_thread().name] = outbox.relay_once(limit=4)
            finally:
                connection.close()

        monkeypatch.setattr(rows, "take", taken)
        monkeypatch.setattr(delivery, "deliver", slow)
        first = threading.Thread(target=run, name="first")
        second = threading.Thread(target=run, name="second")
        first.start()
        assert is_delivering.wait(60)
        second.start()
        second.join(60)
        assert not second.is_alive(), "the second waited for the first"
        assert first.is_alive()
        assert (seen["first"], seen["second"]) == (ids[:4], ids[4:])
        assert set(Intent.objects.filter(state="done").values_list("pk", flat=True)) == set(ids[4:])
        may_end.set()
        first.join(60)
        assert [reports[name].delivered for name in ("first", "second")] == [4, 2]
        assert not Intent.objects.exclude(state="done").exists()


def test_tenants_that_cannot_be_listed_keep_no_row_waiting(shop, monkeypatch, caplog):
    """The relay delivers in the transaction that locks its rows, and a failed statement would end that."""

    def fail(self):
        sql("SELECT * FROM nowhere")

    rows.insert(connection, Delivery((Target("group", "names"),)), delay=-rows.DUE_AFTER)
    names(shop)
    monkeypatch.setattr(type(tenancy()), "list", fail)
    assert outbox.relay_once() == outbox.RelayReport(delivered=1)
    assert not Intent.objects.exclude(state="done").exists()
    assert "cannot be listed" in caplog.text


class TestStatementsThatPassTheHooks:
    """They take a snapshot all the same; what is read behind it is stored under no younger stamp."""

    def by_the_driver(self, cursor):
        return lambda: connection.connection.execute("SELECT 1")

    def in_a_stream_made_before(self, cursor):
        stream = cursor.stream("SELECT 1")
        return lambda: list(stream)

    def for_the_health_of_the_connection(self, cursor):
        def check():
            connection.health_check_enabled, connection.health_check_done = True, False
            connection.close_if_health_check_failed()
            connection.health_check_enabled = False

        return check

    @pytest.mark.parametrize("way", [by_the_driver, in_a_stream_made_before, for_the_health_of_the_connection])
    @pytest.mark.parametrize("is_followed", [False, True], ids=["alone", "followed by one that is seen"])
    def test_nothing_is_filled(self, shop, beside, way, is_followed):
        sql("ALTER ROLE CURRENT_USER SET default_transaction_isolation = 'repeatable read'")
        connection.close()
        try:
            with connection.cursor() as cursor:
                ask = way(self, cursor)
                transaction.set_autocommit(False)
                ask()
                beside(lambda: Tenant.objects.filter(pk=shop).update(name="newer"))
                if is_followed:
                    caches["query"].get(f"tenant:{shop}:names:other")  # the group's stamp is known from here on
                    Tenant.objects.exists()
                assert names(shop) == ["a"]
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
            sql("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
            connection.close()
        assert names(shop) == ["newer"]


def test_close_that_another_thread_is_refused_ends_nothing(shop, beside):
    mine = connections["default"]

    def close():
        with pytest.raises(DatabaseError):
            mine.close()

    names(shop)
    with transaction.atomic():
        Tenant.objects.filter(pk=shop).update(name="newer")
        asked_at = state.state_of(connection).asked_at
        beside(close)
        assert not transactions.may_read()
        assert state.state_of(connection).asked_at == asked_at is not None
    assert names(shop) == ["newer"]
