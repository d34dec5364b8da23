"""Tenants with hostile ids: no two of them ever meet in a key, a scope or a pattern."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable

from django.core.cache import caches

from cacheadmin import (
    cache_tenant_query,
    encoding,
    get_tenant_cache_key,
    invalidate_cache,
    invalidate_tenant_cache,
    keys,
    memory,
)
from cacheadmin.keys import Entry, Place, tenant_text
from cacheadmin.store import store
from cacheadmin.targets import from_pattern, glob, matches, of_key
from faults import Asked, Outcome

PREFIX, ALIAS = "site:1", "query"
SAMPLED = 100
"""One pair in so many is tried on a real server too, in every way to invalidate."""

PIECES = (
    *("a", "B", "1", "12", "0", "-", "%", "%2D", "%41", "%3A", ":", "::", "{", "}", "{a}", "}:t", "}:v:", "tenant:"),
    *("*", "?", "[a]", "[^a]", "\\", "\\*", "/", " ", "\t", "\n", "\0", "~", "~AAAAAAAAAAAAAAAAAAAAAA", "é", "e\u0301"),
    *(
        "ß",
        "SS",
        "İ",
        "ı",
        "K",
        "\u212a",
        "１",
        "²",
        "\u200b",
        "\u00a0",
        "\u202e",
        "\ufeff",
        "\ud800",
        "𝒳",
        "😀",
        "-:-",
    ),
    *("g:x", "a:b", "null", "None", "True", "x" * 199, "y" * 10_000),
)
GROUPS = ("g", "G", "g:x", "x", "g*", "g ", "tenants", "%67", "~g", "{g}")


def hostile(chance: random.Random) -> str:
    """Return an id that somebody might choose to be mistaken for another."""
    return "".join(chance.choices(PIECES, k=chance.choice((1, 1, 2, 2, 3, 4))))


CHANGES: tuple[Callable[[random.Random, str], str], ...] = (
    lambda chance, one: one.swapcase(),
    lambda chance, one: one.casefold(),
    lambda chance, one: one.strip() or one + " ",
    lambda chance, one: one + chance.choice((" ", "\n", "\0", "\u200b", "\u00a0", ":", "*", "%", "~", "}", "-")),
    lambda chance, one: chance.choice((" ", "0", "+", ":", "*", "~", "{", "%")) + one,
    lambda chance, one: encoding.escape(one),
    lambda chance, one: encoding.unescape(one) if one.isascii() and "%" in one else one + one,
    lambda chance, one: keys.logical_tenant(one),
    lambda chance, one: encoding.name(one),
    lambda chance, one: unicodedata.normalize("NFC", one),
    lambda chance, one: unicodedata.normalize("NFD", one),
    lambda chance, one: unicodedata.normalize("NFKC", one),
    lambda chance, one: one.replace(":", "%3A", 1),
    lambda chance, one: one[:-1],
    lambda chance, one: one + chance.choice(PIECES),
    lambda chance, one: f"{one}:{chance.choice(GROUPS)}",
    lambda chance, one: one.rpartition(":")[0],
    lambda chance, one: "*" * min(len(one), 9),
    lambda chance, one: "?" * min(len(one), 9),
    lambda chance, one: hostile(chance),
)


def pairs(chance: random.Random, count: int) -> list[tuple[str, str]]:
    """Return `count` pairs of different ids."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        one = hostile(chance)
        other = chance.choice(CHANGES)(chance, one)
        if other and other != one:
            found.append((one, other))
    return found


def tenants(asked: Asked) -> Outcome:
    """Try `count` pairs on the names of their keys, and some of them on a server."""
    outcome, chance = Outcome(), random.Random(asked.seed)
    integers(outcome)
    left = asked.count
    while left > 0:
        for number, (one, other) in enumerate(pairs(chance, min(left, 1000))):
            group, rest = chance.choice(GROUPS), chance.choice(GROUPS)
            outcome.count("pairs")
            try:
                by_name(outcome, one, other, group, rest)
                if number % SAMPLED == 0:
                    on_a_server(outcome, one, other, group)
            except Exception as error:
                outcome.violate("exceptions", f"{one!r:.80} {other!r:.80}: {type(error).__name__}: {error}")
            if asked.stops_at_first and outcome.is_broken:
                return outcome
        left -= 1000
    return outcome


def integers(outcome: Outcome) -> None:
    """A number and its digits are one tenant; what is no id is refused."""
    for number in (0, 1, 12, -1, 10**30):
        if tenant_text(number) != tenant_text(str(number)):
            outcome.violate("met", f"{number} is not {number!r}")
    for nobody in (None, True, False, "", 1.0, b"1", [], object()):
        try:
            tenant_text(nobody)
        except ValueError:
            continue
        outcome.violate("met", f"{nobody!r} counts as a tenant")


