"""
People who use the demo: they read, and now and then one buys. Runs until it is stopped.

One tenant misbehaves a little, so that there is something to find in the console: Gold & Sons asks for reports over
ever other days, which no cache can hold, and marks a whole shelf down every half minute.
"""

import argparse
import datetime as dt
import math
import random
import re
import sys
import time

from .browser import Browser

SHOPS = {"ruby": 6, "gold": 4, "opale": 4, "karat": 3, "lapis": 2}
CATEGORIES = ("", "", "", "rings", "necklaces")
ITEM = re.compile(r"/items/(\d+)/")
CUSTOMER = re.compile(r"/customers/(\d+)/")
SOLD_OUT = re.compile(r'id="quantity">0<')
MARKDOWN_EVERY_SECONDS = 30
MARKET_EVERY_SECONDS = 240
REPORT_EVERY_SECONDS = 60


def percentile(values, share):
    """Return the value below or at which a share of some values lies."""
    return sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]


class Traffic:
    """Visits at a bounded rate: each is followed by a pause, however long it took."""

    def __init__(self, url, rate, seed=None):
        self.browser = Browser(url)
        self.pause = 1 / rate
        self.random = random.Random(seed)
        self.items = {slug: [] for slug in SHOPS}
        self.customers = {slug: [] for slug in SHOPS}
        self.last_markdown = self.last_market = self.last_report = time.monotonic()
        self.taken = {}

    def run(self):
        """Visit for ever. A site that does not answer is asked again a second later."""
        while True:
            started = time.monotonic()
            try:
                deed = self.visit()
                self.taken.setdefault(deed, []).append(time.monotonic() - started)
            except (OSError, LookupError) as error:
                print(f"{dt.datetime.now():%H:%M:%S} {error}", flush=True)
                time.sleep(1)
            self.report_times()
            # At least half the pause, so that a slow site is not asked without end.
            time.sleep(max(self.pause - (time.monotonic() - started), self.pause / 2))

    def visit(self):
        """Do one thing somebody might do. Returns: its name."""
        now = time.monotonic()
        if now - self.last_markdown > MARKDOWN_EVERY_SECONDS:
            self.last_markdown = now
            self.mark_down("gold")
            return "mark_down"
        if now - self.last_market > MARKET_EVERY_SECONDS:
            self.last_market = now
            self.browser.submit("/gold/", "/gold/move/")
            return "market"
        slug = self.random.choices(list(SHOPS), SHOPS.values())[0]
        if slug == "gold" and self.random.random() < 0.4:
            deed = self.odd_report
        else:
            deeds = (self.dashboard, self.inventory, self.api, self.report, self.office, self.customer, self.buy)
            deed = self.random.choices(deeds, (24, 36, 17, 8, 6, 6, 3))[0]
        deed(slug)
        return deed.__name__

    def report_times(self):
        """Print every minute how long each deed took: median, 95th percentile, how many."""
        if time.monotonic() - self.last_report < REPORT_EVERY_SECONDS:
            return
        self.last_report = time.monotonic()
        taken, self.taken = self.taken, {}
        for deed, seconds in sorted(taken.items()):
            p50, p95 = (percentile(seconds, share) * 1000 for share in (0.5, 0.95))
            print(f"{dt.datetime.now():%H:%M:%S} {deed:<10} p50 {p50:5.0f} ms  p95 {p95:5.0f} ms  {len(seconds)} times")
        sys.stdout.flush()

    def dashboard(self, slug):
        """Look at a shop's front page, some on the way from the list of shops."""
        if self.random.random() < 0.3:
            self.browser.get("/")
        self.browser.get(f"/shops/{slug}/")

    def inventory(self, slug):
        """Leaf through the inventory; the first page far more often than the rest."""
        page = self.random.choice((1, 1, 1, 1, 1, 2))
        self.browser.get(f"/shops/{slug}/inventory/", category=self.random.choice(CATEGORIES), page=page)
        self.items[slug] = ITEM.findall(self.browser.text) or self.items[slug]

    def api(self, slug):
        """Ask the JSON API, as a till would."""
        self.browser.get(f"/shops/{slug}/api/{self.random.choice(('products', 'products', 'today', 'stock'))}/")

    def report(self, slug):
        """Read the sales report of the last 90 days."""
        self.browser.get(f"/shops/{slug}/report/")

    def odd_report(self, slug):
        """Read a report over days that nobody asked for before."""
        end = dt.date.today() - dt.timedelta(days=self.random.randint(0, 300))
        start = end - dt.timedelta(days=self.random.randint(20, 400))
        self.browser.get(f"/shops/{slug}/report/", start=start, end=end)

    def office(self, slug):
        """Look at the back office, and remember some customers."""
        self.browser.get(f"/shops/{slug}/office/")
        self.customers[slug] = CUSTOMER.findall(self.browser.text) or self.customers[slug]

    def customer(self, slug):
        """Look a customer up."""
        if self.customers[slug]:
            self.browser.get(f"/shops/{slug}/customers/{self.random.choice(self.customers[slug])}/")

    def buy(self, slug):
        """Buy a piece; whoever took the last one lets the shelf be filled again."""
        if self.items[slug]:
            page = f"/shops/{slug}/items/{self.random.choice(self.items[slug])}/"
            deed = "restock" if SOLD_OUT.search(self.browser.get(page)) else "sell"
            self.browser.submit(page, f"{page}{deed}/")

    def mark_down(self, slug):
        """Change the prices of five items of one page, each in a transaction of its own."""
        for pk in self.random.sample(self.items[slug], min(5, len(self.items[slug]))):
            page = f"/shops/{slug}/items/{pk}/"
            self.browser.submit(page, f"{page}price/", price=self.random.randint(90, 4000))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m shop.traffic", description="Use the demo as its visitors do.")
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=6.0, help="visits a second (default: %(default)s)")
    options = parser.parse_args(argv)
    Traffic(options.url, options.rate).run()


if __name__ == "__main__":
    main()
