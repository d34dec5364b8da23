"""Transactions that see the past (SQLite, REPEATABLE READ): what they read is stored only under an older stamp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.cache import caches
from django.db import DatabaseError, connection, connections, transaction

from cacheadmin import (
    ABSENT,
    cache_tenant_query,
    invalidate_cache,
    invalidate_tags,
    invalidate_tenant_cache,
    memory,
    transactions,
)
from cacheadmin.memory import seen
from cacheadmin.store import Stamp
from cacheadmin.transactions.state import in_transaction
from cacheadmin.writes.statements import statement
from shop.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)

TENANT = 7
PLAIN = f"tenant:{TENANT}:plain:list"


class Site:
    """One row, and whoever writes it while a transaction here looks at what it was."""

    def __init__(self) -> None:
        self.version = 1
        self.visible: int | None = None
        """What the open transaction sees; None: it has seen nothing yet, or there is none."""

    def read(self) -> int:
        if connection.in_atomic_block and self.visible is None:
            self.look()
        return self.version if self.visible is None else self.visible

    def look(self) -> None:
        """Run a statement: a transaction's first one takes its snapshot."""
        Tenant.objects.exists()
        if connection.in_atomic_block and self.visible is None:
            self.visible = self.version

    def atomic(self, act: Callable[[], object]) -> object:
        """Do something in a request with a transaction around it."""
        memory.clear()
        try:
            with transaction.atomic():
                return act()
        finally:
            self.visible = None


site = Site()


@cache_tenant_query(timeout=60, key_prefix="leased", tags=["branch:{branch}"])
def leased(tenant_id: int, branch: int = 1) -> int:
    return site.read()


@cache_tenant_query(timeout=60, key_prefix="unleased", tags=["branch:{branch}"], single_flight=False)
def unleased(tenant_id: int, branch: int = 1) -> int:
    return site.read()


def plain(tenant_id: int) -> int:
    cache = caches["query"]
    if (value := cache.get(PLAIN)) is None:
        value = site.read()
        cache.set(PLAIN, value)
    return value


def many(tenant_id: int) -> int:
    cache = caches["query"]
    if (value := cache.get_many([PLAIN]).get(PLAIN)) is None:
        value = site.read()
        cache.set_many({PLAIN: value})
    return value


READERS = {"leased": leased, "unleased": unleased, "plain": plain, "many": many}


def stored(name: str) -> object:
    return caches["query"].get(PLAIN, ABSENT) if name in ("plain", "many") else READERS[name].peek(TENANT)


def invalidations(name: str) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {
        "tenant": lambda: invalidate_tenant_cache(TENANT),
        "prefix": lambda: invalidate_tenant_cache(TENANT, prefix="plain" if name == "many" else name[:4]),
        "pattern": lambda: invalidate_cache("*l?*"),
    }
    if name in ("plain", "many"):
        return ways | {"entry": lambda: invalidate_cache(PLAIN), "delete": lambda: caches["query"].delete(PLAIN)}
    function = READERS[name]
    return ways | {
        "group": lambda: function.invalidate_all(tenant=TENANT),
        "tag": lambda: invalidate_tags(TENANT, "branch:1"),
        "entry": lambda: function.invalidate(TENANT),
    }


ALL = [(name, way) for name in READERS for way in invalidations(name)]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    site.__init__()
    seen._first_seen.cache_clear()


