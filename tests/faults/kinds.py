"""Each kind of write that Django knows, as a function of the world that it changes."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from asgiref.sync import async_to_sync
from django.core import serializers
from django.db import connections
from django.db.models import Case, Exists, F, OuterRef, Value, When

from faults.models import Label, Making, Mark, Seen, Shelf, Special, Thing

_names = (f"n{number}" for number in itertools.count())


class World:
    """The rows of one database: a few of each table for each tenant."""

    def __init__(self, alias: str, tenants: Sequence[int], chance: random.Random) -> None:
        self.alias, self.tenants, self.chance = alias, tenants, chance
        for model in (Mark, Making, Special, Thing, Label, Shelf):
            self.rows(model).delete()
        for tenant in tenants:
            shelves = [self.rows(Shelf).create(tenant=tenant) for _ in range(3)]
            labels = [self.rows(Label).create(tenant=tenant) for _ in range(3)]
            for size in range(4):
                model = Special if size == 0 else Thing
                thing = self.rows(model).create(
                    tenant=tenant, name=next(_names), size=size, shelf=shelves[size % 2], spare=shelves[2]
                )
                thing.labels.add(labels[0])
                self.rows(Making).create(thing_id=thing.pk, maker=labels[1])
                self.rows(Mark).create(thing_id=thing.pk)

    def rows(self, model: Any) -> Any:
        """Return all rows of a model in this database."""
        return model._default_manager.using(self.alias)

    def any(self, model: Any, **conditions: Any) -> Any:
        """Return a row by chance; one is made if there is none."""
        found = list(self.rows(model).filter(**conditions).order_by("pk"))
        if found:
            return self.chance.choice(found)
        tenant = conditions.get("tenant", self.tenants[0])
        if issubclass(model, Thing):
            return self.rows(model).create(tenant=tenant, name=next(_names), shelf=self.any(Shelf, tenant=tenant))
        if model in (Making, Mark):
            more = {"maker": self.any(Label)} if model is Making else {}
            return self.rows(model).create(thing=self.any(Thing), **more)
        return self.rows(model).create(tenant=tenant)

    def new(self, **values: Any) -> Thing:
        """Return a thing that is not saved."""
        tenant = values.setdefault("tenant", self.chance.choice(self.tenants))
        shelf = values.pop("shelf", None) or self.any(Shelf, tenant=tenant)
        return Thing(**{"name": next(_names), "size": 1, "shelf": shelf} | values)

    def sql(self, statement: str, params: Any = (), *, many: bool = False) -> None:
        """Run a statement as it is."""
        with connections[self.alias].cursor() as cursor:
            (cursor.executemany if many else cursor.execute)(statement, params)


Kind = Callable[[World], object]
KINDS: list[Kind] = []


def kind(write: Kind) -> Kind:
    """Register a kind of write."""
    KINDS.append(write)
    return write


# --- one row ----------------------------------------------------------------------------------------------------------


@kind
def save_new(w: World) -> None:
    w.new().save(using=w.alias)


@kind
def save_with_a_key_nobody_has(w: World) -> None:
    w.new(pk=w.chance.randrange(10**6, 10**9)).save(using=w.alias)


@kind
def save_changed(w: World) -> None:
    thing = w.any(Thing)
    thing.size += 1
    thing.save()


@kind
def save_some_fields(w: World) -> None:
    thing = w.any(Thing)
    thing.size += 1
    thing.save(update_fields=["size"])


@kind
def save_an_expression(w: World) -> None:
    thing = w.any(Thing)
    thing.size = F("size") + 1
    thing.save()


@kind
def save_to_another_tenant(w: World) -> None:
    thing = w.any(Thing)
    thing.tenant = w.chance.choice(w.tenants)
    thing.save()


@kind
def save_to_another_parent(w: World) -> None:
    mark = w.any(Mark)
    mark.thing = w.any(Thing)
    mark.save()


@kind
def create(w: World) -> None:
    w.rows(Mark).create(thing=w.any(Thing))


@kind
def get_or_create(w: World) -> None:
    tenant = w.chance.choice(w.tenants)
    w.rows(Thing).get_or_create(name=next(_names), defaults={"tenant": tenant, "shelf": w.any(Shelf)})


@kind
def update_or_create(w: World) -> None:
    w.rows(Thing).update_or_create(name=w.any(Thing).name, defaults={"size": w.chance.randrange(10**6)})


@kind
def delete(w: World) -> None:
    w.any(Thing).delete()


@kind
def delete_a_leaf(w: World) -> None:
    w.any(Mark).delete()


# --- querysets --------------------------------------------------------------------------------------------------------


@kind
def update(w: World) -> None:
    w.rows(Thing).filter(tenant=w.chance.choice(w.tenants)).update(size=w.chance.randrange(10**6))


@kind
def update_by_an_expression(w: World) -> None:
    w.rows(Thing).filter(size__gt=1).update(size=F("size") * 2 % 1_000_003)


@kind
def update_through_a_join(w: World) -> None:
    w.rows(Thing).filter(shelf__tenant=w.chance.choice(w.tenants)).update(size=w.chance.randrange(10**6))


@kind
def update_where_exists(w: World) -> None:
    marked = w.rows(Mark).filter(thing=OuterRef("pk"))
    w.rows(Thing).filter(Exists(marked)).update(size=F("size") + 1)


@kind
def update_the_tenant(w: World) -> None:
    w.rows(Thing).filter(pk=w.any(Thing).pk).update(tenant=w.chance.choice(w.tenants))


@kind
def update_the_tenant_by_case(w: World) -> None:
    first, second = w.chance.sample(list(w.tenants), 2)
    swap = Case(When(tenant=first, then=Value(second)), default=F("tenant"))
    w.rows(Thing).filter(size__lt=3).update(tenant=swap)


@kind
def update_the_parent(w: World) -> None:
    w.rows(Mark).filter(pk=w.any(Mark).pk).update(thing=w.any(Thing))


@kind
def update_none(w: World) -> None:
    w.rows(Thing).none().update(size=1)
    w.rows(Thing).filter(name="nobody's").update(size=1)


@kind
def queryset_delete(w: World) -> None:
    w.rows(Thing).filter(pk=w.any(Thing).pk).delete()


@kind
def fast_delete(w: World) -> None:
    w.rows(Mark).filter(thing__tenant=w.chance.choice(w.tenants)).delete()


@kind
def raw_delete(w: World) -> None:
    w.rows(Mark).filter(pk=w.any(Mark).pk)._raw_delete(w.alias)


@kind
def bulk_create(w: World) -> None:
    w.rows(Thing).bulk_create([w.new() for _ in range(3)])


@kind
def bulk_create_in_batches(w: World) -> None:
    w.rows(Mark).bulk_create([Mark(thing=w.any(Thing)) for _ in range(5)], batch_size=2)


@kind
def bulk_create_ignoring_conflicts(w: World) -> None:
    w.rows(Thing).bulk_create([w.new(name=w.any(Thing).name), w.new()], ignore_conflicts=True)


@kind
def upsert(w: World) -> None:
    taken = w.new(name=w.any(Thing).name, size=w.chance.randrange(10**6))
    w.rows(Thing).bulk_create(
        [taken, w.new()], update_conflicts=True, update_fields=["size", "tenant"], unique_fields=["name"]
    )


@kind
def bulk_update(w: World) -> None:
    things = list(w.rows(Thing).order_by("?")[:3])
    for thing in things:
        thing.size, thing.tenant = thing.size + 1, w.chance.choice(w.tenants)
    w.rows(Thing).bulk_update(things, ["size", "tenant"])


# --- relations --------------------------------------------------------------------------------------------------------


@kind
def m2m_add(w: World) -> None:
    w.any(Thing).labels.add(w.any(Label), w.any(Label))


@kind
def m2m_set(w: World) -> None:
    w.any(Thing).labels.set([w.any(Label)])


@kind
def m2m_remove(w: World) -> None:
    thing = w.any(Thing)
    thing.labels.remove(*thing.labels.all()[:1])


@kind
def m2m_clear(w: World) -> None:
    w.any(Thing).labels.clear()


@kind
def m2m_add_from_the_other_side(w: World) -> None:
    w.any(Label).things.add(w.any(Thing), w.any(Thing))


@kind
def m2m_set_from_the_other_side(w: World) -> None:
    w.any(Label).things.set([w.any(Thing)])


@kind
def m2m_clear_from_the_other_side(w: World) -> None:
    w.any(Label).things.clear()


@kind
def m2m_create(w: World) -> None:
    w.any(Thing).labels.create(tenant=w.chance.choice(w.tenants))


@kind
def self_add(w: World) -> None:
    w.any(Thing).alike.add(w.any(Thing))


@kind
def self_clear(w: World) -> None:
    w.any(Thing).alike.clear()


@kind
def through_created(w: World) -> None:
    w.rows(Making).create(thing=w.any(Thing), maker=w.any(Label))


@kind
def through_added(w: World) -> None:
    w.any(Thing).makers.add(w.any(Label), through_defaults={"year": 1900})


@kind
def through_updated(w: World) -> None:
    w.rows(Making).filter(maker=w.any(Label)).update(year=F("year") + 1)


@kind
def through_cleared(w: World) -> None:
    w.any(Thing).makers.clear()


@kind
def through_of_labels_written(w: World) -> None:
    through = Thing.labels.through
    thing, label = w.any(Thing), w.any(Label)
    if not w.rows(through).filter(thing=thing, label=label).exists():
        w.rows(through).create(thing=thing, label=label)
    w.rows(through).filter(label=w.any(Label)).delete()


@kind
def reverse_key_add(w: World) -> None:
    w.any(Shelf).thing_set.add(w.any(Thing))


@kind
def reverse_key_set_and_clear(w: World) -> None:
    w.any(Shelf).spared.set([w.any(Thing)])
    w.any(Shelf).spared.clear()


@kind
def follow(w: World) -> None:
    thing = w.any(Thing)
    thing.follows = w.any(Thing)
    thing.save(update_fields=["follows"])


@kind
def cascade(w: World) -> None:
    w.any(Shelf).delete()


@kind
def cascade_of_many(w: World) -> None:
    w.rows(Shelf).filter(pk=w.any(Shelf).pk).delete()


@kind
def cascade_to_a_relation(w: World) -> None:
    w.any(Label).delete()


# --- other models of the same rows ------------------------------------------------------------------------------------


@kind
def proxy_save(w: World) -> None:
    seen = w.any(Seen)
    seen.size += 1
    seen.save()


@kind
def proxy_update(w: World) -> None:
    w.rows(Seen).filter(tenant=w.chance.choice(w.tenants)).update(size=F("size") + 1)


@kind
def proxy_delete(w: World) -> None:
    w.any(Seen).delete()


@kind
def child_created(w: World) -> None:
    w.rows(Special).create(tenant=w.chance.choice(w.tenants), name=next(_names), shelf=w.any(Shelf))


@kind
def child_saved(w: World) -> None:
    special = w.any(Special)
    special.shine, special.size, special.tenant = special.shine + 1, special.size + 1, w.chance.choice(w.tenants)
    special.save()


@kind
def child_updated(w: World) -> None:
    w.rows(Special).filter(shine__gte=0).update(shine=F("shine") + 1, size=w.chance.randrange(10**6))


@kind
def childs_parent_updated(w: World) -> None:
    w.rows(Special).update(size=w.chance.randrange(10**6))


@kind
def childs_parent_saved(w: World) -> None:
    thing = w.rows(Thing).get(pk=w.any(Special).pk)
    thing.size += 1
    thing.save()


@kind
def child_deleted(w: World) -> None:
    w.any(Special).delete()


@kind
def child_cut_off(w: World) -> None:
    w.any(Special).delete(keep_parents=True)


# --- text -------------------------------------------------------------------------------------------------------------


@kind
def sql_update(w: World) -> None:
    w.sql("UPDATE faults_thing SET size = size + 1 WHERE tenant = %s", [w.chance.choice(w.tenants)])


@kind
def sql_insert(w: World) -> None:
    w.sql("INSERT INTO faults_mark (thing_id, text) SELECT MIN(id), 'sql' FROM faults_thing HAVING MIN(id) > 0")


@kind
def sql_delete(w: World) -> None:
    w.sql('DELETE FROM "faults_mark" WHERE id = %s', [w.any(Mark).pk])


@kind
def sql_many(w: World) -> None:
    w.sql("UPDATE faults_thing SET size = %s WHERE tenant = %s", [(7, 1), (w.chance.randrange(10**6), 2)], many=True)


@kind
def sql_with(w: World) -> None:
    w.sql(
        "WITH big AS (SELECT MAX(id) AS id FROM faults_thing) "
        "UPDATE faults_thing SET size = size + 1 WHERE id IN (SELECT id FROM big)"
    )


@kind
def sql_returning(w: World) -> None:
    list(w.rows(Thing).raw("UPDATE faults_thing SET size = size + 1 WHERE size < 5 RETURNING *"))


@kind
def sql_that_only_the_driver_knows(w: World) -> None:
    thing = w.any(Thing)
    with connections[w.alias].cursor() as cursor:
        if hasattr(cursor, "copy"):
            with cursor.copy("COPY faults_mark (thing_id, text) FROM STDIN") as copy:
                copy.write_row((thing.pk, "copied"))
        elif not connections[w.alias].in_atomic_block and connections[w.alias].get_autocommit():
            cursor.executescript("UPDATE faults_mark SET text = text || '.' WHERE id % 3 = 0;")  # it would commit


# --- others -----------------------------------------------------------------------------------------------------------


@kind
def loaddata(w: World) -> None:
    thing = w.any(Thing)
    thing.size += 1
    for loaded in serializers.deserialize("json", io.StringIO(serializers.serialize("json", [thing])), using=w.alias):
        loaded.save(using=w.alias)


@kind
def asynchronous(w: World) -> None:
    async def act() -> None:
        thing = await w.rows(Thing).order_by("?").afirst()
        if thing is not None:
            thing.size += 1
            await thing.asave()
        await w.rows(Mark).filter(text="").aupdate(text="async")
        await w.rows(Thing).abulk_create([new])

    new = w.new()
    async_to_sync(act)()
