"""
`make screenshots`: take the pictures of the documentation from a demo that has run for a while. Needs Chromium.

The demo is started for it; `--url` takes one that runs already, and has no plain keys unless somebody wrote some.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import sync_playwright

from .demo import TESTS
from .smoke import Demo, Failed

PICTURES = TESTS.parent / "docs" / "images"
CONSOLE = "admin/cacheadmin/console/"
RULES = "admin/cacheadmin/invalidationrule/"
RUBY = "Ruby & Co"
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 780}
SCALE = 1.5
"""Pixels of the picture for one of the page: sharp on a good screen."""
EXACT, OTHERS = 96, 160
"""Colours of a picture: the most frequent as they are, then such as stand for the rest. Files are a third as large."""
ALARM = "[data-cacheadmin-part=standing] .cacheadmin-note-bad"
"""On a busy machine the cache server may seem to be away for a moment; no picture is to show that."""
TRIES = 5

VISITORS = """
from django.core.cache import cache
for number in range(4711, 4718):
    cache.set(f"visitor-{number}", {"seen": [number % 40, 7], "currency": "USD"}, 60 * (number - 4690))
"""
"""Keys that a site writes by itself, without a decorator."""

RULES_FILE = [
    {
        "name": "inventory",
        "model": "shop.InventoryItem",
        "fields": ["price", "status", "quantity"],
        "targets": ["group:inventory_list", "tag:branch:{branch_id}"],
    },
    {"name": "customers", "model": "shop.Customer", "targets": ["prefix:customer"], "note": "As in the code, for now."},
    {"name": "rate board", "model": "shop.GoldRates", "targets": ["group:gold_rate"]},
]


# --- steps ----------------------------------------------------------------------------------------------------------


def link(name):
    """Return the step of following a link; without a name the first of the table."""

    def follow(page):
        content = page.locator("#content")
        found = content.get_by_role("link", name=name, exact=True) if name else content.locator("tbody a")
        found.first.click()

    return follow


def button(begins):
    """Return the step of pressing a button whose text begins so."""
    pattern = re.compile("^" + re.escape(begins))
    return lambda page: page.locator("#content").get_by_role("button", name=pattern).first.click()


def fill(selector, text):
    """Return the step of typing into a field."""
    return lambda page: page.fill(selector, text)


def pause(page):
    """Let a run come to something."""
    page.wait_for_timeout(3000)


def upload(page):
    """Choose a file of rules: one is new, one changes what is there, one is wrong."""
    data = json.dumps(RULES_FILE).encode()
    page.set_input_files("[name=file]", files=[{"name": "rules.json", "mimeType": "application/json", "buffer": data}])


def open_panel(page):
    """Unfold "Cached data" on a change page, and have it in view."""
    page.locator("[data-cacheadmin-panel] summary").click()
    page.wait_for_selector("[data-cacheadmin-body] table")
    page.locator("#content").get_by_role("button", name="Save", exact=True).scroll_into_view_if_needed()


def edit_a_rule(page):
    """Override a rule in code, then change it twice, and go to its history."""
    link("Override here")(page)
    page.wait_for_load_state("networkidle")
    for note in ("Until the price list is fixed.", "The price list is fixed; can go after the next release."):
        page.fill("#id_note", note)
        button("Save and continue editing")(page)
        page.wait_for_load_state("networkidle")
    link("History")(page)


class Shot(NamedTuple):
    """One picture: its name, a page, how to go on from there, and how it is looked at."""

    name: str
    page: str
    steps: tuple[Callable, ...] = ()
    scheme: str = "light"
    size: dict = WIDE
    who: str = "admin"


def of_ruby(*steps):
    """Return the steps to something of one tenant, from the list of tenants."""
    return (link(RUBY), *steps)


TENANTS = f"{CONSOLE}tenants/"
SHOTS = (
    Shot("overview", f"{CONSOLE}?range=15m"),
    Shot("overview-dark", f"{CONSOLE}?range=15m", scheme="dark"),
    Shot("overview-phone", f"{CONSOLE}?range=15m", size=PHONE),
    Shot("tenants", TENANTS),
    Shot("groups", TENANTS, of_ruby()),
    Shot("entries", TENANTS, of_ruby(link("inventory_list"))),
    Shot("entries-phone", TENANTS, of_ruby(link("inventory_list")), size=PHONE),
    Shot("entry", TENANTS, of_ruby(link("inventory_list"), link(""))),
    Shot("recomputed", TENANTS, of_ruby(link("inventory_list"), link(""), button("Recompute now"))),
    Shot("plain", TENANTS, (link("Shared data"), lambda page: page.goto(f"{page.url}plain/?alias=default"))),
    Shot("find", f"{CONSOLE}find/?q=inv"),
    Shot("functions", f"{CONSOLE}functions/"),
    Shot("function", f"{CONSOLE}functions/", (link("shop.inventory.inventory_list"),)),
    Shot("health", f"{CONSOLE}health/"),
    Shot("confirm", TENANTS, of_ruby(link("Invalidate tenant…"))),
    Shot(
        "activity-detail",
        TENANTS,
        of_ruby(
            link("sales_today"),
            link("Invalidate group…"),
            fill("#id_reason", "The till was an hour fast."),
            button("Invalidate "),
            lambda page: page.goto(page.url.partition(CONSOLE)[0] + f"{CONSOLE}activity/?source=user"),
            link(""),
        ),
    ),
    Shot("pattern", f"{CONSOLE}pattern/?pattern=*card:*&alias=query"),
    Shot("clear", CONSOLE, (link("Clear alias…"),)),
    Shot("warm", TENANTS, of_ruby(link("Warm…"))),
    Shot(
        "run",
        TENANTS,
        of_ruby(link("Warm…"), lambda page: page.select_option("#id_pace", "slow"), button("Warm "), pause),
    ),
    Shot("rules", RULES),
    Shot("rule-form", RULES, (link("Override here"),)),
    Shot("rule-history", RULES, (edit_a_rule,)),
    Shot("rule-delete", RULES, (link("inventory"), link("Delete"))),
    Shot("rules-export", f"{RULES}export/"),
    Shot("rules-import", f"{RULES}import/"),
    Shot("rules-diff", f"{RULES}import/", (upload, button("Show what would change"))),
    Shot("activity", f"{CONSOLE}activity/"),
    Shot("panel", "admin/shop/inventoryitem/", (link(""), open_panel)),
    Shot("shop", "shops/ruby/", who="ruby"),
)


# --- taking them ----------------------------------------------------------------------------------------------------


def main(argv=None):
    """Take all pictures, or some. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shop.screenshots", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--url", help="a demo that runs already")
    parser.add_argument("--wait", type=float, default=960, help="seconds to let a new demo run (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=PICTURES, help="directory for the pictures (default: docs/images)")
    parser.add_argument("--only", nargs="+", choices=[shot.name for shot in SHOTS], metavar="NAME", help="some of them")
    options = parser.parse_args(argv)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("No Chromium on PATH; install it, or name it in CHROMIUM.", file=sys.stderr)
        return 1
    options.to.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        url = options.url
        if url is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="cacheadmin-pictures-"))
            try:
                demo = stack.enter_context(Demo([sys.executable, "-m", "shop.demo", "--port", "0"], directory))
            except Failed as failure:
                print(failure, file=sys.stderr)
                return 1
            url = demo.url
            subprocess.run(["sh", demo.manage, "shell", "--verbosity", "0", "-c", VISITORS], check=True)
            print(f"Waiting {options.wait:.0f} s for the charts to fill ...", flush=True)
            time.sleep(options.wait)
        wanted = [shot for shot in SHOTS if options.only is None or shot.name in options.only]
        try:
            total = take(url.rstrip("/") + "/", chromium, options.to, wanted)
        except Failed as failure:
            print(failure, file=sys.stderr)
            return 1
        print(f"{len(wanted)} pictures, {total / 1000:,.0f} kB")
    return 0


