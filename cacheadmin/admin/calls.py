"""A call as people write or paste it: `inventory_list(branch_id=2, category='rings')`. It is read, never run."""

from __future__ import annotations

import ast
import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from cacheadmin.exceptions import CacheAdminError
from cacheadmin.functions import CachedFunction, registry
from cacheadmin.keys import tenant_text
from cacheadmin.tenancy import tenancy

LONGEST: Final = 500
"""Characters of a call; Python's parser is never given more."""

MADE: Final[Mapping[str, Callable[..., Any]]] = {
    "Decimal": Decimal,
    "UUID": uuid.UUID,
    "date": dt.date,
    "datetime": dt.datetime,
    "datetime.date": dt.date,
    "datetime.datetime": dt.datetime,
    "datetime.timedelta": dt.timedelta,
    "timedelta": dt.timedelta,
}
"""What may stand in a call besides literals: what arguments often are, as Python writes them."""


@dataclass(frozen=True, slots=True)
class Call:
    """What somebody typed."""

    name: str
    """Of the function, or of its group; empty where only arguments were given."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """The entry that a call means."""

    function: CachedFunction[Any, Any]
    member: str
    """Its name within its group, in Redis: the same for every tenant."""
    tenant: str | None
    is_of_any: bool
    """Whether the call leaves open whose entry it is."""


class _UnreadableError(ValueError):
    """Something that is no literal."""


def parse(text: str) -> Call | None:
    """Return the call, or the keyword arguments, that a text writes; None for any other text."""
    if len(text) > LONGEST or not {"(", "="} & set(text):
        return None
    for source, is_named in ((text, True), (f"_({text})", False)):
        try:
            node = ast.parse(source.strip(), mode="eval").body
            if not isinstance(node, ast.Call) or any(keyword.arg is None for keyword in node.keywords):
                continue
            name = _dotted(node.func) if is_named else ""
            args = tuple(map(_value, node.args))
            kwargs = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        # A hostile text: unbalanced, nested too deep for the parser, numbers too long, dates that are none.
        except (SyntaxError, ValueError, ArithmeticError, TypeError, MemoryError, RecursionError):
            continue
        if is_named or (kwargs and not args):
            return Call(name, args, kwargs)
    return None


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise _UnreadableError("no name")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        make = MADE.get(_dotted(node.func))
        if make is None or any(keyword.arg is None for keyword in node.keywords):
            raise _UnreadableError("a call of something else")
        given = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        return make(*map(ast.literal_eval, node.args), **given)
    return ast.literal_eval(node)


def entries_of(call: Call) -> Iterator[Found]:
    """Yield the entry that a call means, of each function that can be called so."""
    for function in list(registry.values()):
        is_named = call.name in (function.name, function.group) or function.name.endswith(f".{call.name}")
        if not isinstance(function, CachedFunction) or (call.name and not is_named):
            continue
        found = _entry_of(function, call)
        if found is not None:
            yield found


def _entry_of(function: CachedFunction[Any, Any], call: Call) -> Found | None:
    parameter, kwargs = function.tenant_parameter, dict(call.kwargs)
    arguments = function.arguments
    try:
        try:
            bound = arguments.bind(call.args, kwargs)
            is_of_any = parameter is None and function.may_fall_back and tenancy().has_tenants
            tenant = tenant_text(bound[parameter]) if parameter is not None else None
        except TypeError:
            if parameter is None or parameter in kwargs:
                return None
            # As the console shows them, arguments are without the tenant; its value is no part of the name.
            positions = [name for name in arguments.names if name != parameter]
            kwargs = {**dict(zip(positions, call.args, strict=False)), **kwargs, parameter: "-"}
            bound, tenant, is_of_any = arguments.bind((), kwargs), None, True
        return Found(function, arguments.name(bound, parameter), tenant, is_of_any)
    except (TypeError, CacheAdminError):
        return None
