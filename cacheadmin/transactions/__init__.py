"""What this thread's database transactions mean for the cache, and what is to be done when they end.

No models, no rules, no Redis in here: those who do something at the end of a transaction register with `on_end`.

A transaction is *real* unless every block around it is a `TestCase`'s own. Leaving the outermost real block inside a
`TestCase` counts as its commit.
"""

from cacheadmin.transactions.ends import by_hand, install, on_end, on_written, settle, several, uninstall
from cacheadmin.transactions.state import (
    Pending,
    announced,
    any_begun,
    defer,
    in_transaction,
    is_alone,
    is_open,
    mark_written,
    may_fill,
    may_read,
    note_isolation,
    note_query,
    on_query,
    pending,
    replica_watch,
    state_of,
)

__all__ = [
    "Pending",
    "announced",
    "any_begun",
    "by_hand",
    "defer",
    "in_transaction",
    "install",
    "is_alone",
    "is_open",
    "mark_written",
    "may_fill",
    "may_read",
    "note_isolation",
    "note_query",
    "on_end",
    "on_query",
    "on_written",
    "pending",
    "replica_watch",
    "settle",
    "several",
    "state_of",
    "uninstall",
]
