"""Cached views: what is kept of a response, for whom, and what is served instead of the view."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from itertools import count
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import AnonymousUser
from django.contrib.messages.storage.base import Message
from django.contrib.messages.storage.session import SessionStorage
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import DisallowedHost
from django.http import (
    FileResponse,
    HttpResponse,
    HttpResponseNotFound,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import path
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject, empty
from django.utils.timezone import localtime
from django.utils.translation import gettext
from django.views import View
from rest_framework.decorators import api_view
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.versioning import AcceptHeaderVersioning
from rest_framework.views import APIView

from cacheadmin import cache_api_response, invalidate_cache, invalidate_tags, invalidate_tenant_cache
from cacheadmin.exceptions import InvalidKey, UncacheableValue
from cacheadmin.functions import registry
from cacheadmin.responses import CachedView
from cacheadmin.store import store
from shop.cache import Tenancy
from shop.models import Branch, Category, InventoryItem, Tenant, User

pytestmark = pytest.mark.django_db

NEW_YEAR = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def user(pk: int | None = 1, tenant: int | None = 7) -> object:
    return AnonymousUser() if pk is None else SimpleNamespace(pk=pk, tenant_id=tenant, is_authenticated=True)


def request(url: str = "/products/", method: str = "GET", *, by: object = None, **headers: str):
    made = RequestFactory().generic(method, url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    made.user = user() if by is None else by
    return made


class _Visitor(AnonymousUser):
    tenant_id = 7


VISITOR = _Visitor()
"""Somebody who is not logged in, at the shop of tenant 7."""


class Counting:
    """A view that answers with how often it was called, through `answer(number)`."""

    def __init__(self, answer=lambda n: JsonResponse({"n": n})) -> None:
        self.calls = 0
        self.answer = answer

    def cached(self, **options):
        def view(request, *args, **kwargs):
            self.calls += 1
            return self.answer(self.calls)

        return cache_api_response(**{"timeout": 60, "x_cache": True, **options})(view)


# --- what is kept ---------------------------------------------------------------------------------------------------


def twice(counting: Counting, make=request, **options) -> tuple[object, object]:
    view = counting.cached(**options)
    return view(make()), view(make())


def test_json_response_is_served_again() -> None:
    counting = Counting()
    first, again = twice(counting)
    assert (json.loads(first.content), json.loads(again.content)) == ({"n": 1}, {"n": 1})
    assert (first["X-Cache"], again["X-Cache"]) == ("MISS", "HIT")
    assert again["Content-Type"] == "application/json"
    assert (again.status_code, counting.calls) == (200, 1)


def test_headers_of_the_view_come_back_and_x_cache_only_when_asked() -> None:
    def answer(n: int) -> HttpResponse:
        return HttpResponse(f"{n}", content_type="text/csv; charset=latin-1", headers={"X-Mine": "a", "ETag": '"1"'})

    first, again = twice(Counting(answer), x_cache=False)
    assert again.headers == first.headers
    assert again.charset == "latin-1"
    assert "X-Cache" not in again
    assert again.content == b"1"


def test_view_may_answer_with_plain_data() -> None:
    for value in ({"a": [1, None]}, [], None, "", 0):
        counting = Counting(lambda n, value=value: value)
        assert twice(counting, key_prefix=f"plain{value!r}") == (value, value)
        assert counting.calls == 1


def test_queryset_is_evaluated_once(django_assert_num_queries) -> None:
    counting = Counting(lambda n: Tenant.objects.all())
    Tenant.objects.create(name="Ruby", slug="ruby")
    view = counting.cached()
    with django_assert_num_queries(1):
        assert [t.name for t in view(request())] == ["Ruby"]
        assert [t.name for t in view(request())] == ["Ruby"]
    assert counting.calls == 1


def test_template_response_is_rendered_and_then_kept() -> None:
    rendered: list[str] = []
    template = engines["django"].from_string("<b>{{ n }}</b>{{ note }}")

    def answer(n: int) -> TemplateResponse:
        response = TemplateResponse(None, template, {"n": n, "note": lambda: rendered.append("x") or ""})
        response.add_post_render_callback(lambda r: r.headers.__setitem__("X-Rendered", "yes"))
        return response

    first, again = twice(Counting(answer))
    assert first.is_rendered
    assert (first.content, again.content) == (b"<b>1</b>", b"<b>1</b>")
    assert again["X-Rendered"] == "yes"
    assert len(rendered) == 1


def with_cookie(n: int) -> HttpResponse:
    response = HttpResponse("x")
    response.set_cookie("a", "b")
    return response


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: HttpResponseNotFound(),
        lambda n: HttpResponse(status=204),
        lambda n: HttpResponse(status=206),
        lambda n: HttpResponse(status=500),
        lambda n: HttpResponseRedirect("/"),
        lambda n: JsonResponse({}, status=201),
        lambda n: StreamingHttpResponse(iter([b"x"])),
        lambda n: FileResponse(iter([b"x"])),
        with_cookie,
        lambda n: HttpResponse(headers={"Cache-Control": "private"}),
        lambda n: HttpResponse(headers={"Cache-Control": "max-age=5, No-Store"}),
        lambda n: HttpResponse(headers={"Cache-Control": 'private="X-Mine"'}),
        lambda n: HttpResponse(headers={"Vary": "*"}),
        lambda n: HttpResponse(headers={"Vary": "Accept, *"}),
    ],
    ids=["404", "204", "206", "500", "302", "201", "stream", "file", "cookie", "private", "store", "field", "*", "a*"],
)
def test_what_is_not_for_everybody_is_not_kept(answer) -> None:
    counting = Counting(answer)
    view = counting.cached()
    answers = [view(request()) for _ in range(3)]
    assert counting.calls == 3
    assert [response["X-Cache"] for response in answers] == ["MISS"] * 3
    assert answers[0].status_code == answer(0).status_code


@pytest.mark.parametrize("header", ["max-age=60", "public", "no-cache", "must-revalidate"])
def test_other_directives_do_not_forbid_it(header: str) -> None:
    counting = Counting(lambda n: HttpResponse(headers={"Cache-Control": header}))
    twice(counting)
    assert counting.calls == 1


def test_page_with_a_new_csrf_token_is_its_visitors_alone() -> None:
    def view(request):
        return HttpResponse(get_token(request))

    cached = cache_api_response(timeout=60)(view)
    assert cached(request(by=user(None), url="/shops/none/")).status_code == 200
    tokens = [cached(request()).content for _ in range(2)]
    assert tokens[0] != tokens[1]


def leave_in_session(request) -> None:
    request.session["seen"] = True


def leave_message(request) -> None:
    messages.success(request, "sold")


def show_message(request) -> None:
    list(messages.get_messages(request))


@pytest.mark.parametrize("act", [leave_in_session, leave_message, show_message])
def test_view_that_did_something_to_its_visitor_is_asked_again(act) -> None:
    calls: list[object] = []

    def view(request):
        calls.append(act(request))
        return JsonResponse({})

    cached = cache_api_response(timeout=60)(view)

    def visit(*, has_message: bool) -> None:
        made = request()
        made.session = {"seen": False} if act is not leave_in_session else SessionStore()
        made._messages = SessionStorage(made)
        if has_message:
            made.session[SessionStorage.session_key] = made._messages.serialize_messages([Message(20, "sold")])
        cached(made)

    for _ in range(2):
        visit(has_message=act is show_message)
    assert len(calls) == 2
    if act is show_message:  # a page that would show one, and had none to show, is like any other
        for _ in range(2):
            visit(has_message=False)
        assert len(calls) == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_reach_the_view(method: str) -> None:
    counting = Counting()
    view = counting.cached()
    view(request())
    for _ in range(2):
        assert "X-Cache" not in view(request(method=method))
    assert counting.calls == 3
    assert view(request())["X-Cache"] == "HIT"


@pytest.mark.parametrize("serializer", ["json.JSONSerializer", "pickle.PickleSerializer"])
@pytest.mark.parametrize(
    "content", [b"", b"plain", "Z\u00fcrich \U0001f48d".encode(), b"\xff\x00\xfe", bytes(range(256))]
)
def test_any_content_passes_through_any_serializer(serializer: str, content: bytes) -> None:
    options = {"OPTIONS": {"SERIALIZER": f"django_redis.serializers.{serializer}"}}
    with override_settings(CACHES=settings.CACHES | {"api": settings.CACHES["api"] | options}):
        first, again = twice(Counting(lambda n: HttpResponse(content, content_type="image/png")))
    assert (first["X-Cache"], again["X-Cache"]) == ("MISS", "HIT")
    assert (again.content, again["Content-Type"]) == (content, "image/png")


def test_head_is_cached_apart_from_get() -> None:
    counting = Counting()
    view = counting.cached()
    for method in ("GET", "HEAD", "GET", "HEAD"):
        view(request(method=method))
    assert counting.calls == 2


def test_error_of_the_view_is_raised_and_holds_nobody_up() -> None:
    counting = Counting(lambda n: 1 / 0)
    view = counting.cached()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            view(request())
    assert counting.calls == 2


def test_generator_as_plain_data_is_refused() -> None:
    with pytest.raises(UncacheableValue, match="only once"):
        Counting(lambda n: (i for i in ())).cached()(request())


# --- for whom -------------------------------------------------------------------------------------------------------


def ask(view, *requests) -> list[int]:
    return [json.loads(view(made).content)["n"] for made in requests]


def test_tenants_users_paths_and_queries_are_apart() -> None:
    view = Counting().cached()
    different = [
        request(),
        request(by=user(2)),
        request(by=user(1, tenant=8)),
        request("/other/"),
        request("/products/?a=1"),
        request("/products/?a=1&a=2"),
        request("/products/?a=2&a=1"),
        request("/products/?b=1"),
        request("/products/?a=1&b=1"),
        request("/products/?a="),
        request("/products/?a=1%26b=1"),
    ]
    assert ask(view, *different) == list(range(1, len(different) + 1))
    assert ask(view, *different) == list(range(1, len(different) + 1))


def test_languages_and_time_zones_are_apart() -> None:
    """`LocaleMiddleware` says `Vary: Accept-Language` only when the view has returned."""
    view = Counting(lambda n: HttpResponse(gettext("Yes") + str(localtime(NEW_YEAR)))).cached()
    seen = []
    for _ in range(2):
        for language, zone in (("en", "UTC"), ("de", "UTC"), ("de", "Asia/Tokyo")):
            with translation.override(language), timezone.override(zone):
                seen.append(view(request()).content.decode())
    assert seen[:3] == ["Yes2024-01-01 00:00:00+00:00", "Ja2024-01-01 00:00:00+00:00", "Ja2024-01-01 09:00:00+09:00"]
    assert seen[3:] == seen[:3]


@override_settings(ALLOWED_HOSTS=["a.example", "b.example"])
def test_hosts_are_apart_for_links_begin_with_them() -> None:
    def view(request):
        return HttpResponse(request.build_absolute_uri("/next/"))

    cached = cache_api_response(timeout=60)(view)
    secure = RequestFactory().get("/products/", secure=True, headers={"host": "a.example"})
    secure.user = user()
    seen = [cached(r).content for r in (request(host="a.example"), request(host="b.example"), secure)]
    assert seen == [b"http://a.example/next/", b"http://b.example/next/", b"https://a.example/next/"]
    with pytest.raises(DisallowedHost):
        cached(request(host="evil.example"))


def test_arguments_that_the_path_does_not_tell_are_apart() -> None:
    calls: list[tuple[object, ...]] = []

    @cache_api_response(timeout=60)
    def part(request, section, *more, **named):
        calls.append((section, *more, named))
        return HttpResponse(str(calls[-1]))

    given = [(("a",), {}), (("b",), {}), (("a", 1), {}), (("a",), {"n": 1}), (("a",), {"n": "1"})]
    seen = [part(request(), *args, **kwargs).content for args, kwargs in given * 2]
    assert len(set(seen)) == len(calls) == len(given)
    assert part(request("/of/a/converter/"), user()).content == part(request("/of/a/converter/"), user()).content
    assert len(calls) == len(given) + 1


def test_rows_that_somebody_around_the_view_has_chosen_are_apart() -> None:
    @cache_api_response(timeout=60)
    def stock(request, branch):
        return HttpResponse(branch.name)

    branches = [Branch(pk=pk, name=f"branch {pk}") for pk in (1, 2)]
    for _ in range(2):
        assert [stock(request(), branch).content for branch in branches] == [b"branch 1", b"branch 2"]
        assert [stock(request(), branch=branch).content for branch in branches] == [b"branch 1", b"branch 2"]


def with_session(by: object, **content: object):
    made = request(by=by)
    made.session = SessionStore()
    made.session.update(content)
    made.session.modified = made.session.accessed = False
    return made


def test_views_that_read_the_session_tell_visitors_apart_by_what_is_in_it() -> None:
    calls: list[object] = []

    @cache_api_response(timeout=60, x_cache=True)
    def basket(request):
        calls.append(request)
        return JsonResponse({"basket": request.session.get("basket")})

    answers = [
        [basket(with_session(VISITOR, basket=things)) for things in (["ring"], ["chain"], None, ["ring"])]
        for _ in range(3)
    ]
    expected = [{"basket": things} for things in (["ring"], ["chain"], None, ["ring"])]
    assert [[json.loads(answer.content) for answer in row] for row in answers] == [expected] * 3
    assert [answer["X-Cache"] for answer in answers[2]] == ["HIT"] * 4
    assert len(calls) <= 5, "once each, and once to learn what it reads"


def test_session_that_only_a_template_reads_counts_too() -> None:
    template = engines["django"].from_string("{{ request.session.basket }}")

    @cache_api_response(timeout=60)
    def page(request):
        return TemplateResponse(request, template, {"request": request})

    for _ in range(3):
        for things in ("ring", "chain"):
            made = with_session(VISITOR, basket=things)
            assert page(made).content == things.encode()
            assert made.session.accessed, "the session's middleware has to add `Vary: Cookie`"


def test_async_views_that_read_the_session_tell_visitors_apart_too() -> None:
    @cache_api_response(timeout=60)
    async def basket(request):
        await asyncio.sleep(0)
        return JsonResponse({"basket": request.session.get("basket")})

    for _ in range(3):
        for things in (["ring"], ["chain"]):
            answer = async_to_sync(basket)(with_session(VISITOR, basket=things))
            assert json.loads(answer.content) == {"basket": things}


def test_session_with_objects_is_its_visitors_alone() -> None:
    @cache_api_response(timeout=60)
    def view(request):
        return HttpResponse(request.session["it"].mark)

    for _ in range(3):
        for mark in "ab":
            made = with_session(VISITOR)
            made.session["it"] = SimpleNamespace(mark=mark)
            made.session.modified = False
            assert view(made).content == mark.encode()


def test_session_that_the_view_does_not_read_tells_nobody_apart() -> None:
    counting = Counting()
    view = counting.cached()
    for things in ("ring", "chain"):
        view(with_session(VISITOR, basket=things))
    assert counting.calls == 1


def test_user_number_zero_is_somebody() -> None:
    @cache_api_response(timeout=60)
    def view(request):
        return HttpResponse(str(request.user.pk))

    assert [view(request(by=who)).content for who in (user(0), VISITOR, user(0))] == [b"0", b"None", b"0"]


def test_page_with_a_nonce_is_its_visitors_alone() -> None:
    """A hit would not ask for one: the response's policy would not name it, and its scripts would not run."""

    class LazyNonce(SimpleLazyObject):  # Django 6.0's
        def __bool__(self) -> bool:
            return self._wrapped is not empty

    nonces = count()

    @cache_api_response(timeout=60)
    def view(request):
        return HttpResponse(f"<script nonce={request._csp_nonce}>" if request.GET else "no script")

    def visit(url: str) -> bytes:
        made = request(url)
        made._csp_nonce = LazyNonce(lambda: str(next(nonces)))
        return view(made).content

    assert visit("/?script=1") != visit("/?script=1")
    calls = next(nonces)
    assert visit("/") == visit("/")
    assert next(nonces) == calls + 1


