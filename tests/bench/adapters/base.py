"""What all adapters share: Django's settings, tables, rows, and values to keep."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections, transaction

Way = Callable[[], object]

URL = os.environ["BENCH_REDIS"]
"""Address of a database that everybody shares: what peers scan is the same for all."""

DATABASE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": os.environ["BENCH_DB"],
    "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 60},
}
"""Of everybody: a relay in the background may have to wait for a transaction of ten thousand writes."""

TENANT = 1
HIT_ROWS = {1_000: 12, 50_000: 600}
"""Rows of a queryset that is pickled to about so many bytes."""


def value_of(size: int) -> list[dict[str, Any]]:
    """Return rows as a query would, about `size` bytes when pickled."""
    return [{"id": i, "sku": f"RG-{i:05d}", "name": "Ruby halo ring", "qty": i % 9} for i in range(size // 34)]


def pickled(value: object) -> bytes:
    """Return a value as django-redis would store it."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def fill_group(set_many: Callable[[dict[str, int]], object], prefix: str, entries: int) -> int:
    """Store so many entries below `prefix`, a thousand at once."""
    for start in range(0, entries, 1000):
        set_many({f"{prefix}:{number}": number for number in range(start, min(start + 1000, entries))})
    return entries


class Base:
    """
    A peer. `way_…` returns a callable to be timed, `ask_…` an answer.

    A peer that cannot do something has no such method; its cell of the table says so.
    """

    packages: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    has_rows = False
    """Whether it caches what the ORM reads."""

    def settings(self) -> dict[str, Any]:
        """Return what it needs beside the common settings."""
        return {"CACHES": {"default": self.alias("django_redis.cache.RedisCache")}}

    def alias(self, backend: str, **options: Any) -> dict[str, Any]:
        """Return one entry of CACHES."""
        return {"BACKEND": backend, "LOCATION": URL, "KEY_PREFIX": self.prefix, "TIMEOUT": 3600, **options}

    @property
    def prefix(self) -> str:
        """A prefix as long as a site's would be, and its own."""
        return f"{type(self).__module__.rpartition('.')[2]:_<12.12}"

    def start(self) -> None:
        """Set Django up and make the tables and some rows."""
        settings.configure(
            SECRET_KEY="bench",
            USE_TZ=True,
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *self.apps, "bench.app"],
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            DATABASES={"default": DATABASE},
            **self.settings(),
        )
        django.setup()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=OFF")
        call_command("migrate", verbosity=0, run_syncdb=True)
        from bench.app.models import Item, Tenant

        self.Item = Item
        Tenant.objects.bulk_create(Tenant(pk=pk, name=f"Shop {pk}") for pk in range(1, 101))
        for rows in HIT_ROWS.values():
            Item.objects.bulk_create(
                Item(tenant_id=TENANT, branch_id=rows, sku=f"RG-{i:05d}", name="Ruby halo ring", quantity=i % 9)
                for i in range(rows)
            )
        self.item = Item.objects.create(tenant_id=TENANT, sku="one", name="one")

    def versions(self) -> dict[str, str]:
        """Return package -> version of what it is made of."""
        found = {}
        for package in ("Django", "redis", "hiredis", "django-redis", *self.packages):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    # --- writes -----------------------------------------------------------------------------------------------------

    def way_save(self) -> Way:
        """Save one row."""

        def save() -> None:
            self.item.quantity += 1
            self.item.save()

        return save

    def way_atomic(self, rows: int) -> Way:
        """Save a row so often in one transaction."""

        def save_all() -> None:
            with transaction.atomic():
                for _ in range(rows):
                    self.item.quantity += 1
                    self.item.save()

        return save_all

    # --- what writes leave behind -----------------------------------------------------------------------------------

    def cached_names(self) -> list[str]:
        """Return the names of branch 7's items, from the cache if they are there."""
        raise NotImplementedError

    def ask_write(self, kind: str) -> str | None:
        """Say whether a cached answer is still served after a write of some kind: "stale" or "fresh"."""
        if not self.has_rows:
            return None
        Item = self.Item
        Item.objects.filter(branch_id=7).delete()
        item = Item.objects.create(tenant_id=TENANT, branch_id=7, sku="w", name="before")
        if self.cached_names() != ["before"] or self.cached_names() != ["before"]:
            return "wrong"
        if kind == "save()":
            item.name = "after"
            item.save()
        elif kind == "update()":
            Item.objects.filter(pk=item.pk).update(name="after")
        elif kind == "bulk_update()":
            item.name = "after"
            Item.objects.bulk_update([item], ["name"])
        elif kind == "bulk_create() with update_conflicts":
            item.name = "after"
            Item.objects.bulk_create([item], update_conflicts=True, unique_fields=["id"], update_fields=["name"])
        elif kind == "raw SQL":
            with connection.cursor() as cursor:
                cursor.execute("UPDATE app_item SET name = 'after' WHERE id = %s", [item.pk])
        elif kind == "save() in a transaction that is rolled back":
            try:
                with transaction.atomic():
                    item.name = "after"
                    item.save()
                    self.cached_names()
                    raise LookupError
            except LookupError:
                return "fresh" if self.cached_names() == ["before"] else "stale"
        return "fresh" if self.cached_names() == ["after"] else "stale"

    def ask_late(self) -> str | None:
        """Let a reader compute from old data, a writer change it meanwhile, the reader store: what is read next?"""
        if not self.has_rows:
            return None
        Item = self.Item
        Item.objects.filter(branch_id=7).delete()
        item = Item.objects.create(tenant_id=TENANT, branch_id=7, sku="l", name="before")

        def write() -> None:
            Item.objects.get(pk=item.pk)
            fresh = Item(pk=item.pk, tenant_id=TENANT, branch_id=7, sku="l", name="after")
            fresh.save()

        self.late_names(lambda: elsewhere(write))
        return "fresh" if self.late_names(lambda: None) == ["after"] else "stale"

    def late_names(self, meanwhile: Callable[[], None]) -> list[str]:
        """Return branch 7's names; if they are computed, `meanwhile` runs after the data was read."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """Return branch 7's names from the database."""
        return list(self.Item.objects.filter(branch_id=7).values_list("name", flat=True))

    def ask_settle(self) -> None:
        """Do what is otherwise done later, in the background."""

    # --- stampede, outage -------------------------------------------------------------------------------------------

    def slow(self, seconds: float) -> Callable[[Callable[[], None]], object] | None:
        """Return a call of a cold entry; it calls back whenever it computes, which then takes so long."""
        return None

    def ask_stampede(self, callers: int, seconds: float) -> dict[str, float] | None:
        """Say how often a cold entry is computed when so many threads ask at once, and how long the last one waits."""
        call = self.slow(seconds)
        if call is None:
            return None
        computed: list[int] = []
        barrier = threading.Barrier(callers)

        def ask() -> None:
            barrier.wait()
            call(lambda: computed.append(1))
            connections.close_all()

        threads = [threading.Thread(target=ask) for _ in range(callers)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"computed": len(computed), "seconds": time.perf_counter() - begun}

    def ask_hung(self, calls: int) -> dict[str, Any] | None:
        """Read so often while Redis hangs: seconds of the first read and of the others' median, or what was raised."""
        call = self.slow(0.0)
        if call is None:
            return None
        taken, raised = [], ""
        for _ in range(calls):
            begun = time.perf_counter()
            try:
                call(lambda: None)
            except Exception as error:
                raised = type(error).__name__
            taken.append(time.perf_counter() - begun)
        return {"first": taken[0], "next": sorted(taken[1:])[len(taken) // 2 - 1], "raised": raised}


def elsewhere(work: Callable[[], None]) -> None:
    """Run something in another thread, with database connections of its own, to its end; raise what it raised."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()
