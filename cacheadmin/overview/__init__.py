"""What the counters mean: figures, charts and the verdict. Plain data; words and HTML are the pages'."""

from __future__ import annotations

from .figures import Figure, Figures
from .health import AliasRow, Server
from .notes import Cause, Note
from .page import Overview, Strip, overview
from .ranges import DEFAULT_RANGE, RANGES, Range
from .ranking import Order, Ranking, Row
from .report import stats_report
from .rows import Allowed, group_rows, tenant_rows
from .series import Series

__all__ = [
    "DEFAULT_RANGE",
    "RANGES",
    "AliasRow",
    "Allowed",
    "Cause",
    "Figure",
    "Figures",
    "Note",
    "Order",
    "Overview",
    "Range",
    "Ranking",
    "Row",
    "Series",
    "Server",
    "Strip",
    "group_rows",
    "overview",
    "stats_report",
    "tenant_rows",
]
