"""What somebody hostile does to the console: huge and deep values, odd numbers, forged ids, foreign posts, secrets."""

import json
import logging
import os
import pickle
import re
import signal
import time

import pytest
from console import (
    MARKUP,
    console_stock,
    entry_of,
    every_page,
    make_shops,
    make_user,
    marked_up,
    page,
    pages_of,
    scope_of,
    timed,
)
from django.core.signing import Signer
from django.test import Client
from django.urls import reverse

from cacheadmin import browser, connections, envelope
from cacheadmin.admin import ids
from cacheadmin.connections import links
from cacheadmin.models import Activity
from cacheadmin.store import store
from cacheadmin.targets import ALL, Target
from shop.models import Tenant, User

pytestmark = pytest.mark.django_db

PAGE_BYTES = 100_000
VIEWS = ("tree", "json", "text", "hex")


@pytest.fixture
def ruby():
    tenant = str(make_shops("Ruby & Co", "Gold & Sons")[0].pk)
    console_stock(tenant, 1)
    return tenant


def put(tenant, payload):
    """Put bytes in the place of an entry's value, behind its header."""
    link = store("query").link
    member = browser.entries("query", tenant, "console_stock").rows[0].member
    key = browser.entry("query", tenant, "console_stock", member).full_key
    stored = link.call(("GET", key)).values[0]
    link.call(("SET", key, stored[: envelope.parse(stored).payload_start] + payload))


# --- values ---------------------------------------------------------------------------------------------------------

