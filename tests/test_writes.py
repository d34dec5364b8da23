"""Every way to write is seen, with the tenants it touched: compared with what the tables say before and after."""

import contextlib
import functools
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import django
import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core import serializers
from django.db import connection, connections, models, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Case, Exists, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Cast, Concat
from django.db.models.signals import post_delete, pre_delete
from django.db.models.sql.compiler import SQLUpdateCompiler

from cacheadmin import ALL, Rule, RuleTarget, outbox, rules, transactions, writes
from cacheadmin.models import Intent
from cacheadmin.signals import invalidated
from cacheadmin.testing import captured_invalidations
from cacheadmin.writes import compilers, cursors
from cacheadmin.writes.statements import statement
from shop.models import Branch, Category, Customer, InventoryItem, Sale, SaleLine, Supplier, Tag, Tenant

ON_POSTGRES = connection.vendor == "postgresql"
"""The same tests run there too, started by test_on_postgres.py."""

ITEMS = Rule(
    "items",
    model="shop.InventoryItem",
    events=["create", "update", "delete", "m2m"],
    targets=["group:items", "tag:branch:{branch_id}"],
)


class World:
    """Three tenants with two branches, a category, a supplier, a tag, and three items each."""

    def __init__(self):
        for name in "abc":
            tenant = Tenant.objects.create(name=name, slug=name)
            for city in "xy":
                Branch.objects.create(tenant=tenant, name=city, city=city)
            Category.objects.create(tenant=tenant, name="rings", slug="rings")
            Supplier.objects.create(tenant=tenant, name="s")
            Tag.objects.create(tenant=tenant, name="sale")
        self.load()
        InventoryItem.objects.bulk_create([self.item(t, sku) for t in self.tenants for sku in ("1", "2", "3")])
        self.load()

    def load(self):
        self.tenants = self.a, self.b, self.c = list(Tenant.objects.order_by("name"))
        self.branches = {t.pk: list(Branch.objects.filter(tenant=t)) for t in self.tenants}
        self.categories = {t.pk: Category.objects.get(tenant=t) for t in self.tenants}
        self.suppliers = {t.pk: Supplier.objects.get(tenant=t) for t in self.tenants}
        self.tags = {t.pk: Tag.objects.get(tenant=t) for t in self.tenants}
        self.items = {t.pk: list(InventoryItem.objects.filter(tenant=t)) for t in self.tenants}

    def item(self, tenant, sku, **values):
        return InventoryItem(
            **{
                "tenant": tenant,
                "branch": self.branches[tenant.pk][0],
                "category": self.categories[tenant.pk],
                "supplier": self.suppliers[tenant.pk],
                "sku": sku,
                "name": f"ring {sku}",
                "weight": 1,
                "price": 10,
            }
            | values
        )

    def first(self, tenant):
        return InventoryItem.objects.get(pk=self.items[tenant.pk][0].pk)


def rows():
    return {row["id"]: row for row in InventoryItem.objects.values()}


def relations():
    through = InventoryItem.tags.through
    return {(row.inventoryitem_id, row.tag_id) for row in through.objects.all()}


def touched(before, after):
    """What really changed: (tenant, branch) of every row image that differs, old and new."""
    old_rows, old_relations, tenant_of = before
    new_rows, new_relations = after
    images = set()
    for pk in old_rows.keys() | new_rows.keys():
        old, new = old_rows.get(pk), new_rows.get(pk)
        if old != new:
            images |= {(str(row["tenant_id"]), str(row["branch_id"])) for row in (old, new) if row}
    for pk, _ in old_relations ^ new_relations:
        images.add(tenant_of[pk])
    return images


def perform(world, write):
    """Run a write; return what it really touched and what was invalidated."""
    old = rows()
    tenant_of = {pk: (str(row["tenant_id"]), str(row["branch_id"])) for pk, row in old.items()}
    before = (old, relations(), tenant_of)
    with captured_invalidations() as dropped:
        write(world)
    real = touched(before, (rows(), relations()))
    return real, dropped


def covers(target, tenant, branch):
    if target.tenant is not ALL and target.tenant != tenant:
        return False
    return target.kind == "tenant" or (target.kind == "tag" and target.name == f"branch:{branch}")


# --- kinds of write -------------------------------------------------------------------------------------------------


def save_new(w):
    w.item(w.a, "new").save()


def save_changed(w):
    item = w.first(w.a)
    item.price = 99
    item.save()


def save_to_another_tenant(w):
    item = w.first(w.a)
    item.tenant, item.branch, item.sku = w.b, w.branches[w.b.pk][1], "moved"
    item.save()


def save_update_fields(w):
    item = w.first(w.a)
    item.price = 98
    item.save(update_fields=["price"])


def save_with_expression(w):
    item = w.first(w.a)
    item.price = F("price") + 1
    item.save()


def save_expression_as_branch(w):
    item = w.first(w.a)
    item.branch_id = F("branch_id") + 1
    item.save(update_fields=["branch"])


def save_with_unknown_pk(w):
    w.item(w.b, "9000", pk=9_000_000).save()


def force_insert(w):
    w.item(w.b, "9001", pk=5_000_000).save(force_insert=True)


def update_where(w):
    InventoryItem.objects.filter(tenant=w.b, sku__in=["1", "2"]).update(price=5)


def update_expression(w):
    InventoryItem.objects.filter(sku="1").update(price=F("price") * 2)


def update_with_join(w):
    InventoryItem.objects.filter(branch__tenant__slug="c").update(price=5)


def update_with_exists(w):
    InventoryItem.objects.filter(Exists(Tenant.objects.filter(pk=OuterRef("tenant_id"), slug="b"))).update(price=7)


def update_with_subquery(w):
    InventoryItem.objects.filter(pk__in=InventoryItem.objects.filter(tenant=w.a).values("pk")[:1]).update(price=7)


def update_annotated(w):
    found = InventoryItem.objects.annotate(n=models.Count("tags")).filter(n=0, tenant=w.c)
    found.update(price=3)


def update_tenant(w):
    InventoryItem.objects.filter(tenant=w.a, sku="1").update(tenant=w.c, sku="moved")


def update_tenant_by_case(w):
    InventoryItem.objects.filter(sku="1", tenant__in=[w.a, w.b]).update(
        sku=Concat("sku", Value("m"), Cast("tenant_id", models.CharField())),
        tenant=Case(
            When(tenant=w.a, then=Value(w.c.pk)), default=F("tenant_id"), output_field=models.BigIntegerField()
        ),
    )


def update_nothing(w):
    InventoryItem.objects.none().update(price=1)
    InventoryItem.objects.filter(sku="no such").update(price=1)


def update_ordered(w):
    InventoryItem.objects.filter(tenant=w.b).order_by("-price").update(price=4)


def instance_delete(w):
    w.first(w.a).delete()


def queryset_delete(w):
    InventoryItem.objects.filter(sku="2").delete()


def raw_delete(w):
    InventoryItem.objects.filter(sku="3")._raw_delete("default")


def raw_delete_of_a_slice(w):
    found = InventoryItem.objects.filter(sku="3")
    found.query.set_limits(0, 1)
    found._raw_delete("default")


def bulk_create(w):
    InventoryItem.objects.bulk_create([w.item(t, "bulk") for t in (w.a, w.b)])


def bulk_create_ignoring(w):
    InventoryItem.objects.bulk_create([w.item(w.a, "1"), w.item(w.b, "fresh")], ignore_conflicts=True)


def upsert(w):
    InventoryItem.objects.bulk_create(
        [w.item(w.a, "1", price=77), w.item(w.b, "fresh")],
        update_conflicts=True,
        update_fields=["price"],
        unique_fields=["tenant", "sku"],
    )


