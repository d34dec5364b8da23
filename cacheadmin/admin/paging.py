"""What a list was asked for (search, order, page) and where its previous and next pages are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.http import QueryDict

SIZES: Final = (25, 50, 100, 200)
SEARCH_LENGTH: Final = 200


def whole(text: str | None, default: int, least: int, most: int) -> int:
    """Return a number from a query string, the nearest allowed one for anything else; never raises."""
    try:
        value = int(str(text)[:20])
    except ValueError:
        return default
    return max(least, min(value, most))


@dataclass(frozen=True, slots=True)
class Asked:
    """The state of a list, all of it from the query string."""

    query: QueryDict
    page: int
    size: int
    order: str
    """One of the orders the page offers; `-` before it means largest first."""
    search: str

    def value(self, name: str, allowed: Sequence[str], default: str = "") -> str:
        """Return a parameter if it is one of those allowed, else the default."""
        value = self.query.get(name, default)
        return value if value in allowed else default

    def link(self, **changes: Any) -> str:
        """Return this query string with some parameters changed; None takes one out. A change leaves the page."""
        query = self.query.copy()
        if "p" not in changes:
            query.pop("p", None)
        for name, value in changes.items():
            if value is None or value == "":
                query.pop(name, None)
            else:
                query[name] = str(value)
        return "?" + query.urlencode()


def asked(query: QueryDict, *, orders: Sequence[str] = (), size: int = 25) -> Asked:
    """Read the state of a list; what is out of range becomes the nearest valid, what is unknown the first order."""
    order = query.get("o", "")
    if order.removeprefix("-") not in {known.removeprefix("-") for known in orders}:
        order = orders[0] if orders else ""
    return Asked(
        query=query,
        page=whole(query.get("p"), 1, 1, 1_000_000),
        size=min(SIZES, key=lambda known: abs(known - whole(query.get("per_page"), size, 1, SIZES[-1]))),
        order=order,
        search=query.get("q", "").strip()[:SEARCH_LENGTH],
    )


@dataclass(frozen=True, slots=True)
class Pager:
    """The foot of a table. `total=None` where a total would cost a full read."""

    asked: Asked
    shown: int
    total: int | None
    has_next: bool

    @property
    def first(self) -> int:
        return (self.asked.page - 1) * self.asked.size + 1 if self.shown else 0

    @property
    def last(self) -> int:
        return (self.asked.page - 1) * self.asked.size + self.shown

    @property
    def previous_link(self) -> str:
        return self.asked.link(p=self.asked.page - 1) if self.asked.page > 1 else ""

    @property
    def next_link(self) -> str:
        return self.asked.link(p=self.asked.page + 1) if self.has_next else ""

    @property
    def sizes(self) -> list[tuple[int, str]]:
        """The offered page sizes with their links; the one in force has none."""
        return [(n, "" if n == self.asked.size else self.asked.link(per_page=n)) for n in SIZES]


def page_of(rows: Sequence[Any], wish: Asked) -> tuple[Sequence[Any], Pager]:
    """Cut one page out of rows that are all there; a page past the end becomes the last."""
    last = max(1, -(-len(rows) // wish.size))
    if wish.page > last:
        wish = Asked(wish.query, last, wish.size, wish.order, wish.search)
    start = (wish.page - 1) * wish.size
    shown = rows[start : start + wish.size]
    return shown, Pager(wish, len(shown), len(rows), start + wish.size < len(rows))


@dataclass(frozen=True, slots=True)
class Column:
    """The head of one column; `link` is empty where one cannot sort by it."""

    label: str
    name: str = ""
    link: str = ""
    direction: str = ""
    """`ascending` or `descending` for the column sorted by, as `aria-sort` has it."""
    is_number: bool = False
    is_low: bool = False
    """Whether it leaves the table on a phone."""
    title: str = ""


def columns(heads: Sequence[Mapping[str, Any]], wish: Asked) -> list[Column]:
    """
    Build the heads of a table: dicts of Column's fields.

    A head with `sort="-cost"` can be sorted by, in that direction first.
    """
    found = []
    for head in heads:
        parts = dict(head)
        sort = parts.pop("sort", "")
        if sort:
            is_on = wish.order.removeprefix("-") == sort.removeprefix("-")
            turned = wish.order[1:] if wish.order.startswith("-") else "-" + wish.order
            parts["link"] = wish.link(o=turned if is_on else sort)
            if is_on:
                parts["direction"] = "descending" if wish.order.startswith("-") else "ascending"
        found.append(Column(**parts))
    return found
