"""
What the protocol says would happen if a piece of it were dropped, and which mechanism is that piece.

Each line is one of the reasons why the protocol is as it is; a test sees that every mechanism here turns a scenario
red, and that no line is without one.
"""

from __future__ import annotations

DROPPED: dict[str, tuple[str, ...]] = {
    "the lease's check at a fill: stale after a single entry was deleted": ("lease",),
    "the lease in the delete of an entry: stale after it": ("entry_delete",),
    "the group's fence in the delete of an entry, with unleased fills: stale after it": ("fence",),
    "opening before computing: stale, the write fell between": ("open_first",),
    "no epoch is made at a fill: stale, the write fell between": ("epochs_made_at_fill",),
    "epochs are random: counters begin again, and an old value is valid": ("random_epochs",),
    "a plain set uses the stamp that its get saw: stale plain key": ("remembered_stamp",),
    "a prefix widens when the registry is lost: it misses a group": ("widening",),
    "a registry is begun anew without its marker: a prefix misses a group": ("marker",),
    "a group's epoch is bound to its tenant's: a group lives on after a flush": ("epoch_of_the_tenant",),
    "the identity of the server: revived by a failover": ("identity",),
    "the identity is the stamp's, not the fill's: filled across a failover": ("identity_of_the_stamp",),
    "the identity names the reign: revived by failing back": ("reign",),
    "draining before reading: one's own write is not seen": ("drain_before_reading",),
    "half open before draining: one's own write is not seen": ("half_before_draining",),
    "no fill in a transaction that wrote: an uncommitted value is served": ("no_fill_after_a_write",),
    "no hit in a transaction that wrote: one's own write is not seen": ("no_hit_after_a_write",),
    "no fill of an older snapshot, whose stamp is younger than it: stale": ("no_fill_of_snapshots", "isolation_asked"),
    "epochs hold within the grace: stale served": ("grace",),
    "the outbox: lost by a crash": ("outbox_row",),
    "the intent in the same transaction: lost by a crash": ("intent_with_its_write",),
    "two passes of a pattern: stale": ("two_passes",),
    "the order of places: an outer value of a dying inner one stays": ("order_of_places",),
    "one UNLINK a place: an outer value of a dying inner one stays": ("one_unlink",),
    "joining after patience: a dead holder blocks": ("join",),
    "the header's check in reclaiming: fresh entries are removed": ("header_check_in_reclaim",),
}

HARMLESS: dict[str, str] = {
    "the epochs' check at a fill: nothing, the stamp is dead anyway": "epoch_check_at_fill",
}
"""What may be dropped without anything becoming stale; it saves a good value from being overwritten."""

NOT_BUILT = ("the witness of an undo", "the tenant's witness first in a prefix invalidation")
"""There is no undo of a flush, so there is nothing to drop."""

BESIDES: dict[str, tuple[str, ...]] = {
    "the breaker: each call waits for a server that hangs": ("breaker",),
    "reads fail softly: pages fail with the server": ("soft_reads",),
    "the header's digest: a reply meant for another tenant is served": ("digest",),
    "the signature of a payload: a stored pickle is run": ("signature",),
    "the bound on a value's size: a big value fills the server": ("size_limit",),
    "one computes and the others wait: all compute": ("single_flight",),
    "parts of a key are escaped, long ones are digests: tenants meet": ("escaping", "digests_of_long_names"),
    "nothing waits without being kept: lost by an outage": ("what_waits",),
    "rows are done after their delivery: lost by a relay that dies": ("done_after_the_delivery",),
    "delivery after the commit: stale": ("after_the_commit",),
    "the intent before what commits by itself: lost by a crash": ("intent_of_what_commits_by_itself",),
    "that intent is held back while it runs: lost by a crash": ("held_while_it_runs",),
    "what may be part of what: an outer value of an unseen inner one stays": ("nesting_rank",),
}
"""What the protocol's table leaves out."""
