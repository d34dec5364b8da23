"""The rules in one table: those of the database and those in code, what is wrong with them, how often they fired."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal
from urllib.parse import urlencode

from django.contrib.admin import AdminSite
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from cacheadmin.exceptions import CacheAway, InvalidRule
from cacheadmin.models import InvalidationRule
from cacheadmin.rules import Problem, Rule, code_rules, validate
from cacheadmin.stats.history import DroppedLine, Reader

from . import formats, paging
from .pages import url_to
from .rule_files import target_text
from .rule_form import EVENT_LABELS, model_label, sentence_of
from .rule_resource import rule_of

HOUR: Final = 3600
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Fired:
    """How often a rule fired in the last day."""

    times: int = 0
    last: float | None = None
    """Seconds since 1970, to the minute."""
    entries: int = 0
    """Entries given back for it, alone or together with others."""
    hours: float = DAY / HOUR
    """How long was counted."""

    @property
    def per_hour(self) -> str:
        """The mean of the day, or of as much of it as was counted."""
        mean = self.times / self.hours
        return f"<{formats.number(0.1, 1)}" if 0 < mean < 0.1 else formats.number(mean, 1 if 0 < mean < 10 else 0)

    @property
    def in_words(self) -> str:
        """How many times in all."""
        text = ngettext("%(n)s time in 24 hours", "%(n)s times in 24 hours", self.times)
        return text % {"n": formats.number(self.times)}


NEVER: Final = Fired()


@dataclass(frozen=True, slots=True)
class Counted:
    """What the counters know of the last 24 hours."""

    lines: list[DroppedLine]
    """What was invalidated."""
    freed: dict[str, int]
    """Name of a rule, or of several that fired together -> entries given back."""
    hours: float
    """How many of them were counted, at least one: nothing is reckoned up."""


def counted(now: float | None = None) -> Counted | None:
    """Return what the last 24 hours say of rules; None while that cannot be known. Cost: 1 round trip."""
    until = time.time() if now is None else now
    reader = Reader()
    lines, freed, born = reader.dropped(until - DAY, until), reader.freed(until - DAY, until), reader.born()
    try:
        reader.run()
    except CacheAway:
        return None
    seconds = min(max(until - (born.value or until), HOUR), DAY)
    return Counted(lines.value, freed.value, seconds / HOUR)


def _named(text: str, names: Collection[str], odd: Collection[str]) -> list[str]:
    """Return those of some rules that a line names: with commas between, and a name may hold a comma, too."""
    parts = set(text.split(", ")).intersection(names)
    return [*parts, *(name for name in odd if f", {name}, " in f", {text}, ")]


def fired(
    names: Collection[str], lines: Iterable[DroppedLine], freed: Mapping[str, int] | None = None
) -> dict[str, Fired]:
    """
    Return how often each of some rules fired, as far as some lines tell, and how many entries were given back for it.

    A transaction that a rule fires for drops several things at once: it counts once a tenant. Rules that fire together
    share a line, and each is counted whole.
    """
    odd = [name for name in names if ", " in name]
    most: dict[tuple[str, int, str | None], int] = {}
    for line in lines:
        if line.source in ("rule", "relay"):
            for name in _named(line.name, names, odd):
                cell = (name, line.at, line.tenant)
                most[cell] = max(most.get(cell, 0), line.count)
    found: dict[str, Fired] = {}
    for (name, at, _tenant), count in most.items():
        known = found.get(name, NEVER)
        found[name] = Fired(known.times + count, max(known.last or 0.0, float(at)))
    for text, entries in (freed or {}).items():
        for name in _named(text, names, odd):
            known = found.get(name, NEVER)
            found[name] = replace(known, entries=known.entries + entries)
    return found


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule as the list shows it."""

    name: str
    rule: Rule | None
    """None if its row cannot be read."""
    sentence: str
    when: str
    tenant: str
    source: str
    """`database`, or the file that it stands in."""
    is_on: bool
    pk: int | None = None
    url: str = ""
    state: Literal["", "broken", "replaced"] = ""
    problems: Sequence[Problem] = ()
    fired: Fired | None = None
    override_url: str = ""
    replaced_by: str = ""
    """URL of the rule that stands in its place."""
    targets: Sequence[str] = ()

    @property
    def is_code(self) -> bool:
        return self.pk is None

    @property
    def model(self) -> str:
        return self.rule.model if self.rule else ""

    @property
    def aliases(self) -> set[str]:
        """The aliases its targets name; empty means all."""
        return {target.alias or "" for target in self.rule.targets} if self.rule else set()


@dataclass(frozen=True, slots=True)
class Listed:
    """The rules, and what kept some from being listed."""

    rows: Sequence[RuleRow]
    error: str = ""
    """Why the rules in code cannot be read."""
    knows_fired: bool = True


def listed(site: AdminSite, *, may_add: bool, with_figures: bool) -> Listed:
    """Return every rule. Cost: one query, and one round trip for the figures."""
    known = counted() if with_figures else None
    stored = list(InvalidationRule.objects.order_by("name"))
    pks = {row.name: row.pk for row in stored}
    rows = [_stored(site, row) for row in stored]
    error = ""
    try:
        rows += [_of_code(site, rule, pks.get(rule.name), may_add=may_add) for rule in code_rules()]
    except InvalidRule as failure:
        error = str(failure)
    if known is None:
        return Listed(rows, error, knows_fired=False)
    counts = fired({row.name for row in rows}, known.lines, known.freed)
    return Listed([replace(row, fired=replace(counts.get(row.name, NEVER), hours=known.hours)) for row in rows], error)