def take(url, chromium, directory, shots):
    """Log in as each who looks, and save one picture of each page. Returns: bytes of all."""
    total = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for shot in shots:
            path = directory / f"{shot.name}.png"
            if not any(picture(browser, url, shot, path) for _ in range(TRIES)):
                raise Failed(f"{path.name}: the cache server was away {TRIES} times; is this machine busy?")
            total += shrink(path)
            print(path.name, flush=True)
        browser.close()
    return total


def picture(browser, url, shot, path):
    """Save one picture, unless the cache server seems to be away. Returns: whether it is saved."""
    with browser.new_context(
        viewport=shot.size, color_scheme=shot.scheme, device_scale_factor=SCALE, reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(f"{url}login/")
        page.fill("[name=username]", shot.who)
        page.fill("[name=password]", shot.who)
        page.click("main button")
        page.goto(f"{url}{shot.page}", wait_until="networkidle")
        for step in shot.steps:
            step(page)
            page.wait_for_load_state("networkidle")
        if page.locator(ALARM).count():
            return False
        page.screenshot(path=path)
        return True


def shrink(path):
    """Write a picture anew with a palette of its own. Returns: bytes."""
    with Image.open(path) as picture:
        page = picture.convert("RGB")
    frequent = [colour for _count, colour in sorted(page.getcolors(page.width * page.height), reverse=True)[:EXACT]]
    others = page.quantize(OTHERS, method=Image.Quantize.MAXCOVERAGE).getpalette()
    cells = {}  # Pillow does not tell colours of one cell apart: the most frequent stands for them
    for colour in [*frequent, *zip(others[::3], others[1::3], others[2::3], strict=True)]:
        cells.setdefault(tuple(part >> 2 for part in colour), colour)
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in cells.values() for part in colour])
    page.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
    return path.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