def test_order_of_the_query_does_not_matter() -> None:
    assert ask(Counting().cached(), request("/?a=1&b=2&a=3"), request("/?b=2&a=1&a=3")) == [1, 1]


def test_without_vary_on_user_a_tenants_users_share() -> None:
    view = Counting().cached(vary_on_user=False)
    assert ask(view, request(by=user(1)), request(by=user(2)), request(by=user(1, tenant=8))) == [1, 1, 2]


def test_request_whose_tenant_cannot_be_told_is_not_cached() -> None:
    counting = Counting()
    view = counting.cached()
    for by in (user(None), user(1, tenant=None)):
        assert ask(view, request(by=by), request(by=by)) == [counting.calls - 1, counting.calls]
    assert "X-Cache" not in view(request(by=user(None)))


def test_site_without_tenants_shares_everything_but_the_user() -> None:
    with override_settings(CACHEADMIN={"TENANCY": "cacheadmin.tenancy.NoTenants"}):
        view = Counting().cached()
        by = [user(None), user(1), user(1, tenant=8), user(None)]
        assert ask(view, *(request(by=one) for one in by)) == [1, 2, 2, 1]


def test_tokens_tell_those_apart_whom_the_view_has_yet_to_recognise() -> None:
    """A token is checked by the view itself, so to the decorator around it every bearer is anonymous."""
    with override_settings(CACHEADMIN={"TENANCY": "cacheadmin.tenancy.NoTenants"}):
        view = Counting().cached()
        tokens = ["Token a", "Token b", "Token a"]
        assert ask(view, *(request(by=user(None), authorization=token) for token in tokens)) == [1, 2, 1]
        assert ask(view, request(by=user(None))) == [3]


