"""Checks of what readers meet: whether they find anything, whether they ask at all, whether values can be stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.stats import INDEX, MISS_REASONS
from cacheadmin.stats.history import Group, Numbers

from .facts import HOUR, Facts
from .registry import Finding, check

READS: Final = 200
"""Reads in 24 hours below which nothing is said of a group."""

SELDOM: Final = 0.05
"""Hit ratio below which nothing is found."""

HALF: Final = 0.5
"""Share of the reads, or of the values, from which on most of them are meant."""

_REFUSED: Final = ("transaction", "full")
"""Why values are not stored, of which other checks tell."""


def _of(numbers: Numbers, *events: str) -> int:
    return sum(numbers[INDEX[event]] for event in events)


def _where(group: Group) -> str:
    return _("%(group)s, alias %(alias)s") % {"group": group[1], "alias": group[0]}


@check("W044", gettext_lazy("What is cached is found by its readers."))
def reads_hit(facts: Facts) -> Iterator[Finding]:
    """Report groups that were read often in 24 hours and hardly ever found, and why their reads missed."""
    if facts.counted is None or not 0 < facts.counted.born <= time.time() - HOUR:
        return  # a cache that has only just begun is cold
    for group, numbers in sorted(facts.counted.by_group.items()):
        misses, hits = _of(numbers, "miss"), _of(numbers, "hit", "stale")
        if hits + misses < READS or hits >= SELDOM * (hits + misses):
            continue
        if _of(numbers, *(f"refused_{reason}" for reason in _REFUSED)) >= HALF * misses:
            continue  # they cannot be stored: W025 and W046 say so
        reason = max(MISS_REASONS, key=lambda name: _of(numbers, f"missed_{name}"))
        yield Finding(
            _("%(hits)s of %(reads)s reads in the last 24 hours were hits.") % {"hits": hits, "reads": hits + misses},
            where=_where(group),
            why=_("Each of the others took three round trips and a computation: the site would be faster without."),
            fix=_fix(reason),
        )


def _fix(reason: str) -> str:
    if reason == "invalidated":
        return _("Rules drop it before it is read again: let them watch fewer fields, or drop it by a tag.")
    if reason == "expired":
        return _("It is read again only after its timeout: give it a longer one, or do not cache it.")
    if reason == "evicted":
        return _("The server removes it before it is read again: more memory, or cache less.")
    return _("Its arguments are new each time, such as now(): leave out what varies, round it, or do not cache it.")


@check("W045", gettext_lazy("Readers ask the cache."))
def reads_ask(facts: Facts) -> Iterator[Finding]:
    """Report groups of which most reads of 24 hours passed the cache by, though its server was never away."""
    if facts.counted is None or facts.counted.was_away:
        return
    for group, numbers in sorted(facts.counted.by_group.items()):
        bypassed = _of(numbers, "bypassed")
        reads = bypassed + _of(numbers, "hit", "stale", "miss", "error")
        if reads >= READS and bypassed >= HALF * reads:
            yield Finding(
                _("%(n)s of %(reads)s reads in the last 24 hours did not ask the cache.")
                % {"n": bypassed, "reads": reads},
                where=_where(group),
                why=_(
                    "They are inside a transaction that has written, or inside the computation of another cached value "
                    "that may not be made of this one: its alias comes first in ALIASES, or it is of another tenant."
                ),
                fix=_(
                    "Call it before the transaction's first write or after its end; let the outer function's alias "
                    'come later in CACHEADMIN["ALIASES"] than that of the inner one.'
                ),
            )


@check("W046", gettext_lazy("What is computed can be stored."))
def fills_are_taken(facts: Facts) -> Iterator[Finding]:
    """Report groups most of whose values of 24 hours came from a snapshot that may be older than an invalidation."""
    for group, numbers in sorted(facts.counted.by_group.items()) if facts.counted else ():
        refused, computed = _of(numbers, "refused_transaction"), _of(numbers, "computed")
        if computed >= READS and refused >= HALF * computed:
            yield Finding(
                _("%(n)s of %(computed)s values computed in the last 24 hours could not be stored.")
                % {"n": refused, "computed": computed},
                where=_where(group),
                why=_(
                    "They were computed in a transaction that had read before (SQLite, REPEATABLE READ): its snapshot "
                    "may be older than an invalidation, so every read computes."
                ),
                fix=_(
                    "Call it before the transaction's first query, leave the view out of ATOMIC_REQUESTS "
                    "(@transaction.non_atomic_requests), or use READ COMMITTED."
                ),
            )
