"""After an outage nobody reads before what waited is delivered; the same after a server was replaced."""

from __future__ import annotations

import threading
import time

import pytest
import redis
from django.conf import settings as django_settings
from django.test import override_settings

from cacheadmin import ABSENT, Target, cache_tenant_query, connections, invalidate_tenant_cache, outbox
from cacheadmin.connections import Gate, link
from cacheadmin.connections.lines import Line
from cacheadmin.exceptions import CacheAway
from cacheadmin.models import Intent
from cacheadmin.outbox import reopening
from faults.proxy import Proxy
from shop.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(fresh_server):
    return fresh_server()


@pytest.fixture
def wire(server):
    """What stands before the server: "refused" takes it away with all its data, at once and for nobody's timeout."""
    wire = Proxy(server.port)
    url = f"redis://127.0.0.1:{wire.port}"
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "TIMEOUT": 60}
    # Whoever is held up here waits for the machine, and not for Redis.
    settings = {"TENANCY": "shop.cache.Tenancy", "TIMEOUT_MS": 20_000, "SLOW_MS": 20_000, "RETRY_SECONDS": 0.1}
    with override_settings(
        CACHES={"default": backend | {"LOCATION": f"{url}/0"}, "query": backend | {"LOCATION": f"{url}/1"}},
        CACHEADMIN=settings,
    ):
        yield wire
        connections.forget_links()
    wire.close()


@pytest.fixture
def slow_above_50_ms(wire):
    with override_settings(CACHEADMIN=django_settings.CACHEADMIN | {"SLOW_MS": 50}):
        yield


@cache_tenant_query(timeout=600, key_prefix="gate_name")
def name(tenant_id: int) -> str:
    return Tenant.objects.get(pk=tenant_id).name


def rename(tenant: Tenant, to: str) -> None:
    tenant.name = to
    tenant.save()


def outage(wire: Proxy, tenant: Tenant) -> None:
    """Read, lose the server, write, and get the server back with its data intact."""
    assert name(tenant.pk) == "old"
    wire.set("refused")
    try:
        assert name(tenant.pk) == "old", "computed, and the gate is shut now"
        rename(tenant, "new")
        assert name(tenant.pk) == "new"
        assert link("query").gate is Gate.SHUT
        assert Intent.objects.filter(state=Intent.State.PENDING).exists()
    finally:
        wire.set("open")
    time.sleep(0.2)


@pytest.fixture
def tenant(wire) -> Tenant:
    return Tenant.objects.create(name="old", slug="gate")


def test_own_write_of_an_outage_is_seen_when_the_server_is_back(wire, tenant) -> None:
    outage(wire, tenant)
    for _ in range(5):
        assert name(tenant.pk) == "new"
        time.sleep(0.05)
    assert link("query").gate is Gate.UP
    assert name.peek(tenant.pk) == "new"


def test_without_draining_the_old_value_would_be_read(wire, tenant) -> None:
    connections.on_reopen(lambda opened: opened.reopen(lambda *_: True))
    try:
        outage(wire, tenant)
        assert "old" in {name(tenant.pk) for _ in range(3)}
    finally:
        connections.on_reopen(reopening.reopen, reopening.watch)


def test_writers_deliver_while_the_gate_is_half_open(wire, tenant) -> None:
    outage(wire, tenant)
    seen = []

    def drain(alias: str, has_changed: bool) -> bool:
        seen.append(link("query").gate)
        rename(tenant, "newer")  # committed and delivered now, although nobody may read yet
        with pytest.raises(CacheAway):
            link("query").call(("PING",), entries=True)
        return outbox.drain(alias, has_changed)

    assert link("query").reopen(drain)
    assert seen == [Gate.HALF]
    assert name.peek(tenant.pk) is ABSENT


def test_gate_stays_shut_to_readers_while_the_database_cannot_say_what_waits(wire, tenant, monkeypatch) -> None:
    outage(wire, tenant)
    monkeypatch.setattr(reopening, "drain", lambda alias, has_changed: False)
    assert name(tenant.pk) == "new"
    assert link("query").gate is Gate.HALF
    monkeypatch.undo()
    time.sleep(0.2)
    assert name(tenant.pk) == "new"
    assert link("query").gate is Gate.UP


def test_server_with_another_identity_is_drained_with_done_rows_too(server, tenant, fresh_server, monkeypatch) -> None:
    assert name(tenant.pk) == "old"
    rename(tenant, "new")
    assert set(Intent.objects.values_list("state", flat=True)) == {Intent.State.DONE}
    drained, told, deliver = [], [], reopening.delivery.deliver
    monkeypatch.setattr(reopening, "drain", lambda *asked: drained.append(asked) or outbox.drain(*asked))
    monkeypatch.setattr(reopening.delivery, "deliver", lambda delivery: told.append(delivery) or deliver(delivery))
    port = server.port
    server.stop()
    fresh_server(port=port)
    time.sleep(1.2)
    for _ in range(4):
        assert name(tenant.pk) == "new"
        time.sleep(0.15)
    assert ("query", True) in drained
    again = [target for delivery in told for target in delivery.targets]  # by the shop's rule for its tenants
    assert Target("tenant", "", str(tenant.pk), "query") in again, "the new server is told what only the old one saw"
    assert link("query").gate is Gate.UP


@pytest.mark.usefixtures("slow_above_50_ms")
def test_slow_server_is_left_alone(tenant) -> None:
    """Fifty milliseconds a read on the mean, and the site is quicker without."""
    assert name(tenant.pk) == "old"
    for _ in range(100):
        link("query")._took(90)
        if link("query").gate is Gate.SHUT:
            break
    assert link("query").gate is Gate.SHUT
    assert name(tenant.pk) == "old"


