"""Stored bytes that somebody changed: garbage, half a value, another type, a pickle that runs code."""

from __future__ import annotations

import pickle
import random
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import cache_tenant_query, memory
from cacheadmin.connections import Link
from cacheadmin.envelope import parse
from cacheadmin.store import store
from faults import Asked, Outcome

TENANT = 7
ITEMS = range(8)
PLAIN = f"tenant:{TENANT}:plain:x"


class Executed:
    """What a crafted pickle did."""

    times = 0


def execute() -> str:
    """Be run by whoever unpickles."""
    Executed.times += 1
    return "executed"


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return execute, ()


def right(item: int) -> dict[str, Any]:
    """Return what item holds."""
    return {"item": item, "text": "x" * item, "numbers": list(range(item))}


@cache_tenant_query(timeout=600, key_prefix="one")
def one(tenant_id: int, item: int) -> dict[str, Any]:
    return right(item)


@cache_tenant_query(timeout=600, key_prefix="graceful", grace=600, tags=["tag"])
def graceful(tenant_id: int, item: int) -> dict[str, Any]:
    return right(item)


def tampered(asked: Asked) -> Outcome:
    """Change a stored value `count` times, and read it."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    with override_settings(CACHEADMIN=settings.CACHEADMIN | {"SIGN_VALUES": True}):
        link = store("query").link
        for _ in range(asked.count):
            function, item = chance.choice((one, graceful, None)), chance.choice(ITEMS)
            key = fill(function, item)
            damage(chance, link, key)
            look(outcome, function, item)
            link.call(("DEL", key))
            if asked.stops_at_first and outcome.is_broken:
                break
    outcome.figures["executed"] = Executed.times
    return outcome


def fill(function: Any, item: int) -> bytes:
    """Have one value stored. Returns: its Redis key."""
    memory.clear()
    if function is None:
        caches["query"].set(PLAIN, right(item))
    else:
        function(TENANT, item)
    of = store("query").place(str(TENANT))
    name = of.group("plain").values + "x" if function is None else function.entry(TENANT, item).key
    return name.encode()


def damage(chance: random.Random, link: Link, key: bytes) -> None:
    """Change what is stored under a key, its header left alone or not."""
    stored: bytes = link.call(("GET", key)).values[0]
    header = parse(stored)
    assert header is not None, key
    start = header.payload_start
    at = chance.randrange(len(stored))
    bomb = pickle.dumps(Bomb())
    kind = chance.choice(("flip", "cut", "bomb", "unsigned bomb", "junk", "other type", "of another"))
    if kind == "other type":
        link.call(("DEL", key), chance.choice((("HSET", key, "a", "b"), ("LPUSH", key, "a"), ("SADD", key, "a"))))
        return
    changed = {
        "flip": stored[:at] + bytes([stored[at] ^ chance.randrange(1, 256)]) + stored[at + 1 :],
        "cut": stored[:at],
        "bomb": stored[: start + 16] + bomb,
        "unsigned bomb": stored[:1] + b"\1" + stored[2:start] + bomb,
        "junk": chance.randbytes(chance.randrange(200)),
        "of another": stored[:2] + chance.randbytes(16) + stored[18:],
    }[kind]
    link.call(("SET", key, changed, "KEEPTTL"))


def look(outcome: Outcome, function: Any, item: int) -> None:
    """Read, and judge."""
    outcome.count("reads")
    before = Executed.times
    memory.clear()
    try:
        value = caches["query"].get(PLAIN) if function is None else function(TENANT, item)
    except Exception as error:
        outcome.violate("exceptions", f"{type(error).__name__}: {error}")
        return
    if Executed.times > before:
        outcome.violate("executed", "A stored pickle was run.")
    if value != right(item) and value is not None:
        outcome.violate("altered", f"{value!r:.100} is served")