def names(tenant: str, group: str, rest: str) -> tuple[str, ...]:
    """Return every Redis key that a value of this tenant touches."""
    place = Place(PREFIX, ALIAS, tenant)
    of = place.group(group)
    entry = Entry(of, keys.member(rest))
    return (
        *(place.base, place.tenant_epoch(), place.registry(), place.tag_epoch(group)),
        *(of.epoch, of.fence, of.index, entry.key, entry.lease),
    )


def by_name(outcome: Outcome, one: str, other: str, group: str, rest: str) -> None:
    """Compare the names of two tenants: in Redis, and as callers write them."""
    mine, theirs = names(one, group, rest), names(other, group, rest)
    if not set(mine).isdisjoint(theirs) or any(name.startswith(mine[0]) for name in theirs):
        outcome.violate("met", f"{one!r:.80} and {other!r:.80} share a key or a beginning")
    slots = {name[name.index("{") : name.index("}")] for name in mine}
    if len(slots) != 1:
        outcome.violate("met", f"{one!r:.80} is spread over {len(slots)} slots")
    found = keys.parse(mine[-2], PREFIX, ALIAS)
    if found is None or (found.tenant != one and not found.is_digest):
        outcome.violate("met", f"{one!r:.80} is read back as {found!r:.200}")
    # ("a", "b:c") and ("a:b", "c") are different as well
    key, shifted = keys.logical(one, group, rest), keys.logical(f"{one}:{group}", rest, rest)
    if keys.split(key) != keys.Scoped(one, group, rest.rpartition(":")[2]) and ":" not in rest:
        outcome.violate("met", f"{key!r:.100} is taken apart as {keys.split(key)!r:.200}")
    if key in (shifted, keys.logical(other, group, rest)):
        outcome.violate("met", f"{one!r:.80} and {other!r:.80} share a key of callers")
    if of_key(key).tenant != one:
        outcome.violate("met", f"{key!r:.100} means {of_key(key)}")
    pattern = f"tenant:{keys.logical_tenant(one)}:*"
    if len(pattern) > 200:
        return
    hits = [
        matches(target.name, keys.logical(other, group, rest))
        for target in from_pattern(pattern)
        if target.kind == "pattern"
    ]
    named = {target.tenant for target in from_pattern(pattern)}
    is_glob = any(char in one for char in "*?[]\\")
    if not is_glob and (named != {one} or any(hits)):
        outcome.violate("met", f"{pattern!r:.100} means {named!r:.100}")
    literal = "".join("\\" + char if char in "*?[]\\" else char for char in keys.logical(one, group, rest))
    if glob(literal).fullmatch(keys.logical(other, group, rest)) or not glob(literal).fullmatch(key):
        outcome.violate("met", f"{literal!r:.100} as a glob is not itself alone")


# --- on a server ----------------------------------------------------------------------------------------------------


@cache_tenant_query(timeout=600, key_prefix="whose", tags=["tag"])
def whose(tenant_id: str) -> str:
    return tenant_id


WAYS: dict[str, Callable[[str, str], object]] = {
    "tenant": lambda tenant, group: invalidate_tenant_cache(tenant),
    "prefix": lambda tenant, group: (invalidate_tenant_cache(tenant, "who"), invalidate_tenant_cache(tenant, group)),
    "group": lambda tenant, group: (whose.invalidate_all(tenant), invalidate_tenant_cache(tenant, group)),
    "entry": lambda tenant, group: (
        whose.invalidate(tenant),
        invalidate_cache(escaped(get_tenant_cache_key(tenant, group, 1))),
    ),
    "delete": lambda tenant, group: (
        whose.invalidate(tenant),
        caches[ALIAS].delete(get_tenant_cache_key(tenant, group, 1)),
    ),
}


def escaped(key: str) -> str:
    """Return a key as a pattern that means it alone; short ones only, long patterns are refused."""
    literal = "".join("\\" + char if char in "*?[]\\" else char for char in key)
    return literal if len(literal) <= 200 else key


def on_a_server(outcome: Outcome, one: str, other: str, group: str) -> None:
    """Fill values of both, invalidate one in every way, and look at both."""
    cache = caches[ALIAS]
    outcome.count("pairs_on_a_server")
    for way, invalidate in WAYS.items():
        if way in ("entry", "delete") and len(one) > 150:
            continue
        memory.clear()
        for tenant in (one, other):
            key = get_tenant_cache_key(tenant, group, 1)
            cache.set(key, tenant)
            if whose(tenant) != tenant or whose(tenant) != tenant or cache.get(key) != tenant:
                outcome.violate("foreign", f"{tenant!r:.80} is served what is another's")
        invalidate(one, group)
        left = (whose.peek(one), cache.get(get_tenant_cache_key(one, group, 1)))
        if one in left:
            outcome.violate("survived", f"{way} of {one!r:.80} left {left!r:.80}")
        left = (whose.peek(other), cache.get(get_tenant_cache_key(other, group, 1)))
        if left != (other, other):
            outcome.violate("wiped", f"{way} of {one!r:.80} reached {other!r:.80}: {left!r:.80}")
    store(ALIAS).link.call(("FLUSHDB",))