def upsert_of_another_tenants_row(w):
    existing = w.first(w.a)
    InventoryItem.objects.bulk_create(
        [w.item(w.b, "stolen", pk=existing.pk)],
        update_conflicts=True,
        update_fields=["price", "tenant", "sku"],
        unique_fields=["id"],
    )


def bulk_update(w):
    items = list(InventoryItem.objects.filter(sku="1"))
    for item in items:
        item.price += 1
    InventoryItem.objects.bulk_update(items, ["price"])


def bulk_update_branches(w):
    items = list(InventoryItem.objects.filter(tenant__in=[w.a, w.b], sku="1"))
    for item in items:
        item.branch = w.branches[item.tenant_id][1]
    InventoryItem.objects.bulk_update(items, ["branch"])


def get_or_create(w):
    values = {f.attname: getattr(w.item(w.c, "x"), f.attname) for f in InventoryItem._meta.concrete_fields}
    for name in ("id", "sku", "updated"):
        values.pop(name)
    InventoryItem.objects.get_or_create(sku="got", defaults=values)


def update_or_create(w):
    InventoryItem.objects.update_or_create(tenant=w.a, sku="1", defaults={"price": 55})


def m2m_add(w):
    w.first(w.a).tags.add(w.tags[w.a.pk])


def m2m_reverse_add(w):
    w.tags[w.b.pk].items.add(w.first(w.b), w.first(w.c))


def m2m_set_and_remove(w):
    w.first(w.a).tags.set([w.tags[w.a.pk], w.tags[w.b.pk]])
    w.first(w.a).tags.remove(w.tags[w.b.pk])


def m2m_clear(w):
    w.first(w.c).tags.add(w.tags[w.c.pk])
    w.tags[w.c.pk].items.clear()
    w.first(w.b).tags.add(w.tags[w.b.pk])


def through_created(w):
    InventoryItem.tags.through.objects.create(inventoryitem=w.first(w.b), tag=w.tags[w.b.pk])


def reverse_foreign_key_add(w):
    w.branches[w.a.pk][1].inventoryitem_set.add(w.first(w.a))


def reverse_foreign_key_clear(w):
    w.suppliers[w.b.pk].inventoryitem_set.clear()


def cascade(w):
    w.branches[w.a.pk][0].delete()


def cascade_from_the_tenant(w):
    w.c.delete()


def set_null(w):
    w.suppliers[w.a.pk].delete()


def loaddata(w):
    text = serializers.serialize("json", [w.first(w.a)]).replace("10.00", "66.00")
    for loaded in serializers.deserialize("json", text):
        loaded.save()


def aliased_update(w):
    InventoryItem.objects.alias(p=F("price")).filter(Q(p__gt=1) | Q(p__lt=0), tenant=w.b).update(price=F("p") + 1)


def update_from_subquery(w):
    cheapest = InventoryItem.objects.filter(tenant=OuterRef("tenant")).order_by("pk").values("price")[:1]
    InventoryItem.objects.filter(tenant=w.c).update(price=Subquery(cheapest) + 1)


def async_save(w):
    async def run():
        item = await InventoryItem.objects.aget(pk=w.items[w.a.pk][0].pk)
        item.price = 12
        await item.asave()

    async_to_sync(run)()


EXACT = [
    save_new,
    save_changed,
    save_to_another_tenant,
    save_update_fields,
    save_with_expression,
    save_expression_as_branch,
    save_with_unknown_pk,
    force_insert,
    update_where,
    update_expression,
    update_with_join,
    update_with_exists,
    update_with_subquery,
    update_annotated,
    update_tenant,
    update_nothing,
    update_ordered,
    instance_delete,
    queryset_delete,
    raw_delete,
    raw_delete_of_a_slice,
    bulk_create,
    bulk_update,
    bulk_update_branches,
    get_or_create,
    update_or_create,
    m2m_add,
    m2m_reverse_add,
    m2m_set_and_remove,
    through_created,
    reverse_foreign_key_add,
    reverse_foreign_key_clear,
    cascade,
    cascade_from_the_tenant,
    set_null,
    loaddata,
    aliased_update,
    update_from_subquery,
    async_save,
]
WIDER = [update_tenant_by_case, bulk_create_ignoring, upsert, upsert_of_another_tenants_row, m2m_clear]


def raw(sql, *params, many=False):
    def write(w):
        with connection.cursor() as cursor:
            (cursor.executemany if many else cursor.execute)(sql, *params)

    write.__name__ = "raw_" + sql.split()[0].lower() + ("_many" if many else "")
    return write


RAW = [
    raw("UPDATE shop_inventoryitem SET price = price + 1 WHERE sku = '1'"),
    raw('DELETE FROM "shop_inventoryitem" WHERE sku = %s', ["2"]),
    raw("UPDATE shop_inventoryitem SET price = %s", [[1], [2]], many=True),
    raw(
        "WITH x AS (SELECT MIN(id) AS id FROM shop_inventoryitem) "
        "UPDATE shop_inventoryitem SET price = 3 WHERE id IN (SELECT id FROM x)"
    ),
]


if ON_POSTGRES:
    RAW += [
        raw('WITH x AS (UPDATE "public"."shop_inventoryitem" SET price = 4 RETURNING id) SELECT COUNT(*) FROM x'),
        raw(
            "MERGE INTO shop_inventoryitem AS t USING (SELECT MIN(id) AS id FROM shop_inventoryitem) AS s "
            "ON t.id = s.id WHEN MATCHED THEN UPDATE SET price = 4"
        ),
        raw("SELECT 1; UPDATE shop_inventoryitem SET price = 6"),
        raw("/* by hand */ -- and so on\n DELETE FROM ONLY public.\"shop_inventoryitem\" WHERE sku = '3'"),
        raw("TRUNCATE TABLE shop_tag, shop_inventoryitem CASCADE"),
    ]


def check_exact(real, dropped):
    found = {(t.tenant, t.name.removeprefix("branch:")) for i in dropped for t in i.targets if t.kind == "tag"}
    assert found == real
    tenants = {t.tenant for i in dropped for t in i.targets if t.kind == "group"}
    assert tenants == {tenant for tenant, _ in real}


def check(write, real, dropped):
    if write in EXACT:
        check_exact(real, dropped)
    else:
        assert real
        check_covered(real, dropped)


def check_covered(real, dropped):
    targets = [target for i in dropped for target in i.targets]
    for tenant, branch in real:
        assert any(covers(target, tenant, branch) for target in targets), (tenant, branch, targets)


