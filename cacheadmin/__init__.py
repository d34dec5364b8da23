"""The control plane of a multi-tenant cache: a caching API, exact invalidation, and admin pages to see and act.

Importable before Django's app registry is ready. What needs models is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .exceptions import CacheAdminError
from .functions import CachedFunction, cache_query_result, cache_tenant_query
from .invalidation import Invalidation, invalidate_cache, invalidate_tags, invalidate_tenant_cache
from .keys import get_cache_key, get_tenant_cache_key
from .responses import cache_api_response
from .results import ResultList
from .shortcuts import (
    cache_dashboard_data,
    cache_gold_rate,
    cache_report_result,
    get_cached_dashboard_data,
    get_cached_gold_rate,
    get_cached_report_result,
    get_or_set_cache,
)
from .store import ABSENT
from .targets import ALL, Target

if TYPE_CHECKING:
    from .by_model import invalidate_model_cache
    from .rules import Rule, RuleTarget

__version__ = "0.1.0"

_LATER = {"Rule": "rules", "RuleTarget": "rules", "invalidate_model_cache": "by_model"}

__all__ = [
    "ABSENT",
    "ALL",
    "CacheAdminError",
    "CachedFunction",
    "Invalidation",
    "ResultList",
    "Rule",
    "RuleTarget",
    "Target",
    "cache_api_response",
    "cache_dashboard_data",
    "cache_gold_rate",
    "cache_query_result",
    "cache_report_result",
    "cache_tenant_query",
    "get_cache_key",
    "get_cached_dashboard_data",
    "get_cached_gold_rate",
    "get_cached_report_result",
    "get_or_set_cache",
    "get_tenant_cache_key",
    "invalidate_cache",
    "invalidate_model_cache",
    "invalidate_tags",
    "invalidate_tenant_cache",
]


def __getattr__(name: str) -> Any:
    """Load what needs the app registry when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
