"""Fragments, by our tag and by Django's own: whose they are, what drops them, and errors as Django's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.db import transaction
from django.template import Context, TemplateSyntaxError, engines
from django.test import RequestFactory, override_settings

from cacheadmin import invalidate_cache, invalidate_tenant_cache
from cacheadmin.fragments import stock_fragment
from cacheadmin.store import store
from cacheadmin.tenancy import tenancy
from shop.models import Tenant

pytestmark = pytest.mark.django_db

OURS, DJANGOS = "{% load cacheadmin %}", "{% load cache %}"


def user(tenant: int | None = 7, role: str = "owner"):
    return SimpleNamespace(tenant=SimpleNamespace(id=tenant), tenant_id=tenant, role=role, pk=1)


def request(tenant: int | None = 7, **more):
    made = RequestFactory().get("/")
    made.user = user(tenant, **more)
    return made


class Page:
    """A template that shows how often its fragment was rendered."""

    def __init__(self, source: str) -> None:
        self.rendered = 0
        self.template = engines["django"].from_string(source)

    def __call__(self, by: object = None, **context: object) -> str:
        def n() -> int:
            self.rendered += 1
            return self.rendered

        return self.template.template.render(Context({"n": n, "request": by or request(), **context}))


# --- the examples of the reference document -------------------------------------------------------------------------

SIDEBAR = """
{% cache 600 sidebar request.user.tenant.id %}
    <div class="sidebar">
        {% for item in menu_items %}
            <a href="{{ item.url }}">{{ item.name }}</a>
        {% endfor %}{{ n }}
    </div>
{% endcache %}
"""


@pytest.mark.parametrize("load", [OURS, DJANGOS])
def test_sidebar_of_the_reference_document(load: str) -> None:
    page = Page(load + SIDEBAR)
    with tenancy().activate(7):
        first = page(menu_items=[{"url": "/a?b&c", "name": "<A>"}])
        assert first == page(menu_items=[])
        assert '<a href="/a?b&amp;c">&lt;A&gt;</a>' in first
    with tenancy().activate(8):
        assert page(request(8), menu_items=[]) != first
    assert page.rendered == 2


@pytest.mark.parametrize("load", [OURS, DJANGOS])
@pytest.mark.parametrize(
    ("tag", "contexts"),
    [
        (
            "cache 3600 navigation request.user.tenant.id LANGUAGE_CODE",
            [{"LANGUAGE_CODE": "en"}, {"LANGUAGE_CODE": "de"}],
        ),
        (
            "cache 1800 dashboard_widgets request.user.tenant.id request.user.role",
            [{"role": "owner"}, {"role": "clerk"}],
        ),
        ("cache 300 daily_stats request.user.tenant.id today", [{"today": "2024-01-01"}, {"today": "2024-01-02"}]),
        ('cache 600 product_list request.user.tenant.id using="template"', [{}]),
        ("cache 600 three a b c", [{"a": 1, "b": 23, "c": ""}, {"a": 12, "b": 3, "c": ""}, {"a": "", "b": 1, "c": 23}]),
    ],
)
def test_variables_tell_fragments_apart(load: str, tag: str, contexts: list[dict]) -> None:
    page = Page(load + "{% " + tag + " %}{{ n }}{% endcache %}")
    for _ in range(2):
        seen = [page(request(role=c.get("role", "owner")), **c) for c in contexts]
        assert seen == [str(n + 1) for n in range(len(contexts))]
    with tenancy().activate(8):
        assert page(request(8), **contexts[0]) == str(len(contexts) + 1)


# --- whose they are -------------------------------------------------------------------------------------------------


def test_fragment_is_of_the_named_else_the_active_else_the_requests_tenant() -> None:
    page = Page(OURS + "{% cache 60 side %}{{ n }}{% endcache %}")
    assert [page(request(7)), page(request(8)), page(request(7))] == ["1", "2", "1"]
    with tenancy().activate(8):
        assert page(request(7)) == "2", "the active one comes before the request's"
    named = Page(OURS + "{% cache 60 named tenant=shop %}{{ n }}{% endcache %}")
    with tenancy().activate(9):
        assert [named(shop=1), named(shop="1"), named(shop=Tenant(pk=1)), named(shop=2)] == ["1", "1", "1", "2"]


def test_fragment_of_nobody_is_rendered_each_time() -> None:
    page = Page(OURS + "{% cache 60 side %}{{ n }}{% endcache %}")
    assert [page(request(None)), page(request(None))] == ["1", "2"]
    named = Page(OURS + "{% cache 60 named tenant=missing %}{{ n }}{% endcache %}")
    assert [named(), named()] == ["1", "2"]


def test_shared_fragment_is_everybodys() -> None:
    page = Page(OURS + "{% cache 60 side shared=True %}{{ n }}{% endcache %}")
    assert [page(request(7)), page(request(None)), page(request(8))] == ["1"] * 3
    invalidate_tenant_cache(7)
    assert page() == "1"
    invalidate_cache("side:*")
    assert page() == "2"
    false = Page(OURS + "{% cache 60 other shared=flag %}{{ n }}{% endcache %}")
    assert [false(flag=False), false(request(8), flag=False), false(flag=True)] == ["1", "2", "3"]


def test_site_without_tenants_shares_all() -> None:
    with override_settings(CACHEADMIN={"TENANCY": "cacheadmin.tenancy.NoTenants"}):
        page = Page(OURS + "{% cache 60 side %}{{ n }}{% endcache %}")
        assert [page(request(7)), page(request(None))] == ["1", "1"]


# --- what drops them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [OURS, DJANGOS])
@pytest.mark.parametrize(
    ("invalidate", "seven", "eight"),
    [
        (lambda: invalidate_tenant_cache(7), True, False),
        (lambda: invalidate_tenant_cache(7, prefix="product"), True, False),
        (lambda: invalidate_tenant_cache(7, prefix="other"), False, False),
        (lambda: invalidate_cache("product_list:*"), True, True),
        (lambda: invalidate_cache("tenant:8:product_list:*"), False, True),
        (lambda: invalidate_cache("product_lis?:*"), True, True),
        (lambda: invalidate_cache("product_list:*", alias="query"), False, False),
        (lambda: invalidate_tenant_cache(7, alias="template"), True, False),
    ],
)
def test_fragment_goes_with_its_tenant_and_its_name(load: str, invalidate, seven: bool, eight: bool) -> None:
    page = Page(load + '{% cache 600 product_list request.user.tenant.id using="template" %}{{ n }}{% endcache %}')

    def show(tenant: int) -> str:
        with tenancy().activate(tenant):
            return page(request(tenant))

    assert [show(7), show(8), show(7), show(8)] == ["1", "2", "1", "2"]
    assert invalidate().is_done
    assert (show(7) != "1", show(8) != "2") == (seven, eight)


def test_djangos_key_finds_djangos_fragment() -> None:
    page = Page(DJANGOS + "{% cache 600 side a %}{{ n }}{% endcache %}")
    with tenancy().activate(7):
        assert page(a=1) == "1"
        key = make_template_fragment_key("side", [1])
        assert caches["default"].get(key) == "1"
        assert caches["default"].delete(key)
        assert page(a=1) == "2"
        with transaction.atomic():
            caches["default"].delete(key)
            caches["default"].set(key, "read before the commit")
        assert page(a=1) == "3"
    assert caches["default"].get(key) is None, "outside, nobody is active: shared data"


def test_djangos_fragment_whose_name_holds_a_colon_is_the_active_tenants_too() -> None:
    page = Page(DJANGOS + "{% cache 600 side:top using='query' %}{{ n }}{% endcache %}")
    for _ in range(2):
        shown = []
        for tenant in (7, 8):
            with tenancy().activate(tenant):
                shown.append(page())
        assert shown == ["1", "2"]
    assert invalidate_tenant_cache(7, "side:top").is_done
    with tenancy().activate(7):
        assert page() == "3"


def test_ours_and_djangos_never_serve_each_other() -> None:
    ours = Page(OURS + "{% cache 600 side 1 %}ours{% endcache %}")
    djangos = Page(DJANGOS + "{% cache 600 side 1 %}djangos{% endcache %}")
    with tenancy().activate(7):
        for _ in range(2):
            assert (ours(), djangos()) == ("ours", "djangos")
    assert stock_fragment(make_template_fragment_key("a.b:c", ["x"]))[0] == "a.b:c"
    for key in ("template.cache.side", "template.cache..abc", "template.cache.side." + "x" * 32, "side"):
        assert stock_fragment(key) is None


def test_fragment_rendered_before_an_invalidation_is_never_served_after_it() -> None:
    for load in (OURS, DJANGOS):
        page = Page(load + "{% cache 600 side %}{{ n }}{{ drop }}{% endcache %}")
        with tenancy().activate(7):
            assert page(drop=lambda: invalidate_tenant_cache(7).state) == "1done"
            assert page(drop="") == "2"
            assert page(drop="") == "2"


def test_transaction_that_has_written_renders_anew_and_keeps_nothing() -> None:
    page = Page(OURS + "{% cache 600 side %}{{ n }}{% endcache %}")
    assert page() == "1"
    with transaction.atomic():
        Tenant.objects.create(name="Ruby", slug="ruby")
        assert [page(), page()] == ["2", "3"]
    assert page() == "1"


# --- timeouts, nesting, odd values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [OURS, DJANGOS])
@pytest.mark.parametrize(
    ("timeout", "calls"), [("60", 1), ("'60'", 1), ("None", 1), ("0", 2), ("seconds", 1), ("nothing", 1), ("-1", 2)]
)
def test_timeout_is_a_number_a_variable_or_none(load: str, timeout: str, calls: int) -> None:
    page = Page(load + "{% cache " + timeout + " side %}{{ n }}{% endcache %}")
    with tenancy().activate(7):
        for _ in range(2):
            page(seconds=60, nothing=None)
    assert page.rendered == calls


def test_seconds_are_seconds() -> None:
    Page(OURS + '{% cache 60 side using="template" %}{% endcache %}')()
    [(name, _)] = [row for page in store("template").scan_parsed("v") for row in page]
    assert 30_000 < store("template").link.call(("PTTL", name)).values[0] <= 60_000


def test_empty_fragment_is_a_value_and_nested_ones_work() -> None:
    page = Page(OURS + "{% cache 60 outer %}{% cache 60 inner %}{% if n %}{% endif %}{% endcache %}{% endcache %}")
    assert [page(), page()] == ["", ""]
    assert page.rendered == 1


@pytest.mark.parametrize("load", [OURS, DJANGOS])
def test_any_value_may_tell_fragments_apart(load: str) -> None:
    page = Page(load + "{% cache 60 side a %}{{ n }}{% endcache %}")
    values = ["", None, 1, "x" * 10_000, "a:b", "*", "\n", "é", "e\u0301", [1], {"a": 1}, "~a", "<b>"]
    with tenancy().activate(7):
        first = [page(a=value) for value in values]
        assert first == [str(n + 1) for n in range(len(values))]
        assert [page(a=value) for value in values] == first


def test_values_that_read_alike_are_alike_as_in_django() -> None:
    page = Page(OURS + "{% cache 60 side a %}{{ n }}{% endcache %}")
    assert [page(a=1), page(a="1")] == ["1", "1"]


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "context"),
    [
        ("cache", {}),
        ("cache 60", {}),
        ("cache foo bar", {"foo": "x"}),
        ("cache foo bar", {"foo": [1]}),
        ("cache missing bar", {}),
        ("cache 60 side using=alias", {"alias": "nope"}),
        ('cache 60 side using="nope"', {}),
        ("cache 60 side a|nope", {}),
        ("cache 60 side a|length:1:2", {}),
    ],
)
def test_errors_are_those_of_djangos_own_tag(tag: str, context: dict) -> None:
    raised = []
    for load in (DJANGOS, OURS):
        with pytest.raises(TemplateSyntaxError) as error:
            Page(load + "{% " + tag + " %}{% endcache %}")(**context)
        raised.append(str(error.value).replace("''", "'"))
    assert raised[0] == raised[1]


def test_tag_without_an_end_is_an_error() -> None:
    with pytest.raises(TemplateSyntaxError, match="endcache"):
        Page(OURS + "{% cache 60 side %}")


@pytest.mark.parametrize("load", [OURS, DJANGOS])
def test_alias_for_fragments_is_djangos(load: str, redis_server) -> None:
    ours = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url}
    with override_settings(
        CACHES={
            "default": ours,
            "template_fragments": ours | {"KEY_PREFIX": "f"},
            "template": ours | {"KEY_PREFIX": "t"},
        }
    ):
        page = Page(load + "{% cache 60 side %}{{ n }}{% endcache %}")
        with tenancy().activate(7):
            page(), page()
            assert page.rendered == 1
            caches["default"].clear()
            page()
            assert page.rendered == 1
            caches["template_fragments"].clear()
            page()
            assert page.rendered == 2


def test_hit_is_one_round_trip(round_trips) -> None:
    page = Page(OURS + "{% cache 60 side %}{{ n }}{% endcache %}")
    page()
    with round_trips() as sent:
        page()
    assert sent == ["MGET"]
