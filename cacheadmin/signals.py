"""Django signals that a site may listen to. Sending them costs nothing while nobody listens."""

from django.dispatch import Signal

cache_read = Signal()
"""A cached function, view or fragment was read.

Sender: the `CachedFunction`, or the string "fragment" or "get_or_set".
Arguments: `alias`, `tenant` (text, or None for shared data), `group`, `result` ("hit", "stale", "miss", "bypassed",
"error") and `took_ms`, the milliseconds spent computing (0.0 for a hit). Sent after the value is known.
"""

invalidated = Signal()
"""An invalidation was delivered, recorded for later, or failed.

Sender: the class `Invalidation`. Arguments: `invalidation` (an `Invalidation`).
"""
