"""How values are named and opened: the types that a Django site caches, then everything else by what was written.

Works on the inert data of `values` only: a class is recognised by its dotted name. What is not of the usual form, and
any class that is not known here, is shown as the call that it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Literal
from uuid import UUID

from django.utils.translation import gettext

from .scalars import SCALARS, read_bytes
from .values import (
    Call,
    Leaf,
    Map,
    Name,
    Seq,
    Unit,
    clip,
    count,
    dotted,
    fingerprint,
    inline,
    is_scalar,
    type_names,
    write,
)

_SHORT: Final = frozenset(
    ("builtins", "datetime", "decimal", "uuid", "collections", "django.utils.safestring", "django.db.models.query")
)
_MODEL_EXTRAS: Final = ("_state", "_django_version")
"""What Django keeps in a model's row beside its fields."""
_FRAGMENT: Final = "django.utils.safestring.SafeString"
_FEW_FIELDS: Final = 1000
_SORTED_SETS: Final = 100
"""Sets of scalars up to this size are shown in order, so that two pickles of one set look alike."""


@dataclass(slots=True)
class View:
    """A value as a tree shows it: one line, or the entries of something like a list or a dict."""

    type_name: str
    text: str
    shape: Literal["leaf", "list", "dict"] = "leaf"
    plain: object = None
    """Of a leaf: what JSON shows."""
    raw: object = None
    """Of a leaf: the scalar that `text` may show only the beginning of."""
    size: int = 0
    entries: Iterable[tuple[object, object]] = ()
    is_open: bool = False


def describe(value: object) -> View:
    """
    Return what to show of a value.

    Cost: does not grow with the size of a container, but for sorting small sets; entries are made as they are taken.
    """
    if isinstance(value, Seq):
        values = _in_order(value.values) if value.kind in ("set", "frozenset") else value.values
        return _list(value.kind, values, is_open=value.is_open)
    if isinstance(value, Map):
        return _dict("dict", len(value.pairs), value.pairs, is_open=value.is_open)
    if isinstance(value, Call):
        return _describe_call(value)
    if isinstance(value, Leaf):
        return View(clip(value.type_name), value.text, plain=value.plain, raw=value.plain)
    if isinstance(value, Name):
        return View("name", clip(value.dotted), plain=clip(value.dotted))
    return View(type_names.get(type(value), clip(type(value).__name__)), write(value), plain=value, raw=value)


def _list(type_name: str, values: list[object], unit: Unit = "items", *, is_open: bool = False) -> View:
    text = count(len(values), unit, is_open=is_open)
    return View(type_name, text, "list", size=len(values), entries=enumerate(values), is_open=is_open)


def _dict(
    type_name: str, size: int, entries: Iterable[tuple[object, object]], unit: Unit = "keys", *, is_open: bool = False
) -> View:
    return View(type_name, count(size, unit, is_open=is_open), "dict", size=size, entries=entries, is_open=is_open)


def _in_order(values: list[object]) -> list[object]:
    if len(values) > _SORTED_SETS or not all(map(is_scalar, values)):
        return values
    return sorted(
        values,
        key=lambda value: (not isinstance(value, (int, float)), value if type(value) is int else 0, write(value)),
    )


def _describe_call(call: Call) -> View:
    call = _made(call)
    name = dotted(call.target)
    known = _KNOWN.get(name)
    if known is not None:
        try:
            found = known(call)
        except (ValueError, OverflowError):  # a datetime of month 77: shown as what it is, a call
            found = None
        if found is not None:
            return found if isinstance(found, View) else describe(found)
    return _describe_object(call, name)


def _made(call: Call) -> Call:
    """Return the call that copyreg's helpers stand for: how protocols 0 to 2 write `cls.__new__(cls, …)`."""
    name, args = dotted(call.target), call.args
    if name == "copyreg._reconstructor" and len(args) == 3:
        target, made = args[0], ([] if args[2] is None else args[2:])
    elif name == "copyreg.__newobj__" and args:
        target, made = args[0], args[1:]
    else:
        return call
    return Call(target, made, None, True, call.states, call.values, call.pairs, call.is_open)


def _describe_object(call: Call, name: str) -> View:
    type_name = _short(name) if name else clip(inline(call.target))
    if call.is_open and name == _FRAGMENT and len(call.args) == 1:  # a page that was cut: what makes it comes after it
        call = Call(call.target, call.args, is_new=True)
    states, others = _states(call)
    rows = _rows(type_name, states)
    if rows is not None:
        return rows
    items, pairs = call.values or [], call.pairs or []
    is_open = call.is_open or any(part.is_open for part in states)
    size = len(others) + len(items) + len(pairs) + sum(len(part.pairs) for part in states)
    entries = chain(others, enumerate(items), pairs, *(part.pairs for part in states))
    is_one = call.is_new and len(call.args) == 1 and is_scalar(call.args[0])  # a subclass of str, int, …
    if is_one and not size and not states:
        inner = describe(call.args[0])
        return View(type_name, inner.text, plain=inner.plain, raw=inner.raw)
    if call.kwargs is None and len(call.args) <= 4 and all(map(_is_short, call.args)) and (not size or not call.args):
        if size or states:
            if len(items) == size:
                return _list(type_name, items, is_open=is_open)
            unit: Unit = "parts" if others else "fields" if states else "keys"
            return _dict(type_name, size, entries, unit, is_open=is_open)
        text = f"{type_name.rpartition('.')[2]}({', '.join(inline(arg, 1) for arg in call.args)})"
        return View(type_name, text, plain=text)
    args: Iterable[tuple[object, object]] = ((f"args[{i}]", arg) for i, arg in enumerate(call.args))
    kwargs = () if call.kwargs is None else (("kwargs", call.kwargs),)
    size += len(call.args) + len(kwargs)
    return _dict(type_name, size, chain(args, kwargs, entries), "parts", is_open=is_open)


