"""What a payload says, as inert data: containers, names and calls that nobody makes. Also how a scalar is written.

The readers (`pickles`, `formats`) build these; `nodes` turns them into a tree. Nothing here knows a format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from django.utils.formats import number_format
from django.utils.translation import gettext, ngettext

TEXT_LIMIT: Final = 120
"""Characters of a scalar that a node shows; the rest is counted."""
NAME_LIMIT: Final = 200
DIGIT_BITS: Final = 4096
"""Python refuses to write longer integers in decimals (4,300 digits), and nobody would read them."""
NO_BREAK: Final = "\u00a0\u202f"
"""The spaces before a colon or a unit, and within numbers; they print as a space does."""


@dataclass(slots=True, eq=False)
class Seq:
    """A list, tuple, set or frozenset. `is_open`: the bytes ended before it did."""

    kind: Literal["list", "tuple", "set", "frozenset"]
    values: list[object]
    is_open: bool = False


@dataclass(slots=True, eq=False)
class Map:
    """A dict as it was written: pairs, for a key may be unhashable here and may come twice."""

    pairs: list[tuple[object, object]]
    is_open: bool = False


@dataclass(slots=True, eq=False)
class Name:
    """The name of a class or function. It is text and never looked up."""

    module: str
    qualname: str

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.qualname}" if self.module else self.qualname


@dataclass(slots=True, eq=False)
class Call:
    """
    What loading would call: `target(*args, **kwargs)`, then what it would put into the result.

    `is_new` says that the class itself was named (`cls.__new__`), not a function. `args` may be shared with other
    calls and must not be changed. Absent parts are None, since a hostile payload can hold tens of thousands of these.
    """

    target: object
    args: list[object]
    kwargs: object = None
    is_new: bool = False
    states: list[object] | None = None
    values: list[object] | None = None
    pairs: list[tuple[object, object]] | None = None
    is_open: bool = False


@dataclass(slots=True, eq=False)
class Leaf:
    """A value with a type of its own that is written on one line; `plain` is what JSON shows."""

    type_name: str
    text: str
    plain: object


type_names: Final = {type(None): "NoneType", bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes"}


def dotted(value: object) -> str:
    """Return the dotted name that a call's target or a class goes by, "" if it is no plain name."""
    return value.dotted if isinstance(value, Name) else ""


def escaped(text: str) -> str:
    """Return `text` with all that does not print (controls, bidi overrides, half surrogates) as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible(text: str) -> str:
    """Return a sentence as `escaped` does, its no-break spaces kept: in some languages every other sentence has one."""
    return escaped(text) if text.isascii() else "".join(c if c in NO_BREAK else escaped(c) for c in text)


def visible_lines(text: str) -> str:
    """Return `text` as `escaped` does, its line breaks and tabs kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def clip(text: str, limit: int = NAME_LIMIT) -> str:
    """Return at most `limit` characters of `text`, what does not print as escapes."""
    return escaped(text) if len(text) <= limit else escaped(text[:limit]) + "…"


def write(value: object) -> str:
    """Write a scalar on one line, as Python would, with double quotes and at most `TEXT_LIMIT` characters of it."""
    if isinstance(value, str):
        body = value[:TEXT_LIMIT].replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped(body)}"' + _rest(len(value), "characters")
    if isinstance(value, bytes):
        body = repr(b'"' + value[:TEXT_LIMIT])[3:-1].replace('"', '\\"').replace("\\'", "'")
        return f'b"{body}"' + _rest(len(value), "bytes")
    if isinstance(value, int) and value.bit_length() > DIGIT_BITS:
        return gettext("an integer of %(n)s bits") % {"n": number(value.bit_length())}
    text = repr(value)
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}… {count(len(text), 'digits')}"


def _rest(size: int, unit: Unit) -> str:
    return f"… {count(size, unit)}" if size > TEXT_LIMIT else ""


def fingerprint(value: object) -> str:
    """Return a digest of a scalar that `write` does not show whole, so that two of them can be compared; else ""."""
    if isinstance(value, (str, bytes)):
        if len(value) <= TEXT_LIMIT:
            return ""
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    elif isinstance(value, int) and value.bit_length() > TEXT_LIMIT:
        data = value.to_bytes(value.bit_length() // 8 + 1, signed=True)
    else:
        return ""
    return blake2b(data, digest_size=16).hexdigest()


def is_scalar(value: object) -> bool:
    """Say whether `write` can write it."""
    return type(value) in type_names


Unit = Literal["bytes", "characters", "digits", "fields", "items", "keys", "parts", "rows"]

_COUNTED: Final[dict[Unit, Callable[[int], str]]] = {
    "bytes": lambda n: ngettext("%(n)s byte", "%(n)s bytes", n),
    "characters": lambda n: ngettext("%(n)s character", "%(n)s characters", n),
    "digits": lambda n: ngettext("%(n)s digit", "%(n)s digits", n),
    "fields": lambda n: ngettext("%(n)s field", "%(n)s fields", n),
    "items": lambda n: ngettext("%(n)s item", "%(n)s items", n),
    "keys": lambda n: ngettext("%(n)s key", "%(n)s keys", n),
    "parts": lambda n: ngettext("%(n)s part", "%(n)s parts", n),
    "rows": lambda n: ngettext("%(n)s row", "%(n)s rows", n),
}


def number(value: int) -> str:
    """Write a number with the language's grouping."""
    return number_format(value, force_grouping=True)


def count(size: int, unit: Unit, *, is_open: bool = False) -> str:
    """Write "41 items", "1 key", "at least 3 rows", in the reader's language."""
    text = _COUNTED[unit](size) % {"n": number(size)}
    return gettext("at least %(count)s") % {"count": text} if is_open else text


def left_out(size: int) -> str:
    """Write "… 39 more"."""
    return gettext("… %(more)s more") % {"more": number(size)}


def inline(value: object, depth: int = 3) -> str:
    """Write any value on one short line; what is nested deeper than `depth`, or long, becomes "…"."""
    if is_scalar(value):
        return write(value)
    if isinstance(value, Name):
        return clip(value.dotted)
    if isinstance(value, Leaf):
        return value.text
    if isinstance(value, Call):
        if depth == 0:
            return "…"
        return f"{inline(value.target, depth - 1)}({', '.join(_inline_some(value.args, depth - 1))})"
    if isinstance(value, Seq) and value.kind == "tuple" and depth:
        return f"({', '.join(_inline_some(value.values, depth - 1))})"
    return "{…}" if isinstance(value, Map) else "[…]"


def _inline_some(values: list[object], depth: int) -> Iterator[str]:
    yield from (inline(value, depth) for value in values[:4])
    if len(values) > 4:
        yield "…"