def test_tenancy_may_answer_with_a_number() -> None:
    with override_settings(CACHEADMIN={"TENANCY": "test_responses.Numbered"}):
        view = Counting().cached()
        assert ask(view, request(), request()) == [1, 1]
        invalidate_tenant_cache(7)
        assert ask(view, request()) == [2]


class Numbered(Tenancy):
    def from_request(self, request):
        return request.user.tenant_id


def test_vary_headers_tell_requests_apart() -> None:
    counting = Counting(lambda n: JsonResponse({"n": n}, headers={"Vary": "Accept-Language, X-Theme"}))
    view = counting.cached()
    german, english = request(accept_language="de"), request(accept_language="en")
    ask(view, german)  # now it is known on what the response varies
    first = ask(view, german, english, request(accept_language="de", x_theme="dark"), request())
    assert len(set(first)) == 4
    assert ask(view, german, english, request(accept_language="de", x_theme="dark"), request()) == first
    assert ask(view, request(accept_language="de", x_unrelated="1")) == first[:1]


def test_other_process_learns_on_what_a_response_varies() -> None:
    counting = Counting(lambda n: JsonResponse({"n": n}, headers={"Vary": "Accept-Language"}))
    view = counting.cached()
    first = [ask(view, request(accept_language=code)) for code in ("de", "de", "en", "en")]
    view._vary.clear()  # as in a process that has not seen this view's answers
    before = counting.calls
    assert [ask(view, request(accept_language=code)) for code in ("de", "en")] == [first[1], first[3]]
    view._vary.clear()
    assert ask(view, request(accept_language="fr")) == [before + 1]
    assert ask(view, request(accept_language="fr")) == [before + 1]


