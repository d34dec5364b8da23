"""From a call's arguments to what tells entries apart: bound to their names, defaults left out. Pure."""

from __future__ import annotations

import base64
import enum
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from types import FunctionType
from typing import Any, Final

from .encoding import MEMBER_BYTES, canonical, fingerprint
from .exceptions import InvalidKey

LABEL_CHARS: Final = 6
_READABLE_BYTES: Final = MEMBER_BYTES - LABEL_CHARS - 1

_TOLD_BY_EQUALITY: Final = frozenset({type(None), bool, int, str})
"""Types of which equal values are the same value. Of others they are not: `(1,) == (True,)`, `0.0 == -0.0`."""


_CONSTANT: Final = frozenset({type(None), bool, int, float, str, bytes})


def name_of(function: Callable[..., Any]) -> str:
    """Return `module.name` of a function. Raises: TypeError if it has none, like a `functools.partial`."""
    try:
        return f"{function.__module__}.{function.__qualname__}"
    except AttributeError:
        raise TypeError(
            f"{function!r:.100} has no name that its entries could be stored under. Decorate a function made with "
            "`def` that calls it."
        ) from None


def _enclosed(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return the constants that a function has from the one it was made in: a factory makes many of one name."""
    code, found = getattr(function, "__code__", None), []
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False):
        try:
            found.append((name, _constant(cell.cell_contents)))
        except ValueError:  # empty as yet, or what may be another thing in another process: a list, an object
            continue
    return found


def _constant(value: Any) -> Any:
    """Return what stands for a value that is the same in every process. Raises: ValueError."""
    kind = type(value)  # not isinstance: it would have a lazy object made
    if kind in _CONSTANT:
        return value
    if kind is tuple:
        return tuple(map(_constant, value))
    if issubclass(kind, enum.Enum):
        return value
    if issubclass(kind, type) or kind is FunctionType:
        return ("named", name_of(value))
    raise ValueError(kind)


class Arguments:
    """
    The parameters of one function. `f(1)`, `f(1, branch_id=None)` and `f(tenant_id=1)` are the same call.

    An argument equal to its default is left out of an entry's name; the defaults are part of `label` instead, so that
    changing one in the code makes the entries miss.
    """

    def __init__(self, function: Callable[..., Any], version: Any = None) -> None:
        self.signature = inspect.signature(function)
        parameters = self.signature.parameters.values()
        self.names = tuple(p.name for p in parameters)
        self._known = frozenset(self.names)
        kinds = {p.kind for p in parameters}
        self._is_plain = not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        self.positional = tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
        self._only_positional = frozenset(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._left_out: dict[str, Any] = {}
        self._encoded: dict[str, bytes] = {}
        identity = [name_of(function), version]
        for name, default in self._defaults.items():
            try:
                encoded = canonical(default)
            except InvalidKey:
                continue  # an object as default: the argument then always stands in the name
            identity.append((name, encoded.hex()))
            self._left_out[name] = default
            if type(default) not in _TOLD_BY_EQUALITY:
                self._encoded[name] = encoded
        identity += _enclosed(function)
        made = blake2b(canonical(identity), digest_size=16).digest()
        self.label = base64.urlsafe_b64encode(made).decode()[:LABEL_CHARS]
        """Six characters that tell this function's entries from those of others in the same group."""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return name -> value of every parameter. Raises: TypeError as the function itself would."""
        if self._is_plain and len(args) <= len(self.positional):
            bound = {**self._defaults, **dict(zip(self.positional, args, strict=False)), **kwargs}
            # As many names as parameters, none twice, none unknown: then these are they.
            twice = kwargs and (
                not kwargs.keys().isdisjoint(self.positional[: len(args)])
                or not kwargs.keys().isdisjoint(self._only_positional)
            )
            if len(bound) == len(self.names) and not twice and kwargs.keys() <= self._known:
                return bound
        filled = self.signature.bind(*args, **kwargs)
        filled.apply_defaults()
        return dict(filled.arguments)

    def given(self, bound: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what `bound` was made of, as another callable of the same parameters is called."""
        if self._is_plain and not self._only_positional:
            return (), dict(bound)
        call = inspect.BoundArguments(self.signature, OrderedDict(bound))
        return call.args, call.kwargs

    def name(self, bound: Mapping[str, Any], without: str | None = None) -> str:
        """
        Return an entry's name within its group: the label, then the arguments, readable if short.

        Raises:  InvalidKey for an argument that has no stable value.
        """
        return f"{self.label}!{fingerprint((), self._telling(bound, without), _READABLE_BYTES)}"

    def shown(self, bound: Mapping[str, Any], without: str | None = None) -> str:
        """Return the arguments for people: `branch_id=2, category='rings'`."""
        return ", ".join(f"{name}={value!r:.100}" for name, value in self._telling(bound, without).items())

    def _telling(self, bound: Mapping[str, Any], without: str | None) -> dict[str, Any]:
        left_out = self._left_out
        return {
            name: value
            for name, value in bound.items()
            if name != without
            and not (
                name in left_out
                and type(value) is type(left_out[name])
                and value == left_out[name]
                and (name not in self._encoded or canonical(value) == self._encoded[name])
            )
        }
