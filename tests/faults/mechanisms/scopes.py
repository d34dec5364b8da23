"""What keeps the bookkeeping of scopes whole: epochs, registries, names, the order of deletes."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from cacheadmin import encoding, invalidation, keys, reading
from cacheadmin.store import redis as redis_store
from cacheadmin.store.base import Drop
from cacheadmin.store.redis import RedisStore

from .registry import edit_script, mechanism


@mechanism
def random_epochs() -> None:
    """Epochs are counters that begin at 1 again where they were lost; tokens stay random."""

    def urandom(length: int) -> bytes:
        one = bytes(7) + b"\1"
        return (one * 2 + os.urandom(8) + one * (length // 8))[:length] if length >= 24 else os.urandom(length)

    redis_store.os = SimpleNamespace(urandom=urandom)


@mechanism
def epoch_of_the_tenant() -> None:
    """A group's epoch is not bound to the tenant's epoch under which it was born."""
    bound = " or string.sub(group, 1, 8) ~= tenant"
    edit_script("open", bound, "")
    stand = redis_store._stand

    def unbound(epochs: tuple[bytes | None, ...]) -> bool:
        tenant, group, *tags = epochs
        return tenant is not None and group is not None and stand((tenant, tenant + group[8:], *tags))

    redis_store._stand = unbound


@mechanism
def widening() -> None:
    """A prefix whose registry is lost reaches the groups that are known: none."""
    groups_many = RedisStore.groups_many
    RedisStore.groups_many = lambda self, places: [known or [] for known in groups_many(self, places)]


@mechanism
def marker() -> None:
    """A registry that was lost is begun anew as if it had always been there."""
    edit_script(
        "open",
        "if standing() then redis.call('HSET', KEYS[3], 'g:' .. ARGV[4], '') end",
        "redis.call('HSET', KEYS[3], 'e', tenant, 'g:' .. ARGV[4], '')",
    )


@mechanism
def two_passes() -> None:
    """A pattern deletes the values that it finds, and leaves leases and fences."""
    invalidation.looking._leases_and_fences = lambda fits, ours: []


@mechanism
def order_of_places() -> None:
    """What is computed of others is invalidated before them."""
    rank = invalidation.planning.rank
    invalidation.planning.rank = lambda alias: -rank(alias)


@mechanism
def one_unlink() -> None:
    """Each group of a place is dropped by a command of its own."""
    drop_many = RedisStore.drop_many

    def one_by_one(self: RedisStore, drops: Any) -> bytes:
        identity = b""
        for drop in drops:
            for group in sorted(drop.groups, reverse=True):
                identity = drop_many(self, [Drop(drop.place, groups={group})])
            identity = drop_many(self, [drop._replace(groups=())]) or identity
        return identity

    RedisStore.drop_many = one_by_one


@mechanism
def nesting_rank() -> None:
    """A value may be made of any other cached value."""
    reading.nesting.may_be_part = lambda place: True


@mechanism
def header_check_in_reclaim() -> None:
    """Reclaiming frees whatever it finds noted, without a look at the headers."""
    edit_script("reclaim", "if header == standing then", "if false then")


@mechanism
def escaping() -> None:
    """Tenants and groups stand in keys as they are."""
    encoding.escape = keys.escape = lambda part: part


@mechanism
def digests_of_long_names() -> None:
    """A name that is too long is cut."""
    encoding.name = keys.name = lambda part, limit=encoding.NAME_BYTES: encoding.escape(part)[:limit]
