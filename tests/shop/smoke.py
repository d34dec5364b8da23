"""
`make demo-smoke`: start the demo as a person would, use it over HTTP, stop it, and see that nothing is left running.

Prints one line a step. Exit code 0 when all steps held, else 1.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from .browser import Browser
from .processes import running

ADDRESS = re.compile(rb"http://127\.0\.0\.1:\d+/")
MANAGE = re.compile(r"sh (\S+/manage) ")
ITEM = re.compile(r'data-sku="([^"]+)">.*?/items/(\d+)/', re.DOTALL)
SMALL = ("--port", "0", "--scale", "0.2", "--rate", "3", "--slow-ms", "20")
START_SECONDS = 180
STOP_SECONDS = 60
"""An idle machine needs a second or two; only something that hangs needs these."""
SETTLE_SECONDS = 60
"""Within which what other visitors disturb is seen undisturbed; the first look is mostly enough."""
BUY_SECONDS = 300
"""So few people visit a small demo that a minute without a sale is seen once in sixty; five are not."""
SALES = re.compile(r'"count": (\d+)')


class Failed(Exception):
    """A step did not hold; the message says what was seen."""


def main():
    """Run all steps, each demo in its own turn. Returns: the exit code."""
    started = time.monotonic()
    try:
        for command, steps, number, code in (
            ([sys.executable, "-m", "shop.demo", *SMALL], use, signal.SIGINT, 0),
            ([sys.executable, "-m", "shop.demo", *SMALL], look, signal.SIGKILL, None),
            (["make", "demo", f"ARGS={' '.join(SMALL)}"], look, signal.SIGKILL, None),
        ):
            with tempfile.TemporaryDirectory(prefix="cacheadmin-smoke-") as directory, Demo(command, directory) as demo:
                steps(demo)
                demo.stop(number, code)
    except Failed as failure:
        print(f"FAILED  {failure}", flush=True)
        return 1
    print(f"The demo works. {time.monotonic() - started:.0f} s.", flush=True)
    return 0


def say(text):
    """Print that a step held."""
    print(f"ok  {text}", flush=True)


def expect(holds, text, seen=""):
    """Print a step that held. Raises: Failed, with what was seen instead."""
    if not holds:
        raise Failed(f"{text}: {seen}" if seen else text)
    say(text)


class Demo:
    """One demo in a process group of its own, as a terminal gives it."""

    def __init__(self, command, directory):
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # What a killed demo could not remove lies there, and goes with it.
            env=os.environ | {"TMPDIR": directory},
            start_new_session=True,
        )
        self.family = set()
        started = time.monotonic()
        self.url = self._read_address()
        self.family = descendants(self.process.pid)
        say(f"the demo is at {self.url} after {time.monotonic() - started:.1f} s, {len(self.family)} processes")

    def _read_address(self):
        output = b""
        deadline = time.monotonic() + START_SECONDS
        os.set_blocking(self.process.stdout.fileno(), False)
        while time.monotonic() < deadline:
            output += self.process.stdout.read() or b""
            # The traffic's process is started before the last line is printed.
            if b"Ctrl-C" in output:
                self.manage = MANAGE.search(output.decode())[1]
                return ADDRESS.search(output)[0].decode()
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.process.kill()
        raise Failed(f"the demo did not start:\n{output.decode(errors='replace')}")

    def stop(self, number, code):
        """Send a signal; see that the command and every process below it are gone, with that exit code if not None."""
        self.family |= descendants(self.process.pid)
        started = time.monotonic()
        self.process.send_signal(number)
        while time.monotonic() < started + STOP_SECONDS:
            # poll() takes the demo itself off the list of processes once it has ended.
            if self.process.poll() is not None and not alive(self.family):
                break
            time.sleep(0.02)
        left = alive(self.family)
        took = f"{time.monotonic() - started:.1f} s"
        expect(not left, f"{number.name} ends all {len(self.family)} processes in {took}", f"left: {sorted(left)}")
        if code is not None:
            expect(self.process.returncode == code, f"the exit code is {code}", self.process.returncode)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        """Leave nothing behind, after a step that failed too."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()


def descendants(pid):
    """Return the ids of a process and of everything below it."""
    children = {}
    for process in running():
        children.setdefault(process.parent, []).append(process.pid)
    found, rest = set(), [pid]
    while rest:
        found.add(pid := rest.pop())
        rest += children.get(pid, [])
    return found


def alive(pids):
    """Return those of some process ids that are still running."""
    return pids & {process.pid for process in running()}


def use(demo):
    """Be a visitor, then ruby, then admin, then somebody at a terminal."""
    url = demo.url
    visitor, ruby, admin = Browser(url), Browser(url), Browser(url)
    visitor.get("/")
    expect(visitor.status == 200 and "Ruby &amp; Co" in visitor.text, "a visitor sees the shops", visitor.status)
    log_in(ruby, "ruby")
    read_twice(ruby)
    bite(ruby)
    stay_apart(visitor, ruby)
    see_api(visitor)
    see_traffic(visitor)
    log_in(admin, "admin")
    see_console(admin, ruby)
    see_metrics(visitor)
    run_command(demo.manage, ruby)


def look(demo):
    """See that another demo works as well."""
    visitor = Browser(demo.url)
    visitor.get("/shops/opale/")
    expect(visitor.status == 200, "a visitor sees a shop's dashboard", visitor.status)