VALUES = {
    "64 MB in one text": lambda: pickle.dumps("x" * 64_000_000),
    "64 MB of markup": lambda: b"<script>" * 8_000_000,
    "64 MB of bytes": lambda: os.urandom(1_000_000) * 64,
    "nested 100,000 deep": lambda: b"[" * 100_000,
    "a pickle nested 100,000 deep": lambda: b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "labels that grow when escaped": lambda: json.dumps({f"{i}" + '"<&' * 30: '"<&' * 90 for i in range(300)}).encode(),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_page_stays_below_100_kb_whatever_the_value(admin, ruby, name, redis):
    put(ruby, VALUES[name]())
    url = page("entry_detail", entry_of(ruby))
    for shown in VIEWS:
        before = redis.info("stats")["total_net_output_bytes"]
        with timed(f"{name}, as {shown}"):
            answer = admin.get(url, {"value": shown})
        assert redis.info("stats")["total_net_output_bytes"] - before < 200_000  # only its beginning is read
        assert answer.status_code == 200
        assert len(answer.content) < PAGE_BYTES, (shown, len(answer.content))
        assert b"<script>" not in answer.content.partition(b'class="cacheadmin-page"')[2]


@pytest.mark.usefixtures("stock")
def test_a_plain_key_of_64_mb_is_read_by_its_beginning(admin, ruby, redis):
    redis.set(f"jewelry_shop:1:tenant:{ruby}:big", b"<&>" * 21_000_000)
    url = page("entry_detail", ids.plain_id("default", ruby, f"jewelry_shop:1:tenant:{ruby}:big"))
    for shown in VIEWS:
        assert len(admin.get(url, {"value": shown}).content) < PAGE_BYTES


@pytest.fixture
def stock(settings):
    settings.CACHES = {n: {**each, "BACKEND": "django_redis.cache.RedisCache"} for n, each in settings.CACHES.items()}


# --- addresses ------------------------------------------------------------------------------------------------------

ODD = ("1e9", "-1", "abc", "9" * 400, "\x00٣")
"""Values for any parameter."""

PARAMETERS = ("p", "per_page", "o", "at", "cursor", "state", "range", "alias", "q", "before", "day", "newest", "value")


def test_odd_parameters_are_the_nearest_valid_page(admin):
    for name, url in every_page().items():
        kept = dict(pair.split("=", 1) for pair in url.partition("?")[2].split("&") if pair)
        for odd in ODD:
            query = {**dict.fromkeys(PARAMETERS, odd), **kept}
            answer = admin.get(url.partition("?")[0], query)
            expected = (404,) if name in ("gone", "not found") else (200, 302)
            assert answer.status_code in expected, (name, odd)
            assert len(answer.content) < 200_000, (name, odd)


FORGED = ("", "x", "x~y", "~", "%41~%41", "../..", "\n", "\x00~", "a" * 5000, "IjEi~", "{}~{}")


def test_forged_ids_are_not_found_at_each_address_and_do_nothing(admin, ruby):
    real = entry_of(ruby)
    swapped = [ids.tenant_id(ruby), ids.group_id("query", "console_stock"), scope_of(Target("tenant", "", ruby))]
    foreign = Signer(key="another site's key", salt="cacheadmin.ids.entry", sep="~").sign_object(
        ["query", ruby, "g", "m"]
    )
    body, _tilde, signature = real.partition("~")
    for token in (*FORGED, *swapped, foreign, f"{body}x~{signature}", f"{body}~{signature[:-1]}", real.swapcase()):
        for name in ("entry_detail", "entry_recompute"):
            if not token or "/" in token or "\n" in token:
                continue  # no address can be made of it
            url = page(name, token)
            answer = admin.post(url) if name.endswith("recompute") else admin.get(url)
            assert answer.status_code == 404, token
        for name in ("invalidate", "warm", "clear", "pattern"):
            if (token, name) != (swapped[2], "invalidate") and (token, name) != (swapped[2], "warm"):
                assert admin.post(page(name), {"on": token, "confirmed": "yes"}).status_code == 404, token
    assert not Activity.objects.exclude(kind="warm").exists()


@pytest.mark.parametrize("pattern", ["*", "?", "[0-9]", "1*", "\\*", "*:*", "..", "1:query"])
def test_globs_and_prefixes_reach_no_other_tenant(ruby, pattern):
    bound = make_user("ruby", "view_keys", "invalidate", tenant=Tenant.objects.get(pk=ruby))
    other = str(Tenant.objects.get(name="Gold & Sons").pk)
    console_stock(other, 1)
    for url in (page("tenant_detail", ids.tenant_id(pattern)), page("plain_list", ids.tenant_id(pattern))):
        assert bound.get(url).status_code == 404
    listed = bound.get(pages_of(ruby)["entries"], {"q": pattern}).content.decode()
    assert f'value="{pattern}"' in listed or "\\" in pattern
    found = bound.get(page("find"), {"q": f"tenant:{other}:{pattern}"}, follow=True).content.decode()
    assert "Gold" not in found
    targets = [Target("prefix", pattern, other), Target("pattern", pattern, other), Target("tenant", "", ALL)]
    for target in targets:
        for name in ("invalidate", "pattern"):
            answer = bound.post(page(name), {"on": scope_of(target), "confirmed": "yes", "name": pattern})
            assert answer.status_code == 404
    assert bound.get(page("pattern"), {"pattern": f"tenant:{ruby}:{pattern}"}).status_code == 404
    assert browser.entries("query", other, "console_stock").rows[0].state == "live"


NEXT = ("https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)")


@pytest.mark.parametrize("there", NEXT)
def test_nothing_redirects_to_another_site(admin, ruby, there):
    headers = {"referer": there, "x-forwarded-host": "evil.example"}
    scope = scope_of(Target("tenant", "", ruby))
    extra = {"next": there, "back": there, "return": there, "url": there}
    answers = [
        admin.post(page("invalidate") + f"?next={there}", {"on": scope, "confirmed": "yes", **extra}, headers=headers),
        admin.post(page("entry_recompute", ids.entry_id("query", ruby, "console_stock", "x")), extra, headers=headers),
        admin.post(page("health"), extra, headers=headers),
        admin.get(page("find"), {"q": there, **extra}, headers=headers),
        admin.get(page("tenant_list"), extra, headers=headers),
        admin.post(reverse("admin:cacheadmin_invalidationrule_changelist"), extra, headers=headers),
    ]
    for answer in answers:
        assert answer.status_code in (200, 302)
        assert answer.get("Location", "/admin/").startswith(("/admin/", "?"))


def test_no_deed_is_done_without_the_token_of_the_form(ruby):
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    client.cookies["csrftoken"] = "a" * 32
    scope = scope_of(Target("tenant", "", ruby))
    posts = {
        page("invalidate"): {"on": scope, "confirmed": "yes"},
        page("warm"): {"on": scope},
        page("clear"): {"on": "query", "name": "query"},
        page("pattern"): {"on": scope_of(Target("pattern", "*stoc?:*", ALL)), "name": "*stoc?:*"},
        page("entry_recompute", entry_of(ruby)): {},
        page("health"): {},
        page("invalidationrule_add"): {"model": "shop.Branch"},
        page("invalidationrule_import"): {},
        page("invalidationrule_preview"): {},
        page("invalidationrule_changelist"): {"action": "switch_off"},
    }
    for url, data in posts.items():
        for token in ({}, {"csrfmiddlewaretoken": "b" * 32}, {"csrfmiddlewaretoken": "a" * 31}):
            assert client.post(url, data | token).status_code == 403, url
            assert client.post(url, data | token, headers={"origin": "https://evil.example"}).status_code == 403
    assert not Activity.objects.exists()


# --- secrets --------------------------------------------------------------------------------------------------------


def test_the_password_of_a_server_stands_on_no_page_in_no_log_and_in_no_file(admin, monkeypatch, caplog):
    pages = every_page()
    monkeypatch.setattr(links, "server_url", lambda alias: f"redis://u5er.of.redis:s3cr3t@127.0.0.1:1/{alias}")
    connections.forget_links()
    caplog.set_level(logging.DEBUG)
    files = [f"{page('invalidationrule_export')}?format={kind}" for kind in ("json", "yaml", "csv", "xlsx")]
    for url in (*pages.values(), *files, page("data_overview"), page("data_activity"), "/metrics"):
        answer = admin.get(url, follow=True)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert b"s3cr3t" not in body, url
        assert b"u5er.of" not in body, url  # with what no random token holds
    assert "s3cr3t" not in caplog.text
    assert "does not answer" in caplog.text
    connections.forget_links()


# --- markup in names ------------------------------------------------------------------------------------------------


def test_names_end_no_script_and_open_no_element(admin, within_a_minute):
    tenants = make_shops(f"Ruby{MARKUP}", "Gold & Sons")
    marked_up(str(tenants[0].pk))
    urls = {name: page(name) for name in ("console_changelist", "tenant_list", "group_list", "activity_list", "find")}
    urls |= {f"ranked by {kind}": page("console_changelist", who=kind) for kind in ("tenants", "groups")}
    urls |= {"groups": page("tenant_detail", ids.tenant_id(str(tenants[0].pk))), "found": page("find", q="Ruby")}
    for name, url in urls.items():
        body = admin.get(url).content.decode()
        assert "<img" not in body, name
        assert body.lower().count("</script>") == body.count("<script"), name
    answer = admin.get(page("data_overview"))
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    found = answer.json()["html"]
    assert "Ruby" in found
    assert "<img" not in found
    assert found.count("</script>") == found.count("<script") == found.count('type="application/json"')


# --- a server that is gone, or hangs --------------------------------------------------------------------------------


@pytest.fixture
def server(fresh_server, settings):
    found = fresh_server()
    settings.CACHES = {
        alias: made | {"LOCATION": f"{found.url.rpartition('/')[0]}/{number}"}
        for number, (alias, made) in enumerate(settings.CACHES.items())
    }
    connections.forget_links()
    yield found
    connections.forget_links()


@pytest.mark.parametrize("how", ["stopped", "hung"])
def test_every_page_comes_after_one_timeout_a_server_and_says_so(admin, server, settings, monkeypatch, how):
    pages = every_page()
    # However long a page takes here, it asks a server that has not answered no second time.
    settings.CACHEADMIN = {**settings.CACHEADMIN, "TIMEOUT_MS": 100, "RETRY_SECONDS": 3600.0}
    waits = []
    failed = connections.Link._failed

    def note(self, error):
        waits.append(self.alias)
        return failed(self, error)

    monkeypatch.setattr(connections.Link, "_failed", note)
    if how == "stopped":
        server.stop()
    else:
        os.kill(server.pid, signal.SIGSTOP)
    try:
        for name, url in pages.items():
            connections.forget_links()  # as in a process that does not know yet
            waits.clear()
            begun = time.thread_time()
            answer = admin.get(url, follow=True)
            busy = time.thread_time() - begun
            assert len(set(waits)) == len(waits), (name, waits)  # an alias is waited for once
            assert len(waits) * 0.1 + busy < 1.0, (name, waits, busy)  # a wait ends at the timeout of 100 ms
            body = re.sub(r"\s+", " ", answer.content.decode())
            if not name.startswith("host"):
                assert re.search(r"Redis \([\w, ]+\) does not answer since \d\d:\d\d:\d\d", body), name
            assert answer.status_code in (200, 404, 503), name
    finally:
        if how == "hung":
            os.kill(server.pid, signal.SIGCONT)
