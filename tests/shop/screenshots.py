"""
`make screenshots`: take the pictures of the documentation from a demo that has run for a while. Needs Chromium.

The demo is started for it; `--url` takes one that runs already.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import sync_playwright

from .demo import TESTS
from .smoke import Demo, Failed

PICTURES = TESTS.parent / "docs" / "images"
CONSOLE = "admin/cacheadmin/console/"
WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
RULES = "admin/cacheadmin/invalidationrule/"
RUBY = "Ruby & Co"
# Name, who looks, page, links to follow from there (`!`: a button that begins so; none: the table's first), colour
# scheme, size of the window.
SHOTS = (
    ("overview", "admin", f"{CONSOLE}?range=15m", (), "light", WIDE),
    ("overview-dark", "admin", f"{CONSOLE}?range=15m", (), "dark", WIDE),
    ("overview-phone", "admin", f"{CONSOLE}?range=15m", (), "light", PHONE),
    ("tenants", "admin", f"{CONSOLE}tenants/", (), "light", WIDE),
    ("groups", "admin", f"{CONSOLE}tenants/", (RUBY,), "light", WIDE),
    ("entries", "admin", f"{CONSOLE}tenants/", (RUBY, "inventory_list"), "light", WIDE),
    ("entry", "admin", f"{CONSOLE}tenants/", (RUBY, "inventory_list", ""), "light", WIDE),
    ("confirm", "admin", f"{CONSOLE}tenants/", (RUBY, "Invalidate tenant…"), "light", WIDE),
    ("run", "admin", f"{CONSOLE}tenants/", (RUBY, "Warm…", "!Warm "), "light", WIDE),
    ("functions", "admin", f"{CONSOLE}functions/", (), "light", WIDE),
    ("activity", "admin", f"{CONSOLE}activity/", (), "light", WIDE),
    ("health", "admin", f"{CONSOLE}health/", (), "light", WIDE),
    ("rules", "admin", RULES, (), "light", WIDE),
    ("rules-import", "admin", f"{RULES}import/", (), "light", WIDE),
    ("rule-form", "admin", RULES, ("Override here",), "light", WIDE),
    ("shop", "ruby", "shops/ruby/", (), "light", WIDE),
)
SCALE = 1.5
"""Pixels of the picture for one of the page: sharp on a good screen, and most files stay below 300 kB."""


def main(argv=None):
    """Take all pictures. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shop.screenshots", description=__doc__.strip().splitlines()[0])
    parser.add_argument("--url", help="a demo that runs already")
    parser.add_argument("--wait", type=float, default=600, help="seconds to let a new demo run (default: %(default)s)")
    parser.add_argument("--to", type=Path, default=PICTURES, help="directory for the pictures (default: docs/images)")
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
            print(f"Waiting {options.wait:.0f} s for the charts to fill ...", flush=True)
            time.sleep(options.wait)
        take(url.rstrip("/") + "/", chromium, options.to)
    return 0


def take(url, chromium, directory):
    """Log in as each who looks, and save one picture of each page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, who, page_path, links, scheme, size in SHOTS:
            with browser.new_context(viewport=size, color_scheme=scheme, device_scale_factor=SCALE) as context:
                page = context.new_page()
                page.goto(f"{url}login/")
                page.fill("[name=username]", who)
                page.fill("[name=password]", who)
                page.click("main button")
                page.goto(f"{url}{page_path}", wait_until="networkidle")
                for link in links:
                    content = page.locator("#content")
                    if link.startswith("!"):
                        content.get_by_role("button", name=re.compile("^" + re.escape(link[1:]))).first.click()
                    elif not link:
                        content.locator("tbody a").first.click()
                    else:
                        content.get_by_role("link", name=link, exact=True).first.click()
                    page.wait_for_load_state("networkidle")
                page.screenshot(path=directory / f"{name}.png")
                print(f"{name}.png", flush=True)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
