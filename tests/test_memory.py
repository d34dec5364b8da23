"""What one request remembers of its plain reads, however many tasks and threads it runs as."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.cache import caches
from django.core.handlers.asgi import ASGIHandler
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path

from cacheadmin import invalidate_cache, memory
from cacheadmin.memory import NOTHING, REFUSED, stamps
from cacheadmin.store import Stamp

KEY = "shelf:x"
in_thread = sync_to_async


@pytest.fixture(autouse=True)
def _request() -> None:
    """As at the beginning of a request; `asyncio.run` copies this context, as a server does."""
    memory.clear()


@pytest.fixture(autouse=True)
def _no_tenants(settings) -> None:
    settings.CACHEADMIN = settings.CACHEADMIN | {"TENANCY": "cacheadmin.tenancy.NoTenants"}


def drop() -> None:
    assert invalidate_cache("shelf:*").is_done


async def adrop() -> None:
    await in_thread(drop)()


async def read_as_a_task_and_set_here() -> None:
    await asyncio.create_task(caches["query"].aget(KEY))
    await adrop()
    await caches["query"].aset(KEY, "old")


async def read_among_others_and_set_here() -> None:
    await asyncio.gather(caches["query"].aget("shelf:y"), caches["query"].aget(KEY), caches["query"].aget("shelf:z"))
    await adrop()
    await caches["query"].aset(KEY, "old")


async def read_here_and_set_as_a_task() -> None:
    await caches["query"].aget(KEY)
    await adrop()
    await asyncio.gather(caches["query"].aset("shelf:y", 1), caches["query"].aset(KEY, "old"))


async def read_by_plain_code_and_set_by_async() -> None:
    await in_thread(caches["query"].get)(KEY)
    await adrop()
    await caches["query"].aset(KEY, "old")


async def read_and_set_in_two_threads() -> None:
    await asyncio.to_thread(caches["query"].get, KEY)
    await adrop()
    await asyncio.to_thread(caches["query"].set, KEY, "old")


async def read_by_two_tasks_of_which_the_first_sets_last() -> None:
    cache, first, second = caches["query"], asyncio.Event(), asyncio.Event()
    await in_thread(cache.get)("shelf:y")

    async def slow() -> None:
        await in_thread(cache.get)(KEY)
        first.set()
        await second.wait()
        await in_thread(cache.set)(KEY, "old")

    async def quick() -> None:
        await first.wait()
        await adrop()
        await in_thread(cache.get)(KEY)
        second.set()

    await asyncio.gather(slow(), quick())


@pytest.mark.parametrize(
    "request_",
    [
        read_as_a_task_and_set_here,
        read_among_others_and_set_here,
        read_here_and_set_as_a_task,
        read_by_plain_code_and_set_by_async,
        read_and_set_in_two_threads,
        read_by_two_tasks_of_which_the_first_sets_last,
    ],
)
def test_value_read_before_an_invalidation_is_refused_whichever_task_or_thread_sets_it(request_) -> None:
    asyncio.run(request_())
    assert caches["query"].get(KEY) is None


def test_value_is_kept_whichever_task_sets_it_while_nothing_is_invalidated() -> None:
    async def request() -> None:
        cache = caches["query"]
        await asyncio.gather(*(cache.aget(f"shelf:{n}") for n in range(20)))
        await asyncio.gather(*(cache.aset(f"shelf:{n}", n) for n in range(20)))

    asyncio.run(request())
    assert caches["query"].get_many([f"shelf:{n}" for n in range(20)]) == {f"shelf:{n}": n for n in range(20)}


def test_thread_with_a_copy_of_the_context_goes_on_with_what_it_knows() -> None:
    caches["query"].get(KEY)
    drop()
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(caches["query"].set, KEY, "old"))
    thread.start()
    thread.join()
    assert caches["query"].get(KEY) is None


def test_read_that_nobody_sets_a_value_for_refuses_the_others_once_at_most() -> None:
    async def request() -> None:
        cache = caches["query"]
        await asyncio.create_task(cache.aget(KEY))
        await adrop()
        assert await cache.aset(KEY, "of another computation") is False
        assert await cache.aset(KEY, "and again") is True

    asyncio.run(request())
    assert caches["query"].get(KEY) == "and again"


def test_other_requests_know_nothing_of_it() -> None:
    caches["query"].get(KEY)
    drop()
    memory.clear()  # what `request_started` does
    assert caches["query"].set(KEY, "new") is True


async def page(_request: HttpRequest) -> HttpResponse:
    await read_among_others_and_set_here()
    return HttpResponse(str(await caches["query"].aget(KEY)))


urlpatterns = [path("page/", page)]


@pytest.mark.django_db(transaction=True)
@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[], ALLOWED_HOSTS=["*"])
def test_request_under_asgi_is_one_though_its_own_task_has_not_read_yet() -> None:
    async def request() -> bytes:
        scope = {"type": "http", "method": "GET", "path": "/page/", "headers": [], "query_string": b""}
        server = ApplicationCommunicator(ASGIHandler(), scope)
        await server.send_input({"type": "http.request"})
        assert (await server.receive_output(10))["status"] == 200
        body = (await server.receive_output(10))["body"]
        await server.wait(10)
        return body

    stamps._mine.set(None)
    assert asyncio.run(request()) == b"None"


STAMP = Stamp(b"identity", (b"tenant__", b"tenant__group___"), b"token___", is_leased=False)


def test_what_is_remembered_is_bounded_and_what_was_forgotten_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "REMEMBERED", 3)
    for key in ("a:1", "b:1", "c:1", "d:1"):
        memory.remember(key, STAMP)
    assert [memory.take(key) for key in ("a:1", "a:2", "b:1", "x:1")] == [REFUSED, REFUSED, STAMP, NOTHING]


def test_groups_made_of_ids_do_not_fill_the_memory_of_a_long_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "REMEMBERED", 10)
    for number in range(100):
        memory.remember(f"user:{number}:x", STAMP)
    mine = stamps._mine.get()
    assert mine is not None
    family = mine[0].family
    assert len(family.marked) <= 10
    assert family.held == len(mine[0].stamps) == 10
    assert memory.take("user:5:x") is REFUSED, "a bound makes nothing unfenced"


def test_tasks_that_end_leave_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "REMEMBERED", 10)

    async def worker() -> int:
        memory.remember("a:0", STAMP)
        for number in range(100):
            await asyncio.gather(*(in_thread(memory.remember)(f"a:{number}:{n}", STAMP) for n in range(3)))
        mine = stamps._mine.get()
        assert mine is not None
        return sum(len(strand.stamps) for strand in mine[0].family.strands)

    assert asyncio.run(worker()) <= 10


@pytest.mark.django_db
@pytest.mark.parametrize("asked", [True, False])
def test_plain_value_is_not_stored_when_a_replica_was_asked_since_its_get(settings, asked: bool) -> None:
    settings.CACHEADMIN = settings.CACHEADMIN | {"REPLICAS": ["default"]}
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert caches["query"].get(KEY) is None
        if asked:
            cursor.execute("SELECT 1")
    assert caches["query"].set(KEY, "behind, maybe") is not asked
