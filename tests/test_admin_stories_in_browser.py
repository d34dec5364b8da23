"""What a person does with the console at 3 am, in Chromium: log in, follow a wrong figure, invalidate, stop a run."""

import re
import threading
import time

import pytest
from console import make_items
from django.db import connections
from django.urls import reverse

from cacheadmin import cache_tenant_query, progress
from cacheadmin.admin import runs
from cacheadmin.connections import forget_links
from cacheadmin.functions import registry
from cacheadmin.models import Activity
from server import Server
from shop.models import Tenant, User

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

OVERVIEW = reverse("admin:cacheadmin_console_changelist")
LISTED = "[data-group=inventory_list]"
"""What the shop says of its listing, at the foot of its page."""


def complaints(page):
    """What went wrong in the page; a missing favicon is the shop's."""
    return [text for text in page.said if "404" not in text]


@pytest.fixture
def ruby():
    """A shop with one item."""
    tenant = Tenant.objects.create(name="Ruby & Co", slug="ruby")
    make_items(tenant)
    return tenant


def test_from_the_login_to_an_entry_that_is_invalidated_and_computed_anew(open_page, live_server, ruby):
    User.objects.create_superuser("nadia", password="at 3 am")
    listing = f"{live_server.url}{reverse('inventory', args=['ruby'])}"
    shop = open_page()
    for expected in ("miss", "hit"):
        shop.goto(listing)
        assert shop.get_attribute(LISTED, "data-result") == expected

    page = open_page()
    page.context.clear_cookies()
    page.goto(live_server.url + OVERVIEW)
    page.fill("[name=username]", "nadia")
    page.fill("[name=password]", "at 3 am")
    page.click("[type=submit]")
    page.wait_for_url(f"**{OVERVIEW}")
    page.click("nav[aria-label=Cache] >> text=Tenants")
    page.click("#content tbody >> text=Ruby & Co")
    page.click("#content tbody >> text=inventory_list")
    page.locator("#content tbody th a").first.click()
    assert page.locator(".cacheadmin-chip").inner_text().strip() == "Live"
    entry = page.url
    page.click("text=Invalidate…")
    page.wait_for_function("() => document.activeElement?.textContent === 'No, take me back'")
    page.fill("#id_reason", "the price is wrong")
    page.click("button:has-text('Invalidate 1 entry')")
    page.wait_for_selector(".cacheadmin-message, .messagelist")
    assert page.locator("text=Invalidated 1 entry").count() >= 1
    assert page.goto(entry).status == 404
    assert page.inner_text("h1") == "Not cached now"

    for expected in ("miss", "hit"):
        shop.goto(listing)
        assert shop.get_attribute(LISTED, "data-result") == expected
    done = Activity.objects.get(who="nadia")
    assert (done.kind, done.entries, done.reason) == ("invalidate", 1, "the price is wrong")
    assert complaints(page) == []


@pytest.fixture
def slow():
    """A function that takes its time, more and more of it, and how often it was called: no run of it ends by itself."""
    calls = []
    ready = threading.Event()

    @cache_tenant_query(timeout=900, key_prefix="slow_stock", warm_with=[(number,) for number in range(400)])
    def slow_stock(tenant_id, number):
        calls.append(number)
        ready.wait(0.02 if len(calls) < 100 else 0.5)
        return number

    yield slow_stock, calls
    ready.set()
    registry.pop(slow_stock.name, None)


@pytest.fixture
def runs_in_threads(monkeypatch):
    """Runs in threads of their own as ever, but on the test's connection: another would not see its database."""
    threads = []
    shared = connections["default"]
    shared.inc_thread_sharing()

    def launch(job):
        def work():
            connections["default"] = shared
            job()

        threads.append(threading.Thread(target=work, name="a run of a test"))
        threads[-1].start()

    monkeypatch.setattr(runs, "launch", launch)
    monkeypatch.setattr(progress, "TELL_SECONDS", 0.1)
    yield threads
    for thread in threads:
        thread.join(60)
    shared.dec_thread_sharing()


def test_a_run_is_followed_and_cancelled_and_keeps_what_is_done(open_page, ruby, slow, runs_in_threads):
    slow_stock, calls = slow
    slow_stock(str(ruby.pk), 0)  # so that the tenant has something to show
    page = open_page(reverse("admin:cacheadmin_tenant_list"))
    page.click("#content tbody >> text=Ruby & Co")
    page.click("text=Warm…")
    page.click("button:has-text('Warm 4')")
    page.wait_for_url("**/runs/*/")
    assert page.locator(".cacheadmin-chip").inner_text().strip() == "Running"
    far = "document.querySelector('progress').value"
    page.wait_for_function(f"() => {far} > 0")
    before = page.evaluate(far)
    page.wait_for_function(f"() => {far} > {before}")
    assert "of 4" in page.inner_text("[data-cacheadmin-run-text]")
    steps = page.locator("[data-cacheadmin-run-steps] li")  # they go on without a new page
    page.wait_for_function("() => document.querySelectorAll('[data-cacheadmin-run-steps] li').length > 1")
    assert all(re.fullmatch(r"\S*slow_stock\(.*\)", text) for text in steps.all_inner_texts())
    page.click("button:has-text('Cancel')")
    page.wait_for_selector("text=Cancelled. What is done is kept.")
    assert page.locator(".cacheadmin-chip").inner_text().strip() == "Cancelled"
    [run] = runs_in_threads
    run.join(60)
    assert not run.is_alive()
    done = len(calls)
    assert 1 < done < 300
    page.reload()
    assert page.locator("button:has-text('Cancel')").count() == 0
    assert Activity.objects.get(kind="warm").state == "cancelled"
    assert slow_stock.peek(str(ruby.pk), calls[-1]) == calls[-1]
    assert complaints(page) == []


def test_a_server_that_stops_and_comes_back_is_told_on_the_page_that_is_open(
    open_page, live_server, ruby, fresh_server, settings
):
    server = fresh_server()
    settings.CACHES = {
        alias: made | {"LOCATION": f"{server.url.rpartition('/')[0]}/{number}"}
        for number, (alias, made) in enumerate(settings.CACHES.items())
    }
    forget_links()
    page = open_page()
    page.clock.install()
    page.goto(live_server.url + OVERVIEW)
    away = "does not answer since"
    assert page.locator(f"text={away}").count() == 0
    server.stop()
    page.clock.run_for(11_000)  # it asks anew every ten seconds
    page.wait_for_selector(f"text={away}")
    listing = f"{live_server.url}{reverse('inventory', args=['ruby'])}"
    shop = open_page()
    assert shop.goto(listing).status == 200
    assert shop.get_attribute(LISTED, "data-result") in ("error", "bypassed")
    with Server.start(port=server.port):
        deadline = time.monotonic() + 60
        while page.locator(f"text={away}").count():
            assert time.monotonic() < deadline
            page.clock.run_for(11_000)
            page.wait_for_timeout(100)  # the server asks whether Redis is back once a second at most
        for expected in ("miss", "hit"):
            shop.goto(listing)
            assert shop.get_attribute(LISTED, "data-result") == expected
    assert complaints(page) == []
