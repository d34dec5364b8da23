"""What was done, kept as data on a line of Activity and said in the language of whoever reads it.

A line's `targets` may hold `{"said": code, …}` beside targets. A line without one is said anew, too, if its text is
what pages or commands write for its targets; any other is shown as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.models import Activity
from cacheadmin.targets import All, Target

from . import formats, history, naming, rule_changes

Labels = Mapping[str | None, str]
"""Names of tenants by id."""

Said = dict[str, Any]
"""`{"said": code, …}`, with the values that the code's words need: names, labels, counts."""

SHOWN: Final = 3
"""Targets that a line names."""


def warmed(targets: Sequence[Target]) -> Said:
    """Return that what some targets name was warmed. Cost: what `Tenancy.labels` costs."""
    return {"said": "warmed", **naming.facts(targets)}


def recomputed(group: str, arguments: str) -> Said:
    """Return that one entry was computed anew."""
    return {"said": "recomputed", "group": group, "arguments": arguments}


def cleared(alias: str) -> Said:
    """Return that an alias was cleared."""
    return {"said": "cleared", "alias": alias}


def swept(targets: Sequence[Target]) -> Said:
    """Return that what some patterns match was looked for."""
    return {"said": "swept", "patterns": list(dict.fromkeys(target.name for target in targets))}


def rule(act: str, name: str, changes: Sequence[rule_changes.Change] = ()) -> Said:
    """Return that a rule was `added`, `changed` or `deleted`, and what that changed about it."""
    return {"said": f"rule {act}", "name": name} | ({"changes": list(changes)} if changes else {})


def imported(new: int, changed: int) -> Said:
    """Return that rules came from a file."""
    return {"said": "imported", "new": new, "changed": changed}


def _recomputed(said: Said) -> str:
    group, arguments = str(said.get("group", "")), str(said.get("arguments", ""))
    return _("recomputed %(name)s") % {"name": formats.labelled(group, arguments) if arguments else group}


def _imported(said: Said) -> str:
    new, changed = int(said.get("new", 0)), int(said.get("changed", 0))
    both = new + changed
    total = ngettext("Imported %(n)s rule", "Imported %(n)s rules", both) % {"n": formats.number(both)}
    return formats.labelled(total, parts(new=new, changed=changed)) if both else total


def parts(**counts: int) -> str:
    """Say how many rules are new, changed, wrong and the same, if there are any: "3 new, 8 changed"."""
    words = {
        "new": lambda n: ngettext("%(n)s new", "%(n)s new", n),
        "changed": lambda n: ngettext("%(n)s changed", "%(n)s changed", n),
        "error": lambda n: ngettext("%(n)s error", "%(n)s errors", n),
        "same": lambda n: ngettext("%(n)s the same", "%(n)s the same", n),
    }
    return ", ".join(words[name](n) % {"n": formats.number(n)} for name, n in counts.items() if n)


WORDS: Final[Mapping[str, Callable[[Said], str]]] = {
    "warmed": lambda said: _("warm %(phrase)s") % {"phrase": naming.in_words(said)},
    "recomputed": _recomputed,
    "cleared": lambda said: _("clear alias %(alias)s") % {"alias": said.get("alias", "")},
    "swept": lambda said: _("invalidate what matches %(pattern)s") % {"pattern": ", ".join(said["patterns"])},
    "rule added": lambda said: _("Added rule %(name)s") % {"name": said.get("name", "")},
    "rule changed": lambda said: _("Changed rule %(name)s") % {"name": said.get("name", "")},
    "rule deleted": lambda said: _("Deleted rule %(name)s") % {"name": said.get("name", "")},
    "imported": _imported,
}


def text(said: Said) -> str:
    """Say it in the language of now; empty for a code of another version."""
    words = WORDS.get(str(said.get("said")))
    try:
        return words(said) if words is not None else ""
    except (TypeError, ValueError, KeyError):  # not written by us
        return ""


def what_of(row: Activity, labels: Labels | None = None) -> str:
    """Say what a line of Activity is about; `labels` name its tenants, where they are known."""
    return own_words(row) or targets_in_words(history.targets_of(row), labels or {})


def own_words(row: Activity) -> str:
    """Return what a line says it is about; empty where its targets say it all."""
    for item in row.targets if isinstance(row.targets, list) else ():
        if isinstance(item, dict) and "said" in item and (found := text(item)):
            return found
    if row.kind == Activity.Kind.WARM and row.source == Activity.Source.COMMAND and row.what.startswith("warm "):
        return _("warm %(phrase)s") % {"phrase": row.what.removeprefix("warm ")}
    named = history.targets_of(row)
    return "" if named and row.what in _as_written(named) else str(row.what)


def targets_in_words(targets: Sequence[Target], labels: Labels) -> str:
    """Return the first targets, and how many more there are."""
    shown = ", ".join(target_in_words(target, labels) for target in targets[:SHOWN])
    more = len(targets) - SHOWN
    return _("%(some)s and %(n)s more") % {"some": shown, "n": formats.number(more)} if more > 0 else shown


def reason_of(row: Activity) -> str:
    """Return why it was done, in the doer's words, or what an edit changed, in the reader's language."""
    for item in row.targets if isinstance(row.targets, list) else ():
        if isinstance(item, dict) and "said" in item and isinstance(found := item.get("changes"), list):
            return "; ".join(rule_changes.in_words(change for change in found if isinstance(change, dict)))
    return str(row.reason)


def _as_written(named: Sequence[Target]) -> set[str]:
    """Return what pages and commands write for some targets."""
    some, more = [str(target) for target in named[:SHOWN]], len(named) - SHOWN
    pages = ", ".join(some) + (" …" if more > 0 else "")
    commands = "; ".join(some) + (f"; and {more:,} more" if more > 0 else "")
    return {pages[:300], commands[:300]}


def target_in_words(target: Target, labels: Labels) -> str:
    """Return a target as `str` does, but in the language of now and with names: "group stock of Ruby & Co (1)"."""
    if isinstance(target.tenant, All):
        whose = _("all tenants")
    elif target.tenant is None:
        whose = _("shared data")
    else:
        label = labels.get(target.tenant, target.tenant)
        is_named = label != target.tenant
        whose = (_("%(label)s (%(id)s)") if is_named else _("tenant %(id)s")) % {"label": label, "id": target.tenant}
    found = _("%(thing)s of %(whose)s") % {"thing": naming.named(target.kind, target.name), "whose": whose}
    return _("%(thing)s in %(alias)s") % {"thing": found, "alias": target.alias} if target.alias else found
