"""Each safety mechanism, and how to take it away: patches from outside, so that production code has no such switch."""

from . import commits, entries, scopes, servers, writes
from .registry import MECHANISMS, WITHOUT, take_away

__all__ = ["MECHANISMS", "WITHOUT", "commits", "entries", "scopes", "servers", "take_away", "writes"]
