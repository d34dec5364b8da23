"""Show a cached value without running it: what it is, a tree of it, JSON, text and hex. Pure; never unpickles.

    bytes -> compressors -> pickles, formats -> inert data (values) -> named and opened (scalars, views) -> tree (nodes)

A value comes from a server that others may write to, so each step bounds its time, memory and depth, and none raises.
Not here: reading Redis, taking off the header (`envelope`), asking who may see it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from django.template.defaultfilters import filesizeformat
from django.utils.translation import gettext, ngettext

from . import compressors, formats, pickles
from .nodes import HIDDEN, Difference, Mask, Node, Preview, build, diff, outline, to_json
from .values import Call, Seq, count, dotted, number, visible_lines
from .views import describe

__all__ = ["HIDDEN", "MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Difference", "Mask", "Node", "Preview", "diff", "inspect"]

MAX_BYTES: Final = 64 * 1024
MAX_NODES: Final = 200
MAX_DEPTH: Final = 8

_INTEGER: Final = re.compile(rb"-?[0-9]{1,40}")
_SHORTEST_UNSIGNED: Final = 3
"""Opcodes that a pickle of protocol 0 or 1 must have to be told from text: "N." is a pickle too."""
_SHORTEST_CUT: Final = 8
_NAMES_SHOWN: Final = 5
_HERD_MARKER: Final = "django_redis.client.herd.Marker"


@dataclass(frozen=True, slots=True)
class _Content:
    """What a reader made of the bytes. `text` is set if the bytes are text, whatever else they are."""

    serializer: str
    value: object = None
    text: str | None = None
    warnings: tuple[str, ...] = ()
    is_read: bool = True
    """False if there is no value, only bytes."""
    is_whole: bool = True
    """False if reading ended before the bytes did, or the other way round."""


def inspect(
    payload: bytes,
    *,
    total_bytes: int | None = None,
    mask: Mask | None = None,
    max_bytes: int = MAX_BYTES,
    max_nodes: int = MAX_NODES,
    max_depth: int = MAX_DEPTH,
) -> Preview:
    """
    Say what a stored value is and show the beginning of it, without importing or calling anything it names.

    `payload` is the value or its first bytes, `total_bytes` the size of all of it (default: that of `payload`). Only
    `max_bytes` are looked at, stored and decompressed. A `mask` also withholds whatever it could be seen through in:
    the hex dump and the raw text of a value that has fields, and everything of one that cannot be read.
    Cost:    below 0.3 s for 64 KB of anything, mostly a few ms.
    Returns: a preview, whatever the bytes are. Never raises.
    """
    stored_bytes = max(total_bytes or 0, len(payload))
    stored = bytes(payload[:max_bytes])
    is_cut = stored_bytes > len(stored)
    try:
        expanded = compressors.expand(stored, is_cut=is_cut, max_bytes=max_bytes)
        content = _read(expanded) if expanded.is_readable else _Content("bytes", is_read=False)
        limits = {"max_nodes": max_nodes, "max_depth": max_depth, "max_chars": 2 * max_bytes}
        return _show(expanded, content, stored_bytes, mask, limits)
    except Exception as error:  # noqa: BLE001 - the page must come up whatever we overlooked; the tests let nothing get here
        warning = gettext("could not be read (%(error)s)") % {"error": type(error).__name__}
        hexdump = formats.hexdump(stored) if mask is None else ""
        kind = count(stored_bytes, "bytes")
        return Preview(kind, "bytes", "", stored_bytes, None, None, None, None, hexdump, (warning,), is_cut)


def _read(expanded: compressors.Expanded) -> _Content:
    """Find out what made these bytes, the most certain sign first, and read them."""
    data, is_cut = expanded.data, expanded.is_cut
    if not is_cut and _INTEGER.fullmatch(data):
        return _Content("integer", int(data), data.decode())
    if data[:1] == b"\x80" and b"\x00" <= data[1:2] <= b"\x05":
        return _pickle(pickles.walk(data, is_cut=is_cut), len(data))
    text = formats.decode(data, is_cut=is_cut) if data else None
    found = _json(text, is_cut) if text is not None else _msgpack(data, is_cut)
    if found is not None and found.is_read:
        return found
    # Protocols 0 and 1 have no sign of their own, so they must read to the end.
    walk = pickles.walk(data, is_cut=is_cut)
    is_pickle = not walk.problem and walk.consumed == len(data) and walk.opcodes >= _SHORTEST_UNSIGNED
    is_beginning = walk.is_cut and walk.opcodes >= _SHORTEST_CUT and 2 * walk.consumed > len(data)
    if is_pickle or (is_beginning and walk.root is not None):
        return _pickle(walk, len(data))
    text = text if text is not None or not data else formats.decode_roughly(data)
    warnings = found.warnings if found is not None else ()
    return _Content("bytes" if text is None else "text", text, text, warnings, is_read=text is not None)


def _json(text: str, is_cut: bool) -> _Content | None:
    try:
        return _Content("json", formats.read_json(text, is_cut=is_cut), text, is_whole=not is_cut)
    except ValueError:
        return None


def _msgpack(data: bytes, is_cut: bool) -> _Content | None:
    if not formats.looks_like_msgpack(data):
        return None
    if formats.MSGPACK is None:
        return _Content(
            "bytes", warnings=(gettext("may be msgpack: install the package msgpack to see"),), is_read=False
        )
    try:
        return _Content("msgpack", formats.read_msgpack(data, is_cut=is_cut), is_whole=not is_cut)
    except ValueError:
        return None


def _pickle(walk: pickles.Walk, size: int) -> _Content:
    warnings = []
    if walk.problem and not walk.is_cut:
        warnings.append(gettext("damaged pickle: %(why)s") % {"why": walk.problem})
    elif not walk.problem and walk.consumed < size:
        left = count(size - walk.consumed, "bytes")
        warnings.append(gettext("more after the pickle: %(size)s") % {"size": left})
    names = walk.risky_names
    text = gettext("names %(name)s: loading it could run code")
    warnings += (text % {"name": name} for name in names[:_NAMES_SHOWN])
    if len(names) > _NAMES_SHOWN:
        more = len(names) - _NAMES_SHOWN
        warnings.append(ngettext("and %(n)s more such name", "and %(n)s more such names", more) % {"n": number(more)})
    value, is_read = walk.root, not walk.problem or walk.root is not None
    if isinstance(value, Seq) and value.kind == "tuple" and len(value.values) == 3:
        marker = value.values[0]
        if isinstance(marker, Call) and dotted(marker.target) == _HERD_MARKER:
            value = value.values[1]
            warnings.append(gettext("stored by django-redis’ HerdClient, shown without its wrapper"))
    is_whole = not walk.problem and walk.consumed == size
    return _Content(f"pickle {walk.protocol}", value, None, tuple(warnings), is_read, is_whole)


def _show(
    expanded: compressors.Expanded, content: _Content, stored_bytes: int, mask: Mask | None, limits: dict[str, int]
) -> Preview:
    data, value = expanded.data, content.value
    tree = build(value, mask=mask, **limits) if content.is_read else None
    root = tree.root if tree is not None else None
    raw = describe(value).raw if content.is_read else None
    text = content.text if content.text is not None else raw if isinstance(raw, str) else None
    if text is None and isinstance(raw, bytes):
        text = formats.decode(raw, is_cut=False)
    # A mask knows fields. Where it may hide some, nothing may show the same bytes in another way.
    is_open = mask is None or (
        root is not None and not (root.is_masked or root.size) and content.is_whole and not _may_have_fields(content)
    )
    shown = visible_lines(text) if text is not None and is_open else outline(root) if root is not None else None
    if shown is not None and not is_open and _may_have_fields(content):
        root = tree = shown = None
    warnings = [*expanded.warnings, *content.warnings]
    if expanded.is_cut and not expanded.is_damaged:
        warnings.append(gettext("truncated at %(size)s") % {"size": filesizeformat(len(data))})
    if tree is not None:
        failed = gettext("the mask failed (%(error)s), so what it was asked about is hidden")
        warnings += (failed % {"error": error} for error in tree.mask_errors)
    if not is_open:
        warnings.append(gettext("shown without its bytes, for a mask is set"))
    return Preview(
        kind=_kind(content, root, raw, len(data), is_cut=expanded.is_cut),
        serializer=content.serializer,
        compressor=expanded.compressor,
        stored_bytes=stored_bytes,
        memory_bytes=expanded.memory_bytes if expanded.compressor else stored_bytes,
        root=root,
        text=shown,
        json=to_json(tree.plain) if tree is not None and content.serializer != "text" else None,
        hexdump=formats.hexdump(data) if is_open else "",
        warnings=tuple(warnings),
        is_truncated=expanded.is_cut,
    )


def _may_have_fields(content: _Content) -> bool:
    """Say whether text that no reader knew looks like a structure: JSON with a mistake would show what a mask hides."""
    return content.serializer == "text" and content.text is not None and content.text.lstrip()[:1] in ("{", "[")


def _kind(content: _Content, root: Node | None, raw: object, size: int, *, is_cut: bool) -> str:
    if root is None or not content.is_read:
        return count(size, "bytes", is_open=is_cut) if size else gettext("empty")
    if root.is_masked:
        return str(HIDDEN)
    type_name = gettext("text") if content.serializer == "text" else root.type_name
    if isinstance(raw, (str, bytes)):
        length = count(len(raw), "characters" if isinstance(raw, str) else "bytes", is_open=is_cut)
        return f"{type_name}, {length}"
    return type_name if root.is_leaf else f"{type_name}, {root.text}"
