"""Do the work of some places of one alias: one UNLINK each, many in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.core.cache import caches

from cacheadmin import reclaiming
from cacheadmin.invalidation.planning import Work
from cacheadmin.keys import Entry, Place, logical, member, split_own
from cacheadmin.stats import recorder
from cacheadmin.store import Drop, Store

PLACES_AT_ONCE: Final = 500
"""Places whose UNLINKs share a round trip."""


def drop(of_alias: Store, works: dict[str | None, Work], by: str = "") -> tuple[int, int, bytes]:
    """
    Invalidate in some places of one alias, for the rule called `by`, if it is one.

    Returns: places, keys deleted by name, the server's identity.
    """
    items, keys, identity = list(works.items()), 0, b""
    for start in range(0, len(items), PLACES_AT_ONCE):
        batch = [(of_alias.place(tenant), work) for tenant, work in items[start : start + PLACES_AT_ONCE]]
        drops: list[Drop] = []
        for (place, work), known in zip(batch, _registries(of_alias, batch), strict=True):
            if known:
                work.groups |= {g for g in known if any(g.startswith(p) for p in work.prefixes)}
            with of_alias.acting(place.tenant):
                outside = _drop_outside(place, work)
            recorder.dropped(of_alias.alias, "", place.tenant, outside)
            keys += outside
            # Where the registry is lost it cannot be known what a prefix names.
            drops.append(_scopes(place, work, widen=bool(work.prefixes) and known is None))
        identity = of_alias.drop_many(drops) or identity
        for drop in drops:
            if drop.tenant or drop.groups:
                reclaiming.note(drop.place, None if drop.tenant else sorted(drop.groups), by)
    return len(items), keys, identity


def _registries(of_alias: Store, batch: Sequence[tuple[Place, Work]]) -> list[list[str] | None]:
    if not any(work.prefixes and not work.tenant for _, work in batch):
        return [[] for _ in batch]
    return of_alias.groups_many([place for place, _ in batch])


def _scopes(place: Place, work: Work, *, widen: bool) -> Drop:
    entries = []
    for key in work.keys:
        group, rest = split_own(key)
        if group or place.tenant is not None:
            entries.append(Entry(place.group(group), member(rest)))
    return Drop(place, work.tenant or widen, work.groups, work.tags, entries)


def _drop_outside(place: Place, work: Work) -> int:
    """Delete plain keys that the protocol does not know: those without a group, and exact keys of stock backends."""
    cache, gone = caches[place.alias], 0
    for key in work.keys:
        if not keeps_scopes(place.alias):
            gone += bool(cache.delete(logical(place.tenant, "", key)))
        elif place.tenant is None and not split_own(key)[0]:
            gone += bool(cache.delete(key))
    return gone


def keeps_scopes(alias: str) -> bool:
    """Say whether plain keys of an alias obey scopes: its backend is ours."""
    return bool(getattr(caches[alias], "keeps_scopes", False))
