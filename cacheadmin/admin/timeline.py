"""Activity in one order of time: what the database keeps, and what the counters know of the last 24 hours."""

from __future__ import annotations

import time

from cacheadmin.admin.access import Access
from cacheadmin.admin.lines import Line, Wish, line_of, rows_for
from cacheadmin.admin.summed import BY_ITSELF, FOLDED_SECONDS, Known, by_itself, by_rule


def newest(wish: Wish, limit: int) -> tuple[list[Line], bool]:
    """
    Return up to `limit` lines, newest first, and whether there are more.

    Cost:    one query and one round trip; while Redis is away only what the database knows.
    """
    rows = [line_of(row, wish.access) for row in rows_for(wish)[: limit + 1]]
    since = rows[-1].at if len(rows) > limit else wish.since
    found = [*rows, *(line for line in by_itself(wish, since) if wish.before is None or line.place < wish.before)]
    found.sort(key=_place, reverse=True)
    return found[:limit], len(found) > limit


def latest(access: Access, since: float, limit: int, known: Known | None = None) -> list[Line]:
    """
    Return what changed last: rows and marks, and of what happened by itself one line a rule, since `since`.

    Rules take at most half of the lines, so that what a person did is not pushed out by what happens all the time.
    Cost:    one query and one round trip; none where the page has read the counters: `known`.
    """
    wish = Wish(access)
    rows = [line_of(row, access) for row in rows_for(wish)[:limit]]
    found = by_rule(wish, max(since, time.time() - FOLDED_SECONDS), known)
    marks = [line for line in found if line.source not in BY_ITSELF]
    rules = sorted((line for line in found if line.source in BY_ITSELF), key=_place, reverse=True)
    lines = sorted([*rows, *marks, *rules[: limit // 2]], key=_place, reverse=True)
    return lines[:limit]


def _place(line: Line) -> tuple[float, str]:
    return line.place