# --- options --------------------------------------------------------------------------------------------------------


def test_positional_order_and_the_synonym_of_alias_are_the_reference_sites() -> None:
    def view(request):
        return HttpResponse("x")

    made = cache_api_response(30, "positional", "query", False)(view)
    assert (made.timeout, made.group, made.alias, made.vary_on_user) == (30, "positional", "query", False)
    assert cache_api_response(cache_alias="template")(view).alias == "template"
    bare = cache_api_response(view)
    assert (bare.alias, bare.group, bare.options().timeout_ms, bare.x_cache) == ("api", "view", 180_000, False)
    assert registry[bare.name] is bare
    assert bare.__name__ == "view"
    with pytest.raises(InvalidKey):
        cache_api_response(key_prefix="tenant:1:x")(view)


def test_unknown_option_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="time_out"):
        cache_api_response(time_out=5)(lambda request: None)


def test_condition_is_asked_about_the_response() -> None:
    for answer, calls in ((lambda n: JsonResponse({"items": []}), 2), (lambda n: JsonResponse({"items": [1]}), 1)):
        counting = Counting(answer)
        twice(counting, condition=lambda response: json.loads(response.content)["items"] != [])
        assert counting.calls == calls
    for options in ({"condition": lambda data: data != []}, {"cache_none": False}):
        counting = Counting(lambda n, options=options: [] if "condition" in options else None)
        twice(counting, key_prefix="data", **options)
        assert counting.calls == 2