@pytest.mark.usefixtures("slow_above_50_ms")
def test_a_server_that_stays_slow_stays_left_alone_and_is_used_again_when_it_is_quick(tenant, monkeypatch) -> None:
    """Each answer takes 80 ms: no timeout, but a site that waits for it would be slower than one without a cache."""
    monkeypatch.setattr(reopening, "_may_have_threads", lambda: True)
    assert name(tenant.pk) == "old"
    exchange, pause, waiting = Line.exchange, [0.08], []

    def slow(*args):
        waiting.append(threading.current_thread())
        time.sleep(pause[0])
        return exchange(*args)

    monkeypatch.setattr(Line, "exchange", slow)
    reads = 0
    while link("query").gate is Gate.UP:
        name(tenant.pk)
        reads += 1
    assert reads <= 40
    waiting.clear()
    ends, patience_ends = time.monotonic() + 1.5, time.monotonic() + 60
    while time.monotonic() < ends or (not waiting and time.monotonic() < patience_ends):
        assert name(tenant.pk) == "old"
        assert link("query").gate is Gate.SHUT
        time.sleep(0.01)
    assert waiting, "it is asked now and then"
    assert threading.current_thread() not in waiting, "but nobody who reads waits for it"
    pause[0] = 0.0
    ends = time.monotonic() + 60
    while link("query").gate is not Gate.UP and time.monotonic() < ends:
        name(tenant.pk)
        time.sleep(0.02)
    assert link("query").gate is Gate.UP


@pytest.mark.usefixtures("slow_above_50_ms")
def test_a_server_that_was_slow_needs_fewer_slow_reads_to_be_left_alone_again(tenant) -> None:
    def reads() -> int:
        for number in range(100):
            if link("query").gate is Gate.SHUT:
                return number
            link("query")._took(80)
        return 100

    first, ends = reads(), time.monotonic() + 60
    while not link("query").reopen(lambda *_: True):  # on a busy machine a probe is slow as well
        assert time.monotonic() < ends
    assert (link("query").gate, reads() < first / 2) == (Gate.UP, True)


def test_a_server_that_was_found_away_is_probed_and_drained_though_nobody_asks_for_anything(
    wire, tenant, monkeypatch
) -> None:
    """Threads are used outside of tests only; this is what they do there."""
    monkeypatch.setattr(reopening, "_may_have_threads", lambda: True)
    drained = threading.Event()
    monkeypatch.setattr(reopening, "drain", lambda *asked: outbox.drain(*asked) and (drained.set() or True))
    assert name(tenant.pk) == "old"
    wire.set("refused")
    try:
        rename(tenant, "new")
        assert link("query").gate is Gate.SHUT
        assert any(thread.name == "cacheadmin-reopen" for thread in threading.enumerate())
    finally:
        wire.set("open")
    assert drained.wait(60)
    ended = [thread for thread in threading.enumerate() if thread.name == "cacheadmin-reopen"]
    for thread in ended:
        thread.join(60)
    assert link("query").gate is Gate.UP
    assert name.peek(tenant.pk) is ABSENT


@pytest.mark.parametrize("ending", ["as ever", "by an error"])
def test_a_server_found_away_while_its_prober_ends_is_probed_again(tenant, monkeypatch, ending) -> None:
    """Else an alias that is seldom used would stay shut, and what waits for it wait, until somebody asks for it."""
    monkeypatch.setattr(reopening, "_may_have_threads", lambda: True)
    shut_again = threading.Event()

    def wake(**_: object) -> None:
        if link("query").gate is Gate.UP and not shut_again.is_set():
            link("query")._failed(redis.ConnectionError("on purpose"))
            shut_again.set()
            if ending == "by an error":
                raise RuntimeError("on purpose")

    def probers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "cacheadmin-reopen"]

    monkeypatch.setattr(reopening.waking, "wake", wake)
    monkeypatch.setattr(link("default"), "_siblings", list)  # nobody else has it opened
    link("query")._failed(redis.ConnectionError("on purpose"))
    assert shut_again.wait(60)
    while probers():
        probers()[0].join(60)
    assert link("query").gate is Gate.UP


def test_a_server_that_has_become_a_replica_counts_as_away(server, tenant) -> None:
    assert name(tenant.pk) == "old"
    link("query").call(("PING",))  # its identity has just been asked for
    with redis.Redis.from_url(server.url_for(1)) as other:
        other.execute_command("REPLICAOF", "127.0.0.1", 1)
        try:
            told = invalidate_tenant_cache(tenant.pk, alias="query")
            assert (told.state, link("query").gate) == ("waiting", Gate.SHUT)
        finally:
            other.execute_command("REPLICAOF", "NO", "ONE")


def test_a_server_that_is_replaced_while_it_is_drained_is_drained_anew(wire, tenant) -> None:
    """What was delivered went to the old one: the new one may be a replica that has not heard of it."""
    to_server, told = link("query"), []
    to_server.call(("PING",))
    to_server._shut("on purpose")

    def drain(_alias: str, has_changed: bool) -> bool:
        told.append(has_changed)
        if len(told) == 1:
            to_server._saw(b"promoted")  # another thread's connection was answered by another one
        return True

    assert not to_server.reopen(drain)
    assert to_server.gate is Gate.HALF
    assert to_server.reopen(drain)
    assert told == [False, True]
