"""Compute one entry anew, from what its notes say of the call, and say what differs."""

from __future__ import annotations

import ast
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from cacheadmin.browser import EntryView
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.functions import CachedFunction, registry
from cacheadmin.tenancy import tenancy


class CannotRecompute(CacheAdminError, ValueError):
    """The call that made an entry is not known, or is not the entry's."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """That it was done."""

    seconds: float


def callable_of(view: EntryView) -> tuple[CachedFunction[Any, Any], Mapping[str, Any]]:
    """
    Return the function that made an entry and the arguments it was called with.

    Notes are not trusted: the arguments are read as literals, and must lead to this very entry.
    Raises:  CannotRecompute.
    """
    function = registry.get(view.function)
    if function is None:
        raise CannotRecompute(_("The function %(name)r is not known to this process.") % {"name": view.function})
    if function.kind != "function":
        raise CannotRecompute(_("%(name)s is computed for a request only.") % {"name": view.function})
    arguments = dict(_literals(str(view.about.get("args", ""))))
    if function.tenant_parameter is not None:
        arguments[function.tenant_parameter] = view.tenant
    try:
        with tenancy().activate(view.tenant):
            found = function.entry(**arguments)
    except (CacheAdminError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise CannotRecompute(_("Its arguments do not fit %(name)s any more.") % {"name": view.function}) from error
    if found.key != view.full_key:
        raise CannotRecompute(_("Its arguments are not kept in full."))
    return function, arguments


def can_recompute(view: EntryView) -> bool:
    """Say whether the call that made an entry is known in full."""
    try:
        callable_of(view)
    except CannotRecompute:
        return False
    return True


def recompute(view: EntryView) -> Recomputed:
    """
    Compute an entry and keep it, under its own tenant.

    Raises:  CannotRecompute; whatever the function raises; CacheAway.
    """
    function, arguments = callable_of(view)
    begun = time.perf_counter()
    with tenancy().activate(view.tenant):
        function.refresh(**arguments)
    return Recomputed(time.perf_counter() - begun)


def _literals(text: str) -> dict[str, Any]:
    """Read `branch_id=2, category='rings'` without running anything. Raises: CannotRecompute."""
    try:
        parsed = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(parsed, ast.Call) or not isinstance(parsed.func, ast.Name) or parsed.args:
            raise CannotRecompute(_("Its arguments are not kept in a form that can be read back."))
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in parsed.keywords if keyword.arg}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise CannotRecompute(_("Its arguments are not kept in a form that can be read back.")) from error