def _is_short(value: object) -> bool:
    return isinstance(value, (Name, Leaf)) or (is_scalar(value) and not fingerprint(value))


def _short(name: str) -> str:
    module, _, last = name.rpartition(".")
    return clip(last if module in _SHORT or name.startswith("cacheadmin.") else name)


def _states(call: Call) -> tuple[list[Map], list[tuple[object, object]]]:
    """Return the dicts that were put into an object (its own and that of its slots), and states of another form."""
    dicts: list[Map] = []
    others: list[tuple[object, object]] = []
    for state in call.states or ():
        parts = state.values if isinstance(state, Seq) and state.kind == "tuple" and len(state.values) == 2 else [state]
        if all(part is None or isinstance(part, Map) for part in parts):
            dicts += (part for part in parts if isinstance(part, Map))
        else:
            others.append(("state", state))
    return dicts, others


def _field(states: Iterable[Map], name: str) -> object:
    """Return the value of a field of an object with few fields, None if it has none of that name."""
    pairs = (pair for state in states for pair in islice(state.pairs, _FEW_FIELDS))
    return next((value for key, value in pairs if key == name), None)


def _rows(type_name: str, states: list[Map]) -> View | None:
    """Return the rows of a queryset, whatever its class: its query is long and says less."""
    if not isinstance(_field(states, "model"), Name) or _field(states, "_query") is None:
        return None
    rows = _field(states, "_result_cache")
    if isinstance(rows, Seq):
        return _list(type_name, rows.values, "rows", is_open=rows.is_open)
    if any(state.is_open for state in states):  # cut before its rows
        return None
    text = gettext("not evaluated")
    return View(type_name, text, plain=text)


# Known types: each takes a call and returns a view, other data to describe, or None if it is not of the usual form.


def _uuid(call: Call) -> Leaf | None:
    number = _field(_states(call)[0], "int")
    if not isinstance(number, int) or isinstance(number, bool):
        return None
    made = str(UUID(int=number))
    return Leaf("UUID", f'UUID("{made}")', made)


def _set(call: Call) -> Seq | None:
    given = call.args[0] if len(call.args) == 1 else None
    if not isinstance(given, Seq):
        return None
    return Seq("set" if dotted(call.target).endswith(".set") else "frozenset", given.values, given.is_open)


def _mapping(call: Call) -> View | None:
    """Show OrderedDict, defaultdict and Counter as the dicts they are."""
    if call.states:
        return None
    given = [part for part in call.args[:2] if isinstance(part, Map)]
    parts = [*(part.pairs for part in given), call.pairs or []]
    is_open = call.is_open or any(part.is_open for part in given)
    return _dict(_short(dotted(call.target)), sum(map(len, parts)), chain(*parts), is_open=is_open)


def _deque(call: Call) -> View | None:
    return None if call.states else _list("deque", call.values or [], is_open=call.is_open)


def _bytearray(call: Call) -> View | None:
    data = read_bytes(call.args[0]) if call.args else b""
    return None if data is None else View("bytearray", write(data), plain=data, raw=data)


def _model(call: Call) -> View | None:
    """Show a model's row: its fields, then related objects that were loaded with it."""
    label = call.args[0] if len(call.args) == 1 else None
    if isinstance(label, Seq) and len(label.values) == 2 and all(isinstance(part, str) for part in label.values):
        type_name = clip(".".join(map(str, label.values)))
    elif isinstance(label, Name):
        type_name = clip(label.dotted)
    else:
        return None
    states, others = _states(call)
    state = _field(states, "_state")
    related = _field(_states(state)[0], "fields_cache") if isinstance(state, Call) else None
    parts = [*states, related] if isinstance(related, Map) else states
    pairs = (pair for part in parts for pair in part.pairs if pair[0] not in _MODEL_EXTRAS)
    size = sum(len(part.pairs) for part in parts) - sum(_field(states, extra) is not None for extra in _MODEL_EXTRAS)
    is_open = call.is_open or any(part.is_open for part in parts)
    return _dict(type_name, size + len(others), chain(pairs, others), "fields", is_open=is_open)


_KNOWN: Final[dict[str, Callable[[Call], object]]] = {
    **SCALARS,
    "builtins.bytearray": _bytearray,
    "builtins.frozenset": _set,
    "builtins.set": _set,
    "collections.Counter": _mapping,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.deque": _deque,
    "django.db.models.base.model_unpickle": _model,
    "uuid.UUID": _uuid,
}
