"""The overview in Chromium, under a strict policy: charts, keys, themes, renewal, a phone, and no script at all."""

import json
import time

import pytest
from console import MARKUP, marked_up
from django.urls import reverse

from cacheadmin.stats import Mark, recorder, rollups
from shop.models import Tenant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("within_a_minute"),
]

URL = reverse("admin:cacheadmin_console_changelist")
CHARTS = ["ratio", "results", "latency", "memory", "invalidations"]


@pytest.fixture
def counted():
    """Counts of one shop, all of this minute."""
    tenant = str(Tenant.objects.create(name="Ruby & Co", slug="ruby").pk)
    recorder.reset()
    rollups.measure()
    for _ in range(90):
        recorder.read("query", "inventory_list", tenant, "hit", 400_000)
    for _ in range(10):
        recorder.read("query", "inventory_list", tenant, "miss", 900_000)
    assert recorder.flush()
    return tenant


@pytest.fixture
def opened(open_page, counted):
    """`opened(**context options)` opens the overview of what was counted."""
    return lambda **options: open_page(URL, **options)


def complaints(page) -> list[str]:
    """What went wrong in the page; a missing favicon is the shop's."""
    return [text for text in page.said if "404" not in text]


def test_charts_are_drawn_under_a_strict_policy(opened) -> None:
    page = opened()
    page.wait_for_selector(".uplot canvas")
    drawn = page.eval_on_selector_all(
        ".cacheadmin-plot:has(canvas)", "all => all.map(one => one.dataset.cacheadminPlot)"
    )
    assert drawn == CHARTS
    assert complaints(page) == []
    assert page.locator("details.cacheadmin-figures[open]").count() == 0


WRITTEN = """
  const write = CanvasRenderingContext2D.prototype.fillText;
  window.written = [];
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    const { textAlign: align, canvas } = this;
    window.written.push({ text, x, y, align, wide: this.measureText(text).width, room: canvas.width });
    write.call(this, text, x, y);
  };
"""
"""Notes what is written on canvases, and where."""


@pytest.mark.parametrize("width", [1280, 360])
def test_names_of_marks_lie_neither_on_one_another_nor_out_of_the_chart(open_page, counted, live_server, width) -> None:
    now = time.time()
    for i in range(4):
        recorder.mark(Mark("deploy", f"2026.11.{i}", now - 60 * i))
        recorder.mark(Mark("clear", "query", now - 600 - 60 * i, counted))
    assert recorder.flush()
    page = open_page()
    page.add_init_script(WRITTEN)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(live_server.url + URL + "?range=15m", wait_until="networkidle")
    names = [each for each in page.evaluate("written") if each["text"].startswith(("deploy", "Ruby"))]
    whole = {each["text"] for each in names}
    assert {f"deploy 2026.11.{i}" for i in range(4)} <= whole
    assert "Ruby & Co invalidated" in whole or width == 360  # where it has to be cut
    assert 4 < len(names) <= 6  # the newest, on the first chart alone
    for i, one in enumerate(names):
        assert one["align"] == "left"
        assert 0 <= one["x"] <= one["x"] + one["wide"] <= one["room"]
        for other in names[:i]:
            is_apart = one["x"] >= other["x"] + other["wide"] or other["x"] >= one["x"] + one["wide"]
            assert is_apart or abs(one["y"] - other["y"]) >= 11, (one, other)


def test_arrow_keys_move_one_cursor_over_all_charts(opened) -> None:
    page = opened()
    page.wait_for_selector(".uplot canvas")
    legend = page.locator('[data-cacheadmin-part="legend-ratio"]')
    before = legend.inner_text()
    page.focus('[data-cacheadmin-plot="latency"]')
    page.keyboard.press("Home")
    assert "–" in legend.inner_text()
    page.keyboard.press("Escape")
    assert legend.inner_text() == before


def test_another_theme_is_another_drawing(opened) -> None:
    page = opened()
    page.wait_for_selector(".uplot canvas")
    picture = "document.querySelector('[data-cacheadmin-plot=results] canvas').toDataURL()"
    light = page.evaluate(picture)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{picture} !== {json.dumps(light)}")


def test_figures_are_renewed_and_an_opened_table_stays_open(opened, counted) -> None:
    page = opened()
    page.wait_for_selector(".uplot canvas")
    page.locator("summary").first.click()
    before = page.inner_text('[data-cacheadmin-part="strip"]')
    for _ in range(400):
        recorder.read("query", "inventory_list", counted, "miss", 900_000)
    assert recorder.flush()
    page.wait_for_function(
        "old => document.querySelector('[data-cacheadmin-part=strip]').innerText !== old", arg=before, timeout=60_000
    )
    assert page.locator("details.cacheadmin-figures[open]").count() == 1
    assert page.locator(".uplot").count() == 5
    assert complaints(page) == []


