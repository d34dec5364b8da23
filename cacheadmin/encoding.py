"""From any text or argument to a part of a Redis key: short, safe, and never the same for two different ones. Pure.

The encoding is injective: whatever the parts hold (`* ? [ ] \\ : { } %`, newlines, any Unicode, 10 kB), two different
lists of parts never meet in one key, and no part acts as a glob or moves a key into another hash slot.
"""

from __future__ import annotations

import base64
import datetime as dt
import enum
import re
import uuid
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise

from .exceptions import InvalidKey

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
