"""Django's own log of what a person did in the console: data in Django's structure, said in each reader's language."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest
from django.utils.translation import gettext_noop

from cacheadmin.models import Activity, Console
from cacheadmin.targets import ALL, Target

from . import history

Deed = Literal["invalidated", "warmed", "recomputed", "cancelled", "paced", "retried"]

DATA: Final = gettext_noop("cached data")
RUN: Final = gettext_noop("run in the background")

MESSAGES: Final[dict[Deed, Callable[[str], dict[str, Any]]]] = {
    "invalidated": lambda about: {"deleted": {"name": DATA, "object": about}},
    "warmed": lambda about: {"added": {"name": DATA, "object": about}},
    "recomputed": lambda about: _changed(gettext_noop("value"), DATA, about),
    "cancelled": lambda about: _changed(gettext_noop("state"), RUN, about),
    "paced": lambda about: _changed(gettext_noop("pace"), RUN, about),
    "retried": lambda about: _changed(gettext_noop("state"), gettext_noop("waiting invalidations"), about),
}
"""Deed -> what `LogEntry.get_change_message` says of it, in the language of whoever reads it."""


def _changed(field: str, name: str, about: str) -> dict[str, Any]:
    return {"changed": {"fields": [field], "name": name, "object": about}}


def one_line(text: str, limit: int = 300) -> str:
    """Return a text without anything that could break a line of a log."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)[:limit]


def write(request: HttpRequest, deed: Deed, about: str, reason: str = "") -> None:
    """Leave an entry; it belongs to the console, which has no rows, so it has no object. `reason` is the doer's own."""
    user: Any = request.user
    told = one_line(f"{about}: {reason}" if reason else about, 1000)
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(Console, for_concrete_model=False),
        object_id=None,
        object_repr=one_line(about, 200),
        action_flag=CHANGE,
        change_message=json.dumps([MESSAGES[deed](told)]),
    )


SHOWN: Final = 3
"""Targets that an entry names."""


def notation(targets: Sequence[Target]) -> str:
    """Return targets as they are written in any language: `group:stock tenant:3 alias:query`."""
    return ", ".join(map(_notation, targets[:SHOWN])) + (" …" if len(targets) > SHOWN else "")


def _notation(target: Target) -> str:
    whose = "*" if target.tenant is ALL else "-" if target.tenant is None else target.tenant
    parts = [] if target.kind == "tenant" else [f"{target.kind}:{target.name}"]
    return " ".join([*parts, f"tenant:{whose}", *([f"alias:{target.alias}"] if target.alias else [])])


def notation_of(row: Activity) -> str:
    """Return what a line of Activity is about, in the same way."""
    if targets := history.targets_of(row):
        return notation(targets)
    return f"alias:{row.alias}" if row.alias else notation([Target("tenant", "", tenant) for tenant in row.tenants])