def test_tags_are_texts_or_made_from_the_request() -> None:
    view = Counting().cached(tags=lambda request: [f"user:{request.user.pk}", "all", "all"])
    one, two = request(by=user(1)), request(by=user(2))
    assert ask(view, one, two) == [1, 2]
    invalidate_tags(7, "user:1")
    assert ask(view, one, two) == [3, 2]
    assert ask(view, one, two) == [3, 2]
    invalidate_tags(7, "all")
    assert ask(view, one, two) == [4, 5]
    fixed = Counting().cached(tags="products", key_prefix="fixed")
    assert ask(fixed, one, one) == [1, 1]
    invalidate_tags(7, "products")
    assert ask(fixed, one, one) == [2, 2]


def test_version_and_size_limit_work_as_for_functions() -> None:
    def view(request):
        return HttpResponse("x" * 1000)

    names = {cache_api_response(version=v)(view)._label for v in (None, 1, 2)}
    assert len(names) == 3
    counting = Counting(lambda n: HttpResponse("x" * 1000))
    twice(counting, max_value_bytes=100)
    assert counting.calls == 2


# --- invalidation ---------------------------------------------------------------------------------------------------


def test_responses_go_with_their_tenant_and_their_group() -> None:
    view = Counting().cached(key_prefix="product_list")
    seven, eight = request(), request(by=user(1, tenant=8))
    assert ask(view, seven, eight) == [1, 2]
    invalidate_tenant_cache(7)
    assert ask(view, seven, eight) == [3, 2]
    invalidate_cache("product_list:*")
    assert ask(view, seven, eight) == [4, 5]
    view.invalidate_all(tenant=8)
    assert ask(view, seven, eight) == [4, 6]
    view.invalidate_all()
    assert ask(view, seven, eight) == [7, 8]


