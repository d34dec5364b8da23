"""Health and what other pages say of it: findings by severity, a way to each, no secrets, a bounded cost."""

import re
from html.parser import HTMLParser

import pytest
from console import make_user, text_of
from django.core.cache import caches
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from cacheadmin import connections
from cacheadmin.admin.views import health
from cacheadmin.doctor import registry
from cacheadmin.doctor.registry import Check, Finding
from cacheadmin.stats import recorder
from server import Server
from shop.inventory import inventory_list
from shop.models import Tenant

pytestmark = pytest.mark.django_db

HEALTH = reverse("admin:cacheadmin_health")
OVERVIEW = reverse("admin:cacheadmin_console_changelist")


@pytest.fixture(autouse=True)
def _no_memory():
    registry._latest.clear()
    yield
    registry._latest.clear()


@pytest.fixture
def finding(monkeypatch):
    """Have the doctor know nothing but some findings: `finding("W900", "I901")`."""

    def put(*ids):
        made = [
            Check(f"cacheadmin.{i}", i, lambda _f, i=i: [Finding(f"T{i} <b>", "there", f"Y{i}", "a\nb")] * 2, False)
            for i in ids
        ]
        monkeypatch.setattr(registry, "checks", lambda: tuple(made))

    return put


class Ids(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.ids = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]


def test_findings_stand_by_severity_each_with_a_sign_a_word_and_a_place_to_link_to(admin, finding) -> None:
    finding("I900", "W901", "E902")
    response = admin.get(HEALTH)
    html = response.content.decode()
    assert (
        re.findall(r"cacheadmin-finding-(error|warning|info)", html) == ["error"] * 2 + ["warning"] * 2 + ["info"] * 2
    )
    assert re.findall(r"(Error|Warning|Note):", text_of(response)) == (["Error"] * 2 + ["Warning"] * 2 + ["Note"] * 2)
    assert "TE902 &lt;b&gt;" in html
    assert "<pre>a\nb</pre>" in html
    ids = Ids(html).ids
    assert len(ids) == len(set(ids))
    assert {"check-E902", "check-W901", "check-I900"} <= set(ids)


def test_notes_do_not_count_as_problems(admin, finding) -> None:
    finding("I900")
    assert health.open_findings() == 0
    assert "cacheadmin-count" not in admin.get(HEALTH).content.decode()
    assert "in Health" not in text_of(admin.get(OVERVIEW))


def test_the_overview_leads_from_an_error_to_how_it_is_put_right(admin, finding) -> None:
    finding("W900", "E901")
    inventory_list(Tenant.objects.create(name="Ruby", slug="ruby").pk)
    recorder.flush()  # where nothing was ever cached, that is said first
    html = admin.get(OVERVIEW).content.decode()
    assert html.count("TE901 &lt;b&gt;") == 2
    assert f'href="{HEALTH}#check-E901"' in html
    assert "2 more in Health" in text_of(admin.get(OVERVIEW))


def test_what_was_silenced_or_not_finished_is_said(admin, finding, settings, monkeypatch) -> None:
    finding("W900", "W901")
    settings.SILENCED_SYSTEM_CHECKS = ["cacheadmin.W900"]
    assert "Silenced by this site’s settings: cacheadmin.W900." in text_of(admin.get(HEALTH))
    registry._latest.clear()
    monkeypatch.setattr(registry.Facts, "has_time", lambda self: False)
    words = text_of(admin.get(HEALTH))
    assert "Not known, as a server is away or there was no time left: cacheadmin.W901." in words
    assert "checks pass." not in words


def test_no_secret_of_a_url_is_on_the_page(admin, settings) -> None:
    settings.CACHES = settings.CACHES | {
        "query": settings.CACHES["query"] | {"LOCATION": "redis://shop:hunter2secret@127.0.0.1:1/1"},
        "api": settings.CACHES["api"] | {"LOCATION": "tcp://shop:hunter2secret@127.0.0.1:1/1"},
        "template": settings.CACHES["template"] | {"OPTIONS": {"PASSWORD": "hunter2secret", "MAX_CONNECTIONS": 5}},
    }
    report = registry.latest(0)
    assert {"cacheadmin.E010", "cacheadmin.E043", "cacheadmin.W003"} <= {found.check for found in report.findings}
    assert "hunter2" not in repr(report.findings)


@pytest.mark.parametrize("is_cold", [True, False])
def test_it_costs_few_queries_and_at_most_three_round_trips_a_database(admin, monkeypatch, is_cold) -> None:
    made = {}
    call = connections.Link.call

    def counted(self, *commands, **options):
        made[self.alias] = made.get(self.alias, 0) + 1
        return call(self, *commands, **options)

    admin.get(HEALTH)
    if is_cold:
        registry._latest.clear()
    monkeypatch.setattr(connections.Link, "call", counted)
    with CaptureQueriesContext(connection) as queries:
        admin.get(HEALTH)
    assert len(queries) <= 12
    assert max(made.values(), default=0) <= 3, made


def test_who_may_see_keys_of_his_tenant_sees_no_other_tenants_there() -> None:
    tenants = [Tenant.objects.create(name=name, slug=name.lower()) for name in ("Ruby", "Gold")]
    client = make_user("bound", "view_keys", tenant=tenants[0])
    caches["query"].set(f"tenant:{tenants[1].pk}:goldsecret:4711-of-gold", "x" * 1_200_000, None)
    words = text_of(client.get(HEALTH))
    assert "W029" in words
    assert "goldsecret keeps values" in words  # the group is the site's, whose entry it is and which one is not said
    assert "4711-of-gold" not in words
    assert "Gold " not in words


def test_a_server_that_goes_or_comes_back_is_found_at_once(admin, fresh_server, settings, monkeypatch):
    monkeypatch.setattr("cacheadmin.browser.counts.FRESH_SECONDS", 0)
    server = fresh_server()
    settings.CACHES = {
        alias: made | {"LOCATION": server.url_for(number)}
        for number, (alias, made) in enumerate(settings.CACHES.items())
    }
    connections.forget_links()
    finding = f'id="{health.anchor_of(health.SAID_BY_THE_FRAME)}"'
    assert finding not in admin.get(HEALTH).content.decode()
    server.stop()
    assert finding in admin.get(HEALTH).content.decode()
    with Server.start(port=server.port):
        connections.forget_links()
        assert finding not in admin.get(HEALTH).content.decode()
    connections.forget_links()
