"""Our own connections to the servers behind the cache aliases: short timeouts, known identity, left alone when away.

They never share django-redis' pools: those are cached by URL alone, with the timeouts of whichever alias came first.
"""

from .gates import Gate, Gated, half_a_pause, on_reopen
from .lines import AWAY, NO_IDENTITY, NotMaster, Replies, identity_of, packed
from .links import Link, forget_links, link, prefix
from .urls import server_url

__all__ = [
    "AWAY",
    "NO_IDENTITY",
    "Gate",
    "Gated",
    "Link",
    "NotMaster",
    "Replies",
    "forget_links",
    "half_a_pause",
    "identity_of",
    "link",
    "on_reopen",
    "packed",
    "prefix",
    "server_url",
]
