"""The request's tenant is the active one for the time of the request, and for nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

import cacheadmin.tenancy
from cacheadmin import cache_query_result
from cacheadmin.middleware import TenantMiddleware
from cacheadmin.tenancy import ScopesTenancy, tenancy
from shop.models import Tenant

pytestmark = pytest.mark.django_db


def request(tenant: int | None):
    made = RequestFactory().get("/")
    made.user = SimpleNamespace(tenant_id=tenant)
    return made


def answer(_) -> HttpResponse:
    return HttpResponse(str(tenancy().current()))


async def answer_async(made) -> HttpResponse:
    before = tenancy().current()
    await asyncio.sleep(0.01)
    assert before == tenancy().current() == await sync_to_async(tenancy().current)()
    return answer(made)


def test_tenant_is_active_during_the_request_only() -> None:
    middleware = TenantMiddleware(answer)
    assert not iscoroutinefunction(middleware)
    assert [middleware(request(t)).content for t in (7, None, 8)] == [b"7", b"None", b"8"]
    assert tenancy().current() is None


def test_request_without_a_tenant_does_not_inherit_one() -> None:
    with tenancy().activate(5):
        assert TenantMiddleware(answer)(request(None)).content == b"None"
        assert tenancy().current() == "5"


def test_error_of_the_view_ends_it_too() -> None:
    def fail(_):
        raise LookupError

    with pytest.raises(LookupError):
        TenantMiddleware(fail)(request(7))
    assert tenancy().current() is None


def test_concurrent_async_requests_do_not_mix() -> None:
    middleware = TenantMiddleware(answer_async)
    assert iscoroutinefunction(middleware)

    async def act() -> list[bytes]:
        answers = await asyncio.gather(*(middleware(request(n % 4 or None)) for n in range(20)))
        assert tenancy().current() is None
        return [response.content for response in answers]

    assert async_to_sync(act)() == [str(n % 4 or None).encode() for n in range(20)]


def test_async_chain_may_answer_at_once() -> None:
    async def act() -> bytes:
        middleware = TenantMiddleware(answer_async)
        middleware.get_response = answer
        return (await middleware(request(7))).content

    assert async_to_sync(act)() == b"7"


def test_functions_that_ask_the_context_belong_to_the_requests_tenant() -> None:
    calls: list[str | None] = []

    @cache_query_result(timeout=60)
    def of_context() -> str | None:
        calls.append(tenancy().current())
        return tenancy().current()

    middleware = TenantMiddleware(lambda _: HttpResponse(of_context()))
    assert [middleware(request(t)).content for t in (7, 8, 7, 8)] == [b"7", b"8", b"7", b"8"]
    assert calls == ["7", "8"]


class Scopes(ScopesTenancy):
    """As with django-scopes, which wants the row of the tenant."""

    model = "shop.Tenant"
    scope: ClassVar[dict[str, Any]] = {}

    def from_request(self, request):
        return str(request.user.tenant_id)


@pytest.mark.django_db(transaction=True)
@override_settings(CACHEADMIN={"TENANCY": "test_middleware.Scopes"})
def test_tenancy_that_asks_the_database_is_asked_outside_of_the_event_loop(monkeypatch) -> None:
    @contextmanager
    def scope(**values: Any) -> Iterator[None]:
        Scopes.scope.update(values)
        yield
        Scopes.scope.clear()

    def find(path: str) -> Any:
        return {"django_scopes.scope": scope, "django_scopes.get_scope": lambda: Scopes.scope}.get(path) or known(path)

    known = cacheadmin.tenancy.import_string
    monkeypatch.setattr(cacheadmin.tenancy, "import_string", find)
    tenancy.cache_clear()
    shop = Tenant.objects.create(name="Ruby")

    async def view(_: object) -> HttpResponse:
        return HttpResponse(str(tenancy().current()))

    assert async_to_sync(TenantMiddleware(view))(request(shop.pk)).content == str(shop.pk).encode()
    assert Scopes.scope == {}


@override_settings(CACHEADMIN={"TENANCY": "cacheadmin.tenancy.SchemaTenancy"})
def test_request_without_a_tenant_passes_the_other_tenancies_too() -> None:
    assert TenantMiddleware(answer)(request(None)).content == b"None"
