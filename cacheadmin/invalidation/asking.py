"""The calls that sites, commands and people make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cacheadmin import transactions
from cacheadmin.conf import managed
from cacheadmin.invalidation.delivering import deliver
from cacheadmin.invalidation.looking import Watch
from cacheadmin.invalidation.outcomes import Invalidation
from cacheadmin.keys import tenant_text
from cacheadmin.targets import Target, from_pattern

Keep = Callable[[Invalidation], bool]
_keep: Keep | None = None


def on_failure(keep: Keep | None) -> None:
    """Set who records what could not be delivered; `keep(invalidation)` says whether it did."""
    global _keep
    _keep = keep


def request(
    targets: Sequence[Target], *, source: str = "code", name: str = "", reason: str = "", watch: Watch | None = None
) -> Invalidation:
    """
    Invalidate now, or after the commit if a transaction of this thread is open.

    `watch`: as `deliver` has it; it is not told of what waits for a commit. What it ends is "failed", never recorded.
    Cost:    as `deliver`; nothing while a transaction is open.
    Returns: "done", "deferred", "waiting" (the server is away; recorded, and delivered when it is back) or "failed".
    Raises:  UnknownAlias.
    """
    for alias in {target.alias for target in targets}:
        managed(alias)  # names are checked here, where the caller can still be told
    if transactions.defer(targets, source, name):
        return Invalidation(tuple(targets), "deferred", source, name, reason=reason, pending=tuple(targets))
    result = deliver(targets, source=source, name=name, reason=reason, watch=watch)
    if result.state == "failed" and not result.is_stopped and _keep is not None and _keep(result):
        return replace(result, state="waiting")
    return result


def invalidate_cache(pattern: str, alias: str | None = None, *, cache_alias: str | None = None) -> Invalidation:
    """
    Invalidate what a glob over keys matches, as it is and behind `tenant:<id>:`.

    `tenant:12:*`, `inventory:*` and `tenant:12:inventory:*` are scopes: one round trip, whatever they hold. Another
    glob is looked for with two SCANs; a key without a glob is one entry. `cache_alias` is a synonym of `alias`.
    Raises:  InvalidTarget; UnknownAlias.
    """
    return request(from_pattern(pattern, alias or cache_alias))


def invalidate_tenant_cache(
    tenant_id: Any, prefix: str | None = None, alias: str | None = None, *, cache_alias: str | None = None
) -> Invalidation:
    """
    Invalidate everything of a tenant, or its groups whose names begin with `prefix`.

    `inventory` reaches `inventory_list` and `inventory:branch:5`. A tenant id matches only itself. `cache_alias` is a
    synonym of `alias`.
    Raises:  InvalidTenant; UnknownAlias.
    """
    tenant, alias = tenant_text(tenant_id), alias or cache_alias
    return request([Target("prefix", prefix, tenant, alias) if prefix else Target("tenant", "", tenant, alias)])


def invalidate_tags(tenant_id: Any, *tags: str, alias: str | None = None) -> Invalidation:
    """
    Invalidate every entry of a tenant that carries one of the tags; `tenant_id=None` means shared data.

    Raises:  InvalidTenant; InvalidTarget for an empty tag; UnknownAlias.
    """
    tenant = None if tenant_id is None else tenant_text(tenant_id)
    return request([Target("tag", tag, tenant, alias) for tag in tags])
