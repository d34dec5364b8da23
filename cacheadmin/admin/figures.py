"""The counters as the lists show them: per tenant and per group, for the alias and range that a page was asked for."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import Final

from django.http import QueryDict
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.conf import config
from cacheadmin.targets import All

from . import formats
from .access import Access
from .pages import Figure

RANGES: Final[dict[str, tuple[int, str | Promise]]] = {
    "15m": (15 * 60, gettext_lazy("Last 15 minutes")),
    "1h": (3600, gettext_lazy("Last hour")),
    "3h": (3 * 3600, gettext_lazy("Last 3 hours")),
    "24h": (24 * 3600, gettext_lazy("Last 24 hours")),
    "7d": (7 * 24 * 3600, gettext_lazy("Last 7 days")),
}
"""Value of the parameter `range` -> seconds, label."""

DEFAULT_RANGE: Final = "3h"


@dataclass(frozen=True, slots=True)
class Span:
    """The alias and the range of time that a page shows."""

    alias: str | None
    """None for all."""
    range: str
    access: Access

    @classmethod
    def of(cls, query: QueryDict, access: Access) -> Span:
        """Read them from a query string; what is unknown means all aliases and the last 3 hours."""
        alias, span = query.get("alias"), query.get("range", "")
        return cls(alias if alias in config().aliases else None, span if span in RANGES else DEFAULT_RANGE, access)

    @property
    def seconds(self) -> int:
        return RANGES[self.range][0]

    @property
    def label(self) -> str:
        return str(RANGES[self.range][1])

    @property
    def aliases(self) -> list[tuple[str, str, bool]]:
        """The choices for the alias: value, label, whether it is chosen."""
        names = [("", _("All aliases")), *((alias, alias) for alias in config().aliases)]
        return [(value, label, value == (self.alias or "")) for value, label in names]

    @property
    def ranges(self) -> list[tuple[str, str, bool]]:
        """The choices for the range: value, label, whether it is chosen."""
        return [(value, str(label), value == self.range) for value, (_seconds, label) in RANGES.items()]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted for one tenant or group; None where nothing is known."""

    hit_ratio: float | None = None
    change: float | None = None
    """Against the range's median, as a ratio: 0.02 is two points."""
    requests: float | None = None
    """A minute."""
    misses: float | None = None
    """A minute."""
    cost: float | None = None
    """Seconds a minute spent on misses."""
    invalidations: float | None = None
    """A minute."""
    mean_compute: float | None = None
    """Seconds."""

    @property
    def is_bad(self) -> bool:
        """Whether it is clearly worse than it was."""
        return self.change is not None and self.change <= -0.1

    def sort_key(self, field: str) -> float:
        """Return the number to sort by; the unknown comes where nothing is."""
        value = {
            "ratio": self.hit_ratio,
            "requests": self.requests,
            "misses": self.misses,
            "cost": self.cost,
            "invalidated": self.invalidations,
        }.get(field)
        return value if value is not None else (2.0 if field == "ratio" else -1.0)


NOTHING: Final = Figures()


def by_tenant(span: Span) -> dict[str | None, Figures]:
    """Return what was counted for each tenant with reads in the range."""
    return {}


def of_tenant(span: Span, tenant: str | None) -> Figures:
    """Return what was counted for one tenant."""
    return NOTHING


def by_group(span: Span, tenant: str | All | None) -> dict[tuple[str, str], Figures]:
    """Return what was counted for each (alias, group) of a tenant, or over all of them."""
    return {}


# --- in words -------------------------------------------------------------------------------------------------------


def about(size_bytes: int | None) -> str:
    """Return a size that was estimated."""
    return "" if not size_bytes else f"~ {formats.size(size_bytes)}"


def ago_parts(when: dt.datetime | float | None) -> tuple[str, str]:
    """Return "12" and "min ago" for a strip."""
    if when is None:
        return formats.UNKNOWN, ""
    value, _space, unit = formats.ago(when, time.time()).partition(" ")
    return value, unit


def strip_of(numbers: Figures) -> list[Figure]:
    """Return the figures that the pages of a tenant, a group and its entries share."""
    change = numbers.change
    level = "bad" if numbers.is_bad else ""
    sign = "" if change is None or abs(change) < 0.0005 else "▲ " if change > 0 else "▼ "
    note = "" if change is None else _("%(sign)s%(points)s points") % {"sign": sign, "points": formats.points(change)}
    misses, per = formats.rate(numbers.misses).partition("/")[::2]
    cost = "" if numbers.cost is None else _("%(time)s a minute") % {"time": formats.duration(numbers.cost)}
    compute, _space, unit = formats.duration(numbers.mean_compute).partition(" ")
    return [
        Figure(_("Hit ratio"), formats.percent(numbers.hit_ratio, 1), note=note, level=level),  # type: ignore[arg-type]
        Figure(_("Misses"), misses, f"/{per}" if per else ""),
        Figure(_("Mean compute"), compute, unit, note=cost),
    ]
