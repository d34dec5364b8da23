"""Dropping a tenant, looking at it, and giving its memory back, in keyspaces of growing size."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.comparisons.reading import at_most, exactly
from bench.measure import Bench, Table, Target, Worker

KEYS = 1_000
"""Of the tenant that is dropped."""

DROPPING = {"tenant": "drop", "group": "drop_group"}
"""What is dropped -> the way to do it."""

DROPS = {
    "django-redis `delete_pattern(itersize=1000)`": ("django-redis", {"itersize": 1000}),
    "django-redis `delete_pattern`, its default": ("django-prometheus", {"itersize": 10}),
    "cacheops, as one row's save does": ("django-cacheops", {}),
    "cachalot, the table: every tenant's": ("django-cachalot", {}),
    "**cacheadmin `invalidate_tenant_cache`**": ("cacheadmin", {}),
}
PATTERN, OURS = "django-redis `delete_pattern(itersize=1000)`", "**cacheadmin `invalidate_tenant_cache`**"

GROUPS = {label: DROPS[label] for label in (PATTERN, "django-redis `delete_pattern`, its default")} | {
    "**cacheadmin, a function's `invalidate_all(tenant)`**": ("cacheadmin", {}),
}
GROUP = "**cacheadmin, a function's `invalidate_all(tenant)`**"

PAGES = {
    "dj-cache-panel, names only": "dj-cache-panel",
    "django-redis `iter_keys(itersize=1000)`, names only": "django-redis",
    "**cacheadmin, with size and time to live**": "cacheadmin",
}
PANEL, PAGE = "dj-cache-panel, names only", "**cacheadmin, with size and time to live**"


@dataclass(slots=True)
class Shot:
    """One way in one keyspace."""

    seconds: list[float] = field(default_factory=list)
    redis: list[float] = field(default_factory=list)
    trips: float = 0.0

    def text(self) -> str:
        """Return round trips / ms / ms of the server's CPU."""
        return f"{self.trips:g} / {_ms(self.median)} / {_ms(statistics.median(self.redis))}"

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.2f}" if seconds < 0.01 else f"{seconds * 1000:,.0f}"


def _label(size: int) -> str:
    return "1M keys" if size == 1_000_000 else f"{size // 1000}k keys"


def drops(bench: Bench, *, quick: bool) -> list[Table]:
    """Drop one tenant's 1,000 entries, and show the first page of its entries, in 10k, 100k and 1M keys of others."""
    sizes = [10_000] if quick else [10_000, 100_000, 1_000_000]
    heads = tuple(map(_label, sizes))
    dropped = Table(f"Drop one tenant's {KEYS:,} keys: round trips / ms / ms of Redis' CPU", ("Way", *heads))
    paged = Table("The first page of 50 of a tenant's keys: round trips / ms / ms of Redis' CPU", ("Way", *heads))
    by_drop: dict[str, list[Shot]] = {label: [] for label, (name, _) in DROPS.items() if name in bench.workers}
    by_page: dict[str, list[Shot]] = {label: [] for label, name in PAGES.items() if name in bench.workers}
    counted = []
    for size in sizes:
        bench.flush()
        bench.populate(size)
        rounds = 3 if quick or size == 1_000_000 else 7
        for label, shot in _pages(bench, list(by_page), rounds if size == 1_000_000 else 3 * rounds).items():
            by_page[label].append(shot)
        ways = {label: DROPS[label] for label in by_drop}
        for label, shot in _drops(bench, ways, rounds, what="tenant", entries=KEYS).items():
            by_drop[label].append(shot)
        counted.append(bench.commands(bench.workers["cacheadmin"], OURS, 1))
    dropped.rows = [(label, *(shot.text() for shot in shots)) for label, shots in by_drop.items()]
    paged.rows = [(label, *(shot.text() for shot in shots)) for label, shots in by_page.items()]
    dropped.text = (
        "cacheops and cachalot have no operation on a tenant; cachalot frees no memory. Ours frees it later, see below."
    )
    dropped.targets = [
        exactly("drop of a tenant: round trips", by_drop[OURS][-1].trips, 1),
        Target(
            f"drop of a tenant: commands in {', '.join(heads)}",
            "; ".join(", ".join(f"{n} {c}" for c, n in sorted(told.items())) for told in counted),
            "the same",
            all(told == counted[0] for told in counted),
        ),
    ]
    trips = max(shot.trips for shot in by_page[PAGE])
    paged.targets = [Target("first page: round trips", f"{trips:g}", "≤ 2", trips <= 2)]
    if 100_000 in sizes:
        at = sizes.index(100_000)
        faster = by_drop[PATTERN][at].median / by_drop[OURS][at].median
        dropped.targets.append(_many(f"drop of a tenant in 100k keys, times faster than {PATTERN}", faster, 200))
        growth = by_page[PAGE][-1].median / by_page[PAGE][0].median
        paged.targets.append(at_most(f"first page: {heads[-1]}, × {heads[0]}", growth, 1.5))
        if PANEL in by_page:
            nearer = by_page[PANEL][at].median / by_page[PAGE][at].median
            paged.targets.append(_many("first page in 100k keys, times faster than dj-cache-panel", nearer, 50))
    return [dropped, _whole_group(bench, quick=quick), paged]


