"""What is wrong with a rule, said so that it can be put right: the value, what is allowed, the nearest match."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

from django.apps import apps
from django.db.models import Model
from django.utils.translation import gettext as _

from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule, InvalidTarget
from cacheadmin.rules.paths import column, names_of, relations_of, resolve
from cacheadmin.rules.rule import (
    ALL_TENANTS,
    EVENTS,
    KINDS,
    PLACEHOLDER,
    SHARED_DATA,
    TENANTS,
    Problem,
    Rule,
    RuleTarget,
)
from cacheadmin.targets import from_pattern

NAME_CHARS: Final = 100
"""Characters of a rule's name: those of its column. The counters tell no longer ones apart by name."""


def find_model(name: str | type[Model]) -> type[Model]:
    """
    Return the model that `InventoryItem`, `shop.InventoryItem` (case ignored) or a class means.

    Raises:  InvalidRule if there is none, or more than one; it names those that come near.
    """
    if isinstance(name, type):
        return name
    if not isinstance(name, str) or not name:
        raise InvalidRule(f"A model is a class or a label such as 'shop.InventoryItem', not {name!r:.100}.")
    wanted = name.casefold()
    labels = {model._meta.label: model for model in apps.get_models(include_auto_created=True)}
    found = [label for label in labels if label.casefold() == wanted]
    if not found and "." not in name:
        found = [label for label in labels if label.split(".")[1].casefold() == wanted]
    if len(found) == 1:
        return labels[found[0]]
    if found:
        text = _("There are several models %(name)r: %(found)s. Say which.")
        raise InvalidRule(text % {"name": name, "found": ", ".join(sorted(found))})
    written = [label for label, model in labels.items() if not model._meta.auto_created]
    near = _nearest(name, written, lambda label: label if "." in name else label.split(".")[1])
    hint = _(" Did you mean %(name)s?") % {"name": near} if near else _(" Write app_label.Model.")
    raise InvalidRule(_("There is no model %(name)r.") % {"name": name} + hint)


def _nearest(name: str, labels: Iterable[str], part: object = None) -> str:
    text = part if callable(part) else str
    by_text = {text(label).casefold(): label for label in labels}
    near = difflib.get_close_matches(name.casefold(), by_text, n=3)[: 1 if "." in name else 3]
    return _(" or ").join(by_text[match] for match in near)


def validate(rule: Rule, taken: Iterable[str] = ()) -> list[Problem]:
    """Return what is wrong with a rule, nothing if all is well. `taken` are the other names of the same source."""
    problems = []
    if rule.name in set(taken):
        problems.append(Problem("name", _("There is another rule %(name)r. Names are unique.") % {"name": rule.name}))
    if len(rule.name) > NAME_CHARS:
        problems.append(
            Problem(
                "name",
                _("%(name)r… has %(n)s characters; at most %(most)s are counted.")
                % {"name": rule.name[:40], "n": len(rule.name), "most": NAME_CHARS},
            )
        )
    try:
        model = find_model(rule.model)
    except InvalidRule as error:
        problems.append(Problem("model", str(error)))
        model = None
    problems += _wrong_events(rule)
    if not rule.targets:
        problems.append(
            Problem("targets", _("A rule without targets drops nothing. Add one, such as 'prefix:inventory'."))
        )
    if model is not None:
        problems += _wrong_fields(rule, model)
        problems += _wrong_tenant(rule, model)
    for target in rule.targets:
        problems += [Problem("targets", f"{target}: {message}") for message in _wrong_target(target, model)]
    return problems


def _choose(value: str, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    near = difflib.get_close_matches(value, allowed, n=1)
    if near:
        return _(" Did you mean %(name)s?") % {"name": near[0]}
    return _(" Allowed are %(names)s.") % {"names": ", ".join(allowed)}


def _wrong_events(rule: Rule) -> Iterator[Problem]:
    if not rule.events:
        yield Problem("events", _("A rule without events never fires.") + _choose("", EVENTS))
    for event in rule.events:
        if event not in EVENTS:
            yield Problem("events", _("%(event)r is no event.") % {"event": event} + _choose(event, EVENTS))


def _wrong_fields(rule: Rule, model: type[Model]) -> Iterator[Problem]:
    relations = relations_of(model)
    for name in rule.fields:
        if name in relations:
            if "m2m" not in rule.events:
                text = _("%(name)r is a many-to-many relation: add the event m2m to watch it.")
                yield Problem("fields", text % {"name": name})
        elif column(model, name) is None:
            hint = _choose(name, [*names_of(model), *relations])
            text = _("Field %(name)s does not exist.") % {"name": f"{model._meta.label}.{name}"}
            yield Problem("fields", text + hint)


def _wrong_tenant(rule: Rule, model: type[Model]) -> Iterator[Problem]:
    if rule.tenant in ("", ALL_TENANTS, SHARED_DATA):
        return
    try:
        resolve(model, rule.tenant)
    except InvalidRule as error:
        yield Problem("tenant", f"{error} " + _("Besides a path, '*' means all tenants and '-' shared data."))


def _wrong_target(target: RuleTarget, model: type[Model] | None) -> Iterator[str]:
    if target.kind not in KINDS:
        yield _("%(kind)r is no kind of target.") % {"kind": target.kind} + _choose(target.kind, KINDS)
        return
    if target.tenant not in TENANTS:
        text = _("%(tenant)r does not say whose entries.") % {"tenant": target.tenant}
        yield text + _choose(target.tenant, TENANTS)
    if target.alias is not None and target.alias not in config().aliases:
        text = _("the cache alias %(alias)r is not managed.") % {"alias": target.alias}
        yield text + _choose(target.alias, config().aliases)
    if target.kind == "tenant":
        if target.name:
            yield _("a target of kind tenant means everything of it and has no name, not %(name)r.") % {
                "name": target.name
            }
        return
    if not target.name:
        yield _("a target of kind %(kind)s needs a name.") % {"kind": target.kind}
        return
    if target.name.startswith("tenant:") and target.kind in ("group", "prefix", "key"):
        yield _("a name does not begin with 'tenant:'; whose entries is said by `tenant`.")
    if target.kind == "pattern":
        try:
            from_pattern(target.name)
        except (InvalidTarget, ValueError) as error:
            yield str(error)
    yield from _wrong_placeholders(target, model)


def _wrong_placeholders(target: RuleTarget, model: type[Model] | None) -> Iterator[str]:
    rest = PLACEHOLDER.sub("", target.name)
    if target.kind in ("tag", "key"):
        if "{" in rest or "}" in rest:
            yield _("a placeholder is a field path in braces, such as {branch_id} or {sale__customer_id}.")
        for path in target.placeholders if model is not None else ():
            try:
                resolve(model, path)  # type: ignore[arg-type]
            except InvalidRule as error:
                yield _("placeholder %(error)s") % {"error": error}
    elif PLACEHOLDER.search(target.name):
        yield _("placeholders are for tags and keys; a %(kind)s has a fixed name.") % {"kind": target.kind}
