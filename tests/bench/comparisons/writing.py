"""Writes through the ORM: what a save costs, and what is served after each kind of write."""

from __future__ import annotations

from bench.comparisons.reading import at_most
from bench.measure import Bench, Table, Target, Ways

PLAIN = "Django alone"
OURS = '**cacheadmin, `OUTBOX="on_failure"`**'
WRITES = (
    "save()",
    "update()",
    "bulk_update()",
    "bulk_create() with update_conflicts",
    "raw SQL",
    "save() in a transaction that is rolled back",
)


def saves(bench: Bench, *, quick: bool) -> list[Table]:
    """Compare one `save()` in autocommit, and thousands in one transaction, of a model that something depends on."""
    rows = 300 if quick else 10_000
    names = {
        PLAIN: "redis-py",
        "cacheops": "django-cacheops",
        "cachalot": "django-cachalot",
        "**cacheadmin**": "cacheadmin",
        OURS: "cacheadmin on_failure",
        '**cacheadmin, `OUTBOX="off"`**': "cacheadmin off",
    }
    found, cpu = {}, {}
    for way, rounds, calls in (("save", 5 if quick else 40, 20), ("atomic", 2 if quick else 3, 1)):
        given = {"rows": rows} if way == "atomic" else {}
        ways: Ways = {label: (name, way, given) for label, name in names.items()}
        found[way] = bench.compare(ways, PLAIN, rounds=rounds, calls=calls)
        if way == "save":
            for label in found[way]:
                worker = bench.workers[names[label]]
                cpu[label] = min(worker.do(spend=calls, **{"as": label}) for _ in range(rounds))
    table = Table(
        "`save()`",
        (
            *("Peer", f"One, × {PLAIN}", "µs", "Its own CPU, ×", "Round trips"),
            *(f"{rows:,} in one transaction, ×", "Round trips of all"),
        ),
        text="SQLite in a file without syncing: a real database is slower, which makes each of these ratios smaller. "
        "On a busy machine the answer of Redis waits for a processor, and a save without Redis does not; the CPU that "
        "the process itself spends, the least of all rounds, is free of that.",
    )
    for label, one in found["save"].items():
        many = found["atomic"][label]
        table.rows.append(
            (
                label,
                f"{one.ratio:.2f}",
                f"{one.seconds * 1e6:.0f}",
                f"{cpu[label] / cpu[PLAIN]:.2f}",
                f"{one.trips:g}",
                f"{many.ratio:.2f}",
                f"{many.trips:g}",
            )
        )
    one, many = found["save"][OURS], found["atomic"][OURS]
    table.targets = [
        at_most(f'`save()` with `OUTBOX="on_failure"`, × {PLAIN}', one.ratio, 2.0),
        Target("`save()`: round trips", f"{one.trips:g}", "≤ 1", one.trips <= 1.01),
        at_most(f"{rows:,} saves in one transaction, × {PLAIN}", many.ratio, 1.10),
        Target(f"{rows:,} saves in one transaction: round trips", f"{many.trips:g}", "≤ 1", many.trips <= 1),
    ]
    if "cachalot" in found["save"]:
        table.targets.append(at_most("`save()`, × cachalot's", one.times(found["save"]["cachalot"]), 1.0))
    return [table]


def stale_writes(bench: Bench, *, quick: bool) -> list[Table]:
    """Say what is served after each kind of write."""
    peers = [name for name in ("django-cacheops", "django-cachalot", "cacheadmin") if name in bench.workers]
    table = Table("What is served after a write", ("Write", *peers))
    for kind in WRITES:
        said = [bench.workers[name].do(ask="write", **{"with": {"kind": kind}}) for name in peers]
        table.rows.append((f"`{kind}`" if kind.endswith("()") else kind, *said))
        table.targets.append(Target(f"after {kind}", said[-1], "fresh", said[-1] == "fresh"))
    return [table]
