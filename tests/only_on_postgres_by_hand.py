"""Settings, and several statements at once, that a site sends to PostgreSQL. `test_on_postgres.py` runs this."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, connections, transaction

from cacheadmin import Rule, Target, cache_tenant_query, outbox, rules, transactions
from cacheadmin.models import Intent, InvalidationRule, RuleVersion
from cacheadmin.outbox import Delivery, rows
from cacheadmin.transactions import own_sql
from shop.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)

ISOLATION = "default_transaction_isolation"


@pytest.fixture(autouse=True)
def only_here():
    assert connection.vendor == "postgresql"
    yield
    connection.close()
    own_sql.forget_tables()


@pytest.fixture
def shop(use_rules):
    use_rules(Rule("tenants", model="shop.Tenant", tenant="*", targets=["group:names"]))
    return Tenant.objects.create(name="a", slug="a").pk


@pytest.fixture
def beside():
    """Do something in another thread, on a connection of its own."""
    with ThreadPoolExecutor(1) as other:
        yield lambda act: other.submit(act).result()
        other.submit(connections.close_all).result()


@cache_tenant_query(timeout=60, key_prefix="names")
def names(tenant_id):
    return sorted(Tenant.objects.values_list("name", flat=True))


def sql(statement, *params):
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)


def rename(name):
    Tenant.objects.update(name=name)


class TestSettings:
    """A level of isolation that a site chooses in other ways than by SET."""

    @pytest.mark.parametrize(
        ("statement", "params"),
        [
            (f"SELECT set_config('{ISOLATION}', 'repeatable read', false)", ()),
            ("SELECT set_config(%s, %s, %s)", (ISOLATION, "repeatable read", False)),
            (f"SELECT pg_catalog.SET_CONFIG('{ISOLATION}', 'serializable', false)", ()),
            (f"WITH x AS (SELECT set_config('{ISOLATION}', 'serializable', false)) SELECT * FROM x", ()),
            (f"UPDATE pg_settings SET setting = 'repeatable read' WHERE name = '{ISOLATION}'", ()),
            (f"SELECT 1; SET {ISOLATION} = 'repeatable read'", ()),
        ],
    )
    def test_a_snapshot_fills_nothing(self, shop, beside, statement, params):
        with transaction.atomic():
            Tenant.objects.exists()
            assert transactions.may_fill(), "the server has told its level, and it is kept"
        sql(statement, *params)
        with transaction.atomic():
            Tenant.objects.exists()
            beside(lambda: rename("newer"))
            assert names(shop) == ["a"]
        assert names(shop) == ["newer"]

    @pytest.mark.parametrize("statement", ["RESET ALL", "DISCARD ALL"])
    def test_what_goes_back_to_the_roles_own_is_asked_again(self, shop, beside, statement):
        sql(f"ALTER ROLE CURRENT_USER SET {ISOLATION} = 'repeatable read'")
        connection.close()
        try:
            sql(f"SET {ISOLATION} = 'read committed'")
            for _ in range(2):  # the second time the level is kept
                with transaction.atomic():
                    Tenant.objects.exists()
                    assert transactions.may_fill()
            sql(statement)
            with transaction.atomic():
                Tenant.objects.exists()
                beside(lambda: rename("newer"))
                assert names(shop) == ["a"]
        finally:
            sql(f"ALTER ROLE CURRENT_USER RESET {ISOLATION}")
            connection.close()
        assert names(shop) == ["newer"]


class TestSeveralStatements:
    def test_a_transaction_that_they_begin_is_one(self, shop, beside):
        names(shop)
        sql("BEGIN; SELECT 1")
        sql("UPDATE shop_tenant SET name = 'newer'")
        assert beside(lambda: names(shop)) == ["a"]
        assert names(shop) == ["newer"], "its own write"
        sql("COMMIT")
        assert beside(lambda: names(shop)) == ["newer"]

    def test_what_they_write_in_it_is_not_delivered_before_it_ends(self, shop, beside):
        names(shop)
        sql("BEGIN; UPDATE shop_tenant SET name = 'newer'")
        assert beside(lambda: names(shop)) == ["a"]
        sql("COMMIT")
        assert beside(lambda: names(shop)) == ["newer"]

    def test_a_write_by_the_orm_joins_it(self, shop, beside):
        names(shop)
        sql("BEGIN; SELECT 1")
        rename("newer")
        assert beside(lambda: names(shop)) == ["a"]
        sql("COMMIT")
        assert beside(lambda: names(shop)) == ["newer"]

    def test_a_transaction_that_they_end_is_over(self, shop, beside):
        names(shop)
        sql("BEGIN")
        sql("UPDATE shop_tenant SET name = 'newer'")
        assert beside(lambda: names(shop)) == ["a"]
        sql("SELECT 1; COMMIT")
        assert beside(lambda: names(shop)) == ["newer"]
        assert names(shop) == ["newer"]
        assert not transactions.is_open()

    def test_one_that_they_end_and_another_that_they_begin(self, shop, beside):
        names(shop)
        sql("BEGIN")
        sql("UPDATE shop_tenant SET name = 'newer'")
        sql("COMMIT; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        assert beside(lambda: names(shop)) == ["newer"]
        assert transactions.is_open()
        beside(lambda: rename("newest"))
        assert names(shop) == ["newer"]
        sql("ROLLBACK")
        assert names(shop) == ["newest"]

    def test_what_fails_in_them_leaves_a_transaction_to_roll_back(self, shop, beside):
        with pytest.raises(DatabaseError):
            sql("BEGIN; UPDATE shop_tenant SET name = 'newer'; SELECT 1 / 0")
        assert transactions.is_open()
        sql("ROLLBACK")
        assert not transactions.is_open()
        rename("newest")
        assert beside(lambda: names(shop)) == ["newest"]

    def test_a_block_of_django_that_they_end(self, shop, beside):
        names(shop)
        with transaction.atomic():
            rename("newer")
            assert beside(lambda: names(shop)) == ["a"]
            sql("SELECT 1; COMMIT")
            assert beside(lambda: names(shop)) == ["newer"]
        assert beside(lambda: names(shop)) == ["newer"]


@pytest.fixture
def elsewhere():
    sql("CREATE SCHEMA IF NOT EXISTS elsewhere")
    yield
    sql("DROP SCHEMA elsewhere CASCADE")


@pytest.mark.usefixtures("elsewhere")
class TestAnotherSchema:
    """A search path that the site chooses by hand, on which our tables are not."""

    @pytest.fixture(params=["for a transaction", "for the connection", "by a function"])
    def inside(self, request):
        """What goes before a write by its table's full name."""
        way = {
            "for a transaction": "SET LOCAL search_path TO elsewhere",
            "for the connection": "SET search_path TO elsewhere",
            "by a function": "SELECT set_config('search_path', 'elsewhere', true)",
        }[request.param]
        return lambda: sql(way)

    @pytest.mark.parametrize("is_known", [True, False], ids=["tables known", "first look"])
    def test_a_write_stands_and_is_seen(self, shop, beside, inside, is_known):
        names(shop)
        Intent.objects.all().delete()
        if not is_known:
            own_sql.forget_tables()
            rules.forget()
        with transaction.atomic():
            inside()
            sql("UPDATE public.shop_tenant SET name = 'newer'")
        sql("SET search_path TO DEFAULT")
        assert beside(lambda: names(shop)) == ["newer"]
        assert Intent.objects.count() == 1

    def test_rules_of_the_database_are_read(self, beside, inside):
        shop = Tenant.objects.create(name="a", slug="a").pk
        InvalidationRule.objects.create(name="by hand", model="shop.Tenant", tenant="*", targets=["group:names"])
        names(shop)
        rules.forget()
        own_sql.forget_tables()
        with transaction.atomic():
            inside()
            sql("UPDATE public.shop_tenant SET name = 'newer'")
        sql("SET search_path TO DEFAULT")
        assert beside(lambda: names(shop)) == ["newer"]

    def test_what_waits_is_found(self, shop):
        Intent.objects.all().delete()
        row = rows.insert(connection, Delivery((Target("group", "names"),)), -rows.DUE_AFTER)
        sql("SET search_path TO elsewhere")
        assert outbox.pending().count == 1
        assert [pk for pk, *_ in rows.take(connection, 10)] == [row]
        rows.mark_done(connection, [row], {})
        assert outbox.pending().count == 0
        sql("SET search_path TO DEFAULT")
        assert Intent.objects.get(pk=row).state == Intent.State.DONE

    def test_rules_written_by_hand_are_counted_as_an_edit(self, shop, inside):
        sql("DELETE FROM cacheadmin_ruleversion")
        with transaction.atomic():
            inside()
            sql("DELETE FROM public.cacheadmin_invalidationrule")
        sql("SET search_path TO DEFAULT")
        assert RuleVersion.objects.get().version == 1

    def test_tables_that_are_nowhere_else_are_not_ours(self, shop):
        """Left behind there by an older installation, for example."""
        sql("CREATE TABLE elsewhere.cacheadmin_other ()")
        assert not own_sql.has_table(connection, "cacheadmin_other")

    def test_where_each_tenant_has_a_schema_its_own_is_asked(self, shop, monkeypatch):
        sql("CREATE TABLE elsewhere.cacheadmin_intent ()")
        assert own_sql.has_table(connection, rows.TABLE)
        assert own_sql.name_of(connection, rows.TABLE) == '"public"."cacheadmin_intent"'
        monkeypatch.setattr(connection, "schema_name", "elsewhere", raising=False)
        assert own_sql.has_table(connection, rows.TABLE)
        assert own_sql.name_of(connection, rows.TABLE) == '"elsewhere"."cacheadmin_intent"'


