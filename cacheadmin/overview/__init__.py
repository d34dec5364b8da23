"""What the counters mean: figures, charts and the verdict. Plain data; words and HTML are the pages'."""

from __future__ import annotations

from .advice import Advice, Judged
from .advised import AdviceReport, Advised, advice_report, advised_groups, advised_tenants
from .figures import Figure, Figures
from .gains import Gains
from .health import AliasRow, Server
from .notes import Cause, Note
from .page import Overview, Strip, overview
from .ranges import DEFAULT_RANGE, RANGES, Range
from .ranking import Order, Ranking, Row
from .report import stats_report
from .rows import Allowed, group_rows, tenant_rows
from .sentences import Writer, sentence
from .series import Series

__all__ = [
    "DEFAULT_RANGE",
    "RANGES",
    "Advice",
    "AdviceReport",
    "Advised",
    "AliasRow",
    "Allowed",
    "Cause",
    "Figure",
    "Figures",
    "Gains",
    "Judged",
    "Note",
    "Order",
    "Overview",
    "Range",
    "Ranking",
    "Row",
    "Series",
    "Server",
    "Strip",
    "Writer",
    "advice_report",
    "advised_groups",
    "advised_tenants",
    "group_rows",
    "overview",
    "sentence",
    "stats_report",
    "tenant_rows",
]
