"""Reading: hits, misses, and a value that is stored too late."""

from __future__ import annotations

from bench.measure import Bench, Line, Table, Target, Ways

RAW, STOCK, OURS = "redis-py GET + unpickle", "django-redis `cache.get`", "cacheadmin"


def lines(title: str, found: dict[str, Line], against: str, text: str = "") -> Table:
    """Return a table of what was timed, cheapest first."""
    heads = ("Way", f"× {against}", "µs", "Round trips", "Redis CPU, µs")
    table = Table(title, heads, text=text)
    for line in sorted(found.values(), key=lambda line: line.ratio):
        table.rows.append(
            (line.name, f"{line.ratio:.2f}", f"{line.seconds * 1e6:.0f}", f"{line.trips:g}", f"{line.redis_us:.1f}")
        )
    return table


def at_most(what: str, ratio: float, limit: float) -> Target:
    """Return a promise that a ratio stays below a limit."""
    return Target(what, f"{ratio:.2f}", f"≤ {limit:.2f}", ratio <= limit)


def exactly(what: str, number: float, wanted: float) -> Target:
    """Return a promise of a count."""
    return Target(what, f"{number:g}", f"{wanted:g}", number == wanted)


def hits(bench: Bench, *, quick: bool) -> list[Table]:
    """Compare a hit of about 1 KB and of about 50 KB."""
    tables = []
    for size, limit in ((1_000, 1.20), (50_000, 1.15)):
        given = {"size": size}
        ways: dict[str, tuple[str, str, dict[str, int]]] = {
            RAW: ("redis-py", "hit", given),
            STOCK: ("django-redis", "hit", given),
            "django-prometheus `cache.get`": ("django-prometheus", "hit", given),
            "django-cache-memoize, a function": ("django-cache-memoize", "hit", given),
            "cacheops, a function": ("django-cacheops", "hit", given),
            "**cacheadmin `cache.get`**": ("cacheadmin", "backend", given),
            "**cacheadmin, a function**": ("cacheadmin", "hit", given),
        }
        if size == 1_000:
            ways["cacheops, a queryset"] = ("django-cacheops", "queryset", given)
            ways["cachalot, a queryset"] = ("django-cachalot", "queryset", given)
        found = bench.compare(ways, RAW, rounds=4 if quick else 40, calls=20 if quick else 100)
        label = f"{size // 1000} KB"
        table = lines(f"Hit, {label}", found, RAW)
        if size == 1_000:
            table.text = (
                "A queryset's hit makes SQL for its key and model instances of its rows; the others keep plain data."
            )
        backend, function = found["**cacheadmin `cache.get`**"], found["**cacheadmin, a function**"]
        table.targets = [
            at_most(f"hit through `cache.get`, {label}, × {STOCK}", backend.times(found[STOCK]), limit),
            at_most(
                f"hit of a function, {label}, × django-cache-memoize",
                function.times(found["django-cache-memoize, a function"]),
                1.10,
            ),
        ]
        if size == 1_000:
            told = bench.commands(bench.workers["cacheadmin"], "**cacheadmin, a function**", 10)
            table.targets += [
                at_most(f"hit of a function, {label}, × {RAW}", function.ratio, 1.9),
                exactly("hit: round trips", function.trips, 1),
                Target(
                    "hit: commands of ten",
                    ", ".join(f"{n} {c}" for c, n in told.items()),
                    "10 mget",
                    told == {"mget": 10},
                ),
            ]
        tables.append(table)
    return tables


