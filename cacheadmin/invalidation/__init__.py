"""From targets to deleted epochs: who is hit, in which order, one UNLINK a place. And the calls that sites make.

`request` is what code, people and commands use: it waits for the commit of an open transaction, and hands what could
not be delivered to whoever keeps it (the outbox). `deliver` acts at once.
"""

from cacheadmin.invalidation.asking import (
    invalidate_cache,
    invalidate_tags,
    invalidate_tenant_cache,
    on_failure,
    request,
)
from cacheadmin.invalidation.delivering import deliver
from cacheadmin.invalidation.dropping import keeps_scopes
from cacheadmin.invalidation.looking import Looked, Watch, sweep_patterns
from cacheadmin.invalidation.outcomes import Invalidation, Source

__all__ = [
    "Invalidation",
    "Looked",
    "Source",
    "Watch",
    "deliver",
    "invalidate_cache",
    "invalidate_tags",
    "invalidate_tenant_cache",
    "keeps_scopes",
    "on_failure",
    "request",
    "sweep_patterns",
]
