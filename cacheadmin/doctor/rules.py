"""Checks of the map: rules that name what is not there, that never fire, or that have to fire for everybody."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import Any

from django.db.models import Model
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule
from cacheadmin.functions import registry
from cacheadmin.rules import Rule, RuleTarget, find_model, problems

from .facts import DAY, Facts
from .registry import Finding, check

NAMED = 10
"""Rules that one finding names."""


NEARLY = 0.85
"""Likeness (difflib) from which on a name is taken for a misspelt one; less would find pairs that are both meant."""


def _where(rule: Rule, field: str = "") -> str:
    text = _("rule %(name)s, %(field)s (%(source)s)") if field else _("rule %(name)s (%(source)s)")
    return text % {"name": rule.name, "field": field, "source": rule.source.removeprefix("code:")}


@check("E011", gettext_lazy("Each rule names models, fields and aliases that exist."), at_start=True)
def rules_are_sound(facts: Facts) -> Iterator[Finding]:
    """Report what is wrong with the rules; at start only with those in code. Cost: one query."""
    if not config().aliases:
        return  # W006 says it once; each rule would say that its alias is not managed
    try:
        found = problems(stored=not facts.at_start)
    except InvalidRule as error:
        yield Finding(
            str(error),
            where="cache_rules.py",
            why=_("No rule of code is in force until it is right."),
            fix=_("Correct the module, or take the import out that fails."),
        )
        return
    for rule, problem in found:
        yield Finding(
            problem.message,
            where=_where(rule, problem.field),
            why=_("The rule never fires, or fires too widely."),
            fix=_("Correct this field of the rule."),
        )


@check("W030", gettext_lazy("The groups that rules name are filled by somebody."))
def groups_are_known(facts: Facts) -> Iterator[Finding]:
    """
    Report groups and prefixes that no function has and nobody has read for a day.

    A name that is nearly one of those that exist is reported at once. Fragments are left out: templates are not read.
    """
    known = {(function.alias, function.group) for function in registry.values()}
    known |= facts.counted.groups if facts.counted else set()
    is_old = facts.counted is not None and 0 < facts.counted.born <= time.time() - DAY
    for rule in facts.rules:
        for target in rule.targets:
            if target.kind in ("group", "prefix") and target.name and not _exists(target, known):
                groups = sorted({group for _alias, group in known if group})
                near = difflib.get_close_matches(target.name, groups, n=1, cutoff=NEARLY)
                others = sorted({alias for alias, group in known if _fits(target, group)})
                if not (near or others or is_old):
                    continue  # the site may only just have started
                if others:
                    fix = _("Name the alias it lies in: %(aliases)s.") % {"aliases": ", ".join(others)}
                elif near:
                    fix = _("Did you mean %(name)s?") % {"name": near[0]}
                else:
                    fix = _("Take the target out, or correct its name.")
                yield Finding(
                    _("Nobody fills %(target)s.") % {"target": str(target)},
                    where=_where(rule, "targets"),
                    why=_("What was meant stays cached when the model changes."),
                    fix=fix,
                )


def _fits(target: RuleTarget, group: str) -> bool:
    return group.startswith(target.name) if target.kind == "prefix" else group == target.name


def _exists(target: RuleTarget, known: set[tuple[str, str]]) -> bool:
    return any(_fits(target, group) for alias, group in known if target.alias in (None, alias))


@check("I031", gettext_lazy("Every rule has fired within a day."))
def rules_fire(facts: Facts) -> Iterator[Finding]:
    """Report rules that did not fire in 24 hours, once the site has counted for as long."""
    counted = facts.counted
    if counted is None or not 0 < counted.born <= time.time() - DAY:
        return
    fired = {name for line in counted.lines for name in (line.name, *line.name.split(", "))}
    idle = [rule for rule in facts.rules if rule.name not in fired]
    if idle:
        names = ", ".join(rule.name for rule in idle[:NAMED]) + (" …" if len(idle) > NAMED else "")
        title = ngettext(
            "%(n)s rule has not fired in the last 24 hours.",
            "%(n)s rules have not fired in the last 24 hours.",
            len(idle),
        )
        yield Finding(
            title % {"n": len(idle)},
            where=names,
            why=_(
                "Nothing they watch was written, or it is written where the site does not see it: triggers, other "
                "programs."
            ),
            fix=_(
                "Where others write: python manage.py cache_invalidate --model app.Model, or invalidate_model_cache()."
            ),
        )


@check("I032", gettext_lazy("No watched row is deleted by the database itself."), at_start=True)
def deletes_are_seen(facts: Facts) -> Iterator[Finding]:
    """Report foreign keys with DB_CASCADE and its like (Django 6.1) of models that rules watch."""
    watched: dict[type[Model], list[str]] = {}
    for rule in facts.rules:
        try:
            watched.setdefault(find_model(rule.model), []).append(rule.name)
        except InvalidRule:
            continue  # E011 says so
    for model, names in watched.items():
        for key in model._meta.concrete_fields:
            remote: Any = key.remote_field
            operation = getattr(getattr(remote, "on_delete", None), "operation", None)
            if operation is not None:
                label, parent = f"{model._meta.label}.{key.name}", remote.model._meta.label
                yield Finding(
                    _("Rows of %(model)s are changed by the database when %(parent)s is deleted.")
                    % {"model": model._meta.label, "parent": parent},
                    where=f"{label} ({', '.join(names)})",
                    why=_(
                        "The database tells neither which rows nor whose: the rules fire for all tenants each time. "
                        "Nothing becomes stale."
                    ),
                    fix=f"{key.name} = models.ForeignKey(…, on_delete=models.{_by_django(operation)})  # {label}",
                )


def _by_django(operation: str) -> str:
    """Return the name of what does the same by Django: SET_NULL for the database's SET NULL."""
    return operation.replace(" ", "_")
