"""Names: from tenants, groups and arguments to Redis keys and back. Pure; nobody else builds or parses them.

The encoding is injective: whatever the parts hold (`* ? [ ] \\ : { } %`, newlines, any Unicode, 10 kB), two different
lists of parts never meet in one key, and no part acts as a glob or moves a key into another hash slot.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise

from .exceptions import InvalidKey, InvalidTenant

SHARED: Final = None
"""The tenant of data that belongs to nobody in particular; in Redis its place is named `-`."""

MEMBER_BYTES: Final = 32
"""Longest name of an entry within its group; longer ones become a digest."""

NAME_BYTES: Final = 200
"""Longest escaped tenant, group or tag in a Redis key; longer ones become a digest."""

_UNSAFE = re.compile(rb"[^!\"#$&'()+,./0-9;<=>@A-Z^_`a-z|~-]")


def digest(data: bytes) -> str:
    """Return 128 bits of BLAKE2b as 23 characters that begin with `~` (Aumasson et al., BLAKE2, 2013)."""
    return "~" + base64.urlsafe_b64encode(blake2b(data, digest_size=16).digest()).rstrip(b"=").decode()


@lru_cache(maxsize=8192)
def escape(part: str) -> str:
    """Percent-escape what is special to us, to Redis' globs or to hash tags, and a leading `~`, which marks digests."""
    escaped = _UNSAFE.sub(lambda m: b"%%%02X" % m[0][0], part.encode("utf-8", "surrogatepass")).decode("ascii")
    return "%7E" + escaped[1:] if escaped.startswith("~") else escaped


def unescape(part: str) -> str:
    """Return what `escape` was given; a digest, and what no `escape` has made, as they are."""
    if part.startswith("~"):
        return part
    plain = re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), part.encode("ascii", "replace"))
    try:
        return plain.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # somebody else's key that looks like one of ours
        return part


def literal_glob(text: str) -> str:
    """Return a text as a glob that matches only itself (Redis, KEYS)."""
    return "".join("\\" + char if char in "*?[]\\" else char for char in text)


@lru_cache(maxsize=8192)
def name(part: str, limit: int = NAME_BYTES) -> str:
    """Return `part` escaped, or its digest if that is longer than `limit` bytes."""
    escaped = escape(part)
    return escaped if len(escaped) <= limit else digest(part.encode("utf-8", "surrogatepass"))


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
        f"{tenant!r:.100} is no tenant id. Give an int, a non-empty text, a UUID or a saved model instance; "
        "for data of no tenant say shared=True."
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
    """One entry: its place, group and member, and the names a read needs. Made anew for each call, so kept light."""

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
    return digest(b"\xff%d:%b" % (version, _text(rest)))  # no UTF-8 text holds the byte 0xff


# --- arguments ------------------------------------------------------------------------------------------------------

_READABLE = re.compile(r"[A-Za-z0-9_.\-/]*")


def _readable(value: Any) -> str | None:
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return str(value)
    if isinstance(value, str) and not isinstance(value, enum.Enum) and _READABLE.fullmatch(value):
        return f"'{value}'"
    return None


def canonical(value: Any) -> bytes:
    """
    Encode an argument so that different values (and 1, "1", True, None, Decimal) never meet.

    Raises:  InvalidKey for what has no stable value: model instances, requests, objects.
    """
    kind = type(value)
    if value is None:
        return b"n"
    if kind is bool:
        return b"t" if value else b"f"
    if isinstance(value, enum.Enum):
        return _framed(b"E", f"{kind.__module__}.{kind.__qualname__}".encode(), canonical(value.value))
    if isinstance(value, (list, tuple)):
        return _framed(b"l" if isinstance(value, list) else b"u", *map(canonical, value))
    if isinstance(value, (set, frozenset)):
        return _framed(b"S", *sorted(map(canonical, value)))
    if isinstance(value, MultiValueDict):
        return _framed(b"q", canonical(dict(value.lists())))
    if isinstance(value, Mapping):
        pairs = sorted((canonical(k), canonical(v)) for k, v in value.items())
        return _framed(b"m", *(part for pair in pairs for part in pair))
    for sort, mark, text in _SCALARS:
        if isinstance(value, sort):
            return _framed(mark, text(value))
    if isinstance(value, Promise):  # a lazy translation
        return canonical(str(value))
    raise InvalidKey(
        f"An argument of type {kind.__module__}.{kind.__qualname__} cannot be part of a cache key: {value!r:.100}. "
        "Pass its id, or a plain value (text, number, date, UUID, list, dict)."
    )


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


_SCALARS: tuple[tuple[type, bytes, Any], ...] = (
    (str, b"s", _text),
    (int, b"i", lambda v: str(int(v)).encode()),
    (float, b"d", lambda v: repr(float(v)).encode()),
    (complex, b"c", lambda v: repr(v).encode()),
    (bytes, b"b", bytes),
    (bytearray, b"B", bytes),
    (Decimal, b"D", lambda v: str(v).encode()),
    (dt.datetime, b"T", lambda v: f"{v.isoformat()}/{v.tzinfo}/{v.fold}".encode()),
    (dt.date, b"a", lambda v: v.isoformat().encode()),
    (dt.time, b"h", lambda v: f"{v.isoformat()}/{v.tzinfo}/{v.fold}".encode()),
    (dt.timedelta, b"e", lambda v: f"{v.days},{v.seconds},{v.microseconds}".encode()),
    (dt.tzinfo, b"z", lambda v: str(v).encode()),
    (uuid.UUID, b"U", lambda v: v.bytes),
)


def _framed(mark: bytes, *parts: bytes) -> bytes:
    return b"%b%d:%b" % (mark, len(parts), b"".join(b"%d:%b" % (len(p), p) for p in parts))


def fingerprint(args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int = MEMBER_BYTES) -> str:
    """
    Return the arguments as one part free of `:`, readable where that is at most `limit` bytes, else a digest.

    The order of keyword arguments does not matter. No arguments give `-`.
    Raises:  InvalidKey, see `canonical`.
    """
    if not args and not kwargs:
        return "-"
    parts: list[str] = []
    for key, value in (*((None, a) for a in args), *sorted(kwargs.items())):
        text = _readable(value)
        if text is None or not (key is None or key.isidentifier()):
            break
        parts.append(text if key is None else f"{key}={text}")
    else:
        readable = ",".join(parts)
        if len(readable) <= limit and readable.isascii():
            return readable
    return digest(canonical((args, dict(kwargs))))


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
