"""Names: from tenants, groups and arguments to Redis keys and back. Pure; nobody else builds or parses them."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from .encoding import MEMBER_BYTES, digest, escape, fingerprint, name, unescape
from .exceptions import InvalidKey, InvalidTenant

SHARED: Final = None
"""The tenant of data that belongs to nobody in particular; in Redis its place is named `-`."""

_id_of_row: Callable[[Any], Any] = attrgetter("pk")


def read_tenant_rows(by: Callable[[Any], Any]) -> None:
    """Set who says which id a model instance stands for as a tenant; `tenancy` does, which knows the tenants' model."""
    global _id_of_row
    _id_of_row = by


def tenant_text(tenant: Any) -> str:
    """
    Return the id of a tenant as text: 1 and "1" are the same tenant, and so is the tenant's own saved model instance.

    Raises:  InvalidTenant for None, a bool, an empty text, a row of another model or anything that is no id.
    """
    if isinstance(tenant, str) and not isinstance(tenant, enum.Enum):
        if tenant:
            return str(tenant)
    elif isinstance(tenant, (int, uuid.UUID)) and not isinstance(tenant, (bool, enum.Enum)):
        return str(tenant)
    elif getattr(tenant, "_meta", None) is not None and getattr(tenant, "pk", None) is not None:
        return tenant_text(_id_of_row(tenant))
    raise InvalidTenant(
        f"{tenant!r:.100} is no tenant id. Give an int, a non-empty text, a UUID or a saved model instance. "
        "Data of no tenant is for cache_query_result(shared=True), get_cache_key() and invalidate_cache()."
    )


# --- places ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """One (alias, tenant): its keys share a hash tag, hence one cluster slot, where one command or script is atomic."""

    prefix: str
    """What the alias' KEY_FUNCTION makes of an empty key, for example `jewelry_shop:1`."""
    alias: str
    tenant: str | None
    """Text id, or None for shared data."""

    @property
    def base(self) -> str:
        """The beginning of every key of this place: `<prefix>:{<alias>:<tenant>}:`."""
        return place_base(self.prefix, self.alias, self.tenant)

    def tenant_epoch(self) -> str:
        """STRING of 8 random bytes."""
        return self.base + "t"

    def registry(self) -> str:
        """HASH: `e` -> the tenant epoch it was born with; `g:<group>` -> "" for every group born since."""
        return self.base + "r"

    def tag_epoch(self, tag: str) -> str:
        """STRING of 8 random bytes."""
        return f"{self.base}x:{name(tag)}"

    def group(self, group: str) -> Group:
        """The names of one group of this place."""
        return group_names(self.prefix, self.alias, self.tenant, group)


@dataclass(frozen=True, slots=True)
class Group:
    """The Redis keys of one group; `values + member` is an entry, `leases + member` its lease."""

    place: Place
    name: str
    tenant_epoch: str
    epoch: str
    """STRING: the 8 bytes of the tenant epoch it was born under + 8 random."""
    fence: str
    """STRING of 8 random bytes, the token of every unleased fill of the group."""
    index: str
    """ZSET: member -> expiry in ms by Redis' clock."""
    registry: str
    values: str
    leases: str


@lru_cache(maxsize=8192)
def place_base(prefix: str, alias: str, tenant: str | None) -> str:
    """Build the beginning of every key of a place. A tenant that is called `-` does not meet shared data."""
    who = "-" if tenant is None else "%2D" if tenant == "-" else name(tenant)
    safe = prefix.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
    return f"{safe}:{{{escape(alias)}:{who}}}:"


@lru_cache(maxsize=8192)
def group_names(prefix: str, alias: str, tenant: str | None, group: str) -> Group:
    """Build the names of a group once; a hit then only joins two texts."""
    place = Place(prefix, alias, tenant)
    base, part = place.base, name(group)
    return Group(
        place=place,
        name=group,
        tenant_epoch=base + "t",
        epoch=f"{base}g:{part}",
        fence=f"{base}f:{part}",
        index=f"{base}i:{part}",
        registry=base + "r",
        values=f"{base}v:{part}:",
        leases=f"{base}l:{part}:",
    )


class Entry:
    """One entry: its place, group and member, and the names a read needs. Many are made, so kept light."""

    __slots__ = ("group", "key", "member", "tags")

    def __init__(self, group: Group, member: str, tags: tuple[str, ...] = ()) -> None:
        self.group = group
        self.member = member
        self.tags = tags
        """The tags' own names, in declared order."""
        self.key = group.values + member
        """The Redis key of the value."""

    @property
    def lease(self) -> str:
        """STRING: the token of whoever computes it, and the epochs it was granted under."""
        return self.group.leases + self.member

    def epochs(self) -> tuple[str, ...]:
        """The Redis keys of the epochs it stands on: tenant, group, tags."""
        group = self.group
        if not self.tags:
            return (group.tenant_epoch, group.epoch)
        return (group.tenant_epoch, group.epoch, *map(group.place.tag_epoch, self.tags))

    def __repr__(self) -> str:
        return f"Entry({self.key!r})"


