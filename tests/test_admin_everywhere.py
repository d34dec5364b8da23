"""What holds on every page of the console: its cost, and in Chromium its look, its policy and what it loads."""

import re
from collections import Counter
from pathlib import Path

import pytest
from console import every_page, inline_of, page, scope_of
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import resolve

from cacheadmin.admin.console import PAGES
from cacheadmin.connections import Link
from cacheadmin.models import InvalidationRule
from cacheadmin.targets import Target
from shop.models import Tenant

ASSETS, OVERVIEW = 148_000, 141_000
"""Bytes of scripts, styles and pictures that a page may load, Django's own among them but on a host's own page."""

ALL_TENANTS = {
    *(
        "console_changelist",
        "tenant_list",
        "all groups",
        "function_list",
        "function",
        "found",
        "groups",
        "activity_list",
    ),
    *(
        "invalidate all",
        "clear",
        "pattern to look for",
        "pattern of a scope",
        "rule changelist",
        "rule add",
        "rule change",
    ),
}
"""Pages that go through all tenants in some way."""

SIDEWAYS = """
() => {
  const reach = document.documentElement.scrollWidth - innerWidth;
  const clips = ["scroll", "tabs", "hidden", "value", "figures-box"].map(each => `.cacheadmin-${each}`).join();
  // Right to left, what sticks out at the left is no scroll width everywhere.
  const out = [...document.querySelectorAll("#content *")].filter(each => {
    const box = each.getBoundingClientRect();
    return box.width && (box.left < -1 || box.right > innerWidth + 1)
      && !each.closest(`${clips}, .uplot`);
  });
  return [reach > 0 ? reach : 0, out.slice(0, 3).map(each => each.outerHTML.slice(0, 120))];
}
"""

CUT_OFF = """
() => [...document.querySelectorAll(".cacheadmin-scroll")]
  .filter((each) => each.scrollWidth > each.clientWidth + 1)
  .map((each) => [each.scrollWidth - each.clientWidth, each.innerText.slice(0, 120)])
"""
"""Tables of which a part must be scrolled to."""

SPOILT = """
() => {
  const isShown = (each) => each.checkVisibility() && !each.closest(".cacheadmin-hidden, option, pre, .uplot");
  // What of a box its scrolling ancestors let be seen.
  const seen = (box, each) => {
    let { left, right, top, bottom } = box;
    for (; each && each !== document.body; each = each.parentElement) {
      if (getComputedStyle(each).overflowX === "visible") continue;
      const clip = each.getBoundingClientRect();
      left = Math.max(left, clip.left); right = Math.min(right, clip.right);
      top = Math.max(top, clip.top); bottom = Math.min(bottom, clip.bottom);
    }
    return { left, right, top, bottom };
  };
  const found = [], boxes = [], range = document.createRange(), letter = /[\\p{L}\\p{N}]/u;
  const nodes = document.createTreeWalker(document.querySelector("#content"), NodeFilter.SHOW_TEXT);
  for (let node; (node = nodes.nextNode());) {
    if (!node.data.trim() || !isShown(node.parentElement)) continue;
    for (const word of node.data.matchAll(/(?<!\\S)\\S{2,40}(?!\\S)/g)) {
      let before = null;
      for (let i = word.index; i < word.index + word[0].length; i += 1) {
        range.setStart(node, i); range.setEnd(node, i + 1);
        const [box] = range.getClientRects();
        if (!box?.width) continue;
        if (before !== null && box.top - before > 6 && letter.test(node.data[i - 1]) && letter.test(node.data[i])) {
          found.push(`broken: ${word[0]}`);
          break;
        }
        before = box.top;
      }
    }
    range.selectNodeContents(node);
    const text = node.data.trim().slice(0, 40);
    for (const box of range.getClientRects()) boxes.push([seen(box, node.parentElement), text]);
  }
  boxes.forEach(([a, text], i) => boxes.slice(i + 1).forEach(([b, other]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    if (across > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5) found.push(`${text} lies on ${other}`);
  }));
  return found;
}
"""
"""Words of a page that are broken within, long ones and code aside, and texts that lie on one another."""

