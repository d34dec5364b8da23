"""
The console with another look for the admin. `test_admin_themes.py` runs this in a process of its own for each:

    THEME=unfold CHROMIUM=/usr/bin/chromium python -m django test themed --settings themed_settings
"""

import os
from pathlib import Path

from console import client_of, every_page
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import Client
from django.urls import reverse
from playwright.sync_api import sync_playwright

from cacheadmin.connections import forget_links
from cacheadmin.stats import recorder, rollups
from shop.models import User

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"  # playwright runs a loop in this thread

PICTURES = os.environ.get("PICTURES")
"""Where to keep a picture of each page that is opened in the browser; nowhere if it is not set."""


class Themed(StaticLiveServerTestCase):
    """Pages come, in their frame; charts are drawn; buttons and the rule form work."""

    def test_every_page_comes_with_its_frame_and_its_style(self):
        client = client_of(User.objects.create_superuser("root"))
        for name, url in every_page().items():
            with self.subTest(page=name):
                answer = client.get(url, follow=True)
                body = answer.content.decode()
                assert answer.status_code in ((404,) if name in ("gone", "not found") else (200,))
                if name == "host":
                    assert "Invalidate caches…" in body
                    assert "data-cacheadmin-panel" in body
                    continue
                assert body.count('class="cacheadmin-page"') == 1
                assert body.count('class="cacheadmin-tabs"') == 1
                assert "cacheadmin/console.css" in body
                page = body.partition('class="cacheadmin-page"')[2]
                assert page.count("<h1>") == 1  # the look may have headings of its own, in dialogs

    def test_in_the_browser(self):
        pages = every_page()
        for _ in range(90):
            recorder.read("query", "inventory_list", "1", "hit", 400_000)
        rollups.measure()
        assert recorder.flush()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=os.environ["CHROMIUM"],
                args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            )
            tab, said = self.opened(browser)
            tab.goto(self.live_server_url + pages["console_changelist"])
            tab.wait_for_selector(".uplot canvas")
            assert tab.locator(".uplot canvas").count() == 5
            width = tab.eval_on_selector(".uplot canvas", "each => each.getBoundingClientRect().width")
            assert width > 200
            for name in (
                "console_changelist",
                "entries",
                "entry",
                "invalidate",
                "rule changelist",
                "rule change",
                "host",
            ):
                for size in (1280, 390):
                    tab.set_viewport_size({"width": size, "height": 900})
                    tab.goto(self.live_server_url + pages[name])
                    self.keep(tab, name, size)
                    if name == "host":
                        continue
                    box = tab.locator(".cacheadmin-page").bounding_box()
                    assert box["x"] + box["width"] <= size + 1, name
                    assert box["width"] > size * 0.55, name
                    for shown in (".cacheadmin-tabs a >> nth=0", ".cacheadmin-page h1"):
                        assert tab.locator(shown).is_visible(), (name, shown)
            tab.set_viewport_size({"width": 1280, "height": 900})
            tab.goto(self.live_server_url + reverse("admin:cacheadmin_invalidationrule_add"))
            tab.select_option("#id_model", "shop.InventoryItem")
            tab.locator("[name=targets-name]").first.fill("console_stock")
            tab.wait_for_selector("text=would drop 7 entries")
            tab.goto(self.live_server_url + pages["entry"])
            tab.click("text=Recompute now")
            tab.wait_for_selector("text=nothing differs")
            tab.goto(self.live_server_url + pages["host"])
            tab.click(".cacheadmin-host summary")
            tab.wait_for_selector("text=Saving this inventory item would drop")
            assert [text for text in said if "cacheadmin" in text] == []
            browser.close()

    def opened(self, browser):
        """Return a tab that is logged in, and what goes wrong in it."""
        client = Client()
        client.force_login(User.objects.create_superuser("amira"))
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        cookie = client.cookies["sessionid"].value
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": self.live_server_url}])
        tab, said = context.new_page(), []
        tab.on("console", lambda message: said.append(f"{message.text} {message.location.get('url')}"))
        tab.on("pageerror", lambda error: said.append(str(error.stack)))
        return tab, said

    def keep(self, tab, name, size):
        """Keep a picture for people."""
        if PICTURES:
            tab.wait_for_timeout(300)
            tab.screenshot(path=Path(PICTURES) / f"{os.environ['THEME']}-{name}-{size}.png", full_page=True)

    def tearDown(self):
        forget_links()