def _whole_group(bench: Bench, *, quick: bool) -> Table:
    """Drop one group that is all that the server holds."""
    entries = 2_000 if quick else 100_000
    bench.flush()
    ways = {label: way for label, way in GROUPS.items() if way[0] in bench.workers}
    shots = _drops(bench, ways, 3, what="group", entries=entries)
    table = Table(f"Drop one group of {entries:,} entries", ("Way", "Round trips / ms / ms of Redis' CPU"))
    table.rows = [(label, shot.text()) for label, shot in shots.items()]
    faster = shots[PATTERN].median / shots[GROUP].median
    table.targets = [
        exactly(f"drop of a group of {entries:,} entries: round trips", shots[GROUP].trips, 1),
        _many(f"drop of a group of {entries:,} entries, times faster than {PATTERN}", faster, 200),
    ]
    return table


def _many(what: str, times: float, limit: int) -> Target:
    return Target(what, f"{times:,.0f}", f"≥ {limit}", times >= limit)


def _once(bench: Bench, worker: Worker, label: str, shot: Shot, *, nothing: float) -> None:
    before = bench.cpu()
    shot.seconds.append(worker.do(time=1, **{"as": label}))
    shot.redis.append(max(bench.cpu() - before - nothing, 0.0))


def _nothing(bench: Bench) -> float:
    def asked() -> float:
        before = bench.cpu()
        return bench.cpu() - before

    return statistics.median(asked() for _ in range(9))


def _drops(
    bench: Bench, ways: Mapping[str, tuple[str, dict[str, Any]]], rounds: int, *, what: str, entries: int
) -> dict[str, Shot]:
    """Time the dropping of a tenant or group of so many entries, filled anew each time."""
    shots = {label: Shot() for label in ways}
    for label, (name, given) in ways.items():
        worker = bench.workers[name]
        worker.do(make=DROPPING[what], **{"as": label, "with": given})
        _fill(worker, what, entries)
        shots[label].trips = worker.do(trips=1, **{"as": label})
        worker.do(ask="settle")
    nothing = _nothing(bench)
    for _ in range(rounds):
        for label in random.sample(list(ways), len(ways)):
            worker = bench.workers[ways[label][0]]
            _fill(worker, what, entries)
            _once(bench, worker, label, shots[label], nothing=nothing)
            worker.do(ask="settle")
    return shots


def _fill(worker: Worker, what: str = "tenant", entries: int = KEYS) -> None:
    worker.do(ask=f"fill_{what}", **{"with": {"entries": entries}})


def _pages(bench: Bench, labels: list[str], rounds: int) -> dict[str, Shot]:
    shots = {label: Shot() for label in labels}
    for label in labels:
        worker = bench.workers[PAGES[label]]
        _fill(worker)
        worker.do(make="browse", **{"as": label})
        worker.do(time=1, **{"as": label})
        shots[label].trips = worker.do(trips=1, **{"as": label})
    nothing = _nothing(bench)
    for _ in range(rounds):
        for label in random.sample(labels, len(labels)):
            _once(bench, bench.workers[PAGES[label]], label, shots[label], nothing=nothing)
    return shots


def reclaiming(bench: Bench, *, quick: bool) -> list[Table]:
    """Give the memory of a dropped group back, against a pipelined UNLINK of the same entries, their names known."""
    sizes = [1_000] if quick else [1_000, 20_000]
    table = Table(
        "Giving the memory of dropped entries back",
        ("Entries", "Floor: UNLINK, µs of Redis each", "cacheadmin", "×", "Commands over 1 ms, run by run"),
    )
    ours, raw = bench.workers["cacheadmin"], bench.workers["redis-py"]
    for size in sizes:
        bench.flush()
        raw.do(make="unlink", **{"as": "unlink"})
        ours.do(make="drop", **{"as": "drop"})
        ours.do(make="reclaim", **{"as": "reclaim"})
        spent: dict[str, list[float]] = {"unlink": [], "reclaim": []}
        slow: list[int] = []
        for _ in range(5):
            ours.do(ask="fill_tenant", **{"with": {"entries": size}})
            raw.do(ask="learn", **{"with": {"pattern": "*:v:bench_tenant:*"}})
            shot = Shot()
            _once(bench, raw, "unlink", shot, nothing=_nothing(bench))
            spent["unlink"] += shot.redis
            ours.do(time=1, **{"as": "drop"})
            ours.do(ask="settle")
            ours.do(ask="fill_tenant", **{"with": {"entries": size}})
            ours.do(time=1, **{"as": "drop"})
            bench.client.config_set("slowlog-log-slower-than", 1000)
            bench.client.slowlog_reset()
            shot = Shot()
            _once(bench, ours, "reclaim", shot, nothing=_nothing(bench))
            spent["reclaim"] += shot.redis
            slow.append(bench.client.slowlog_len())
            bench.client.config_set("slowlog-log-slower-than", 10_000)
            ours.do(ask="settle")
        floor, cost = (statistics.median(spent[name]) / size * 1e6 for name in ("unlink", "reclaim"))
        table.rows.append(
            (f"{size:,}", f"{floor:.2f}", f"{cost:.2f}", f"{cost / floor:.1f}", ", ".join(map(str, slow)))
        )
        table.targets = [
            Target(
                f"giving back {size:,} entries: Redis' CPU × that of UNLINK",
                f"{cost / floor:.1f}",
                "≤ 3",
                cost <= 3 * floor,
            ),
            # Of a run in the middle: whoever else wants the core lets a command of ours take longer now and then.
            Target("giving back: commands over 1 ms", f"{statistics.median(slow)}", "0", not statistics.median(slow)),
        ]
    return [table]
