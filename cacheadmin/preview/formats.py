"""Read what is not pickle: JSON, msgpack, text, and any bytes as a hex dump.

Each reader takes the beginning of a value and shows what was complete in it; none recurses.
"""

from __future__ import annotations

import json
import math
import re
from codecs import getincrementaldecoder
from typing import Any, Final

from .compressors import optional
from .values import Call, Map, Name, Seq

MSGPACK: Any = optional("msgpack")


def decode(data: bytes, *, is_cut: bool) -> str | None:
    """Return UTF-8 as text, None if it is none or mostly control characters. The end may cut through a character."""
    try:
        text = getincrementaldecoder("utf-8")().decode(data, final=not is_cut)
    except UnicodeDecodeError:
        return None
    return text if _is_mostly(data, _CONTROLS) else None


def decode_roughly(data: bytes) -> str | None:
    """Return text in some other encoding, what is not ASCII as escapes; None if there is too much of that."""
    return data.decode("ascii", "backslashreplace") if _is_mostly(data, _CONTROLS + bytes(range(128, 256))) else None


_CONTROLS: Final = bytes(byte for byte in range(32) if byte not in b"\t\n\r") + b"\x7f"


def _is_mostly(data: bytes, others: bytes) -> bool:
    return 4 * (len(data) - len(data.translate(None, others))) <= len(data)


_PART: Final = re.compile(
    r'[ \t\n\r]*+(?:(?P<sign>[][{}:,])|(?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+")'
    r"|(?P<number>-?(?:0|[1-9]\d*+)(?:\.\d++)?+(?:[eE][-+]?\d++)?+)|(?P<word>true|false|null|NaN|-?Infinity))",
    re.DOTALL | re.ASCII,
)
_REST: Final = re.compile(r'[ \t\n\r]*+(?:"(?P<string>.*)|[-+.\w]{0,400})', re.DOTALL)
_WORDS: Final = {"true": True, "false": False, "null": None}


DEEPEST: Final = 5_000
"""Levels of JSON that are read: far more than are shown, and few enough to be read in some milliseconds."""


def read_json(text: str, *, is_cut: bool) -> object:
    """
    Read JSON without recursion, down to DEEPEST levels; keys that come twice are kept.

    Returns: the value; where the text was cut, or goes deeper, what was complete of it until then.
    Raises:  ValueError if it is not JSON, or ends early although it was not cut.
    """
    top = Seq("list", [])
    stack: list[tuple[Seq | Map, object]] = [(top, None)]
    expects, position = "value", 0
    while not (top.values and len(stack) == 1):
        match = _PART.match(text, position)
        if match is None or (is_cut and match.lastgroup == "number" and match.end() == len(text)):
            _end_json(text, position, is_cut, expects, stack, top)
            return top.values[0]
        position, kind, part = match.end(), match.lastgroup or "", match[match.lastgroup or 0]
        container, key = stack[-1]
        if expects.startswith("value") and (kind != "sign" or part in "[{"):
            value = Seq("list", []) if part == "[" else Map([]) if part == "{" else _json_scalar(kind, part)
            _attach(container, key, value)
            expects = "comma"
            if isinstance(value, (Seq, Map)):
                if len(stack) == DEEPEST:
                    return _left_open(stack, top)
                stack.append((value, None))
                expects = "value or end" if part == "[" else "key or end"
        elif expects.startswith("key") and kind == "string":
            stack[-1] = container, _json_scalar(kind, part)
            expects = "colon"
        elif expects == "colon" and part == ":":
            expects = "value"
        elif expects == "comma" and part == ",":
            expects = "value" if isinstance(container, Seq) else "key"
        elif (expects == "comma" or expects.endswith("or end")) and part == "}]"[isinstance(container, Seq)]:
            stack.pop()
            expects = "comma"
        else:
            raise ValueError(f"not JSON at character {position:,}")
    if text[position:].strip(" \t\n\r"):
        raise ValueError(f"more text after the JSON value, at character {position:,}")
    return top.values[0]


def _end_json(
    text: str, position: int, is_cut: bool, expects: str, stack: list[tuple[Seq | Map, object]], top: Seq
) -> None:
    rest = _REST.fullmatch(text, position)
    if rest is not None and is_cut and rest["string"] is not None and expects.startswith("value"):
        _attach(*stack[-1], _cut_string(rest["string"]) + "…")
    if rest is None or not is_cut or not top.values:
        raise ValueError(f"not JSON at character {position:,}")
    _left_open(stack, top)


