"""One process is cut off from the server; the others are not, and do not know."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from django.conf import settings
from django.test import override_settings

from cacheadmin.connections import Gate, link
from cacheadmin.models import Intent
from faults import Asked, Outcome, crashes
from faults.crashes import TENANTS, WRITES, judge, newest, relay_all, versions
from faults.peers import Peer
from faults.proxy import Mode, Proxy, caches_behind

NARROW_WRITES = (crashes.by_save, crashes.by_update)
"""What raw SQL changes is invalidated for all tenants, those of the other process among them."""
MODES: tuple[Mode, ...] = ("refused", "black-holed", "hung")
WRITTEN = 4
"""Rows that the process without a cache makes newer in each round, and the other one as well."""
TRUSTED_SECONDS = 90
HITS = 5


def partial_partition(asked: Asked) -> Outcome:
    """Cut the other process off `count` times, write there and here, and let it come back before or after the relay."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    crashes.prepare()
    with cut_off(urlsplit(asked.url).port or 0) as (proxy, peer):
        for number in range(asked.count):
            one_round(chance, outcome, proxy, peer, MODES[number % len(MODES)])
            if asked.stops_at_first and outcome.is_broken:
                break
    return outcome


@contextmanager
def cut_off(port: int) -> Iterator[tuple[Proxy, Peer]]:
    """Have another process whose wire to the server is ours to cut."""
    proxy = Proxy(port)

    def begin() -> None:
        quick = settings.CACHEADMIN | {"TIMEOUT_MS": 100, "RETRY_SECONDS": 0.2}
        override_settings(CACHES=caches_behind(proxy.port), CACHEADMIN=quick).enable()

    with Peer(begin) as peer:
        yield proxy, peer
    proxy.close()


def one_round(chance: random.Random, outcome: Outcome, proxy: Proxy, peer: Peer, mode: Mode) -> None:
    """Cut, write on both sides, and mend."""
    for tenant in TENANTS:
        newest(tenant)
        peer.tell(look, tenant)
    proxy.set(mode)
    there = chance.sample(TENANTS, k=WRITTEN)
    for tenant in there:
        write(outcome, peer, chance.randrange(len(WRITES)), tenant)
        own(outcome, peer, tenant, f"{mode}: its own write")
    waiting = Intent.objects.filter(state=Intent.State.PENDING).count()
    outcome.count("waited_in_the_outbox", waiting)
    here = chance.sample([tenant for tenant in TENANTS if tenant not in there], k=WRITTEN)
    for tenant in here:
        chance.choice(NARROW_WRITES)(tenant)
        own(outcome, peer, tenant, f"{mode}: a write of the other process")
    committed = versions()
    outcome.count("old_before_the_relay", sum(newest(tenant) != committed[tenant] for tenant in there))
    if chance.random() < 0.5:
        outcome.count("back_before_the_relay")
        come_back(outcome, proxy, peer, mode)
        judge(outcome, dict.fromkeys(TENANTS, f"{mode}, back before the relay"))
        relay(outcome)
    else:
        relay(outcome)
        judge(outcome, dict.fromkeys(TENANTS, f"{mode}, relayed by the other process"))
        come_back(outcome, proxy, peer, mode)
    judge(outcome, dict.fromkeys(TENANTS, f"{mode}, all over"))
    outcome.count("partitions")


def relay(outcome: Outcome) -> None:
    """Deliver what waits, from this process, which is not cut off."""
    Intent.objects.filter(state=Intent.State.PENDING).update(due="2000-01-01T00:00:00Z")
    outcome.count("relayed", relay_all())


def write(outcome: Outcome, peer: Peer, how: int, tenant: int) -> None:
    """Write over there: it commits, whatever the cache is doing."""
    outcome.count("writes_cut_off")
    try:
        peer.tell(WRITES[how], tenant)
    except Exception as error:
        outcome.violate("exceptions", f"{WRITES[how].__name__}: {type(error).__name__}: {error}")


def own(outcome: Outcome, peer: Peer, tenant: int, what: str) -> None:
    """See that the process over there is served what is committed."""
    value, _ = peer.tell(look, tenant)
    outcome.count("reads_cut_off")
    if value != (committed := versions()[tenant]):
        outcome.violate("stale", f"{what} is not seen there: {value} instead of {committed}")


def look(tenant: int) -> tuple[int, bool]:
    """Read; say also whether this process trusts its server."""
    return newest(tenant), link("query").gate is Gate.UP


def come_back(outcome: Outcome, proxy: Proxy, peer: Peer, mode: Mode) -> None:
    """Mend the wire, and look from the first moment on until all was served from the cache some times."""
    proxy.set("open")
    committed, left, ends_at = versions(), HITS, time.monotonic() + TRUSTED_SECONDS
    while left:
        assert time.monotonic() < ends_at, "The server is never trusted again."
        for tenant in TENANTS:
            value, is_trusted = peer.tell(look, tenant)
            outcome.count("reads_when_back")
            if value != committed[tenant]:
                outcome.violate(
                    "stale", f"back after it was {mode}: {value} is served there, {committed[tenant]} is committed"
                )
        left -= is_trusted
        time.sleep(0.02)
