"""What a cached function is worth, who drops it, and what to do about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.admin import formats
from cacheadmin.conf import cache_settings
from cacheadmin.exceptions import InvalidRule
from cacheadmin.functions import CachedFunction
from cacheadmin.overview import Figures
from cacheadmin.rules import Rule, RuleTarget, all_rules
from cacheadmin.rules.matching import expand
from cacheadmin.targets import ALL

Function = CachedFunction[..., Any]

FEW_READS: Final = 20
"""Reads a minute below which nothing is concluded from a hit ratio."""

_FIELD: Final = re.compile(r"\{[^{}]*\}")


def rules() -> tuple[Rule, ...]:
    """Return the rules in force; none where a module of rules cannot be imported, which Health says."""
    try:
        return tuple(rule for rule in all_rules() if rule.enabled)
    except InvalidRule:
        return ()


def rules_of(function: Function, known: Iterable[Rule]) -> list[Rule]:
    """Return the rules that can drop entries of a function."""
    return [rule for rule in known if any(reaches(target, function) for target in rule.targets)]


def reaches(target: RuleTarget, function: Function) -> bool:
    """Say whether a rule's target can hit entries of a function; where its tags are computed, any tag may."""
    if target.alias not in (None, function.alias):
        return False
    if target.kind == "tag":
        if callable(function.tags):
            return True
        wanted = _FIELD.sub("{}", target.name)
        return any(_FIELD.sub("{}", tag) == wanted for tag in function.tags)
    if target.kind == "key":
        return target.name.startswith(f"{function.group}:")
    for scope in expand(target, ALL, _unknown):
        if scope.kind == "tenant" or (scope.kind == "group" and scope.name == function.group):
            return True
        if scope.kind == "prefix" and function.group.startswith(scope.name):
            return True
    return False


def _unknown(path: str) -> Any:
    raise KeyError(path)


def advice(function: Function, numbers: Figures, dropped_by: int) -> list[str]:
    """Return what to think of, most urgent first."""
    found = []
    if function.may_fall_back:
        found.append(_("Say whose its entries are: called without a tenant, it keeps one value for everybody."))
    if not dropped_by:
        found.append(_("Add a rule: it is stale until its timeout."))
    reads, ratio, compute = numbers.requests or 0.0, numbers.hit_ratio, numbers.mean_compute
    if ratio is not None and reads >= FEW_READS and ratio < 0.3:
        found.append(_("Rarely hit: fewer distinct arguments, a longer timeout, or no cache."))
    if compute is not None and compute < 0.001:
        found.append(_("Computing takes no longer than reading the cache."))
    if compute is not None and compute >= 1 and function.warm_with is None:
        found.append(_("Slow when it misses: warm it, or give it a grace."))
    return found


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
        seconds = cache_settings(function.alias).get("TIMEOUT", 300)
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