def log_in(browser, name):
    """Log in through the site's own form."""
    browser.submit("/login/", "/login/", username=name, password=name)
    expect(f"<span>{name}</span>" in browser.text, f"{name} logs in", f"{browser.status} {browser.text[:300]}")


def tries():
    """Yield again and again until `SETTLE_SECONDS` are over: a sale, or a busy machine, may come between two looks."""
    deadline = time.monotonic() + SETTLE_SECONDS
    yield
    while time.monotonic() < deadline:
        time.sleep(0.2)
        yield


def hit_ratio(browser):
    """Return the share of the parts of the last page that came from the cache."""
    results = [result for _, result in browser.outcomes()]
    return sum(result in ("hit", "stale") for result in results) / max(len(results), 1)


def read_twice(browser):
    """See the hit ratio of a shop's pages rise from the first round to the best of the next ones."""
    # Arguments that the traffic does not use, so that the first round is cold.
    pages = [f"/shops/ruby/inventory/?search={word}" for word in ("opal", "garnet", "juno", "bridal")]

    def one_round():
        ratios = []
        for page in pages:
            browser.get(page)
            ratios.append(hit_ratio(browser))
        return sum(ratios) / len(ratios)

    first = one_round()
    later = 0.0
    for _ in tries():
        if (later := max(later, one_round())) > max(first, 0.9):
            break
    expect(later > first and later > 0.9, f"the hit ratio rises from {first:.0%} to {later:.0%}", "it did not")


def bite(browser):
    """Change a price; the list shows it at once, computed anew, and after that from the cache again."""
    browser.get("/shops/ruby/inventory/")
    sku, pk = ITEM.search(browser.text).groups()
    listing, item = f"/shops/ruby/inventory/?search={sku.lower()}", f"/shops/ruby/items/{pk}/"
    seen = []
    for attempt, _ in enumerate(tries()):
        browser.get(listing)
        browser.get(listing)
        before = dict(browser.outcomes())
        price = f"{70_000 + attempt}.25"
        browser.submit(item, f"{item}price/", price=price)
        browser.get(listing)
        after = dict(browser.outcomes())
        expect(
            f"{float(price):,}" in browser.text, f"the list shows the new price {price} at once", browser.text[:2000]
        )
        browser.get(listing)
        again = dict(browser.outcomes())
        seen = [(page.get("inventory_list"), page.get("product_list")) for page in (before, after, again)]
        if seen == [("hit", "hit"), ("miss", "miss"), ("hit", "hit")]:
            break
    expect(
        seen == [("hit", "hit"), ("miss", "miss"), ("hit", "hit")],
        "data and fragment of the list: from cache, then computed, then from cache",
        seen,
    )


def stay_apart(visitor, ruby):
    """Change Ruby's data; what other shops have cached stays."""
    seen = []
    for _ in tries():
        visitor.get("/shops/lapis/inventory/?search=topaz")
        ruby.get("/shops/ruby/inventory/")
        page = f"/shops/ruby/items/{ITEM.search(ruby.text)[2]}/"
        ruby.submit(page, f"{page}restock/")
        visitor.get("/shops/lapis/inventory/?search=topaz")
        seen = dict(visitor.outcomes()).get("inventory_list")
        if seen == "hit":
            break
    expect(seen == "hit", "a change in one shop leaves the other shops' cache alone", seen)
    ruby.get("/shops/lapis/")
    expect(ruby.status == 404, "ruby does not see another shop", ruby.status)


def see_api(visitor):
    """Ask the JSON API."""
    for name in ("products", "today", "stock"):
        visitor.get(f"/shops/karat/api/{name}/")
        expect(visitor.status == 200 and "Karat House" in visitor.text, f"the JSON API answers: {name}", visitor.status)


def see_traffic(visitor):
    """See that somebody buys."""
    deadline = time.monotonic() + BUY_SECONDS

    def sold():
        return sum(
            int(SALES.search(visitor.get(f"/shops/{slug}/api/today/")).group(1))
            for slug in ("ruby", "gold", "opale", "karat", "lapis")
        )

    first = sold()
    while (now := sold()) <= first and time.monotonic() < deadline:
        first = min(first, now)  # a new day begins with none
        time.sleep(1)
    expect(now > first, "people buy", f"{first} sales at first, {now} later")


def see_console(admin, ruby):
    """Open the cache console as both users who may."""
    for name, browser in (("admin", admin), ("ruby", ruby)):
        browser.get("/admin/cacheadmin/console/")
        expect(browser.status == 200, f"{name} opens the cache console", f"{browser.status} {browser.text[:500]}")


def run_command(manage, ruby):
    """Ask for a tenant's groups as the tutorial does; a list that was read is among them."""
    command = ["sh", manage, "cache_browse", "groups", "--tenant", "1", "--format", "json"]
    for _ in tries():
        ruby.get("/shops/ruby/inventory/")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        groups = {group["group"] for group in json.loads(done.stdout)["groups"]} if done.returncode == 0 else set()
        if "inventory_list" in groups:
            break
    expect("inventory_list" in groups, "a command of the demo lists Ruby's groups", done.stderr or done.stdout)


def see_metrics(visitor):
    """Read the metrics as Prometheus would."""
    for _ in tries():
        visitor.get("/metrics")
        hits = re.search(
            r"^(?:django_cache_get_hits_total|cacheadmin_\w+_total)\{[^}]*\} [1-9]", visitor.text, re.MULTILINE
        )
        if hits:
            break
    expect(bool(hits), "the metrics count cache reads", visitor.text[:500])


if __name__ == "__main__":
    sys.exit(main())
