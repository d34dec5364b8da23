"""What is in the cache: tenants, groups, entries, plain keys. The only place that asks Redis for lists.

Nothing here unpickles, and nothing here decides who may see what: callers pass tenants they have checked.
"""

from __future__ import annotations

from .blast import Blast, blast, reached
from .counts import Away, GroupCount, PlaceCount, away, groups_of, indexed_aliases, place_count, registry_commands
from .entries import STATES, EntryPage, EntryRow, State, entries
from .entry import EntryView, Scope, entry, key_target, logical_key, present
from .plain import PlainKey, PlainPage, PlainValue, keys_of, plain_keys, plain_value
from .reach import covers, waiting_targets

__all__ = [
    "STATES",
    "Away",
    "Blast",
    "EntryPage",
    "EntryRow",
    "EntryView",
    "GroupCount",
    "PlaceCount",
    "PlainKey",
    "PlainPage",
    "PlainValue",
    "Scope",
    "State",
    "away",
    "blast",
    "covers",
    "entries",
    "entry",
    "groups_of",
    "indexed_aliases",
    "key_target",
    "keys_of",
    "logical_key",
    "place_count",
    "plain_keys",
    "plain_value",
    "present",
    "reached",
    "registry_commands",
    "waiting_targets",
]
