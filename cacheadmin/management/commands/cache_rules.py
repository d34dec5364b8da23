"""`manage.py cache_rules`: the map from models to caches, as it stands."""

from __future__ import annotations

import textwrap
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import CommandError

from ... import rules
from ...rules import Problem, Rule
from ..base import CacheCommand, count

WIDTH: Final = 100

TENANTS: Final = {"": "the row's own", "*": "all tenants", "-": "shared data"}


class Command(CacheCommand):
    """Lists and checks. Rules are edited in the admin, which also imports and exports them, or in `cache_rules.py`."""

    help = "List the invalidation rules, those in code and those in the database."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take which, and whether to check."""
        parser.add_argument("--model", metavar="APP.MODEL", help="Only the rules in force for this model.")
        parser.add_argument(
            "--check", action="store_true", help="Say what is wrong with them; exit with 1 if anything is."
        )
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """List or check."""
        if options["check"]:
            if options["model"]:
                raise CommandError("--check looks at all rules; leave --model out.")
            self._check(options)
            return
        found = rules.for_model(options["model"]) if options["model"] else rules.all_rules()
        if options["format"] == "json":
            self.emit([_as_json(rule) for rule in found])
        elif found:
            for rule in found:
                self._tell(rule)
        else:
            whose = f" for {options['model']}" if options["model"] else ""
            self.say(f"No rules{whose}. What is cached expires by its timeout only, or is invalidated by hand.")

    def _tell(self, rule: Rule) -> None:
        self.say(f"{rule.name} ({rule.source})" + ("" if rule.enabled else ", switched off"))
        only = f", if one of these fields: {', '.join(rule.fields)}" if rule.fields else ""
        lines = [
            ("when", f"{rule.model}: {', '.join(rule.events)}{only}"),
            ("tenant", TENANTS.get(rule.tenant, f"from {rule.tenant}")),
            ("drops", ", ".join(map(str, rule.targets)) + (", then warms" if rule.warm else "")),
            ("note", rule.note),
        ]
        for head, text in lines:
            if text:
                first, rest = f"    {head:<8}", " " * 12
                self.say(
                    textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
                )
        self.say()

    def _check(self, options: dict[str, Any]) -> None:
        total, problems = len(rules.all_rules()), rules.problems()
        if options["format"] == "json":
            self.emit({"rules": total, "problems": [_problem(rule, problem) for rule, problem in problems]})
        else:
            for rule, problem in problems:
                self.warn(f"{rule.name} ({rule.source}), {problem.field}: {problem.message}")
        if problems:
            raise CommandError(f"{count(len(problems), 'problem')} in {count(total, 'rule')}.")
        if options["format"] == "text":
            self.say(f"{count(total, 'rule')}, nothing wrong.")


def _as_json(rule: Rule) -> dict[str, Any]:
    names = ("name", "model", "events", "fields", "tenant", "warm", "enabled", "note", "source")
    return {name: getattr(rule, name) for name in names} | {"targets": [target.to_json() for target in rule.targets]}


def _problem(rule: Rule, problem: Problem) -> dict[str, str]:
    return {"rule": rule.name, "source": rule.source, "field": problem.field, "message": problem.message}