def again(bench: Bench, *, quick: bool) -> list[Table]:
    """Compare the second hit of the same entry in one request, with `REQUEST_MEMO`."""
    name = "**cacheadmin, a function again in the same request**"
    ways: Ways = {
        RAW: ("redis-py", "hit", {"size": 1_000}),
        "**cacheadmin, a function**": ("cacheadmin", "hit", {"size": 1_000}),
        name: ("cacheadmin REQUEST_MEMO", "again", {"size": 1_000}),
    }
    found = bench.compare(ways, RAW, rounds=4 if quick else 40, calls=20 if quick else 100)
    table = lines("`REQUEST_MEMO`, 1 KB", found, RAW)
    table.text = (
        "What is kept is what Redis answered: each read finds its key, is counted and decodes a value of its own, so "
        "that nobody changes another's. Sharing the value would cost next to nothing."
    )
    table.targets = [
        at_most(f"second hit in a request, 1 KB, × {RAW}", found[name].ratio, 0.10),
        exactly("second hit in a request: round trips", found[name].trips, 0),
    ]
    return [table]


def parser(bench: Bench, *, quick: bool) -> list[Table]:
    """Show what hiredis, the extra, gains."""
    ways: Ways = {}
    for size in (1_000, 50_000):
        for name in ("cacheadmin", "cacheadmin without hiredis", "redis-py", "redis-py without hiredis"):
            ways[f"{name}, {size // 1000} KB"] = (name, "hit", {"size": size})
    found = bench.compare(ways, "redis-py, 1 KB", rounds=4 if quick else 40, calls=20 if quick else 100)
    table = Table("hiredis", ("A hit", "1 KB: without / with", "50 KB: without / with"))
    for name in ("redis-py", "cacheadmin"):
        shares = [found[f"{name} without hiredis, {size} KB"].times(found[f"{name}, {size} KB"]) for size in (1, 50)]
        table.rows.append((name, *(f"{share:.2f}" for share in shares)))
    table.text = "`pip install django-cacheadmin[hiredis]`: redis-py then parses replies in C."
    return [table]


def misses(bench: Bench, *, quick: bool) -> list[Table]:
    """Compare a miss and the fill that follows; computing takes no time."""
    stock = "django-redis `get`, `set`"
    ways: Ways = {
        "redis-py GET, SET": ("redis-py", "miss", {}),
        stock: ("django-redis", "miss", {}),
        "django-prometheus `get`, `set`": ("django-prometheus", "miss", {}),
        "django-cache-memoize, a function": ("django-cache-memoize", "miss", {}),
        "cacheops, a function": ("django-cacheops", "miss", {}),
        "**cacheadmin, a function under a lease**": ("cacheadmin", "miss", {}),
        "**cacheadmin, `single_flight=False`**": ("cacheadmin", "miss_unleased", {}),
        "**cacheadmin `cache.get`, `cache.set`**": ("cacheadmin", "miss_backend", {}),
    }
    found = bench.compare(ways, stock, rounds=4 if quick else 40, calls=20 if quick else 50)
    table = lines("Miss and fill, 1 KB", found, stock)
    leased, unleased = found["**cacheadmin, a function under a lease**"], found["**cacheadmin, `single_flight=False`**"]
    table.targets = [
        at_most(f"miss under a lease, × {stock}", leased.ratio, 1.80),
        exactly("miss under a lease: round trips", leased.trips, 3),
        at_most(f"miss without a lease, × {stock}", unleased.ratio, 1.25),
        exactly("miss without a lease: round trips", unleased.trips, 2),
    ]
    return [table]


def late_fill(bench: Bench, *, quick: bool) -> list[Table]:
    """Let a reader compute from old data and store after the writer has invalidated."""
    table = Table("A value computed before an invalidation and stored after it", ("Peer", "The next reader gets"))
    for name in ("django-redis", "django-cache-memoize", "django-cacheops", "django-cachalot", "cacheadmin"):
        if name in bench.workers:
            said = bench.workers[name].do(ask="late")
            table.rows.append((name, "the old value" if said == "stale" else "the new value"))
            if name == "cacheadmin":
                table.targets = [Target("late fill", said, "fresh", said == "fresh")]
    table.text = "By each one's documented way and defaults. cacheops has `keep_fresh`, which refuses such a value."
    return [table]
