"""A server replaced by one that has not seen the last invalidations: an old dump, a replica promoted too soon."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import redis
from django.db import connections
from django.test import override_settings

from cacheadmin import cache_tenant_query
from cacheadmin.connections import Gate, link
from faults import Asked, Outcome, crashes
from faults.crashes import TENANTS, WRITES, judge, newest, versions
from faults.peers import Peer
from faults.proxy import Proxy, caches_behind
from server import Server

SYNC_SECONDS = 60
TRUSTED_SECONDS = 90
LOOKS = 10


def failover(asked: Asked) -> Outcome:
    """Replace the server `count` times, with readers and writers around it."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    for number in range(asked.count):
        kind = KINDS[number % len(KINDS)]
        with tempfile.TemporaryDirectory(prefix="cacheadmin-dump-") as directory:
            kind(chance, outcome, Path(directory))
        outcome.count("failovers")
        if asked.stops_at_first and outcome.is_broken:
            break
    return outcome


def old_dump(chance: random.Random, outcome: Outcome, directory: Path) -> None:
    """The server dies and is started again from what it saved before the last invalidations."""
    with Server.start(directory=directory) as first, through_a_proxy(first) as proxy:
        warm()
        with redis.Redis.from_url(first.url) as client:
            client.save()
        write(chance)
        first.kill()
        with Server.start(directory=directory) as second:
            proxy.target = second.port or 0
            look(outcome, "an old dump")


def promotion(chance: random.Random, outcome: Outcome, directory: Path) -> None:
    """The server dies, and a replica that has not heard of the last invalidations takes its place."""
    with Server.start() as first, through_a_proxy(first) as proxy:
        wire = Proxy(first.port or 0)
        with Server.start(args=("--replicaof", "127.0.0.1", str(wire.port))) as second:
            with redis.Redis.from_url(second.url) as replica:
                wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
                warm()
                with redis.Redis.from_url(first.url) as client:
                    until_replicated(client)
                wire.set("black-holed")
                write(chance)
                first.kill()
                replica.replicaof("NO", "ONE")
            proxy.target = second.port or 0
            look(outcome, "a promoted replica")
        wire.close()


def failing_back(chance: random.Random, outcome: Outcome, directory: Path) -> None:
    """
    Another server takes over for a while, then the first one is master again, with the data it had.

    A process that slept meanwhile sees the same run of the same server, though what it holds is of an older reign.
    """
    with Server.start() as first, Server.start() as second, through_a_proxy(first) as proxy, Peer() as sleeper:
        warm()
        for tenant in TENANTS:
            sleeper.tell(served, tenant)
        with redis.Redis.from_url(first.url) as client:
            client.replicaof("127.0.0.1", "1")  # demoted; it never reaches its master
            proxy.target = second.port or 0
            proxy.cut()
            wait_until_trusted()
            write(chance)
            client.replicaof("NO", "ONE")
        proxy.target = first.port or 0
        proxy.cut()
        committed = versions()
        for tenant in TENANTS:
            outcome.count("reads")
            if (value := sleeper.tell(served, tenant)) != committed[tenant]:
                outcome.violate("stale", f"back at the first: {value} is served, {committed[tenant]} is committed")
        look(outcome, "back at the first")


def filling_across(chance: random.Random, outcome: Outcome, directory: Path) -> None:
    """A reader has its stamp of one server, and stores at another that has not heard of what came between."""
    with (
        Server.start() as first,
        closing(Proxy(first.port or 0)) as wire,
        Server.start(args=("--replicaof", "127.0.0.1", str(wire.port))) as second,
        redis.Redis.from_url(second.url) as replica,
        redis.Redis.from_url(first.url) as client,
    ):
        # A server that gets its first replica begins a new reign, so this comes before anybody looks at it.
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
        with through_a_proxy(first) as proxy:

            def meanwhile() -> None:
                until_replicated(client)  # the lease and its epochs are known over there
                wire.set("black-holed")
                Datum.version += 1
                datum.invalidate_all(SLOW_TENANT)
                Datum.floor = Datum.version
                first.kill()
                replica.replicaof("NO", "ONE")
                proxy.target = second.port or 0
                with ThreadPoolExecutor(1) as other:  # somebody else of this process comes to trust the new one
                    other.submit(wait_until_trusted).result()

            Datum.during = meanwhile
            datum(SLOW_TENANT)
            assert Datum.during is None, "It was not computed."
            for _ in range(LOOKS):
                outcome.count("reads")
                if (value := datum(SLOW_TENANT)) < Datum.floor:
                    outcome.violate("stale", f"filled across: {value} after {Datum.floor} was invalidated")


KINDS = (old_dump, promotion, failing_back, filling_across)
SLOW_TENANT = 99


class Datum:
    """What is read while the server changes; it is invalidated by hand, so no row of the outbox repeats that."""

    version = floor = 1
    during: Callable[[], object] | None = None


@cache_tenant_query(timeout=600, key_prefix="datum")
def datum(tenant_id: int) -> int:
    seen, during = Datum.version, Datum.during
    if during is not None:
        Datum.during = None
        during()
    return seen


def until_replicated(client: redis.Redis) -> None:
    """Wait until the replica has everything: WAIT looks at what its own connection wrote."""
    client.set("replicated", 1)
    assert client.wait(1, SYNC_SECONDS * 1000), "The replica does not follow."


def served(tenant: int) -> int:
    """Read in another process."""
    return newest(tenant)


def wait_until_trusted() -> None:
    """Read until the server at hand is trusted."""
    connection = link("query")
    before = connection.identity

    def is_trusted() -> bool:
        newest(TENANTS[0])
        return connection.gate is Gate.UP and connection.identity != before

    wait_until(is_trusted)
    connections.close_all()


@contextmanager
def through_a_proxy(server: Server) -> Iterator[Proxy]:
    """Point the site at a proxy before a server."""
    proxy = Proxy(server.port or 0)
    with override_settings(CACHES=caches_behind(proxy.port)):
        crashes.prepare()
        yield proxy
    proxy.close()


def warm() -> None:
    """Have all rows cached."""
    for tenant in TENANTS:
        newest(tenant)
        newest(tenant)


def write(chance: random.Random) -> None:
    """Make some rows newer; each is invalidated on the server that is about to die."""
    for tenant in chance.sample(TENANTS, k=len(TENANTS) // 2):
        chance.choice(WRITES)(tenant)


def look(outcome: Outcome, kind: str) -> None:
    """Read for a while, from the first moment on."""
    committed, left, ends_at = versions(), LOOKS, time.monotonic() + TRUSTED_SECONDS
    while left:
        assert time.monotonic() < ends_at, "The new server is never trusted."
        left -= link("query").gate is Gate.UP  # while it is not, nothing is read of the cache
        for tenant in TENANTS:
            outcome.count("reads")
            if (value := newest(tenant)) != committed[tenant]:
                outcome.violate("stale", f"{kind}: {value} is served, {committed[tenant]} is committed")
        time.sleep(0.02)
    judge(outcome, dict.fromkeys(TENANTS, kind))


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that takes a moment."""
    ends_at = time.monotonic() + SYNC_SECONDS
    while not is_so():
        assert time.monotonic() < ends_at, "It has not become so."
        time.sleep(0.02)