@pytest.fixture
def beside() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Do something in another thread, whose connection is in no transaction."""
    with ThreadPoolExecutor(1) as other:
        yield lambda act: other.submit(act).result()
        other.submit(connections.close_all).result()


def write(invalidate: Callable[[], object]) -> None:
    site.version += 1
    invalidate()


@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize(("name", "way"), ALL)
def test_what_a_snapshot_shows_is_not_stored_over_a_newer_write(name, way, is_known, beside) -> None:
    invalidate, read = invalidations(name)[way], READERS[name]
    if is_known:
        site.atomic(lambda: (site.look(), read(TENANT)))

    def look_back() -> object:
        site.look()
        beside(lambda: write(invalidate))
        return read(TENANT)

    assert site.atomic(look_back) == 1
    assert stored(name) is ABSENT
    memory.clear()
    assert read(TENANT) == 2


@pytest.mark.parametrize(("name", "way"), ALL)
def test_without_the_order_of_stamp_and_snapshot_it_would_be(name, way, beside, monkeypatch) -> None:
    monkeypatch.setattr(seen, "note_seen", lambda stamp: float("-inf"))

    def look_back() -> object:
        site.look()
        beside(lambda: write(invalidations(name)[way]))
        return READERS[name](TENANT)

    assert site.atomic(look_back) == 1
    assert stored(name) == 1


@pytest.mark.parametrize(("name", "way"), ALL)
def test_write_after_the_stamp_refuses_what_a_snapshot_shows(name, way, beside) -> None:
    read = READERS[name]

    def look_back() -> object:
        site.look()
        looked, site.read = site.read, lambda: (beside(lambda: write(invalidations(name)[way])), looked())[1]
        try:
            return read(TENANT)
        finally:
            del site.read

    site.atomic(lambda: (site.look(), read(TENANT)))
    assert site.atomic(look_back) == 1
    assert stored(name) is ABSENT


@pytest.mark.parametrize("name", READERS)
def test_stamp_that_was_known_before_the_transaction_looked_is_used_in_it(name) -> None:
    read = READERS[name]
    assert site.atomic(lambda: (site.look(), read(TENANT))[1]) == 1
    assert stored(name) is ABSENT, "its epochs are new: they may be younger than the snapshot"
    assert site.atomic(lambda: (site.look(), read(TENANT))[1]) == 1
    assert stored(name) == 1


@pytest.mark.parametrize("name", READERS)
def test_stamp_before_the_first_statement_is_used_at_once(name) -> None:
    assert site.atomic(lambda: READERS[name](TENANT)) == 1
    assert stored(name) == 1


@pytest.mark.parametrize("name", READERS)
def test_clock_with_few_ticks_tells_no_order(name, beside, monkeypatch) -> None:
    """What was seen in the same tick in which a snapshot was taken may have been seen after it."""
    monkeypatch.setattr("time.monotonic", lambda: 5.0)

    def look_back() -> object:
        site.look()
        beside(lambda: write(lambda: invalidate_tenant_cache(TENANT)))
        return READERS[name](TENANT)

    assert site.atomic(look_back) == 1
    assert stored(name) is ABSENT


def test_stamp_that_nobody_can_remember_is_new() -> None:
    """Other caches return what they were given, and somebody may have given them a list under our name."""
    odd = Stamp(b"", (bytearray(8), ["epoch"]), b"", is_leased=False)  # type: ignore[arg-type]
    with transaction.atomic():
        assert memory.may_keep(odd)
        site.look()
        assert not memory.may_keep(odd)


def test_block_that_cannot_begin_ends_no_transaction_that_was_begun_by_hand(beside) -> None:
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            site.look()
            with pytest.raises(DatabaseError), transaction.atomic():
                pass
            site.visible = 1
            beside(lambda: write(lambda: invalidate_tenant_cache(TENANT)))
            assert (leased(TENANT), transactions.is_open()) == (1, True)
        finally:
            cursor.execute("ROLLBACK")
            site.visible = None
    assert (leased(TENANT), transactions.any_begun()) == (2, False)


def test_autocommit_ends_what_was_begun_by_hand() -> None:
    """SQLite's driver commits then, and a transaction that nobody could end any more would hold what waits for it."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
    transaction.set_autocommit(True)
    assert not in_transaction(connection)


def test_snapshot_is_named_however_long_a_comment_goes_before() -> None:
    assert statement(f"/* {'x' * 300} */ SET TRANSACTION SNAPSHOT '1'").sets_isolation
    assert not statement("SET statement_timeout = 5 -- isolation").sets_isolation


def test_value_read_behind_a_snapshot_is_not_set_after_it(beside) -> None:
    """Whether a plain `set` may store is decided where its `get` was."""
    cache, held = caches["query"], []

    def look_back() -> None:
        site.look()
        beside(lambda: write(lambda: invalidate_tenant_cache(TENANT)))
        cache.get(PLAIN)
        held.append(site.read())

    site.atomic(look_back)
    cache.set(PLAIN, held[0])
    assert (held, cache.get(PLAIN)) == ([1], None)


def test_transaction_that_wrote_stores_nothing_however_old_the_stamp() -> None:
    site.atomic(lambda: (site.look(), leased(TENANT)))

    def act() -> None:
        Tenant.objects.create(name="Ruby", slug="ruby")
        leased(TENANT)

    site.atomic(act)
    assert stored("leased") is ABSENT


def test_costs_of_a_miss_behind_a_snapshot(round_trips) -> None:
    def act() -> None:
        site.look()
        with round_trips() as trips:
            leased(TENANT)
        costs.append(len(trips))

    costs: list[int] = []
    site.atomic(lambda: (site.look(), unleased(TENANT)))  # the server knows the script now
    site.atomic(act)
    site.atomic(act)
    site.atomic(act)
    assert costs == [2, 3, 1], "read and fence; read, fence and fill; a hit"
