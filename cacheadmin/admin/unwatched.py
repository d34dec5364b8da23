"""Why a live value was out of date: what differs, held against the fields that the rules which drop it watch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from django.utils.translation import gettext as _

from cacheadmin.exceptions import InvalidRule
from cacheadmin.rules import find_model

from . import formats
from .dropping import Dropper
from .pages import Note, Page

SHOWN: Final = 4
"""Fields that a sentence names."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A rule that drops the value, and fields of its model that differ in the value and that no rule watches."""

    rule: Dropper
    missing: tuple[str, ...]


def gap_of(droppers: Sequence[Dropper], paths: Iterable[str]) -> Gap | None:
    """
    Return the rule whose model has most of the fields that differ, where no rule that drops the value watches them.

    `paths` are those of `preview.diff`. Fields are known by name: what a value calls otherwise is not found.
    Cost:    none.
    """
    labels = {part for path in paths for part in path.split(".")}
    watching = [rule for rule in droppers if "update" in rule.events]
    gaps = []
    for rule in watching:
        of_model = [other.fields for other in watching if other.model == rule.model]
        if all(of_model):  # without fields a rule watches them all
            watched = {name for fields in of_model for name in fields}
            missing = {name for label, name in _names(rule.model).items() if label in labels} - watched
            gaps.append(Gap(rule, tuple(sorted(missing))))
    found = max(gaps, key=lambda gap: len(gap.missing), default=None)
    return found if found is not None and found.missing else None


def _names(model: str) -> dict[str, str]:
    """Return what a value may call a model's fields -> the field's name: `branch` and `branch_id` are one."""
    try:
        fields = [field for field in find_model(model)._meta.get_fields() if field.concrete]
    except InvalidRule:
        return {}
    return {label: field.name for field in fields for label in {field.name, getattr(field, "attname", field.name)}}


def explained(page: Page, note: Note, result: Mapping[str, Any], droppers: Sequence[Dropper]) -> Note:
    """
    Return a note on a recomputation with why a value was wrong though live, and the way to mend it.

    `result` is what the entry's page kept of it. Who may not see values is told nothing of fields.
    """
    if not (result.get("was_live") and result["differences"] and page.access.may_view_values):
        return note
    gap = gap_of(droppers, (found["path"] for found in result["differences"]))
    why = reason(droppers, gap, result.get("since"))
    return replace(note, text=f"{note.text} {why}", links=_way_out(page, gap, is_dropped=bool(droppers)))


def _way_out(page: Page, gap: Gap | None, *, is_dropped: bool) -> list[tuple[str, str]]:
    """Return the rule with the gap, or a new one where there is none."""
    may = page.request.user.has_perm
    if gap is not None:
        if gap.rule.pk is not None and may("cacheadmin.change_invalidationrule"):
            return [(_("Edit the rule"), page.url("cacheadmin_invalidationrule_change", gap.rule.pk))]
        url = page.rules_url(gap.rule.name)
        return [(_("See the rule"), url)] if url else []
    if not is_dropped and page.rules_url() and may("cacheadmin.add_invalidationrule"):
        return [(_("Add a rule"), page.url("cacheadmin_invalidationrule_add"))]
    return []


def reason(droppers: Sequence[Dropper], gap: Gap | None, since: float | None) -> str:
    """Return why nothing dropped a value that was out of date, as far as rules can tell."""
    if not droppers:
        return _("No rule drops it; only its timeout does.")
    words = {"time": formats.clock(since)[:5]}
    if gap is None:
        text = _(
            "Nothing had invalidated it since %(time)s, and rules leave out no field that differs: it may stand on a "
            "model that no rule names, on the time of day, or on a write that passed the ORM by."
        )
        return text % words
    return _("Nothing had invalidated it since %(time)s: the rule %(rule)s watches %(watched)s, not %(missing)s.") % {
        **words,
        "rule": gap.rule.name,
        "watched": _listed(gap.rule.fields),
        "missing": _listed(gap.missing),
    }


def _listed(names: Sequence[str]) -> str:
    if len(names) <= SHOWN:
        return ", ".join(names)
    some = ", ".join(names[: SHOWN - 1])
    return _("%(some)s and %(n)s more") % {"some": some, "n": formats.number(len(names) - SHOWN + 1)}