def test_response_made_before_an_invalidation_is_never_served_after_it() -> None:
    counting = Counting()

    def answer(n: int) -> JsonResponse:
        if n == 1:
            invalidate_tenant_cache(7)
        return JsonResponse({"n": n})

    counting.answer = answer
    view = counting.cached()
    assert ask(view, request(), request(), request()) == [1, 2, 2]


def test_hit_is_one_round_trip(round_trips) -> None:
    view = Counting().cached()
    view(request())
    store("api").link.call(("PING",))
    with round_trips() as sent:
        view(request())
    assert sent == ["MGET"]


# --- every kind of view ---------------------------------------------------------------------------------------------


def test_methods_of_class_based_views_are_cached() -> None:
    calls: list[str] = []

    class Products(View):
        @cache_api_response(timeout=60, x_cache=True, key_prefix="by_method")
        def get(self, request, page):
            calls.append(page)
            return JsonResponse({"page": page})

    view = Products.as_view()
    answers = [view(request(f"/products/{page}/"), page=page) for page in ("1", "2", "1")]
    assert [answer["X-Cache"] for answer in answers] == ["MISS", "MISS", "HIT"]
    assert calls == ["1", "2"]
    assert isinstance(Products.get, CachedView)


@pytest.mark.parametrize("how", ["dispatch", "as_view"])
def test_whole_class_based_view_is_cached(how: str) -> None:
    counting = Counting()
    decorator = cache_api_response(timeout=60, x_cache=True, key_prefix="whole")

    class Products(View):
        def get(self, request):
            counting.calls += 1
            return JsonResponse({"n": counting.calls})

    if how == "dispatch":
        view = method_decorator(decorator, name="dispatch")(Products).as_view()
    else:
        view = decorator(Products.as_view())
    assert [view(request())["X-Cache"] for _ in range(3)] == ["MISS", "HIT", "HIT"]
    assert counting.calls == 1


