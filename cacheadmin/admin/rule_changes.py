"""What an edit changed about a rule: kept as data in Django's log and in Activity, said in the language of a reader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from django.contrib.admin.models import LogEntry
from django.utils.translation import gettext as _

from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import InvalidationRule
from cacheadmin.rules import RuleTarget

from . import formats
from .rule_files import COLUMNS

Change = dict[str, Any]
"""One column: `{"field", "new"}` of a new rule, else `"old"` too; of a list `{"field", "come", "gone", "more"}`."""

LISTED: Final = 20
"""Elements that came, and that went, which are kept by name; of the others their number."""


def changes(before: Mapping[str, Any] | None, row: InvalidationRule) -> list[Change]:
    """
    Return what a rule has now and had not before.

    `before` maps the columns to their old values; None for a new rule, of which the unusual is told.
    """
    found, unset = [], InvalidationRule()
    for name in COLUMNS:
        old = getattr(unset, name) if before is None else before.get(name)
        new = getattr(row, name)
        if old == new or (name == "name" and before is None):
            continue
        change: Change = {"field": name}
        if isinstance(new, list) and isinstance(old, list):
            gone, come = [x for x in old if x not in new], [x for x in new if x not in old]
            change |= {"come": [_kept(x) for x in come[:LISTED]], "gone": [_kept(x) for x in gone[:LISTED]]}
            if more := len(come[LISTED:]) + len(gone[LISTED:]):
                change["more"] = more
        else:
            change |= {"new": _kept(new)} if before is None else {"old": _kept(old), "new": _kept(new)}
        found.append(change)
    return found


def columns_of(row: InvalidationRule) -> dict[str, Any]:
    """Return the columns of a row."""
    return {name: getattr(row, name) for name in COLUMNS}


def _kept(value: Any) -> str | bool:
    """Return a value as the log keeps it: short, and the same in every language."""
    if isinstance(value, bool):
        return value
    if isinstance(value, dict):
        try:
            return str(RuleTarget.parse(value))
        except InvalidRule:
            return str(value)[:80]
    text = str(value)
    return f"{text[:80]}…" if len(text) > 80 else text


# --- in Django's log ------------------------------------------------------------------------------------------------


def message(found: Sequence[Change], *, is_new: bool, is_imported: bool = False) -> list[dict[str, Any]]:
    """Return them as Django's log has a change: its own words for each reader of it, and ours beside them."""
    if not (found or is_new):
        return []  # Django says that nothing was changed
    names = [change["field"] for change in found]
    told: dict[str, Any] = {"added": {}} if is_new else {"changed": {"fields": names}}
    return [told | {"differences": list(found)} | ({"imported": True} if is_imported else {})]


def of_message(told: Any) -> list[Change]:
    """Return the changes in what `message` made; none of a message that others wrote."""
    parts = [part for part in told if isinstance(part, dict)] if isinstance(told, list) else []
    return [change for part in parts for change in part.get("differences", ()) if isinstance(change, dict)]


def told_by(entry: LogEntry) -> list[str]:
    """Say in the language of now what an entry of the log tells, a line a column."""
    try:
        told = json.loads(entry.change_message) if entry.change_message.startswith("[") else None
    except ValueError:  # a text that begins so
        told = None
    said = in_words(of_message(told))
    if not said:
        return entry.get_change_message().split("; ")
    if any(part.get("imported") for part in told or () if isinstance(part, dict)):
        said[0] = _("Imported: %(what)s") % {"what": said[0]}
    return said


# --- in words -------------------------------------------------------------------------------------------------------


def in_words(found: Iterable[Change]) -> list[str]:
    """Say in the language of now what changed, a line a column: `fields: + price`, `tenant: – → branch__tenant_id`."""
    return [formats.labelled(str(change.get("field", "")), _in_words(change)) for change in found]


def _in_words(change: Change) -> str:
    if "come" not in change:
        new = _shown(change.get("new"))
        return f"{_shown(change['old'])} → {new}" if "old" in change else new
    parts = [f"+\u00a0{_shown(x)}" for x in change["come"]] + [f"−\u00a0{_shown(x)}" for x in change.get("gone", ())]
    if not parts:
        return _("another order")
    more = change.get("more")
    some = ", ".join(parts)
    return _("%(some)s and %(n)s more") % {"some": some, "n": formats.number(more)} if more else some


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return _("on") if value else _("off")
    return str(value or "–")
