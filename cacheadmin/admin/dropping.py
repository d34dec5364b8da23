"""Which rules drop a group or an entry: read from the rules in force, without asking Redis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cacheadmin import rules
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.models import InvalidationRule

from .rule_form import model_label


@dataclass(frozen=True, slots=True)
class Dropper:
    """A rule that drops what is shown."""

    name: str
    model: str
    pk: int | None
    """Of its row, where it stands in the database."""
    is_by_tag: bool = False
    events: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    """Those it watches; empty for all."""

    @property
    def model_name(self) -> str:
        """The name of its model, for people."""
        return model_label(self.model)


def rules_for(alias: str, group: str, tags: Sequence[str] = ()) -> list[Dropper]:
    """
    Return the enabled rules that drop a group, or a tag that an entry carries.

    Cost: 1 query for the links.
    """
    try:
        found = [rule for rule in rules.all_rules() if rule.enabled]
    except CacheAdminError:  # a module of rules that cannot be imported: the doctor says so
        return []
    hits: list[tuple[rules.Rule, bool]] = []
    for rule in found:
        reach = {target.kind == "tag" for target in rule.targets if _reaches(target, alias, group, tags)}
        if reach:
            hits.append((rule, reach == {True}))
    stored = [rule.name for rule, _ in hits if rule.source == "database"]
    keys = dict(InvalidationRule.objects.filter(name__in=stored).values_list("name", "pk")) if stored else {}
    return [
        Dropper(rule.name, rule.model, keys.get(rule.name), by_tag, tuple(rule.events), rule.fields)
        for rule, by_tag in hits
    ]


def _reaches(target: rules.RuleTarget, alias: str, group: str, tags: Sequence[str]) -> bool:
    if target.alias not in (None, alias):
        return False
    if target.kind == "tenant":
        return True
    if target.kind in ("group", "fragment"):
        return target.name == group
    if target.kind == "prefix":
        return group.startswith(target.name)
    if target.kind == "tag":
        pattern = re.sub(r"\\\{[^{}]*\\\}", ".*", re.escape(target.name))
        return any(re.fullmatch(pattern, tag) for tag in tags)
    return target.kind == "key" and target.name.rpartition(":")[0] == group