def _left_open(stack: list[tuple[Seq | Map, object]], top: Seq) -> object:
    for container, _ in stack[1:]:
        container.is_open = True
    return top.values[0]


def _attach(container: Seq | Map, key: object, value: object) -> None:
    if isinstance(container, Seq):
        container.values.append(value)
    else:
        container.pairs.append((key, value))


def _cut_string(body: str) -> str:
    for end in range(len(body), max(len(body) - 12, -1), -1):  # the cut may go through an escape, or a pair of them
        try:
            return str(json.loads(f'"{body[:end]}"', strict=False))
        except ValueError:
            continue
    raise ValueError("not a JSON string")


def _json_scalar(kind: str, part: str) -> object:
    if kind == "string":
        return json.loads(part, strict=False)
    if part in _WORDS:
        return _WORDS[part]
    try:
        return int(part)
    except ValueError:  # a fraction, or more digits than Python converts
        number = float(part)
        return number if math.isfinite(number) or kind == "word" else part


def looks_like_msgpack(data: bytes) -> bool:
    """Say whether this begins like a dict, list or text in msgpack; half of all bytes that are no text do."""
    return bool(data) and (0x80 <= data[0] <= 0xBF or 0xD9 <= data[0] <= 0xDF)


def read_msgpack(data: bytes, *, is_cut: bool) -> object:
    """
    Read msgpack without recursion. Needs the package `msgpack`.

    Returns: the value; where the bytes were cut, what was complete of it.
    Raises:  ValueError if it is not msgpack, ends early although it was not cut, or is followed by more.
    """
    unpacker = MSGPACK.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape", **_MSGPACK_LIMITS)
    unpacker.feed(data)
    top = Seq("list", [])
    stack: list[list[Any]] = [[top, None, 1]]
    """Container, key that waits for its value, and how many keys or values are still to come."""
    while stack:
        container, key, missing = stack[-1]
        if not missing:
            stack.pop()
            continue
        stack[-1][2] -= 1
        try:
            value, size = _msgpack_next(unpacker, data)
        except MSGPACK.OutOfData:
            if not is_cut:
                raise ValueError("msgpack ends early") from None
            for entry in stack[1:]:
                entry[0].is_open = True
            break
        except (ValueError, MSGPACK.exceptions.UnpackException) as error:
            raise ValueError(f"not msgpack: {error}") from error
        if isinstance(container, Map) and missing % 2 == 0:
            stack[-1][1] = value
        else:
            _attach(container, key, value)
        if size is not None:
            stack.append([value, None, size])
    if not stack and unpacker.tell() != len(data):
        raise ValueError("more bytes after the msgpack value")
    if not top.values:
        raise ValueError("msgpack without a value")
    return top.values[0]


_MSGPACK_LIMITS: Final = dict.fromkeys(
    ("max_buffer_size", "max_str_len", "max_bin_len", "max_array_len", "max_map_len", "max_ext_len"), 2**31 - 1
)


def _msgpack_next(unpacker: Any, data: bytes) -> tuple[object, int | None]:
    """Return the next scalar, or an empty container and how many values (of a map: keys and values) go into it."""
    position = unpacker.tell()
    code = data[position] if position < len(data) else 0
    if 0x90 <= code <= 0x9F or code in (0xDC, 0xDD):
        return Seq("list", []), unpacker.read_array_header()
    if 0x80 <= code <= 0x8F or code in (0xDE, 0xDF):
        return Map([]), 2 * unpacker.read_map_header()
    value = unpacker.unpack()
    if isinstance(value, MSGPACK.Timestamp):
        return Call(Name("msgpack", "Timestamp"), [value.seconds, value.nanoseconds]), None
    if isinstance(value, MSGPACK.ExtType):
        return Call(Name("msgpack", "ExtType"), [value.code, value.data]), None
    return value, None


def hexdump(data: bytes) -> str:
    """Write bytes as lines of 16: offset, hex, and ASCII with dots."""
    shown = data.translate(_DOTS).decode("ascii")
    return "\n".join(f"{i:08x}  {data[i : i + 16].hex(' '):<47}  {shown[i : i + 16]}" for i in range(0, len(data), 16))


_DOTS: Final = bytes(byte if 32 <= byte < 127 else 46 for byte in range(256))