CLIPPED = """
() => {
  const pen = document.createElement("canvas").getContext("2d");
  const found = [];
  for (const each of document.querySelectorAll("#content select, #content input:is([type=text], [type=search])")) {
    if (!each.checkVisibility() || each.multiple) continue;
    const isSelect = each.localName === "select", style = getComputedStyle(each);
    const text = isSelect ? each.selectedOptions[0]?.text ?? "" : each.value ? "" : each.placeholder;
    pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const room = each.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    if (pen.measureText(text).width + (isSelect ? 17 : 0) > room + 1) found.push(text); // 17 for its arrow
  }
  for (const each of document.querySelectorAll("#content :is(.cacheadmin-segments, .cacheadmin-scroll)")) {
    if (each.scrollWidth > each.clientWidth + 1) found.push(each.innerText.slice(0, 80));
  }
  return found;
}
"""
"""Choices and hints of fields that do not fit into them, and tables and choices of which a part is out of sight."""


# --- cost -----------------------------------------------------------------------------------------------------------


def test_the_list_of_every_page_names_every_page(admin):
    names = ("activity_retry", "entry_recompute", "run_cancel", "run_pace")  # answer POST only
    deeds = {f"cacheadmin_{name}" for name in names}
    for_scripts = {name for _route, _page, name in PAGES if name.startswith("cacheadmin_data_")}
    shown = {resolve(url.partition("?")[0]).url_name for url in every_page().values()}
    assert shown >= {name for _route, _page, name in PAGES} - deeds - for_scripts


@pytest.mark.parametrize("more", [0, 10_000], ids=["2 tenants", "10,002 tenants"])
def test_no_page_costs_more_than_twelve_queries_and_three_round_trips_a_database(admin, monkeypatch, more):
    made = Counter()
    call = Link.call

    def count(self, *commands, **options):
        made[self.alias] += 1
        return call(self, *commands, **options)

    monkeypatch.setattr(Link, "call", count)
    pages = every_page()
    Tenant.objects.bulk_create(Tenant(name=f"Shop {i:05}", slug=f"many-{i}") for i in range(more))
    if more:
        pages = {name: url for name, url in pages.items() if name in ALL_TENANTS}
        pages |= {"last page": page("tenant_list", p=201), "one of many": page("tenant_list", q="Shop+0999")}
    for name, url in pages.items():
        admin.get(url, follow=True)  # scripts are loaded, content types and permissions known
        made.clear()
        with CaptureQueriesContext(connection) as queries:
            admin.get(url)
        assert len(queries) <= 12, (name, [query["sql"][:90] for query in queries])
        assert max(made.values(), default=0) <= 3, (name, made)
    if more:
        listed = admin.get(pages["one of many"]).content.decode()
        assert listed.count(">Shop 0999") == 10


def questions():
    """Return name -> URL and fields of the pages that only a POST shows; `every_page` was called before."""
    rules = [str(pk) for pk in InvalidationRule.objects.values_list("pk", flat=True)]
    scopes = [scope_of(Target("tenant", "", str(pk))) for pk in Tenant.objects.values_list("pk", flat=True)[:2]]
    file = SimpleUploadedFile("rules.csv", b"name,model,targets\ngood,shop.Sale,group:x\n<img>,shop.Nope,group:y\n")
    return {
        "delete selected": (
            page("invalidationrule_changelist"),
            {"action": "delete_selected", "_selected_action": rules},
        ),
        "invalidate selected": (page("invalidate"), {"chosen": scopes}),
        "import diff": (page("invalidationrule_import"), {"file": file}),
    }


def test_no_page_has_anything_inline_or_repeats_its_head(admin):
    found = {name: admin.get(url, follow=True) for name, url in every_page().items()}
    found |= {name: admin.post(url, sent) for name, (url, sent) in questions().items()}
    for name, answer in found.items():
        body = answer.content.decode()
        assert inline_of(body) == [] or name == "host", name
        assert len(re.findall(r"<h1", body.partition('id="main"')[2])) == 1, name
    assert all(found[name].status_code == 200 for name in questions())


def test_every_picture_of_the_documentation_can_be_taken_again():
    root = Path(__file__).parent
    taken = re.findall(r'Shot\(\s*"([\w-]+)"', (root / "shop" / "screenshots.py").read_text(encoding="utf-8"))
    kept = {path.stem: path.stat().st_size for path in (root.parent / "docs" / "images").iterdir()}
    assert sorted(taken) == sorted(kept)
    assert sum(kept.values()) < 4_000_000