def test_paused_is_remembered(opened) -> None:
    page = opened()
    button = page.locator("[data-cacheadmin-live]")
    assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Live", "true")
    button.click()
    page.reload()
    assert (button.inner_text(), button.get_attribute("aria-pressed")) == ("Paused", "false")


HIDE = """isHidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_nothing_is_asked_in_a_hidden_tab_nor_while_paused(open_page, counted, live_server) -> None:
    page = open_page()
    page.clock.install()
    asked = []
    under_way = set()

    def note(request):
        if "data/overview" in request.url:
            asked.append(request.url)
            under_way.add(request)

    page.on("request", note)
    page.on("requestfinished", lambda request: under_way.discard(request))
    page.on("requestfailed", lambda request: under_way.discard(request))
    page.goto(live_server.url + URL)
    page.wait_for_selector(".uplot canvas")

    def settle():
        """Let what was asked be answered, and what the page makes of it be done."""
        deadline = time.monotonic() + 60
        page.wait_for_timeout(50)
        while under_way:
            assert time.monotonic() < deadline
            page.wait_for_timeout(20)
        page.wait_for_timeout(50)

    def asked_in_a_minute():
        settle()
        asked.clear()
        for _ in range(6):
            page.clock.run_for(10_000)
            settle()
        return len(asked)

    assert asked_in_a_minute() > 0
    page.evaluate(HIDE, True)
    assert asked_in_a_minute() == 0
    with page.expect_request("**/data/overview**"):  # at once when it is seen again
        page.evaluate(HIDE, False)
    assert asked_in_a_minute() > 0
    page.click("[data-cacheadmin-live]")
    assert asked_in_a_minute() == 0
    page.evaluate(HIDE, True)
    page.evaluate(HIDE, False)
    assert asked_in_a_minute() == 0
    with page.expect_request("**/data/overview**"):
        page.click("[data-cacheadmin-live]")
    assert asked_in_a_minute() > 0


def test_an_alias_is_chosen_without_a_button(opened) -> None:
    page = opened()
    page.select_option("select[name=alias]", "query")
    page.wait_for_url("**alias=query**")
    assert page.locator(".cacheadmin-without-script").is_visible() is False


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_makes_the_page_scroll_sideways(opened, width) -> None:
    page = opened(viewport={"width": width, "height": 800})
    page.wait_for_selector(".uplot canvas")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_on_a_phone_the_find_box_stands_below_the_tabs_and_the_current_tab_is_in_view(open_page, counted) -> None:
    page = open_page(reverse("admin:cacheadmin_health"), viewport={"width": 360, "height": 740})
    box, tabs = page.get_by_role("searchbox", name="Find a tenant, group or key"), page.locator(".cacheadmin-tabs")
    found, bar = box.bounding_box(), tabs.bounding_box()
    assert found["y"] >= bar["y"] + bar["height"]
    assert found["width"] > 300
    assert found["height"] >= 36
    current = page.locator(".cacheadmin-tabs [aria-current]").bounding_box()
    assert 0 <= current["x"] <= 360 - current["width"]
    page.keyboard.press("/")
    page.keyboard.type("Ruby")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tenants/**")
    assert page.locator("h1").inner_text() == "Ruby & Co"


def test_without_script_the_figures_are_a_table(opened) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("details.cacheadmin-figures[open] tbody tr").count() >= 5
    assert page.locator(".cacheadmin-figures td >> text=90%").first.is_visible()
    assert page.locator(".cacheadmin-without-script").is_visible()
    assert page.locator("[data-cacheadmin-live]").is_visible() is False


def test_names_that_are_markup_run_nothing_and_are_read_as_they_are(open_page, live_server) -> None:
    tenant = str(Tenant.objects.create(name=f"Ruby{MARKUP}", slug="ruby").pk)
    marked_up(tenant)
    page = open_page()
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for url in (
        URL,
        f"{URL}?who=groups",
        reverse("admin:cacheadmin_tenant_list"),
        reverse("admin:cacheadmin_activity_list"),
    ):
        page.said.clear()
        page.goto(live_server.url + url)
        if url in (URL, f"{URL}?who=groups"):
            page.wait_for_selector(".uplot canvas")
            page.locator("summary").first.click()
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # asks for the figures anew
            page.wait_for_timeout(300)
        assert MARKUP in page.inner_text("#content"), url
        assert page.locator("img[src=x]").count() == 0
        assert page.evaluate("window.hacked") is None
        assert complaints(page) == []
    assert dialogs == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened, scheme) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = opened(color_scheme=scheme)
    page.wait_for_selector(".uplot canvas")
    found = axe.Axe().run(page, context="#content").response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
