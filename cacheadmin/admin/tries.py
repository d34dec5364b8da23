"""How often the delivery of a line of Activity was tried again, and what kept it: from the outbox, while it knows."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from typing import Final

from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import outbox
from cacheadmin.models import Activity, Intent

from . import formats, troubles

logger = logging.getLogger(__name__)

APART: Final = dt.timedelta(minutes=1)
"""Most time between a line and the row of the outbox that one deed wrote."""

LOOKED_AT: Final = 500
"""Rows of one database that are looked at."""

DATABASES: Final = 5
"""Databases that are asked, each by one query: a page may make twelve."""


def intent_of(row: Activity) -> Intent | None:
    """
    Return the row of the outbox that a line's deed wrote; None where there is none (any more).

    A deed writes it where its transaction writes, so each database that has the outbox is asked. Cost: one query each.
    """
    if row.kind != Activity.Kind.INVALIDATE or not row.targets:
        return None
    found = [each for each in _near(row) if _holds(each.payload, row.targets)]
    return min(found, key=lambda each: abs(each.created - row.at), default=None)


def _near(row: Activity) -> Iterator[Intent]:
    for alias in outbox.databases()[:DATABASES]:
        kept = Intent.objects.using(alias).filter(created__range=(row.at - APART, row.at + APART)).order_by("pk")
        try:
            yield from kept[:LOOKED_AT]
        except DatabaseError as error:  # what another one knows is shown all the same
            logger.warning("The outbox of database %r cannot be read: %s", alias, error)


def _holds(payload: object, targets: list[object]) -> bool:
    asked = payload.get("targets") if isinstance(payload, dict) else None
    return isinstance(asked, list) and all(target in asked for target in targets)


def tries_of(row: Activity) -> tuple[str, str]:
    """Return how often it was tried again and why in vain; empty where nothing is to be told. Cost: as `intent_of`."""
    intent = intent_of(row)
    if intent is None or not (intent.attempts or row.state == Activity.State.WAITING):
        return "", ""
    why = troubles.trouble(intent.error).what
    if not intent.attempts:
        return _("not yet"), why
    times = ngettext("%(n)s time", "%(n)s times", intent.attempts) % {"n": formats.number(intent.attempts)}
    return times, why
