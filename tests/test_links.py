"""Our own connections: what a site's CACHES say about them, servers that talk nonsense, and many threads at once."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import cache_query_result, connections, invalidate_tenant_cache, reclaiming
from cacheadmin.connections import link
from cacheadmin.exceptions import CacheAway
from cacheadmin.outbox import reopening
from cacheadmin.outbox.relay import Relay
from cacheadmin.stats import recorder

pytestmark = pytest.mark.django_db


# --- what CACHES says -----------------------------------------------------------------------------------------------


def test_options_of_a_blocking_pool_are_no_options_of_a_connection(redis_server) -> None:
    pool = {"CONNECTION_POOL_CLASS": "redis.BlockingConnectionPool", "CONNECTION_POOL_KWARGS": {"timeout": 20}}
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": redis_server.url, "OPTIONS": pool}
    with override_settings(CACHES={"default": backend}):
        caches["default"].set("group:x", 1)
        assert caches["default"].get("group:x") == 1


def test_serializer_of_djangos_own_backend_is_no_option_of_a_connection(redis_server) -> None:
    serializer = "django.core.cache.backends.redis.RedisSerializer"
    backend = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": redis_server.url,
        "OPTIONS": {"serializer": serializer},
    }
    with override_settings(CACHES={"default": backend}):

        @cache_query_result(timeout=60, alias="default")
        def twice(number: int) -> int:
            return 2 * number

        assert [twice(2), twice.peek(2)] == [4, 4]


# --- servers that talk nonsense -------------------------------------------------------------------------------------


def _answer(client: socket.socket, nonsense: bytes) -> None:
    """Greet like a Redis, answer the first MGET with three nils, and what comes then with nonsense."""
    asked = 0
    with client:
        while data := client.recv(65536):
            if b"MGET" not in data:
                infos, others = (
                    data.count(b"\r\nINFO\r\n"),
                    data.count(b"\r\nCLIENT\r\n") + data.count(b"\r\nSELECT\r\n"),
                )
                client.sendall(b"$10\r\nrun_id:abc\r\n" * infos + b"+OK\r\n" * others)
                continue
            asked += 1
            client.sendall(b"*3\r\n$-1\r\n$-1\r\n$-1\r\n" if asked == 1 else nonsense)


@pytest.fixture
def talker() -> Iterator[Callable[[bytes], str]]:
    """`talker(nonsense)` starts a server that says so, and returns its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nonsense: list[bytes] = []
        threads: list[threading.Thread] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=_answer, args=(client, nonsense[0])))
                threads[-1].start()

        server = threading.Thread(target=serve)
        server.start()

        def start(said: bytes) -> str:
            nonsense.append(said)
            return f"redis://127.0.0.1:{listening.getsockname()[1]}/0"

        yield start
        connections.forget_links()
        listening.shutdown(socket.SHUT_RDWR)
        server.join()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b"*abc\r\n",
        b"$-7\r\n",
        b":12x\r\n",
        b"\xff\xff\r\n",
        b"*99999999999999999999\r\n",
        b"%1\r\n*1\r\n+a\r\n+b\r\n",
    ],
)
def test_what_is_no_reply_of_redis_counts_as_no_answer(talker, nonsense: bytes) -> None:
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": talker(nonsense)}
    with override_settings(CACHES={"default": backend}, CACHEADMIN={"RETRY_SECONDS": 60}):
        to_server = link("default")
        assert to_server.call(("MGET", "a", "b", "c")).values == [[None, None, None]]
        assert to_server.call(("MGET", "a", "b", "c")).values == [[None, None, None]], "asked again on a new one"
        with pytest.raises(CacheAway):  # nothing else may reach a caller
            to_server.call(("MGET", "a", "b", "c"), again=False)
        assert to_server.is_away


# --- many threads at once -------------------------------------------------------------------------------------------


def test_connections_may_be_forgotten_while_another_thread_takes_the_last_one() -> None:
    class Raced(deque):  # type: ignore[type-arg]
        """Another thread takes its last item between a look and a `pop`."""

        def __len__(self) -> int:
            return 1

    to_server = link("default")
    to_server._idle = Raced()
    to_server.forget_lines()
    assert not list(to_server._idle)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that ends, or one that has as many threads as it may have."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    recorder.reset()
    monkeypatch.setattr(reclaiming, "in_tests", lambda: False)
    monkeypatch.setattr(reclaiming._thread, "_thread", None)
    monkeypatch.setattr(reopening, "_may_have_threads", lambda: True)
    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_where_no_thread_can_be_started_the_cache_is_read_and_invalidated_all_the_same(no_threads) -> None:
    cache = caches["query"]
    cache.set("tenant:1:group:x", 1)
    assert cache.get("tenant:1:group:x") == 1
    assert invalidate_tenant_cache(1).is_done
    assert cache.get("tenant:1:group:x") is None
    Relay().wake(1.0)


def test_where_no_thread_can_be_started_an_outage_is_a_miss_and_somebody_else_probes_later(
    fresh_server, no_threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fresh_server()
    backend = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": server.url}
    with override_settings(CACHES={"default": backend}, CACHEADMIN={"TIMEOUT_MS": 100}):
        cache = caches["default"]
        assert cache.get("group:x") is None
        server.stop()
        assert cache.get("group:x") is None
        assert link("default").is_away
        assert not reopening._busy, "nobody would ever be let through again"
