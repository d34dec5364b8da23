"""How often the delivery of a line of Activity was tried again, and what kept it: from the outbox, while it knows."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.models import Activity, Intent

from . import formats

APART: Final = dt.timedelta(minutes=1)
"""Most time between a line and the row of the outbox that one deed wrote."""

LOOKED_AT: Final = 500


def intent_of(row: Activity) -> Intent | None:
    """Return the row of the outbox that a line's deed wrote; None where there is none (any more). Cost: one query."""
    if row.kind != Activity.Kind.INVALIDATE or not row.targets:
        return None
    near = Intent.objects.filter(created__range=(row.at - APART, row.at + APART)).order_by("pk")
    found = [each for each in near[:LOOKED_AT] if _holds(each.payload, row.targets)]
    return min(found, key=lambda each: abs(each.created - row.at), default=None)


def _holds(payload: object, targets: list[object]) -> bool:
    asked = payload.get("targets") if isinstance(payload, dict) else None
    return isinstance(asked, list) and all(target in asked for target in targets)


def tries_of(row: Activity) -> tuple[str, str]:
    """Return how often it was tried again and why in vain; empty where there is nothing to tell. Cost: one query."""
    intent = intent_of(row)
    if intent is None or not (intent.attempts or row.state == Activity.State.WAITING):
        return "", ""
    if not intent.attempts:
        return _("not yet"), intent.error
    times = ngettext("%(n)s time", "%(n)s times", intent.attempts) % {"n": formats.number(intent.attempts)}
    return times, intent.error