class Stock(APIView):
    """A view of Django REST framework whose method is cached."""

    renderer_classes = (JSONRenderer, BrowsableAPIRenderer)
    permission_classes = ()
    authentication_classes = ()

    def initialize_request(self, request, *args, **kwargs):
        made = super().initialize_request(request, *args, **kwargs)
        made.user = request.user
        return made

    @cache_api_response(timeout=60, x_cache=True, key_prefix="drf_method")
    def get(self, request):
        return Response({"items": [1, None], "at": request.path}, headers={"X-Mine": "a"})


class TextRenderer(BaseRenderer):
    media_type, format = "text/plain", "txt"

    def render(self, data, accepted_media_type=None, renderer_context=None):
        return str(data).encode()


def drf_request(accept: str = "application/json"):
    made = APIRequestFactory().get("/stock/", headers={"accept": accept})
    made.user = user()
    return made


def test_method_of_a_rest_framework_view_is_cached_before_it_is_rendered() -> None:
    view = Stock.as_view()
    answers = [view(drf_request()).render() for _ in range(2)]
    assert [answer["X-Cache"] for answer in answers] == ["MISS", "HIT"]
    assert answers[0].content == answers[1].content == b'{"items":[1,null],"at":"/stock/"}'
    assert answers[1]["X-Mine"] == "a"
    assert answers[1].data == {"items": [1, None], "at": "/stock/"}
    html = view(drf_request("text/html"))
    assert html["X-Cache"] == "HIT"
    assert html.accepted_renderer.format == "api"


def test_versions_that_a_header_asks_for_are_apart() -> None:
    class Priced(Stock):
        versioning_class = AcceptHeaderVersioning

        @cache_api_response(timeout=60, x_cache=True, key_prefix="drf_versions")
        def get(self, request):
            return Response({"version": request.version})

    view = Priced.as_view()
    for _ in range(2):
        answers = [view(drf_request(f"application/json; version={n}")) for n in ("1.0", "2.0")]
        assert [answer.data["version"] for answer in answers] == ["1.0", "2.0"]
    assert [answer["X-Cache"] for answer in answers] == ["HIT", "HIT"]


def test_whole_rest_framework_view_is_cached_as_it_was_rendered() -> None:
    calls: list[str] = []

    @api_view(["GET"])
    def products(request):
        calls.append(request.accepted_renderer.format)
        return Response({"n": len(calls)})

    products.cls.renderer_classes = (JSONRenderer, TextRenderer)
    products.cls.authentication_classes = ()
    products.cls.permission_classes = ()
    view = cache_api_response(timeout=60, x_cache=True, key_prefix="drf_whole")(products)
    view(drf_request())  # now it is known that it varies on Accept
    for _ in range(2):
        answers = [view(drf_request(accept)) for accept in ("application/json", "text/plain", "application/json")]
    assert [answer["X-Cache"] for answer in answers] == ["HIT"] * 3
    contents = [getattr(answer, "rendered_content", answer.content) for answer in answers]
    assert contents[0] == contents[2] == b'{"n":2}'
    assert answers[0]["Content-Type"] == "application/json"
    assert answers[1]["Content-Type"].startswith("text/plain")
    assert contents[1] == b"{'n': 3}"


