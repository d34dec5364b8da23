"""What one request remembers: the stamps that its reads saw and, if the settings say so, its hits.

And what a process does: since when it knows a stamp to stand.
"""

from cacheadmin.memory.hits import forget_hit, forget_hits, keep_hit, recall
from cacheadmin.memory.seen import may_keep, note_seen
from cacheadmin.memory.stamps import NOTHING, REFUSED, REMEMBERED, clear, forget, remember, take

__all__ = [
    "NOTHING",
    "REFUSED",
    "REMEMBERED",
    "clear",
    "forget",
    "forget_hit",
    "forget_hits",
    "keep_hit",
    "may_keep",
    "note_seen",
    "recall",
    "remember",
    "take",
]
