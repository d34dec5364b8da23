"""What a cached function is worth, who drops it, and what to do about it."""

from __future__ import annotations

import inspect
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.admin import formats, naming
from cacheadmin.conf import default_timeout
from cacheadmin.overview import Advised, Judged, Writer, sentence
from cacheadmin.overview.reach import Function, rules, rules_of

__all__ = [
    "Function",
    "advice",
    "rules",
    "rules_of",
    "saved_text",
    "sentences",
    "signature_text",
    "timeout_text",
    "where_is",
]


def _thing(text: str) -> str:
    kind, _space, name = text.partition(" ")
    return naming.named(kind, name)


WRITER: Final = Writer(formats.duration, formats.percent, formats.size, formats.number, _thing)


def advice(function: Function, counted: Advised | None, dropped_by: int) -> list[str]:
    """Return what to think of, most urgent first: what its source says, then what was counted."""
    found = []
    if function.may_fall_back:
        found.append(_("Say whose its entries are: called without a tenant, it keeps one value for everybody."))
    if not dropped_by:
        found.append(_("Add a rule: it is stale until its timeout."))
    if counted is None:
        return found
    found += sentences(counted.judged)
    compute = counted.figures.mean_compute
    if compute is not None and compute >= 1 and function.warm_with is None:
        found.append(_("Slow when it misses: warm it, or give it a grace."))
    return found


def sentences(judged: Judged) -> list[str]:
    """Return in words what the counts of something advise."""
    return [sentence(each, WRITER) for each in judged.advice]


def saved_text(seconds: float | None) -> str:
    """Return seconds saved, with a sign where caching costs more than it spares."""
    return f"−{formats.duration(seconds)}" if seconds is not None and seconds < 0 else formats.duration(seconds)


def where_is(function: Function) -> str:
    """Return file and line of a function: `shop/inventory.py:41`; the module's name where there is no source."""
    made = inspect.unwrap(function.function)
    try:
        line = inspect.getsourcelines(made)[1]
    except (OSError, TypeError):
        return str(made.__module__ or "?")
    return f"{str(made.__module__ or '?').replace('.', '/')}.py:{line}"


def signature_text(function: Function) -> str:
    """Return a function's name and parameters as its source has them; views have a wrapper without `arguments`."""
    return f"{function.name.rpartition('.')[2]}{inspect.signature(function.function)}"


def timeout_text(function: Function) -> str:
    """Return for how long its entries are kept, in words."""
    seconds = function.timeout
    if seconds is not None and not isinstance(seconds, int | float):
        seconds = default_timeout(function.alias)
    return _("for ever") if seconds is None else formats.duration(seconds)


def whose_text(function: Function) -> str:
    """Return how it is known whose an entry is, in words."""
    if function.kind == "view":
        return _("the request’s tenant; without one it is not cached")
    if function.tenant_parameter:
        return _("the tenant in the argument %(name)s") % {"name": function.tenant_parameter}
    if function.shared:
        return _("shared on purpose")
    return _("the tenant active in the context, else shared")


def warmed_text(function: Function) -> str:
    """Return what warming calls it with, in words."""
    if function.warm_with is None:
        return _("nothing")
    if callable(function.warm_with):
        return _("computed for each tenant")
    count = len(list(function.warm_with))
    return ngettext("%(n)s call for each tenant", "%(n)s calls for each tenant", count) % {"n": formats.number(count)}