def test_async_view_is_cached() -> None:
    calls: list[int] = []

    @cache_api_response(timeout=60, x_cache=True, key_prefix="async_view")
    async def view(request):
        await asyncio.sleep(0)
        calls.append(1)
        return JsonResponse({"n": len(calls)}, headers={"Vary": "Accept-Language"} if "vary" in request.GET else {})

    class Products(View):
        @cache_api_response(timeout=60, x_cache=True, key_prefix="async_method")
        async def get(self, request):
            return HttpResponse("x")

    async def act(make, url: str, times: int) -> list[str]:
        return [(await make(request(url)))["X-Cache"] for _ in range(times)]

    assert iscoroutinefunction(view)
    assert iscoroutinefunction(Products.as_view())
    assert async_to_sync(act)(view, "/", 3) == ["MISS", "HIT", "HIT"]
    assert async_to_sync(act)(view, "/?vary", 3) == ["MISS", "MISS", "HIT"]
    assert async_to_sync(act)(Products.as_view(), "/", 2) == ["MISS", "HIT"]


def test_async_view_of_one_request_is_computed_once_for_all_who_wait() -> None:
    calls: list[int] = []

    @cache_api_response(timeout=60, key_prefix="async_flight")
    async def view(request):
        await asyncio.sleep(0.1)
        calls.append(1)
        return HttpResponse("x")

    async def act() -> list[bytes]:
        return [response.content for response in await asyncio.gather(*(view(request()) for _ in range(5)))]

    assert async_to_sync(act)() == [b"x"] * 5
    assert len(calls) == 1


# --- through Django -------------------------------------------------------------------------------------------------


@cache_api_response(timeout=300, key_prefix="product_list", x_cache=True)
def list_products(request):
    products = InventoryItem.objects.filter(tenant=request.user.tenant).values("sku")
    return JsonResponse({"products": list(products)})


@cache_api_response(timeout=300, key_prefix="async_list", x_cache=True)
async def list_async(request):
    person = await request.auser()
    return JsonResponse(
        {"products": [s async for s in InventoryItem.objects.filter(tenant=person.tenant_id).values("sku")]}
    )


urlpatterns = [path("list/", list_products), path("async/", list_async)]


@pytest.fixture
def visitor() -> User:
    tenant = Tenant.objects.create(name="Ruby", slug="ruby")
    branch = Branch.objects.create(tenant=tenant, name="One", city="Basel")
    category = Category.objects.create(tenant=tenant, name="Rings", slug="rings")
    InventoryItem.objects.create(
        tenant=tenant, branch=branch, category=category, sku="A", name="A", weight=1, price=10, quantity=1
    )
    return User.objects.create_user("ruby", tenant=tenant)


@override_settings(ROOT_URLCONF="test_responses")
def test_view_of_the_reference_document_is_cached_and_follows_its_model(visitor: User) -> None:
    client = Client()
    client.force_login(visitor)
    answers = [client.get("/list/") for _ in range(2)]
    assert [answer["X-Cache"] for answer in answers] == ["MISS", "HIT"]
    assert answers[1].json() == {"products": [{"sku": "A"}]}
    item = InventoryItem.objects.get()
    item.sku = "B"
    item.save()
    assert client.get("/list/").json() == {"products": [{"sku": "B"}]}
    assert client.head("/list/").status_code == 200


MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@override_settings(ROOT_URLCONF="test_responses", MIDDLEWARE=MIDDLEWARE)
def test_async_view_may_leave_the_user_to_be_loaded_by_us(visitor: User) -> None:
    client = AsyncClient()

    async def act() -> list[str]:
        await client.aforce_login(visitor)
        answers = [await client.get("/async/") for _ in range(2)]
        assert answers[1].json() == {"products": [{"sku": "A"}]}
        return [answer["X-Cache"] for answer in answers]

    assert async_to_sync(act)() == ["MISS", "HIT"]
