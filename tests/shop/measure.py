"""
`make measure`: how long the shop's pages, its API and its cached questions take, with the cache and without.

Two copies of the demo share one database: one with its cache, one whose four aliases are Django's dummy cache. Each
page is asked of both in turn, in shuffled order, so that a busy machine hits both sides. Prints a Markdown table with
the targets of the reference site. Nobody else visits meanwhile.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from server import Server

from .browser import Browser
from .demo import Children, Failure, environment, manage, on_signal, wait_until_ready, web_command
from .processes import free_port
from .traffic import CUSTOMER, ITEM

TARGETS_MS = {"page": 2000, "API": 500, "question": 100}
"""95th percentile: what the reference site asks for."""

SLUG = "ruby"


def main(argv=None):
    """Measure and print. Returns: the exit code, 1 if a target is missed with the cache on."""
    parser = argparse.ArgumentParser(prog="python -m shop.measure", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="size of the shops (default: %(default)s)")
    parser.add_argument("--slow-ms", type=int, default=0, help="ms added to each computation (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="times that each page is asked for (default: 40)")
    options = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    try:
        rows = run(options)
    except Failure as failure:
        print(f"Cannot measure: {failure}", file=sys.stderr)
        return 1
    print(table(rows), flush=True)
    return 0 if all(row["on"][1] < TARGETS_MS[row["kind"]] for row in rows) else 1


def run(options):
    """Start a server and both shops, measure, stop all. Returns: one dict a row, times in ms."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheadmin-measure-")))
        server = stack.enter_context(Server.start())
        env = environment(options, directory, server.url)
        manage(env, directory, "migrate", "--verbosity", "0")
        manage(env, directory, "seed_shop", "--scale", str(options.scale))
        options.workers = 1
        children = stack.enter_context(Children())
        browsers = {}
        for name, more in (("on", {}), ("off", {"SHOP_CACHE": "off"})):
            port = free_port(0)
            children.start(f"The shop with its cache {name}", web_command(options, port), env | more, directory / name)
            browsers[name] = Browser(f"http://127.0.0.1:{port}/", timeout=60)
            wait_until_ready(browsers[name].url, children)
        rows = pages(browsers, options.rounds)
        # Metrics of this process would go to a folder that is gone before it ends.
        os.environ.update({name: value for name, value in env.items() if name != "PROMETHEUS_MULTIPROC_DIR"})
        return rows + questions(options.rounds)


def pages(browsers, rounds):
    """Time every page of one shop in both copies."""
    some = browsers["off"]
    some.get(f"/shops/{SLUG}/inventory/")
    item = ITEM.search(some.text)[1]
    some.get(f"/shops/{SLUG}/office/")
    customer = CUSTOMER.search(some.text)[1]
    asked = {
        ("page", "All shops"): "/",
        ("page", "Dashboard"): f"/shops/{SLUG}/",
        ("page", "Inventory"): f"/shops/{SLUG}/inventory/",
        ("page", "Inventory, one category"): f"/shops/{SLUG}/inventory/?category=rings",
        ("page", "Sales report"): f"/shops/{SLUG}/report/",
        ("page", "Back office"): f"/shops/{SLUG}/office/",
        ("page", "A customer"): f"/shops/{SLUG}/customers/{customer}/",
        ("page", "An item"): f"/shops/{SLUG}/items/{item}/",
        ("API", "products"): f"/shops/{SLUG}/api/products/",
        ("API", "today"): f"/shops/{SLUG}/api/today/",
        ("API", "stock"): f"/shops/{SLUG}/api/stock/",
    }
    calls = {key: {name: fetch(browser, path) for name, browser in browsers.items()} for key, path in asked.items()}
    return measured(calls, rounds)


def fetch(browser, path):
    """Return a call that asks for a page. Raises: Failure for any answer but 200."""

    def call():
        browser.get(path)
        if browser.status != 200:
            raise Failure(f"{browser.url}{path} answered {browser.status}.")

    return call


def questions(rounds):
    """Time the cached functions themselves: called as they are, and past their cache."""
    import django

    django.setup()
    from cacheadmin.functions import registry
    from cacheadmin.stats import recorder
    from cacheadmin.warming.runs import load_functions

    from .models import Tenant

    load_functions()
    tenant = Tenant.objects.get(slug=SLUG).pk
    calls = {}
    for function in sorted(registry.values(), key=lambda each: each.name):
        if function.kind == "function" and function.tenant_parameter and function.warm_with is not None:
            given = function.warm_with(tenant) if callable(function.warm_with) else function.warm_with
            arguments = next(iter(given), ())
            if isinstance(arguments, tuple):
                label = function.name.rpartition(".")[2]
                calls["question", f"`{label}`"] = {
                    "on": lambda f=function, a=arguments: f(tenant, *a),
                    "off": lambda f=function, a=arguments: settled(f.function(tenant, *a)),
                }
    try:
        return measured(calls, rounds)
    finally:
        recorder.reset()


def settled(value):
    """Return a value with the query behind it run."""
    return list(value) if hasattr(value, "iterator") else value


def measured(calls, rounds):
    """Return for each call the median and the 95th percentile with the cache and without, in ms."""
    taken = {key: {"on": [], "off": []} for key in calls}
    for both in calls.values():
        for call in both.values():
            for _ in range(3):
                call()
    for _ in range(rounds):
        for key in random.sample(list(calls), len(calls)):
            for name in random.sample(["on", "off"], 2):
                begun = time.perf_counter()
                calls[key][name]()
                taken[key][name].append((time.perf_counter() - begun) * 1000)
    return [
        {"kind": kind, "name": name, **{way: figures(times) for way, times in both.items()}}
        for (kind, name), both in taken.items()
    ]


def figures(times):
    """Return the median and the 95th percentile."""
    return statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[18]


def table(rows):
    """Return the figures as Markdown."""
    lines = [
        "| | without cache: p50 | p95 | with cache: p50 | p95 | target, p95 | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        limit = TARGETS_MS[row["kind"]]
        cells = [f"{row['kind']}: {row['name']}"]
        cells += [f"{ms:.1f} ms" for way in ("off", "on") for ms in row[way]]
        cells += [f"< {limit} ms", "met" if row["on"][1] < limit else "**not met**"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
