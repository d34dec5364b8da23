"""What could be warmed of what some targets name: functions with arguments to warm, and the calls they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cacheadmin import browser, warming
from cacheadmin.conf import config
from cacheadmin.connections import link
from cacheadmin.functions import CachedFunction
from cacheadmin.store import is_redis
from cacheadmin.targets import All, Target
from cacheadmin.tenancy import tenancy

from .access import Access


def functions_for(targets: Sequence[Target]) -> list[CachedFunction[Any, Any]]:
    """Return the functions with something to warm that fill what some targets name."""
    return [
        function
        for function in warming.warmable()
        if any(
            browser.covers(Target(t.kind, t.name, alias=t.alias), function.alias, None, function.group)
            for t in targets
            if t.kind in ("tenant", "group", "prefix")
        )
    ]


def can_warm(access: Access, targets: Sequence[Target]) -> bool:
    """Say whether a page should offer to warm what some targets name. Cost: none once the URLconf is loaded."""
    if not access.may_warm or any(link(alias).is_away for alias in config().aliases if is_redis(alias)):
        return False
    return bool(functions_for(targets))


def steps_for(targets: Sequence[Target]) -> Iterable[warming.Step]:
    """Yield the calls that warm what some targets name."""
    whose = {target.tenant for target in targets}
    is_all = any(isinstance(tenant, All) for tenant in whose)
    tenants = [tenant.id for tenant in tenancy().list()] if is_all else sorted(t for t in whose if isinstance(t, str))
    return warming.plan(functions_for(targets), tenants, shared=is_all or None in whose)
