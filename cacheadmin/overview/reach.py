"""Which rules can drop entries of which cached function. Reads the rules in force, never Redis."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from ..exceptions import InvalidRule
from ..functions import CachedFunction
from ..rules import Rule, RuleTarget, all_rules
from ..rules.matching import expand
from ..targets import ALL

Function = CachedFunction[..., Any]

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
