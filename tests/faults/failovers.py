"""A server replaced by one that has not seen the last invalidations: an old dump, a replica promoted too soon."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from django.test import override_settings

from cacheadmin.connections import Gate, link
from faults import Asked, Outcome, crashes
from faults.crashes import TENANTS, WRITES, judge, newest, versions
from faults.proxy import Proxy, caches_behind
from server import Server

SYNC_SECONDS = 10
TRUSTED_SECONDS = 20
LOOKS = 10


def failover(asked: Asked) -> Outcome:
    """Replace the server `count` times, with readers and writers around it."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    for number in range(asked.count):
        kind = (old_dump, promotion)[number % 2]
        with tempfile.TemporaryDirectory(prefix="cacheadmin-dump-") as directory:
            kind(chance, outcome, Path(directory))
        outcome.count("failovers")
        if asked.stops_at_first and outcome.violations:
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
                    client.wait(1, SYNC_SECONDS * 1000)
                wire.set("black-holed")
                write(chance)
                first.kill()
                replica.replicaof("NO", "ONE")
            proxy.target = second.port or 0
            look(outcome, "a promoted replica")
        wire.close()


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
