"""Invalidating by pattern: the form that asks for one, and what a typed one means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from cacheadmin.encoding import literal_glob
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.keys import logical_tenant
from cacheadmin.targets import WIDEST_PATTERN, Target, from_pattern

from . import formats
from .pages import Page


class Unusable(Exception):
    """A typed pattern is none, and the page says why."""


def pattern_form(page: Page, pattern: str = "", alias: str = "", error: str = "") -> dict[str, Any]:
    """Return what `includes/pattern_form.html` needs; an alias that the user does not see is as none."""
    return {
        "pattern_url": page.url("cacheadmin_pattern"),
        "pattern": pattern,
        "pattern_error": error,
        "pattern_aliases": [(name, name == alias) for name in page.access.aliases],
        "longest_pattern": WIDEST_PATTERN,
    }


def beginning_of(tenant: str | None) -> str:
    """Return what the patterns of a tenant's keys begin with; empty for shared data, whose keys say nothing of it."""
    return "" if tenant is None else f"tenant:{literal_glob(logical_tenant(tenant))}:"


def targets_of(text: str, alias: str) -> Sequence[Target]:
    """
    Return what a typed pattern means; an empty alias is every managed one.

    Raises:  Unusable.
    """
    if not text.strip():
        raise Unusable(_("Type a pattern, such as inventory:* or tenant:12:*:rings."))
    if len(text) > WIDEST_PATTERN:
        wrong = _("The pattern is %(n)s characters long; at most %(most)s are allowed.")
        raise Unusable(wrong % {"n": formats.number(len(text)), "most": formats.number(WIDEST_PATTERN)})
    try:
        text.encode()
        return from_pattern(text, alias or None)
    except (CacheAdminError, UnicodeEncodeError) as error:
        raise Unusable(_("This is no pattern: %(error)s") % {"error": error}) from error


def is_search(targets: Sequence[Target]) -> bool:
    """Say whether targets have to be looked for key by key; a pattern that means scopes is done at once."""
    return any(target.kind == "pattern" for target in targets)
