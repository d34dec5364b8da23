"""From what a transaction changed to what is to be delivered: all that it asks for, once."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from cacheadmin import rules
from cacheadmin.outbox.rows import Delivery
from cacheadmin.rules import Change, Event, FiredRule
from cacheadmin.targets import ALL, Target
from cacheadmin.transactions import Pending

logger = logging.getLogger("cacheadmin")

LONGEST_NAME: Final = 200


def gather(pending: Pending, connection: BaseDatabaseWrapper | None = None) -> Delivery | None:
    """
    Return all that a transaction asks for as one delivery; None if it asks for nothing.

    Raises:  DatabaseError; what else goes wrong, in a field's or a tenancy's code, drops everything.
    """
    try:
        if not pending.explicit and len(pending.changes) == 1:
            [(change, found)] = pending.changes.items()
            if isinstance(change, tuple) and found is not None and len(found) == 1:
                [row] = found.values()
                return _of_one_row(change, row)
        return _gather(pending, connection)
    except DatabaseError:
        raise
    except Exception:
        logger.exception("What a transaction has to invalidate is not known; everything is dropped.")
        return Delivery((Target("tenant", tenant=ALL),), source="rule")


MOST_KNOWN: Final = 4096

_PLAIN: Final = frozenset({int, str, uuid.UUID, type(None)})
"""Types of which equal values are the same value, written the same way."""


def _of_one_row(change: tuple[str, Event, frozenset[str] | None], row: Mapping[str, Any]) -> Delivery | None:
    """Return what one row's write asks for: remembered as long as the rules are, for it is the same each time."""
    snapshot = rules.for_writes()
    if not _PLAIN.issuperset(map(type, row.values())):
        return _by_rules(rules.targets_for((Change(*change, (row,)),), snapshot))
    known: dict[Any, Delivery | None] = snapshot.memo.setdefault(("deliveries",), {})
    key = (change, *row.items())
    try:
        return known[key]
    except KeyError:
        if len(known) >= MOST_KNOWN:
            known.clear()
        found = known[key] = _by_rules(rules.targets_for((Change(*change, (row,)),), snapshot))
        return found


def _by_rules(fired: Sequence[FiredRule]) -> Delivery | None:
    if not fired:
        return None
    targets = dict.fromkeys(target for rule in fired for target in rule.targets)
    names = tuple(dict.fromkeys(rule.name for rule in fired))
    return Delivery(tuple(targets), names, "rule", _text(names), tuple(rule.name for rule in fired if rule.warm))


def _text(names: Iterable[str]) -> str:
    text = ", ".join(dict.fromkeys(filter(None, names)))
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _gather(pending: Pending, connection: BaseDatabaseWrapper | None) -> Delivery | None:
    targets: dict[Target, None] = {}
    fired = _fired(pending)
    for rule in fired:
        targets.update(dict.fromkeys(rule.targets))
    names, source = [rule.name for rule in fired], "rule" if fired else ""
    of_rules = edited(pending, connection)
    if of_rules:
        targets.update(dict.fromkeys(of_rules.targets))
        names, source = [*names, *of_rules.rules], "rule"
    for (who, name), asked in pending.explicit.items():
        targets.update(asked)
        names.append(name)
        # Rules trust the list of tenants and look for no plain keys; who invalidates by hand must get no less for that.
        if not source or any(target.kind != "key" for target in asked):
            source = who
    if not targets:
        return None
    rule_names = tuple(dict.fromkeys([*(r.name for r in fired), *(of_rules.rules if of_rules else ())]))
    return Delivery(tuple(targets), rule_names, source, _text(names), tuple(r.name for r in fired if r.warm))


def _fired(pending: Pending) -> tuple[FiredRule, ...]:
    changes = [
        Change(key[0], key[1], key[2], None if found is None else tuple(found.values()))
        for key, found in pending.changes.items()
        if isinstance(key, tuple)
    ]
    return rules.targets_for(changes, rules.for_writes()) if changes else ()


def edited(pending: Pending, connection: BaseDatabaseWrapper | None) -> Delivery | None:
    """
    Return what rules that are new or changed can drop: writes may have been missed before they were known.

    None if this transaction has changed no rule.
    """
    if rules.EDITED not in pending.changes:
        return None
    found = rules.edited(pending.changes[rules.EDITED], connection)
    if not found:
        return None
    return Delivery(tuple(rules.targets_of_rules(found, ALL)), tuple(c.rule.name for c in found), "rule")


def reconsider(pending: Pending) -> None:
    """Add what was written while other rules were in force than now: those of now may want to know of it."""
    now = rules.for_writes()
    tables = [table for table, then in pending.tables.items() if then is not now and then.rules != now.rules]
    if tables:
        touched = now.touched_by(None if "" in tables else tables)
        pending.changes.update({(label, event, None): None for label, event in touched})