@pytest.fixture
def clerk():
    """A role with rights on the shop's table, and those that the documentation asks for on ours."""
    sql("CREATE ROLE clerk; GRANT ALL ON shop_tenant TO clerk")
    sql("GRANT SELECT, INSERT, UPDATE ON cacheadmin_intent TO clerk")
    sql("GRANT SELECT ON cacheadmin_invalidationrule, cacheadmin_ruleversion TO clerk")
    yield "clerk"
    sql("RESET ROLE; DROP OWNED BY clerk; DROP ROLE clerk")


class TestAnotherRole:
    """A role that a site takes on for a transaction, as those with row-level security do."""

    def write(self, role):
        with transaction.atomic():
            sql(f"SET LOCAL ROLE {role}")
            rename("newer")

    @pytest.mark.parametrize("is_known", [True, False], ids=["rules known", "first look"])
    def test_a_write_stands_and_is_seen(self, shop, beside, clerk, is_known):
        names(shop)
        Intent.objects.all().delete()
        if not is_known:
            own_sql.forget_tables()
            rules.forget()
        self.write(clerk)
        assert beside(lambda: names(shop)) == ["newer"]
        assert Intent.objects.get().state == Intent.State.DONE

    def test_without_rights_on_the_outbox_a_write_fails_as_a_whole(self, shop, beside, clerk):
        names(shop)
        sql("REVOKE ALL ON cacheadmin_intent FROM clerk")
        with pytest.raises(DatabaseError, match="permission denied for table cacheadmin_intent"):
            self.write(clerk)
        assert Tenant.objects.get().name == "a"
        rename("newest")
        assert beside(lambda: names(shop)) == ["newest"]


@pytest.mark.parametrize(
    ("path", "schemas"),
    [
        ('"$user", public', ["cacheadmin", "public"]),
        ('Sales,"Sales", "a,b" , "say ""no"""', ["sales", "Sales", "a,b", 'say "no"']),
        ("", []),
    ],
)
def test_the_path_of_the_sessions_begin_is_read(path, schemas):
    sql("SELECT set_config('search_path', %s, false)", path)
    sql(f"ALTER ROLE CURRENT_USER SET search_path = {path}" if path else "ALTER ROLE CURRENT_USER SET search_path = ''")
    connection.close()
    try:
        assert own_sql._path_at_first(connection) == schemas
    finally:
        sql("ALTER ROLE CURRENT_USER RESET search_path")
        connection.close()
