"""Single values that Python pickles as a call, read from its arguments: dates, decimals, bytes of old protocols.

They are recognised by name, and built here, from checked numbers, with Python's own classes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final

from .values import Call, Leaf, clip, dotted, inline, write


def read_bytes(value: object) -> bytes | None:
    """Return bytes, also as protocols 0 to 2 write them: `_codecs.encode(text, "latin1")`, or `bytes()`."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):  # Python 2 pickled dates so, and protocol 0 short ones
        return value.encode("latin-1") if value.isascii() else None
    if isinstance(value, Call) and len(value.args) == 2 and dotted(value.target) == "_codecs.encode":
        text = value.args[0]
        return text.encode("latin-1") if isinstance(text, str) and value.args[1] == "latin1" else None
    return None


def _zone(value: object) -> tuple[dt.tzinfo | None, str]:
    """Return a fixed offset as a tzinfo, or what to write behind the time for any other zone."""
    if not isinstance(value, Call):
        return None, "" if value is None else f" {inline(value)}"
    name = dotted(value.target)
    if name == "datetime.timezone" and value.args and isinstance(offset := _span(value.args[0]), dt.timedelta):
        return dt.timezone(offset), ""
    if name == "pytz._UTC":
        return dt.UTC, ""
    key = value.args[0] if value.args else None
    is_named = name in ("zoneinfo.ZoneInfo._unpickle", "zoneinfo.ZoneInfo", "pytz._p")
    return None, f" {clip(key) if isinstance(key, str) and is_named else inline(value)}"


def _span(value: object) -> dt.timedelta | None:
    if isinstance(value, Call) and dotted(value.target) == "datetime.timedelta" and len(value.args) == 3:
        days, seconds, micros = value.args
        if isinstance(days, int) and isinstance(seconds, int) and isinstance(micros, int):
            return dt.timedelta(days, seconds, micros)
    return None


def _timedelta(call: Call) -> Leaf | None:
    span = _span(call)
    return None if span is None else Leaf("timedelta", f"timedelta({span})", str(span))


def _datetime(call: Call) -> Leaf | None:
    data = read_bytes(call.args[0]) if 1 <= len(call.args) <= 2 else None
    if data is None or len(data) != 10:
        return None
    zone, name = _zone(call.args[1]) if len(call.args) == 2 else (None, "")
    date = int.from_bytes(data[:2]), data[2] & 0x7F, data[3]
    moment = dt.datetime(*date, data[4], data[5], data[6], int.from_bytes(data[7:]), zone, fold=data[2] >> 7)
    return Leaf("datetime", f"datetime({moment.isoformat(' ')}{name})", moment.isoformat() + name)


def _date(call: Call) -> Leaf | None:
    data = read_bytes(call.args[0]) if len(call.args) == 1 else None
    if data is None or len(data) != 4:
        return None
    day = dt.date(int.from_bytes(data[:2]), data[2], data[3])
    return Leaf("date", f"date({day})", str(day))


def _time(call: Call) -> Leaf | None:
    data = read_bytes(call.args[0]) if 1 <= len(call.args) <= 2 else None
    if data is None or len(data) != 6:
        return None
    zone, name = _zone(call.args[1]) if len(call.args) == 2 else (None, "")
    clock = dt.time(data[0] & 0x7F, data[1], data[2], int.from_bytes(data[3:]), zone, fold=data[0] >> 7)
    return Leaf("time", f"time({clock}{name})", f"{clock}{name}")


def _decimal(call: Call) -> Leaf | None:
    if len(call.args) != 1 or not isinstance(call.args[0], str):
        return None
    return Leaf("Decimal", f"Decimal({write(call.args[0])})", call.args[0])


SCALARS: Final[dict[str, Callable[[Call], object]]] = {
    "_codecs.encode": read_bytes,
    "datetime.date": _date,
    "datetime.datetime": _datetime,
    "datetime.time": _time,
    "datetime.timedelta": _timedelta,
    "decimal.Decimal": _decimal,
}
"""By name: what reads a call into a leaf or bytes, or returns None if its arguments are not the usual ones."""
