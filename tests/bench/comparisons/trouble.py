"""What is kept and counted, and what happens when many ask at once or Redis does not answer."""

from __future__ import annotations

import queue

from bench.comparisons.reading import exactly
from bench.measure import Bench, Table, Target, Ways, Worker

HUNG_SECONDS = 5.0


def counting(bench: Bench, *, quick: bool) -> list[Table]:
    """Compare what counting adds to a hit; and a flush."""
    ways: Ways = {"hit": ("cacheadmin", "hit", {"size": 1_000}), "count": ("cacheadmin", "count", {})}
    found = bench.compare(ways, "hit", rounds=10 if quick else 60, calls=200)
    ours = bench.workers["cacheadmin"]
    ours.do(make="flush", **{"as": "flush"})
    ours.do(time=1, **{"as": "flush"})
    trips = ours.do(trips=1, **{"as": "flush"})
    share = found["count"].ratio
    table = Table("Counting", ("", "Share of a hit", "Round trips"))
    table.rows = [("one read", f"{share:.1%}", "0"), ("a flush of 1,000 counters", "", f"{trips:g}")]
    table.targets = [
        Target("counting a hit, of the hit", f"{share:.1%}", "≤ 2%", share <= 0.02),
        exactly("a flush of 1,000 counters: round trips", trips, 1),
    ]
    return [table]


def memory(bench: Bench, *, quick: bool) -> list[Table]:
    """Compare what Redis keeps for an entry of 900 bytes."""
    entries = 2_000 if quick else 20_000
    table = Table(f"Redis' memory for an entry of 900 bytes, {entries:,} of them", ("Peer", "Bytes", "Over plain SET"))
    given = {"entries": entries, "size": 900}
    floor = _kept(bench, bench.workers["redis-py"], given)
    table.rows.append(("plain SET", f"{floor:.0f}", ""))
    for name in ("django-redis", "django-cacheops", "django-cachalot"):
        if name in bench.workers:
            used = _kept(bench, bench.workers[name], given)
            table.rows.append((name, f"{used:.0f}", f"{used - floor:+.0f}"))
    ours = bench.workers["cacheadmin"]
    for group, limit in ((100, 60), (1_000, 160)):
        used = _kept(bench, ours, given | {"per_group": group})
        index = ours.do(ask="index_bytes", **{"with": {"tenant": 0}}) / group
        table.rows.append(
            (f"**cacheadmin**, groups of {group:,}", f"{used:.0f}", f"{used - floor:+.0f}, the index {index:.0f}")
        )
        over = used - floor
        table.targets += [
            Target(f"bytes an entry over plain SET, groups of {group:,}", f"{over:.0f}", f"≤ {limit}", over <= limit),
            Target(f"of these its index, groups of {group:,}", f"{index:.0f}", f"≤ {limit}", index <= limit),
        ]
    header = ours.do(ask="header_bytes")
    bench.flush()
    table.text = (
        "cacheops: 100 entries depend on the same condition; one each would cost more. The limits of 60 and 160 bytes "
        "were set for an index, and one epoch in the value. Ours hold a header, "
        f"of {header:.0f} bytes here: digest, server, epochs, and function, arguments and time for the console; and "
        "their keys name alias, tenant and group."
    )
    return [table]


def _kept(bench: Bench, worker: Worker, given: dict[str, int]) -> float:
    bench.flush()
    before = bench.memory()
    entries = worker.do(ask="fill", **{"with": given})
    return (bench.memory() - before) / entries


def stampede(bench: Bench, *, quick: bool) -> list[Table]:
    """Let twenty threads ask for a cold entry at once."""
    callers, seconds = 20, 0.3
    table = Table(
        f"{callers} callers of a cold entry that takes {seconds} s", ("Peer", "Computed", "The last one waits, s")
    )
    for name in ("django-redis", "django-cache-memoize", "django-cacheops", "django-cachalot", "cacheadmin"):
        if name in bench.workers:
            said = bench.workers[name].do(ask="stampede", **{"with": {"callers": callers, "seconds": seconds}})
            table.rows.append((name, f"{said['computed']:.0f} ×", f"{said['seconds']:.2f}"))
            if name == "cacheadmin":
                table.targets = [exactly(f"{callers} callers of a cold entry: computed", said["computed"], 1)]
    table.text = "cacheops has `lock=True` for that."
    return [table]


def hung(bench: Bench, *, quick: bool) -> list[Table]:
    """Freeze the server and read: how long does a page wait?"""
    table = Table(
        "Redis hangs: ten reads of a page", ("Peer, by its defaults", "First read", "Each further one", "The page")
    )
    # Ours first: later its own threads would have found out already, and its first read would not wait at all.
    peers = ("cacheadmin default", "django-redis with timeouts", "django-redis", "django-cacheops", "django-cachalot")
    present = [name for name in peers if name in bench.workers]
    for name in present:
        bench.workers[name].do(ask="hung", **{"with": {"calls": 2}})
    bench.server.pause()
    try:
        for name in present:
            bench.workers[name].tell(ask="hung", **{"with": {"calls": 10}})
            try:
                said = bench.workers[name].wait(HUNG_SECONDS)
            except queue.Empty:
                table.rows.append((name, f"> {HUNG_SECONDS:.0f} s", "", "hangs with Redis"))
                continue
            ends = f"fails: {said['raised']}" if said["raised"] else "answers"
            table.rows.append((name, f"{said['first'] * 1000:.0f} ms", f"{said['next'] * 1000:.1f} ms", ends))
            if name == "cacheadmin default":
                whole = said["first"] + 9 * said["next"]
                table.targets = [
                    Target(
                        "ten reads while Redis hangs", f"{whole:.2f} s", "≤ 0.5 s", whole <= 0.5 and not said["raised"]
                    )
                ]
    finally:
        bench.server.resume()
    return [table]