@pytest.mark.django_db(transaction=True)
class TestKindsOfWrite:
    @pytest.mark.parametrize("write", EXACT + WIDER + RAW, ids=lambda f: f.__name__)
    def test_alone_what_was_touched_is_dropped(self, write, use_rules):
        world = World()
        use_rules(ITEMS)
        real, dropped = perform(world, write)
        check(write, real, dropped)

    @pytest.mark.parametrize("write", EXACT + WIDER + RAW, ids=lambda f: f.__name__)
    def test_a_commit_is_one_delivery_and_a_rollback_none(self, write, use_rules):
        world = World()
        use_rules(ITEMS)

        def atomic(w):
            with transaction.atomic():
                write(w)
                transaction.set_rollback(is_rollback)

        is_rollback, intents = True, Intent.objects.count()
        assert perform(world, atomic) == (set(), [])
        assert Intent.objects.count() == intents
        world.load()
        is_rollback = False
        real, dropped = perform(world, atomic)
        check(write, real, dropped)
        assert len(dropped) == (1 if real else 0)

    @pytest.mark.parametrize("write", EXACT + WIDER, ids=lambda f: f.__name__)
    def test_the_net_at_the_cursor_catches_what_the_hooks_miss(self, write, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        for owner, name, _ in compilers.METHODS:
            if hasattr(owner, name):
                monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
        real, dropped = perform(world, write)
        check_covered(real, dropped)


@pytest.mark.django_db
@pytest.mark.parametrize("write", EXACT, ids=lambda f: f.__name__)
def test_exactly_what_was_touched_is_dropped_inside_a_test_case(write, use_rules):
    world = World()
    use_rules(ITEMS)
    real, dropped = perform(world, write)
    check_exact(real, dropped)
    assert not Intent.objects.exists()


# --- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
class TestCost:
    def test_a_model_that_no_rule_names_costs_no_statement(self, use_rules, monkeypatch):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", targets=["items"]))
        rules.snapshot()
        sent = own_statements(monkeypatch)
        world.branches[world.a.pk][0].save()
        Branch.objects.filter(name="x").update(city="z")
        Branch.objects.create(tenant=world.a, name="new", city="new")
        assert sent == Counter()

    def test_a_field_that_no_rule_watches_costs_no_statement(self, use_rules, monkeypatch):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", fields=["price"], targets=["items"]))
        rules.snapshot()
        sent = own_statements(monkeypatch)
        item = world.first(world.a)
        item.view_count += 1
        with captured_invalidations() as dropped:
            item.save(update_fields=["view_count"])
            InventoryItem.objects.filter(pk=item.pk).update(view_count=F("view_count") + 1)
        assert (sent, dropped) == (Counter(), [])

    def test_a_saved_item_costs_its_row_in_the_outbox(self, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        item = world.first(world.a)
        item.save()
        sent = own_statements(monkeypatch)
        item.save()
        assert sent == Counter({"INSERT": 1, "UPDATE": 1})  # the intent; outside tests its mark is a thread's

    def test_an_item_that_moves_costs_a_look(self, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        item = world.first(world.a)
        item.tenant = world.b
        item.sku = "moved"
        sent = own_statements(monkeypatch)
        with captured_invalidations() as dropped, count_queries() as queries:
            item.save()
        assert sent == Counter({"INSERT": 1, "UPDATE": 1} if ON_POSTGRES else {"SELECT": 1, "INSERT": 1, "UPDATE": 1})
        assert [q["sql"].split()[0] for q in queries] == ["WITH" if ON_POSTGRES else "UPDATE"]
        assert {t.tenant for t in dropped[0].targets} == {str(world.a.pk), str(world.b.pk)}

    def test_fields_without_the_tenant_need_no_look(self, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        item = world.first(world.a)
        sent = own_statements(monkeypatch)
        with captured_invalidations() as dropped:
            item.save(update_fields=["price"])
        assert sent == Counter({"INSERT": 1, "UPDATE": 1})
        assert {t.tenant for t in dropped[0].targets} == {str(world.a.pk)}

    def test_without_rows_a_save_is_one_statement(self, use_rules, monkeypatch, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "on_failure"}
        world = World()
        use_rules(ITEMS)
        item, new = world.first(world.a), world.item(world.b, "new")
        item.save()
        sent = own_statements(monkeypatch)
        with captured_invalidations() as dropped, count_queries() as queries:
            item.save()
            item.save(update_fields=["price"])
            new.save()
        assert (sent, len(dropped)) == (Counter(), 3)
        assert [q["sql"].split()[0] for q in queries] == ["UPDATE", "UPDATE", "INSERT"]

    def test_a_value_that_is_compared_costs_no_statement_on_postgresql(self, use_rules, monkeypatch, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "on_failure"}
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", fields=["price"], targets=["tag:{sku}"]))
        item = world.first(world.a)
        item.save()
        sent = own_statements(monkeypatch)
        with captured_invalidations() as dropped, count_queries() as queries:
            item.save()
            item.price += 1
            item.sku = "other"
            item.save()
        assert [sorted(t.name for t in i.targets) for i in dropped] == [["1", "other"]]
        assert sent == (Counter() if ON_POSTGRES else Counter({"SELECT": 2}))
        assert len([q for q in queries if "UPDATE" in q["sql"]]) == len(queries) == 2

    def test_two_thousand_saves_in_a_transaction_cost_one_delivery(self, use_rules, monkeypatch, round_trips):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", targets=[RuleTarget("group", "items", alias="query")]))
        item = world.first(world.a)
        item.save()
        sent, seen = own_statements(monkeypatch), Counter()

        def noting(execute, sql, *rest):
            seen[sql.split()[0]] += 1
            return execute(sql, *rest)

        with (
            captured_invalidations() as dropped,
            round_trips() as trips,
            connection.execute_wrapper(noting),
            transaction.atomic(),
        ):
            for number in range(2_000):
                item.price = number % 100
                item.save()
        assert len(dropped) == 1
        assert [trip.removeprefix("INFO INFO ") for trip in trips] == ["UNLINK ECHO"]
        assert sent["INSERT"] == 1
        # The row's mark, and once a second a look at the rules, before which a transaction of SQLite takes its lock.
        assert sent["UPDATE"] <= 2
        assert (seen["UPDATE"], seen["SELECT"]) == (2_000, 0)

    @pytest.mark.parametrize("outbox", ["durable", "on_failure", "off"])
    @pytest.mark.parametrize(
        ("targets", "trips"),
        [
            (["group:items", "tag:sku:{sku}"], [["UNLINK", "ECHO"]]),
            # Which groups there are is asked first.
            (["prefix:item", "tag:sku:{sku}"], [["EVALSHA"], ["UNLINK", "ECHO"]]),
        ],
    )
    def test_a_save_costs_one_round_trip_a_place_at_its_commit_and_two_with_a_prefix(
        self, use_rules, settings, round_trips, targets, trips, outbox
    ):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": outbox}
        world = World()
        of_query = [RuleTarget(*target.split(":", 1), alias="query") for target in targets]
        use_rules(Rule("items", model="shop.InventoryItem", targets=of_query))
        item, other = world.first(world.a), world.first(world.b)
        item.save()
        with round_trips() as sent:
            item.save()
        assert [trip.removeprefix("INFO INFO ").split() for trip in sent] == trips
        with round_trips() as sent, transaction.atomic():
            item.save()
            other.save()
            assert sent == []
        # The places of one alias share their round trips.
        assert [trip.removeprefix("INFO INFO ").split() for trip in sent] == [[trip[0], *trip] for trip in trips]

    def test_an_update_is_written_once_and_sent_with_its_own_values(self, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        item, other = world.first(world.a), world.first(world.b)
        item.save()
        as_sql, written = SQLUpdateCompiler.as_sql, []
        monkeypatch.setattr(SQLUpdateCompiler, "as_sql", lambda compiler: written.append(1) or as_sql(compiler))
        rules.forget()  # what was kept was kept for Django's own method
        with captured_invalidations() as dropped, count_queries() as queries:
            for number, one in enumerate((item, other, item)):
                one.name, one.price = f"ring {number}", number
                one.save()
            other.supplier = None
            other.save()
        item.refresh_from_db()
        other.refresh_from_db()
        assert (item.name, item.price, other.name, other.price, other.supplier) == ("ring 2", 2, "ring 1", 1, None)
        # By RETURNING comes nothing here: the tenant and the branch are written, and proved to be the old ones.
        assert len(dropped) == len(queries) == 4
        assert len(written) == 2  # for the first, and for the one with a NULL

    def test_another_apps_wrapper_of_the_compiler_still_sees_each_update(self, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        item = world.first(world.a)
        writes.uninstall()
        execute, seen = SQLUpdateCompiler.execute_sql, []

        @functools.wraps(execute)
        def wrapper(compiler, *args):
            seen.append(compiler.query.model)
            return execute(compiler, *args)

        with monkeypatch.context() as patch:
            patch.setattr(SQLUpdateCompiler, "execute_sql", wrapper)
            writes.install()
            try:
                InventoryItem.objects.filter(pk=item.pk).update(price=3)
            finally:
                writes.uninstall()
        writes.install()
        assert seen == [InventoryItem]

    def test_a_row_without_a_tenant_is_proved_to_have_had_none(self, use_rules, monkeypatch, django_user_model):
        use_rules(Rule("users", model="shop.User", targets=["users"]))
        user = django_user_model.objects.create(username="nobody")
        tenant = Tenant.objects.create(name="a", slug="a")
        sent = own_statements(monkeypatch)
        with captured_invalidations() as dropped:
            user.save()
            assert sent["SELECT"] == 0
            user.tenant = tenant
            user.save()
            user.tenant = None
            user.save()
        assert [{t.tenant for t in i.targets} for i in dropped] == [
            {None},
            {None, str(tenant.pk)},
            {None, str(tenant.pk)},
        ]

    def test_a_thousand_rows_cost_one_look(self, use_rules, monkeypatch):
        world = World()
        InventoryItem.objects.bulk_create([world.item(world.a, f"n{n}") for n in range(1000)])
        use_rules(ITEMS)
        rules.snapshot()
        sent = own_statements(monkeypatch)
        with captured_invalidations() as dropped:
            InventoryItem.objects.filter(tenant=world.a).update(price=1)
        assert sent["SELECT"] == 1
        assert [t.tenant for t in dropped[0].targets] == [str(world.a.pk)] * 2

    @pytest.mark.parametrize("write", [save_new, save_changed, update_where, raw_delete, m2m_add, RAW[0]])
    def test_query_counts_of_a_site_do_not_change(self, write, use_rules, django_assert_num_queries):
        world = World()
        use_rules()
        with transaction.atomic(), count_queries() as without:
            write(world)
            transaction.set_rollback(True)
        use_rules(ITEMS)
        with transaction.atomic(), count_queries() as inside:
            write(world)
            transaction.set_rollback(True)
        with count_queries() as alone:
            write(world)
        assert len(inside) == len(without)
        assert len([q for q in alone if "SAVEPOINT" not in q["sql"] and q["sql"] not in ("BEGIN", "COMMIT")]) == len(
            [q for q in without if "SAVEPOINT" not in q["sql"]]
        )
        assert not any("cacheadmin_" in q["sql"] for q in alone)

    def test_a_single_statement_alone_shows_no_begin_and_commit(self, use_rules):
        world = World()
        use_rules(ITEMS)
        item = world.first(world.a)
        with count_queries() as queries:
            item.save(update_fields=["price"])
            InventoryItem.objects.filter(pk=item.pk).update(price=8)
        assert [q["sql"].split()[0] for q in queries] == ["UPDATE", "UPDATE"]

    def test_fast_deletes_stay_fast(self, use_rules):
        assert not pre_delete.has_listeners(SaleLine)
        assert not post_delete.has_listeners(SaleLine)

    def test_more_than_500_tags_widen_to_the_tenant(self, use_rules):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", targets=["tag:item:{pk}"]))
        InventoryItem.objects.bulk_create([world.item(world.a, f"n{n}") for n in range(600)])
        with captured_invalidations() as dropped:
            InventoryItem.objects.filter(tenant=world.a).update(price=1)
        assert [(t.kind, t.tenant) for t in dropped[0].targets] == [("tenant", ALL)]


def own_statements(monkeypatch):
    """Count what we send ourselves, but for the looks at the rules, which come once a second."""
    sent = Counter()
    wrapper = connections["default"].__class__
    create = wrapper.create_cursor

    def noting(self, name=None):
        cursor = create(self, name)
        if sys._getframe(1).f_code.co_filename.endswith("own_sql.py"):
            execute = cursor.execute

            class Noted:
                def __getattr__(self, attribute):
                    return getattr(cursor, attribute)

                def execute(self, sql, params=None):
                    if "cacheadmin_ruleversion" not in sql and "cacheadmin_invalidationrule" not in sql:
                        sent[sql.split()[0]] += 1
                    return execute(sql, params)

            return Noted()
        return cursor

    monkeypatch.setattr(wrapper, "create_cursor", noting)
    return sent


class count_queries:
    def __enter__(self):
        self.forced, connection.force_debug_cursor = connection.force_debug_cursor, True
        connection.queries_log.clear()
        self.queries = []
        return self.queries

    def __exit__(self, *error):
        self.queries += connection.queries_log
        connection.force_debug_cursor = self.forced


# --- which rules ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
class TestWatchedFields:
    WATCHING = Rule("items", model="shop.InventoryItem", fields=["price", "branch"], targets=["items"])

    @pytest.fixture
    def item(self, use_rules):
        world = World()
        use_rules(self.WATCHING)
        return world.first(world.a)

    def dropped(self, write):
        with captured_invalidations() as dropped:
            write()
        return len(dropped)

    def test_a_full_save_that_changes_nothing_watched_drops_nothing(self, item):
        item.view_count += 1
        assert self.dropped(item.save) == 0

    def test_a_full_save_that_changes_a_watched_field_drops(self, item):
        item.price += 1
        assert self.dropped(item.save) == 1

    def test_a_foreign_key_is_watched_by_name_and_by_column(self, item, use_rules):
        use_rules(Rule("items", model="shop.InventoryItem", fields=["branch_id"], targets=["items"]))
        item.branch = Branch.objects.filter(tenant=item.tenant).last()
        assert self.dropped(item.save) == 1

    def test_the_old_value_is_the_databases_not_the_instances(self, item):
        InventoryItem.objects.filter(pk=item.pk).update(price=1234)
        assert self.dropped(item.save) == 1

    def test_an_expression_counts_as_a_change(self, item):
        item.price = F("price")
        assert self.dropped(item.save) == 1

    def test_a_constant_in_update_is_compared_too(self, item):
        found = InventoryItem.objects.filter(pk=item.pk)
        assert self.dropped(lambda: found.update(price=item.price)) == 0
        assert self.dropped(lambda: InventoryItem.objects.filter(sku=item.sku).update(price=item.price)) == 1

    def test_create_and_delete_do_not_ask_for_fields(self, item):
        assert self.dropped(item.delete) == 1

    def test_events_are_told_apart(self, use_rules):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", events=["delete"], targets=["items"]))
        item = world.first(world.a)
        assert self.dropped(item.save) == 0
        assert self.dropped(lambda: item.tags.add(world.tags[world.a.pk])) == 0
        assert self.dropped(item.delete) == 1


@pytest.mark.django_db(transaction=True)
class TestPaths:
    def test_a_tenant_beyond_a_foreign_key_costs_a_look_for_the_old_and_one_for_the_new(self, use_rules, monkeypatch):
        world = World()
        use_rules(Rule("lines", model="shop.SaleLine", tenant="sale__tenant_id", targets=["lines"]))
        sale, item = Sale.objects.create(tenant=world.a, branch=world.branches[world.a.pk][0]), world.first(world.a)
        line = SaleLine.objects.create(sale=sale, item=item, price=1)
        line.save()
        deeds = {
            "save": line.save,
            "save of some fields": lambda: line.save(update_fields=["quantity"]),
            "create": lambda: SaleLine.objects.create(sale=sale, item=item, price=1),
            "update by key": lambda: SaleLine.objects.filter(pk=line.pk).update(quantity=3),
            "update of many": lambda: SaleLine.objects.filter(quantity=3).update(quantity=4),
            "update of the path": lambda: SaleLine.objects.filter(pk=line.pk).update(sale=sale),
            "delete": lambda: SaleLine.objects.filter(quantity=4).delete(),
        }
        assert selects(monkeypatch, deeds) == {
            "save": 2,
            "save of some fields": 0 if ON_POSTGRES else 1,
            "create": 1,
            "update by key": 0 if ON_POSTGRES else 1,
            "update of many": 1,
            "update of the path": 2,
            "delete": 1,
        }

    def test_a_tenant_beyond_a_foreign_key(self, use_rules):
        world = World()
        sale = Sale.objects.create(tenant=world.a, branch=world.branches[world.a.pk][0], number="1")
        other = Sale.objects.create(tenant=world.b, branch=world.branches[world.b.pk][0], number="2")
        use_rules(Rule("lines", model="shop.SaleLine", tenant="sale__tenant_id", targets=["lines"]))
        with captured_invalidations() as dropped:
            line = SaleLine.objects.create(sale=sale, item=world.first(world.a), price=1)
            SaleLine.objects.bulk_create([SaleLine(sale=s, item=world.first(world.a), price=1) for s in (sale, other)])
            line.sale = other
            line.save()
            line.delete()
        a, b = str(world.a.pk), str(world.b.pk)
        assert tenants_of(dropped) == [[a], [a, b], [a, b], [b]]

    def test_rows_that_name_no_tenant_of_their_own_drop_for_all(self, use_rules):
        world = World()
        sale = Sale.objects.create(tenant=world.a, branch=world.branches[world.a.pk][0], number="1")
        use_rules(Rule("lines", model="shop.SaleLine", targets=["lines"]))
        with captured_invalidations() as dropped:
            SaleLine.objects.create(sale=sale, item=world.first(world.a), price=1)
        assert [t.tenant for t in dropped[0].targets] == [ALL]

    def test_the_tenant_row_is_its_own_tenant(self, use_rules):
        use_rules(Rule("tenants", model="shop.Tenant", targets=["tenant"]))
        with captured_invalidations() as dropped:
            tenant = Tenant.objects.create(name="n", slug="n")
        assert [(t.kind, t.tenant) for t in dropped[0].targets] == [("tenant", str(tenant.pk))]

    def test_a_row_without_a_tenant_is_shared_data(self, use_rules, django_user_model):
        use_rules(Rule("users", model="shop.User", targets=["users"]))
        with captured_invalidations() as dropped:
            django_user_model.objects.create(username="nobody")
        assert [t.tenant for t in dropped[0].targets] == [None]

    def test_a_placeholder_of_a_null_is_the_text_none(self, use_rules):
        world = World()
        use_rules(Rule("sales", model="shop.Sale", targets=["tag:customer:{customer_id}", "tag:at:{customer__name}"]))
        customer = Customer.objects.create(tenant=world.a, name="Ada")
        with captured_invalidations() as dropped:
            branch = world.branches[world.a.pk][0]
            sale = Sale.objects.create(tenant=world.a, branch=branch, number="1")
            sale.customer = customer
            sale.save()
        assert [t.name for t in dropped[0].targets] == ["customer:None", "at:None"]
        assert sorted(t.name for t in dropped[1].targets) == [
            "at:Ada",
            "at:None",
            f"customer:{customer.pk}",
            "customer:None",
        ]


# --- unusual models -------------------------------------------------------------------------------------------------


@pytest.fixture
def writing(transactional_db, settings):
    """Install the app `writing` and make its tables."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "writing"]
    models = apps.get_app_config("writing").get_models(include_auto_created=True)
    made = [m for m in models if m._meta.managed and not m._meta.proxy]
    with connection.constraint_checks_disabled(), connection.schema_editor() as editor:
        for model in made:
            if not model._meta.auto_created:
                editor.create_model(model)
    yield apps.get_app_config("writing")
    with connection.constraint_checks_disabled(), connection.schema_editor() as editor:
        for model in reversed(made):
            if not model._meta.auto_created:
                editor.delete_model(model)
    rules.forget()


def selects(monkeypatch, deeds):
    """Return how many SELECTs of ours each deed sent, by its name."""
    sent, found = own_statements(monkeypatch), {}
    for name, deed in deeds.items():
        sent.clear()
        deed()
        found[name] = sent["SELECT"]
    return found


def tenants_of(dropped):
    """The tenants of each invalidation, those with a number in its order: "9" comes before "10"."""
    names = [["*" if t.tenant is ALL else t.tenant for t in i.targets] for i in dropped]
    return [sorted(of_one, key=lambda name: (len(name or ""), name or "")) for of_one in names]


class TestUnusualModels:
    def test_a_multi_table_child_is_touched_through_its_parent(self, writing, use_rules):
        place, workshop = writing.get_model("Place"), writing.get_model("Workshop")
        use_rules(Rule("workshops", model="writing.Workshop", targets=["workshops"]))
        a, b = (Tenant.objects.create(name=n, slug=n) for n in "ab")
        with captured_invalidations() as dropped:
            made = workshop.objects.create(tenant=a, name="one", benches=2)
            place.objects.filter(pk=made.pk).update(name="two")
            place.objects.filter(name="two").update(tenant=b)
            workshop.objects.filter(benches=2).update(name="three")
            workshop.objects.filter(benches=2).update(benches=3)
            made = workshop.objects.get()
            made.name = "four"
            made.save()
            made.delete()
        a, b = str(a.pk), str(b.pk)
        assert tenants_of(dropped) == [[a], [a], [a, b], [b], [b], [b], [b]]

    def test_what_looking_at_several_tables_costs(self, writing, use_rules, monkeypatch):
        place, workshop = writing.get_model("Place"), writing.get_model("Workshop")
        use_rules(Rule("workshops", model="writing.Workshop", targets=["workshops"]))
        made = workshop.objects.create(tenant=Tenant.objects.create(name="a", slug="a"), name="one", benches=2)
        parent = place.objects.get(pk=made.pk)
        made.save()
        parent.save()
        many = workshop.objects.filter(benches=2)
        deeds = {
            "save": made.save,
            "save of its own fields": lambda: made.save(update_fields=["benches"]),
            "save of its parent's fields": lambda: made.save(update_fields=["name"]),
            "save of the parent": parent.save,
            "save of some of the parent's fields": lambda: parent.save(update_fields=["name"]),
            "create": lambda: workshop.objects.create(tenant=made.tenant, name="two"),
            "update": lambda: many.update(benches=2),
            "update of its parent's fields": lambda: many.update(name="x"),
            "update of both": lambda: many.update(name="x", benches=2),
            "update of the parents": lambda: place.objects.filter(name="x").update(name="y"),
            "delete": lambda: many.delete(),
        }
        assert selects(monkeypatch, deeds) == {
            "save": 3 if ON_POSTGRES else 4,
            "save of its own fields": 0 if ON_POSTGRES else 1,
            "save of its parent's fields": 2,
            "save of the parent": 3,
            "save of some of the parent's fields": 2,
            "create": 1,
            "update": 1,
            "update of its parent's fields": 3,
            "update of both": 3,
            "update of the parents": 2,
            "delete": 1,
        }

    def test_an_upsert_of_parents_may_have_touched_their_children(self, writing, use_rules):
        place, workshop = writing.get_model("Place"), writing.get_model("Workshop")
        use_rules(Rule("workshops", model="writing.Workshop", targets=["workshops"]))
        tenant = Tenant.objects.create(name="a", slug="a")
        made = workshop.objects.create(tenant=tenant, name="one", benches=2)
        with captured_invalidations() as dropped:
            place.objects.bulk_create(
                [place(pk=made.pk, tenant=tenant, name="two")],
                update_conflicts=True,
                update_fields=["name"],
                unique_fields=["pk"],
            )
            place.objects.bulk_create([place(tenant=tenant, name="three")])
        assert workshop.objects.get().name == "two"
        assert tenants_of(dropped) == [["*"]]

    def test_a_proxy_may_be_the_first_that_a_block_writes(self, writing, use_rules):
        proxy = writing.get_model("WorkshopProxy")
        use_rules(Rule("workshops", model="writing.WorkshopProxy", targets=["workshops"]))
        made = proxy.objects.create(tenant=Tenant.objects.create(name="a", slug="a"), name="one", benches=2)
        with captured_invalidations() as dropped, transaction.atomic():
            rules.forget()
            proxy.objects.filter(pk=made.pk).update(benches=3)
        assert len(dropped) == 1

    def test_a_parent_without_the_child_does_not_touch_it(self, writing, use_rules):
        place = writing.get_model("Place")
        use_rules(Rule("workshops", model="writing.Workshop", targets=["workshops"]))
        made = place.objects.create(tenant=Tenant.objects.create(name="a", slug="a"), name="one")
        with captured_invalidations() as dropped:
            made.save()
            made.delete()
        assert dropped == []

    def test_a_proxy_is_its_concrete_model(self, writing, use_rules):
        proxy = writing.get_model("WorkshopProxy")
        use_rules(Rule("workshops", model="writing.WorkshopProxy", targets=["workshops"]))
        tenant = Tenant.objects.create(name="a", slug="a")
        with captured_invalidations() as dropped:
            made = proxy.objects.create(tenant=tenant, name="one")
            proxy.objects.update(benches=3)
            writing.get_model("Workshop").objects.update(benches=4)
            made.delete()
        assert tenants_of(dropped) == [[str(tenant.pk)]] * 4

    def test_a_uuid_key_and_a_computed_column(self, writing, use_rules):
        tool, workshop = writing.get_model("Tool"), writing.get_model("Workshop")
        use_rules(Rule("tools", model="writing.Tool", tenant="workshop__tenant_id", targets=["tag:tool:{pk}"]))
        tenant = Tenant.objects.create(name="a", slug="a")
        with captured_invalidations() as dropped:
            made = tool.objects.create(workshop=workshop.objects.create(tenant=tenant, name="w"), label="saw")
            made.label = "file"
            made.save()
            made.label = F("label")
            made.save()
            tool.objects.filter(label="file").update(label="rasp")
            tool.objects.filter(pk=made.pk).delete()
        assert [[(t.tenant, t.name) for t in i.targets] for i in dropped] == [[(str(tenant.pk), f"tool:{made.pk}")]] * 5

    def test_a_relation_to_itself_touches_both_ends(self, writing, use_rules):
        tool = writing.get_model("Tool")
        use_rules(Rule("tools", model="writing.Tool", tenant="-", events=["m2m"], targets=["tag:tool:{label}"]))
        one, two = (tool.objects.create(label=n) for n in ("one", "two"))
        with captured_invalidations() as dropped:
            one.friends.add(two)
            two.friends.clear()
        assert [sorted(t.name for t in i.targets) for i in dropped] == [["tool:one", "tool:two"]] * 2

    def test_a_historical_model_widens(self, writing, use_rules):
        use_rules(Rule("items", model="shop.InventoryItem", targets=["items"]))
        world = World()
        from django.db.migrations.executor import MigrationExecutor

        state = MigrationExecutor(connection).loader.project_state(("shop", "0001_initial"))
        historical = state.apps.get_model("shop", "InventoryItem")
        with captured_invalidations() as dropped:
            historical.objects.filter(pk=world.items[world.a.pk][0].pk).update(price=3)
        assert tenants_of(dropped) == [["*"]]

    @pytest.mark.skipif(django.VERSION < (6, 1), reason="Django 6.1 deletes in the database")
    def test_a_delete_that_the_database_passes_on(self, writing, use_rules):
        tool, drawer = writing.get_model("Tool"), writing.get_model("Drawer")
        use_rules(Rule("drawers", model="writing.Drawer", tenant="-", targets=["tag:drawer:{pk}"]))
        made = tool.objects.create(label="saw")
        drawer.objects.create(tool=made)
        with captured_invalidations() as dropped:
            made.delete()
        assert tenants_of(dropped)


# --- two writers at once --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not ON_POSTGRES, reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
class TestTwoWriters:
    """A row that another transaction moves between our statement's snapshot and our statement."""

    def move_meanwhile(self, world, act):
        """Start `act` in a thread while this one has moved the first item to tenant b and not committed yet."""
        moved, dropped = world.first(world.a), []

        def note(*, invalidation, **_):
            if threading.current_thread() is thread:
                dropped.append(invalidation)

        def run():
            try:
                act()
            finally:
                connections.close_all()

        thread = threading.Thread(target=run)
        invalidated.connect(note)
        with transaction.atomic():
            moved.tenant, moved.sku = world.b, "moved"
            moved.save()
            thread.start()
            wait_until_blocked()
        thread.join()
        return {t.tenant for i in dropped for t in i.targets}

    @pytest.mark.parametrize("fields", [(), ("sku",)], ids=["proved", "compared"])
    def test_a_save_drops_what_it_really_replaced(self, fields, use_rules):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", fields=fields, targets=["items"]))
        mine = world.first(world.a)
        mine.sku = "mine"
        found = self.move_meanwhile(world, mine.save)
        assert found >= {str(world.a.pk), str(world.b.pk)}

    def test_a_save_of_some_fields_drops_for_the_tenant_it_really_touched(self, use_rules):
        world = World()
        use_rules(Rule("items", model="shop.InventoryItem", targets=["items"]))
        mine = world.first(world.a)
        found = self.move_meanwhile(world, lambda: mine.save(update_fields=["price"]))
        assert str(world.b.pk) in found


def wait_until_blocked():
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("Nobody waits for the row.")


# --- raw SQL --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT * FROM a FOR UPDATE", ""),
        ("select 1", ""),
        ("SAVEPOINT x", ""),
        ("BEGIN", ""),
        ("PRAGMA foreign_keys = ON", ""),
        ("CREATE INDEX x ON a (b)", ""),
        ("SELECT replace(a, 'b', 'c') FROM t", ""),
        ("", ""),
        ("UPDATE a SET b = 1", "a"),
        ('update "main"."A" set b = 1', "a"),
        ("UPDATE ONLY a SET b = 1", "a"),
        ("UPDATE OR IGNORE a SET b = 1", "a"),
        ("UPDATE `a` SET b = 1", "a"),
        ("UPDATE [dbo].[a] SET b = 1", "a"),
        ("INSERT INTO a VALUES (1) ON CONFLICT (x) DO UPDATE SET b = 2", "a"),
        ("INSERT a (b) VALUES (1)", "a"),
        ("REPLACE INTO a VALUES (1)", "a"),
        ("/* hint */ DELETE FROM a", "a"),
        ("-- hint\nDELETE FROM a", "a"),
        ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x", "a"),
        ("WITH x AS (SELECT 1) INSERT INTO a SELECT * FROM x", "a"),
        ('TRUNCATE a, s.b, "C" CASCADE', "a b c"),
        ("COPY a (b) FROM STDIN", "a"),
        ("LOAD DATA INFILE 'x' INTO TABLE a", "a"),
        ("SELECT b INTO a FROM c", "a"),
        ("SELECT 1; DELETE FROM a", "a"),
        ("EXPLAIN ANALYZE UPDATE a SET b = 1", "a"),
        ("ALTER TABLE IF EXISTS a ADD b int", "a"),
        ("DROP TABLE IF EXISTS a, b", "a b"),
        ("UPDATE a SET b = 'x', c = 'don''t'", "a"),
        (b"DELETE FROM a", "a"),
        (";; UPDATE a SET b = 1", "a"),
        ("/* c1 */ -- c2\n UPDATE/**/a/**/SET b = 1", "a"),
        ('UPDATE\n\t"s"."Tab"\nSET b = 1', "tab"),
        ('INSERT INTO "db"."s"."a" VALUES (1)', "a"),
        ("MERGE INTO ONLY s.a AS t USING b ON true WHEN MATCHED THEN DELETE", "a"),
        ('WITH m AS (DELETE FROM "s"."a" RETURNING *) INSERT INTO b SELECT * FROM m', "a b"),
        ("WITH x AS (UPDATE a SET b = 1 RETURNING b), y AS (INSERT INTO c SELECT * FROM x) DELETE FROM d", "a c d"),
        ("WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT * FROM t", ""),
        ("((WITH x AS (DELETE FROM a RETURNING 1) SELECT * FROM x))", "a"),
        ("BEGIN; UPDATE a SET b = 1; DELETE FROM s.c; COMMIT", "a c"),
        ("SET x = 1; TRUNCATE TABLE ONLY s.a RESTART IDENTITY CASCADE", "a"),
        ("UPDATE a SET b = E'it\\'s' WHERE c = 1; DELETE FROM d", "a d"),
        ("UPDATE a SET b = $q$ DELETE $q$; TRUNCATE d", "a d"),
        ("UPDATE a, b SET a.x = 1, b.y = 2", "a b"),
        ("EXPLAIN (ANALYZE, BUFFERS) DELETE FROM a", "a"),
        ('COPY "s"."a" (b) TO STDOUT', ""),
        ("COPY (SELECT * FROM a) TO STDOUT", ""),
        ("COPY (DELETE FROM a RETURNING *) TO STDOUT", "a"),
        ("COPY b TO STDOUT; DELETE FROM a", "a b"),
    ],
)
def test_the_text_of_a_statement_names_its_tables(sql, tables):
    assert statement(sql).tables == set(tables.split())


@pytest.mark.parametrize(
    "sql",
    [
        "CALL f()",
        "DO $$ BEGIN DELETE FROM a; END $$",
        "EXECUTE p",
        "FROBNICATE a",
        "{call f()}",
        'UPDATE U&"d\\0061t" SET a = 1',
    ],
)
def test_code_of_the_database_may_write_any_table(sql):
    assert statement(sql).tables is None


@pytest.mark.parametrize(
    "sql", ["MERGE INTO a USING b ON 1 = 1 WHEN MATCHED THEN UPDATE SET c = 1", "DELETE a FROM a, b"]
)
def test_what_is_read_too_widely_still_has_its_table(sql):
    tables = statement(sql).tables
    assert tables is None or "a" in tables


def test_a_write_in_a_literal_only_widens():
    assert "a" in statement("SELECT 'x'' DELETE FROM a'; UPDATE b SET c = 'UPDATE a'").tables


@pytest.mark.parametrize("evil", ["insert /* ", "truncate a,", "update ", "( ", "select into ", "'", "$$ ", "-- x\n"])
def test_reading_takes_time_in_proportion(evil):
    statement(evil * 3000)  # a quadratic expression would take minutes


@pytest.mark.django_db(transaction=True)
class TestRaw:
    def test_an_unknown_statement_widens_and_is_counted(self, use_rules, caplog):
        world = World()
        use_rules(ITEMS)
        writes.unknown_statements.clear()
        writes.raw_sites.clear()
        with captured_invalidations() as dropped:
            cursors.write(connection, statement("FROBNICATE x"), "FROBNICATE x", lambda: None)
        assert writes.unknown_statements == {"frobnicate": 1}
        assert f"It came from {__name__}:" in caplog.text
        check_covered({(str(world.a.pk), "1")}, dropped)

    def test_a_stored_procedure_may_write_anything(self, use_rules, monkeypatch):
        use_rules(ITEMS)
        monkeypatch.setattr("django.db.backends.utils.CursorWrapper.callproc", cursors.hook_procedure(lambda *a: 1))
        with captured_invalidations() as dropped, connection.cursor() as cursor:
            cursor.callproc("f", [])
        check_covered({("1", "1")}, dropped)

    def test_what_only_the_drivers_cursor_can_do_is_seen(self, use_rules):
        world = World()
        use_rules(Rule("categories", model="shop.Category", targets=["group:items"]))
        with captured_invalidations() as dropped, connection.cursor() as cursor:
            if ON_POSTGRES:
                with cursor.copy("COPY shop_category (tenant_id, name, slug) FROM STDIN") as copy:
                    copy.write_row((world.a.pk, "chains", "chains"))
            else:
                cursor.executescript("UPDATE shop_category SET name = 'chains'; SELECT 1;")
        assert Category.objects.filter(name="chains").exists()
        assert [target.tenant for target in dropped[0].targets] == [ALL]

    @pytest.mark.skipif(not ON_POSTGRES, reason="only psycopg has it")
    @pytest.mark.parametrize("taken", [1, 2, None])
    def test_a_write_whose_rows_are_streamed_is_seen(self, use_rules, taken):
        world = World()
        use_rules(ITEMS)
        Intent.objects.all().delete()
        raised = "UPDATE shop_inventoryitem SET price = %s RETURNING price"
        with captured_invalidations() as dropped, connection.cursor() as cursor:
            rows = cursor.stream(query=raised, params=[77])
            assert {price for (price,), _ in zip(rows, range(taken or 99), strict=False)} == {77}
            rows.close()
            assert list(cursor.stream("SELECT 7")) == [(7,)]
        assert set(InventoryItem.objects.values_list("price", flat=True)) == {77}
        assert Intent.objects.count() == len(dropped) == 1
        check_covered({(str(world.a.pk), "1")}, dropped)

    @pytest.mark.parametrize("table", ["shop_category", '"public"."shop_category"'])
    def test_rows_that_psycopg2_copies_into_a_table_are_seen(self, use_rules, table):
        """Its method has no SQL. Both drivers cannot be in use at once: here a method of that name writes."""
        world = World()
        use_rules(Rule("categories", model="shop.Category", targets=["group:items"]))
        Intent.objects.all().delete()

        class Cursor:
            def copy_from(self, file, table):
                assert connection.in_atomic_block
                with contextlib.closing(connection.create_cursor()) as cursor:
                    cursor.execute("UPDATE shop_category SET name = 'copied'")

        with captured_invalidations() as dropped:
            CursorWrapper(Cursor(), connection).copy_from(None, table)
            CursorWrapper(Cursor(), connection).copy_from(file=None, table=table)
        assert [target.tenant for i in dropped for target in i.targets] == [ALL, ALL]
        assert Intent.objects.count() == 2
        assert Category.objects.filter(tenant=world.a, name="copied").exists()

    @pytest.mark.skipif(ON_POSTGRES, reason="there what fails is undone as a whole")
    @pytest.mark.parametrize("inside", [False, True])
    def test_what_was_written_before_a_failure_is_dropped(self, use_rules, settings, inside):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "on_failure"}
        World()
        use_rules(ITEMS)
        change = "UPDATE shop_inventoryitem SET price = %s WHERE sku = '1'"
        with (
            captured_invalidations() as dropped,
            transaction.atomic() if inside else contextlib.nullcontext(),
            connection.cursor() as cursor,
        ):
            with pytest.raises(django.db.IntegrityError):
                cursor.executemany(change, [[5], [None]])
            assert InventoryItem.objects.filter(price=5).exists()
            if not inside:
                with pytest.raises(sqlite3.OperationalError):
                    cursor.executescript("UPDATE shop_inventoryitem SET price = 6; UPDATE nothing;")
                assert InventoryItem.objects.filter(price=6).exists()
        assert tenants_of(dropped) == [["*", "*"]] * (1 if inside else 2)

    def test_a_raw_queryset_that_writes_is_seen(self, use_rules):
        world = World()
        use_rules(ITEMS)
        with captured_invalidations() as dropped:
            list(InventoryItem.objects.raw("UPDATE shop_inventoryitem SET price = 1 RETURNING *"))
        check_covered({(str(world.a.pk), "1")}, dropped)

    @pytest.mark.parametrize("outbox", ["durable", "on_failure"])
    @pytest.mark.parametrize("read", [list, lambda c: [c.fetchone()], lambda c: c.fetchmany(2), lambda c: c.fetchall()])
    def test_rows_that_a_write_returns_are_read_as_ever(self, use_rules, settings, outbox, read):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": outbox}
        World()
        raised = "UPDATE shop_inventoryitem SET price = price + 1 WHERE sku = '1' RETURNING sku, price"

        def told():
            with connection.cursor() as cursor:
                same = cursor.execute(raised)
                assert connection.get_autocommit()
                found = [read(cursor), [column[0] for column in cursor.description]]
                found += [cursor.fetchmany(1), same.fetchone(), cursor.fetchall(), cursor.fetchone(), list(cursor)]
                cursor.execute(raised)
                cursor.execute("SELECT 7")
                return [*found, cursor.fetchall(), cursor.rowcount]

        InventoryItem.objects.update(price=1)
        writes.uninstall()
        try:
            as_ever = told()
        finally:
            writes.install()
        InventoryItem.objects.update(price=1)
        use_rules(ITEMS)
        assert told() == as_ever

    def test_the_drivers_cursor_keeps_its_attributes(self):
        with connection.cursor() as cursor:
            assert hasattr(cursor, "copy") == ON_POSTGRES
            assert hasattr(cursor, "executescript") != ON_POSTGRES
            assert cursor.rowcount == -1


def in_a_process_of_its_own(code, directory):
    """Run code of the shop on a new SQLite file; return what became of the process."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"SHOP_DB": str(directory / "shop.sqlite3"), "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        timeout=60,
    )


WITH_ROWS = """
    import os
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    import django
    django.setup()
    from concurrent.futures import ThreadPoolExecutor
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection
    from django.test import override_settings
    from cacheadmin import cache_tenant_query
    from shop.models import Tenant
    call_command("migrate", verbosity=0)
    made = Tenant.objects.create(name="0", slug="a")

    @cache_tenant_query(timeout=60, key_prefix="tenant_name")
    def name(tenant_id):
        return Tenant.objects.get(pk=tenant_id).name

    another = ThreadPoolExecutor(1)
    read = lambda: another.submit(name, made.pk).result()
    write = "UPDATE shop_tenant SET name = CAST(name AS INTEGER) + 1 RETURNING *"
    for outbox in ("durable", "on_failure"):
        with override_settings(CACHEADMIN=settings.CACHEADMIN | {"OUTBOX": outbox}):
            read()
            with connection.cursor() as cursor:
                cursor.execute(write)
                read()
                cursor.fetchall()
            print(read(), end=" ")
            with connection.cursor() as cursor:
                cursor.execute(write)
                read()
            print(read(), end=" ")
            rows = iter(Tenant.objects.raw(write).iterator())
            next(rows)
            read()
            list(rows)
            print(read(), end=" ")
    another.submit(connection.close).result()
"""


@pytest.mark.skipif(ON_POSTGRES, reason="SQLite commits a write that returns rows with the last of them")
def test_who_reads_while_a_write_waits_to_be_fetched_stores_nothing_old(tmp_path):
    done = in_a_process_of_its_own(WITH_ROWS, tmp_path)
    assert done.stdout.split() == list("123456"), done.stderr


# --- robustness -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
class TestTrouble:
    def test_a_look_that_fails_widens_and_does_not_break_the_write(self, use_rules, monkeypatch, caplog):
        world = World()
        use_rules(ITEMS)

        def burst(*args, **kwargs):
            raise RuntimeError("on purpose")

        monkeypatch.setattr("cacheadmin.writes.touching.lookup", burst)
        monkeypatch.setattr("cacheadmin.writes.touching.matched", burst)
        real, dropped = perform(world, lambda w: (instance_delete(w), update_where(w)))
        check_covered(real, dropped)
        assert {t.tenant for i in dropped for t in i.targets} == {ALL}
        assert "cannot be looked up" in caplog.text

    def test_a_broken_transaction_is_refused_by_django_as_ever(self, use_rules):
        world = World()
        use_rules(ITEMS)
        item = world.first(world.a)
        with transaction.atomic():
            transaction.set_rollback(True)
            with pytest.raises(transaction.TransactionManagementError):
                item.save()

    def test_a_statement_that_fails_drops_nothing(self, use_rules):
        world = World()
        use_rules(ITEMS)
        with captured_invalidations() as dropped, pytest.raises(django.db.IntegrityError):
            world.item(world.a, "1").save()
        assert dropped == []
        assert connection.get_autocommit()

    def test_no_tables_of_ours_is_no_reason_to_fail(self, use_rules, monkeypatch):
        world = World()
        use_rules(ITEMS)
        monkeypatch.setattr("cacheadmin.transactions.own_sql.has_table", lambda *args: False)
        rules.forget()
        real, dropped = perform(world, save_changed)
        check_exact(real, dropped)

    def test_hooks_can_be_taken_out(self, use_rules):
        world = World()
        use_rules(ITEMS)
        writes.uninstall()
        try:
            _, dropped = perform(world, save_changed)
            assert dropped == []
            assert "execute_sql" not in django.db.models.sql.compiler.SQLDeleteCompiler.__dict__
        finally:
            writes.install()
        writes.install()
        _, dropped = perform(world, save_update_fields)
        assert len(dropped) == 1

    def test_a_transaction_that_wrote_an_unnamed_model_reads_nothing(self, use_rules):
        use_rules()
        with transaction.atomic():
            Tenant.objects.create(name="a", slug="a")
            assert not transactions.may_read()

    def test_writes_without_an_outbox_are_delivered(self, use_rules, settings):
        settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "off"}
        world = World()
        use_rules(ITEMS)
        real, dropped = perform(world, save_new)
        check_exact(real, dropped)
        assert not outbox.keeps_rows(connection)
        assert not Intent.objects.exists()


PATIENCE = """
    import os, sys, threading, time, sqlite3
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    from django.conf import settings
    settings.DATABASES["default"]["OPTIONS"].pop("transaction_mode")
    import django
    django.setup()
    from django.core.management import call_command
    from django.db import connection, transaction
    call_command("migrate", verbosity=0)
    from cacheadmin import rules
    from shop.models import Tenant
    made = Tenant.objects.create(name="a", slug="a")
    def hold():
        other = sqlite3.connect(os.environ["SHOP_DB"], isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE shop_tenant SET currency = 'EUR'")
        held.set()
        time.sleep(0.4)
        other.execute("COMMIT")
    def by_save(name):
        made.name = name
        made.save()
    def by_sql(name):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE shop_tenant SET name = %s", [name])
    for write in (by_save, by_sql):
        for look_is_due in (False, True):
            held = threading.Event()
            if look_is_due:
                rules.forget()
            else:
                rules.snapshot()
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            with transaction.atomic():
                write(f"{write.__name__} {look_is_due}")
            thread.join()
    made.refresh_from_db()
    print(made.name)
"""


def test_a_patient_writer_of_sqlite_stays_patient(tmp_path):
    """A SELECT of ours before a transaction's first write would make SQLite refuse it at once."""
    done = in_a_process_of_its_own(PATIENCE, tmp_path)
    assert done.stdout.strip() == "by_sql True", done.stderr