def alias_base(prefix: str, alias: str) -> str:
    """Return what every key of every place of an alias begins with, up to the tenant."""
    return place_base(prefix, alias, "x").rsplit("x}:", 1)[0]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A Redis key of ours, taken apart."""

    kind: str
    """`v` value, `l` lease, `f` fence, `t` `g` `x` epochs of tenant, group, tag, `r` registry, `i` index."""
    tenant: str | None
    group: str
    """Group or tag; a digest (`~…`) where the name was too long."""
    member: str
    is_digest: bool = False
    """Whether tenant, group or member is a digest, so that the caller's own text is not known from the name."""


def parse(full_key: str, prefix: str, alias: str) -> Parsed | None:
    """Take a Redis key of an alias apart; None if it is not one of ours."""
    start = alias_base(prefix, alias)
    if not full_key.startswith(start):
        return None
    who, brace, rest = full_key[len(start) :].partition("}:")
    kind, *parts = rest.split(":")
    if not brace or kind not in ("v", "l", "f", "t", "g", "x", "r", "i") or len(parts) > 2:
        return None
    group, member = [*parts, "", ""][:2]
    is_digest = any(part.startswith("~") for part in (who, group, member))  # `escape` leaves no other `~` in front
    return Parsed(kind, None if who == "-" else unescape(who), unescape(group), member, is_digest)


# --- logical keys ---------------------------------------------------------------------------------------------------

_PLAIN = re.compile(r"(?:tenant:(?P<tenant>[^:]+):)?(?P<group>.+):(?P<rest>[^:]*)", re.DOTALL)
# With an empty group in the middle it belongs to the tenant all the same, hence the second colon.
_TENANT_ONLY = re.compile(r"tenant:(?P<tenant>[^:]+):(?P<rest>:?[^:]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Scoped:
    """A key that callers use, `[tenant:<id>:]<group>:<rest>`, taken apart."""

    tenant: str | None
    group: str
    """Empty for `tenant:<id>:<rest>`: it goes with its tenant only."""
    rest: str


@lru_cache(maxsize=8192)
def split(key: str) -> Scoped | None:
    """
    Take a caller's key apart; the group ends at the last colon.

    Returns: None for a key without a colon: it has no scope.
    Raises:  InvalidKey if the tenant in it is not written as `get_tenant_cache_key` writes it: it could be two.
    """
    if match := _TENANT_ONLY.fullmatch(key):
        return Scoped(_tenant_of(match["tenant"], key), "", match["rest"])
    if not (match := _PLAIN.fullmatch(key)):
        return None
    tenant = match["tenant"]
    return Scoped(None if tenant is None else _tenant_of(tenant, key), match["group"], match["rest"])


def _tenant_of(part: str, key: str) -> str:
    tenant = part.replace("%3A", ":").replace("%25", "%")
    if logical_tenant(tenant) != part:
        raise InvalidKey(f"The tenant in the key {key!r:.200} is ambiguous. Build it with get_tenant_cache_key().")
    return tenant


def split_own(key: str) -> tuple[str, str]:
    """Return group and rest of a key from which `tenant:<id>:` has been taken; the group is empty if it has none."""
    group, _, rest = key.rpartition(":")
    return (group, rest) if group else ("", key)


def logical(tenant: str | None, group: str, rest: str) -> str:
    """Return the key that callers use for an entry; `split` takes it apart again."""
    key = f"{group}:{rest}" if group else rest
    return key if tenant is None else f"tenant:{logical_tenant(tenant)}:{key}"


def logical_tenant(tenant: str) -> str:
    """Return a tenant id as it stands in a caller's key: only `%` and `:` are escaped."""
    return tenant.replace("%", "%25").replace(":", "%3A")


def member(rest: str, version: int | None = None) -> str:
    """
    Return the name of an entry within its group, at most 32 bytes: readable if it fits, else a digest.

    `version` is Django's cache version if it is another than the alias' own; the scopes then cover it all the same.
    """
    if version is None:
        return name(rest, MEMBER_BYTES)
    return digest(b"\xff%d:%b" % (version, rest.encode("utf-8", "surrogatepass")))  # no UTF-8 text holds the byte 0xff


def check_group(prefix: str) -> str:
    """Return a group's name if it can be one. Raises: InvalidKey if it is empty, no text, or begins with `tenant:`."""
    if not isinstance(prefix, str) or not prefix:
        raise InvalidKey(f"A group is a non-empty text, not {prefix!r}.")
    if prefix.startswith("tenant:"):
        raise InvalidKey(
            f"The prefix {prefix!r} begins with 'tenant:'. Use get_tenant_cache_key(tenant_id, prefix, …) instead."
        )
    return prefix


def get_cache_key(prefix: str, *args: Any, **kwargs: Any) -> str:
    """
    Return `<prefix>:<one part free of colons>` for shared data.

    The same arguments give the same key whatever the order of keywords; different ones, or the same of another type
    (1, "1", True), give different keys.
    Raises:  InvalidKey.
    """
    return logical(SHARED, check_group(prefix), fingerprint(args, kwargs))


def get_tenant_cache_key(tenant_id: Any, prefix: str, *args: Any, **kwargs: Any) -> str:
    """
    Return `tenant:<id>:<prefix>:<one part free of colons>`; with a cacheadmin backend it is dropped with its tenant.

    Raises:  InvalidKey; InvalidTenant.
    """
    return logical(tenant_text(tenant_id), check_group(prefix), fingerprint(args, kwargs))
