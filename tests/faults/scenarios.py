"""All scenarios by name. They are imported when one runs: they need a site that is set up."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from faults import Asked, Outcome, Scenario


def _of(module: str, name: str) -> Callable[[Asked], Outcome]:
    return lambda asked: getattr(import_module(f"faults.{module}"), name)(asked)


ALL = (
    Scenario(
        "stale_set",
        _of("walks", "stale_set"),
        short=300,
        long=10_000,
        must=("stale",),
        watches=(
            "lease",
            "entry_delete",
            "fence",
            "open_first",
            "epochs_made_at_fill",
            "random_epochs",
            "remembered_stamp",
            "grace",
            "two_passes",
        ),
    ),
    Scenario(
        "key_loss",
        _of("walks", "key_loss"),
        short=300,
        long=10_000,
        must=("stale",),
        watches=("epoch_of_the_tenant", "widening", "marker"),
    ),
    Scenario(
        "early_invalidate",
        _of("commits", "early_invalidate"),
        short=150,
        long=5_000,
        must=("stale", "uncommitted", "own_write_unseen"),
        watches=("after_the_commit", "no_hit_after_a_write", "no_fill_after_a_write", "no_fill_of_snapshots"),
        databases=("sqlite", "postgres"),
    ),
    Scenario(
        "old_snapshot",
        _of("snapshots", "old_snapshot"),
        short=150,
        long=10_000,
        must=("stale", "not_cached"),
        watches=("no_fill_of_snapshots", "isolation_asked", "isolation_noted"),
        databases=("postgres",),
    ),
    Scenario(
        "race",
        _of("races", "race"),
        short=50_000,
        long=1_000_000,
        must=("stale", "uncommitted", "own_write_unseen", "stuck", "exceptions"),
        watches=("lease", "open_first", "after_the_commit"),
        databases=("sqlite", "postgres"),
    ),
    Scenario(
        "writes",
        _of("writing", "writes"),
        short=140,
        long=10_000,
        must=("missed",),
        watches=("net_at_the_cursor", "both_tenants"),
        databases=("sqlite", "postgres"),
    ),
    Scenario(
        "bulk",
        _of("bulk", "bulk"),
        short=40_000,
        long=1_000_000,
        must=("unbounded", "scattered", "stale"),
        watches=("collapsing",),
        databases=("sqlite", "postgres"),
    ),
    Scenario(
        "nesting",
        _of("nested", "nesting"),
        short=200,
        long=10_000,
        must=("stale",),
        watches=("order_of_places", "one_unlink", "nesting_rank"),
    ),
    Scenario(
        "wrong_reply",
        _of("replies", "wrong_reply"),
        short=1_000,
        long=100_000,
        must=("foreign", "exceptions"),
        watches=("digest",),
    ),
    Scenario(
        "crash",
        _of("crashes", "crash"),
        short=100,
        long=1_000,
        must=("lost",),
        watches=("outbox_row", "intent_with_its_write"),
        databases=("sqlite", "postgres"),
    ),
    Scenario(
        "relay",
        _of("crashes", "relay_killed"),
        short=20,
        long=500,
        must=("lost",),
        watches=("done_after_the_delivery",),
        databases=("sqlite", "postgres"),
    ),
    Scenario(
        "outage",
        _of("outages", "outage"),
        short=5,
        long=100,
        must=("lost", "stale", "failed_writes", "exceptions", "pressed", "too_slow", "storm", "late"),
        watches=("what_waits", "breaker", "drain_before_reading", "half_before_draining"),
    ),
    Scenario(
        "failover",
        _of("failovers", "failover"),
        short=4,
        long=100,
        must=("stale", "lost"),
        watches=("identity", "reign", "identity_of_the_stamp"),
    ),
    Scenario(
        "partial_partition",
        _of("partitions", "partial_partition"),
        short=6,
        long=150,
        must=("lost", "stale", "exceptions"),
        watches=("outbox_row", "drain_before_reading"),
    ),
    Scenario(
        "stampede",
        _of("stampedes", "stampede"),
        short=3,
        long=150,
        must=("computed_too_often", "blocked", "stale"),
        watches=("single_flight", "join", "grace"),
    ),
    Scenario(
        "eviction",
        _of("evictions", "eviction"),
        short=1_500,
        long=20_000,
        must=("stale", "exceptions", "not_invalidated", "too_big", "no_pressure"),
        watches=("random_epochs", "widening", "size_limit"),
    ),
    Scenario(
        "tenants",
        _of("tenants", "tenants"),
        short=10_000,
        long=1_000_000,
        must=("met", "foreign", "survived", "wiped", "exceptions"),
        watches=("escaping", "digests_of_long_names"),
    ),
    Scenario(
        "reclaim",
        _of("reclaims", "reclaim"),
        short=300,
        long=10_000,
        must=("fresh_lost", "stale"),
        watches=("header_check_in_reclaim",),
    ),
    Scenario(
        "flapping",
        _of("flapping", "flapping"),
        short=4,
        long=150,
        must=("five_hundreds",),
        watches=("soft_reads",),
    ),
    Scenario(
        "tampered",
        _of("tampering", "tampered"),
        short=2_000,
        long=100_000,
        must=("altered", "executed", "exceptions"),
        watches=("signature",),
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in ALL}
