"""A connection that answers one call late: every reply on it belongs to the question before."""

from __future__ import annotations

import random

from django.core.cache import caches

from cacheadmin import cache_tenant_query
from cacheadmin.connections import link
from cacheadmin.store import store
from faults import Asked, Outcome

TENANTS = range(1, 6)


@cache_tenant_query(timeout=60, key_prefix="whose")
def whose(tenant_id: int) -> int:
    return tenant_id


@cache_tenant_query(timeout=60, key_prefix="graceful", grace=60)
def graceful(tenant_id: int) -> int:
    return tenant_id


@cache_tenant_query(timeout=60, key_prefix="unleased", single_flight=False)
def unleased(tenant_id: int) -> int:
    return tenant_id


FUNCTIONS = {"whose": whose, "graceful": graceful, "unleased": unleased}


def value_keys() -> dict[tuple[int, str], str]:
    """Return the Redis key of each tenant's value under each name."""
    held = [key.decode() for key in link("query").call(("KEYS", "*")).values[0]]
    return {
        (tenant, name): key
        for tenant in TENANTS
        for name in (*FUNCTIONS, "plain")
        for key in held
        if f":{tenant}}}:v:{name}:" in key
    }


def ask_for_another(value: str, tenant: int, name: str) -> None:
    """Send somebody else's question on every idle connection, and leave the answer lying there."""
    group = store("query").place(str(tenant)).group(name)
    fence = (group.fence,) if name in ("unleased", "plain") else ()
    for line in tuple(link("query")._idle):  # another thread may put one back
        line.connection.send_command("MGET", value, *fence, group.tenant_epoch, group.epoch)


def wrong_reply(asked: Asked) -> Outcome:
    """Shift the replies `count` times; whoever reads afterwards is never served what is another's."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    cache = caches["query"]
    for tenant in TENANTS:
        cache.set(f"tenant:{tenant}:plain:x", tenant)
        for function in FUNCTIONS.values():
            function(tenant)
    keys = value_keys()
    assert len(keys) == len(TENANTS) * (len(FUNCTIONS) + 1)
    for _ in range(asked.count):
        name, tenant = chance.choice((*FUNCTIONS, "plain")), chance.choice(TENANTS)
        ask_for_another(keys[tenant, name], tenant, name)
        outcome.count("shifts")
        for _ in range(chance.choice((1, 2, 3))):
            read_one(chance, outcome, name)
        if asked.stops_at_first and outcome.is_broken:
            break
    return outcome


def read_one(chance: random.Random, outcome: Outcome, name: str) -> None:
    """Read as one tenant and judge."""
    tenant = chance.choice(TENANTS)
    if name != "plain":
        FUNCTIONS[name].pace.slowest = 0.0
    outcome.count("reads")
    try:
        if name == "plain":
            value = caches["query"].get(f"tenant:{tenant}:plain:x")
            caches["query"].set(f"tenant:{tenant}:plain:x", tenant)
        else:
            value = FUNCTIONS[name](tenant)
    except Exception as error:
        outcome.violate("exceptions", f"{name}: {type(error).__name__}: {error}")
        return
    if value not in (tenant, None):
        outcome.violate("foreign", f"{name} of tenant {tenant} is {value!r}")