def _stored(site: AdminSite, row: InvalidationRule) -> RuleRow:
    url = url_to(site, "cacheadmin_invalidationrule_change", row.pk)
    try:
        rule = rule_of(row)
    except InvalidRule as error:
        problem = Problem("targets", str(error))
        return RuleRow(row.name, None, row.model, "–", "", "database", row.enabled, row.pk, url, "broken", (problem,))
    problems = tuple(validate(rule))
    return replace(described(rule), pk=row.pk, url=url, state="broken" if problems else "", problems=problems)


def _of_code(site: AdminSite, rule: Rule, replaced_by: int | None, *, may_add: bool) -> RuleRow:
    row = described(rule)
    if replaced_by is not None:
        url = url_to(site, "cacheadmin_invalidationrule_change", replaced_by)
        return replace(row, state="replaced", replaced_by=url)
    problems = tuple(validate(rule))
    query = urlencode({"override": rule.name})
    override = f"{url_to(site, 'cacheadmin_invalidationrule_add')}?{query}" if may_add else ""
    return replace(row, state="broken" if problems else "", problems=problems, override_url=override)


def described(rule: Rule) -> RuleRow:
    """Return what a list says about a rule itself."""
    return RuleRow(
        name=rule.name,
        rule=rule,
        sentence=sentence_of(rule.model, rule.targets),
        when=when_of(rule),
        tenant=tenant_of(rule),
        source=source_of(rule),
        is_on=rule.enabled,
        targets=[target_text(target.to_json()) for target in rule.targets],
    )


def when_of(rule: Rule) -> str:
    """Say when a rule fires: "changed: quantity, status", "created, changed, deleted"."""
    labels = [str(EVENT_LABELS.get(event, event)) for event in rule.events]
    text = ", ".join(labels)
    if not rule.fields:
        return text
    shown = ", ".join(rule.fields[:4])
    if rule.fields[4:]:
        shown = _("%(some)s and %(n)s more") % {"some": shown, "n": formats.number(len(rule.fields) - 4)}
    return formats.labelled(text, shown)


def tenant_of(rule: Rule) -> str:
    """Say where a rule takes the tenant from."""
    return {"": _("found by itself"), "*": _("all tenants"), "-": _("shared data")}.get(
        rule.tenant, rule.tenant.replace("__", " → ")
    )


def source_of(rule: Rule) -> str:
    """Return where a rule is written: `database`, or `shop/cache_rules.py`."""
    module = rule.source.removeprefix("code:")
    return rule.source if module == rule.source else module.replace(".", "/") + ".py"


# --- what the list is asked for ---------------------------------------------------------------------------------------

SOURCES: Final = ("database", "code")
STATES: Final = ("on", "off", "broken", "never")
ORDERS: Final = ("-fired", "name", "model", "source")


def chosen(
    rows: Iterable[RuleRow], *, search: str = "", source: str = "", state: str = "", model: str = "", alias: str = ""
) -> list[RuleRow]:
    """Return the rows that fit all filters."""
    text = search.casefold()
    return [
        row
        for row in rows
        if (not text or text in f"{row.name} {row.sentence} {row.model} {row.when}".casefold())
        and (not source or (source == "code") == row.is_code)
        and (not state or _is(row, state))
        and (not model or row.model == model)
        and (not alias or alias in row.aliases or "" in row.aliases)
    ]


def _is(row: RuleRow, state: str) -> bool:
    if state == "broken":
        return row.state == "broken"
    if state == "never":
        return row.fired is not None and not row.fired.times and row.state != "replaced"
    return row.state != "replaced" and row.is_on == (state == "on")


def ordered(rows: Iterable[RuleRow], order: str) -> list[RuleRow]:
    """Return rows in an asked order; broken ones first in the usual one, ties by name."""
    found = sorted(rows, key=lambda row: (row.name.casefold(), row.is_code))
    field, turned = order.removeprefix("-"), order.startswith("-")
    if field == "fired":
        found.sort(key=lambda row: row.fired.times if row.fired else 0, reverse=turned)
        found.sort(key=lambda row: {"broken": 0, "replaced": 2}.get(row.state, 1))
    elif field == "model":
        found.sort(key=lambda row: model_label(row.model), reverse=turned)
    elif field == "source":
        found.sort(key=lambda row: row.source, reverse=turned)
    elif turned:
        found.reverse()
    return found


def counts(rows: Sequence[RuleRow]) -> dict[str, int]:
    """Return how many rules each filter of state and source would leave."""
    by_state = {state: len(chosen(rows, state=state)) for state in STATES}
    return by_state | {source: len(chosen(rows, source=source)) for source in SOURCES}


def _counts_what() -> str:
    return _(
        "Memory given back by scopes, counted a few seconds later; rules that fired together each count all of it. "
        "What a tag drops is given back when it is computed anew, and not counted here."
    )


def columns(wish: paging.Asked, *, with_figures: bool) -> list[paging.Column]:
    """Return the heads of the table."""
    heads: list[dict[str, Any]] = [
        {"label": _("Rule"), "sort": "name"},
        {"label": pgettext("rule", "When"), "is_low": True},
        {"label": _("Tenant from"), "is_low": True},
    ]
    if with_figures:
        heads += [
            {"label": _("Fired"), "sort": "-fired", "title": _("Last time within 24 hours")},
            {
                "label": _("Fires /h"),
                "is_number": True,
                "is_low": True,
                "title": _("Mean of 24 hours, or of as much of them as was counted"),
            },
            {"label": _("Entries dropped (24 h)"), "is_number": True, "is_low": True, "title": _counts_what()},
        ]
    heads += [{"label": _("Source"), "sort": "source", "is_low": True}, {"label": _("On")}]
    return paging.columns(heads, wish)