# --- in Chromium ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tab(open_page):
    """A page of the browser, logged in; what it asks for and loads is noted, be it from the browser's own cache."""
    found = open_page()
    found.hosts, found.loaded = set(), {}

    def note(response):
        found.hosts.add(response.url.split("/")[2])
        if response.request.resource_type in ("script", "stylesheet", "image", "font"):
            found.loaded[response.url] = int(response.headers.get("content-length", 0))

    found.on("response", note)
    return found


SETTLED = "() => Promise.all(document.getAnimations().map(each => each.finished.catch(() => null))).then(() => null)"

IN_COLOUR = ["color-contrast", "link-in-text-block"]
"""Axe's rules whose verdict a theme may change; the others read the tree, which is the same in both."""


def axe_says(tab, rules=None):
    """Return what axe, which is loaded, finds wrong in what is ours of a page: by all its rules, or by some."""
    options = {"resultTypes": ["violations"]} | ({"runOnly": rules} if rules else {})
    found = tab.evaluate("(options) => axe.run('#content', options).then(found => found.violations)", options)
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_every_page_is_sound_in_both_themes_and_on_a_phone(tab, live_server):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe().axe_script
    tab.add_init_script(f"if (location.protocol !== 'about:') {{ {axe} }}")  # sent once, not with each page
    schemes = ["light", "dark"]  # each page begins in the theme in which the one before ended
    tab.emulate_media(color_scheme=schemes[0])
    asked = {"delete selected": page("invalidationrule_changelist"), "invalidate selected": page("tenant_list")}
    for name, url in (every_page() | asked).items():
        tab.goto("about:blank")
        tab.said.clear()
        tab.loaded.clear()
        tab.goto(live_server.url + url, wait_until="load")
        if name in asked:  # a page that a POST shows
            tab.locator("tbody input[type=checkbox]").first.check()
            if name == "delete selected":
                tab.select_option("select[name=action]", "delete_selected")
            tab.loaded.clear()
            tab.click("button:text('Go')")
            tab.wait_for_selector(".cacheadmin-confirm")
        ours = {url: size for url, size in tab.loaded.items() if name != "host" or "/cacheadmin/" in url}
        most = OVERVIEW if name == "console_changelist" else ASSETS
        assert 0 < sum(ours.values()) <= most, (name, ours)
        complaints = [] if name == "host" else axe_says(tab)
        schemes.reverse()
        tab.emulate_media(color_scheme=schemes[0])
        for width in () if name == "host" else (360, 768, 1280):  # at 768 Django's sidebar leaves less than a phone has
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate(SIDEWAYS) == [0, []], (name, width)
            assert tab.evaluate(SPOILT) == [], (name, width)
        assert tab.evaluate(CUT_OFF) == [], name  # at the last width, that of a small desk
        tab.evaluate(SETTLED)  # Django's links take a moment to change their colour
        complaints += [] if name == "host" else axe_says(tab, IN_COLOUR)
        assert complaints == [], (name, schemes, complaints)
        assert [text for text in tab.said if "404" not in text] == [], name
    assert tab.hosts == {live_server.url.split("/")[2]}


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("language", ["de", "fr"])
def test_every_page_has_room_for_longer_words(tab, live_server, settings, language):
    settings.LANGUAGE_CODE = language
    for name, url in every_page().items():
        if name == "host":
            continue
        tab.goto(live_server.url + url, wait_until="load")
        for width in (360, 768):
            tab.set_viewport_size({"width": width, "height": 800})
            found = tab.evaluate(SIDEWAYS), tab.evaluate(SPOILT), tab.evaluate(CLIPPED)
            assert found == ([0, []], [], []), (name, width)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_every_page_is_sound_from_right_to_left(tab, live_server, settings):
    settings.LANGUAGE_CODE = "he"
    for name, url in every_page().items():
        if name == "host":
            continue
        tab.goto(live_server.url + url, wait_until="load")
        assert tab.get_attribute("html", "dir") == "rtl"
        for width in (1280, 360):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate(SIDEWAYS) == [0, []], (name, width)
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(live_server.url + page("tenant_list"))
    first = tab.locator(".cacheadmin-table thead th").nth(1).bounding_box()
    last = tab.locator(".cacheadmin-table thead th").last.bounding_box()
    assert first["x"] > last["x"]
