"""What every test shares: a real server of its own, emptied before each test, and ways to count what it was asked."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis as redis_py
import time_machine

from postgres import Postgres, find_programs
from server import Server

CONNECTION_COMMANDS = {"auth", "client", "config", "hello", "info", "select"}
"""What a client says when it connects, and what counting itself needs: never part of a count."""

COMMAND_NAME = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Za-z.]+)\r\n")
"""The start of a command as RESP writes it: the number of its words, then its first word."""

PATIENT = {"timeout_ms": 10_000, "slow_ms": 5_000, "patience_seconds": 10.0}
"""A busy machine is no outage, and whoever is held up a moment still computes for all: tests of these set their own."""

hypothesis.settings.register_profile(
    "suite",
    derandomize=True,  # what is found by chance is to be found by whoever looks for it
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

_server = pytest.StashKey[Server]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """
    Start this process's server and point the settings at it; pytest-django sets Django up right after this.

    `REDIS_URL` of the caller is replaced, not used: the suite empties its server. Every xdist worker has its own.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is for whoever runs in a shell's background
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # xdist's controller runs no test, and its workers must not inherit its server
    config.stash[_server] = server = Server.start()
    os.environ["REDIS_URL"] = server.url
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    os.environ["SHOP_TIMEOUT_MS"] = str(PATIENT["timeout_ms"])
    _be_patient()
    from django.conf import settings

    settings.DATABASES  # noqa: B018 - loads the settings, which pytest-django takes as the sign to call django.setup()
    from django.middleware import csrf

    csrf.CSRF_ALLOWED_CHARS = "abxJKQVWXYZ"  # no word that a test looks for on a page can stand in a form's token


def _be_patient() -> None:
    """Have a test that writes CACHEADMIN anew wait as long as all others do."""
    from cacheadmin.conf import Config

    known = inspect.signature(Config).parameters.values()
    Config.__init__.__defaults__ = tuple(PATIENT.get(each.name, each.default) for each in known)


def pytest_unconfigure(config: pytest.Config) -> None:
    if stats := sys.modules.get("cacheadmin.stats"):
        stats.recorder.reset()  # what the last test counted would be flushed at exit, to a server that is gone
    if server := config.stash.get(_server, None):
        server.stop()


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Server:
    """The server behind all aliases. Tests that stop, freeze or fill a server take `fresh_server` instead."""
    return pytestconfig.stash[_server]


@pytest.fixture(scope="session")
def _admin_client(redis_server: Server) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def redis(_admin_client: redis_py.Redis) -> redis_py.Redis:
    """A plain client of the suite's server, database 0."""
    return _admin_client


@pytest.fixture(autouse=True)
def _clean_slate(request: pytest.FixtureRequest, _admin_client: redis_py.Redis) -> None:
    """Begin each test with an empty server and without what this process remembers of the last one."""
    from cacheadmin import testing
    from cacheadmin.functions import registry

    _admin_client.flushall()
    testing.reset()
    for name, function in list(registry.items()):
        made_in = str(function.__module__)
        if made_in == "None" or (made_in.startswith("test_") and made_in != request.module.__name__):
            del registry[name]  # made by a test of another module; pages and checks would show it


@pytest.fixture(scope="session", autouse=True)
def _patient_doctor() -> None:
    """Let an examination take its time: what it has no time for, it does not know."""
    from cacheadmin.doctor import Facts

    assert "seconds" in Facts.__init__.__kwdefaults__
    Facts.__init__.__kwdefaults__["seconds"] = 60.0


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`fresh_server(**options)` starts a server for this test alone; options as in `Server.start`."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(Server.start(**options))


def _calls(client: redis_py.Redis) -> dict[str, int]:
    return {
        name.removeprefix("cmdstat_"): stats["calls"]
        for name, stats in client.info("commandstats").items()
        if re.split(r"[_|]", name.removeprefix("cmdstat_"))[0] not in CONNECTION_COMMANDS
    }


@pytest.fixture
def commandstats(_admin_client: redis_py.Redis) -> Callable[..., contextlib.AbstractContextManager[dict[str, int]]]:
    """
    Count what the server was asked inside a block:

        with commandstats() as calls:
            cache.get("key")
        assert calls == {"mget": 1}

    The dict is filled when the block ends. Commands that a script calls are counted beside its `evalsha`.
    `commandstats(client)` counts on the server of another client.
    """

    @contextlib.contextmanager
    def count(client: redis_py.Redis = _admin_client) -> Iterator[dict[str, int]]:
        calls: dict[str, int] = {}
        before = _calls(client)
        yield calls
        after = _calls(client)
        calls.update({name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)})

    return count


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], contextlib.AbstractContextManager[list[str]]]:
    """
    List what this process sends to any server inside a block, one item a round trip (a pipeline is one):

        with round_trips() as sent:
            cache.get("key")
        assert sent == ["MGET"]

    An item is the names of the commands sent at once, joined by spaces. Connecting does not count, and who answers is
    asked once a connection: where the test is held up for a second, nothing rides along with its next command.
    """
    monkeypatch.setattr("cacheadmin.connections.lines.IDENTITY_SECONDS", 3600.0)
    recording: list[list[str]] = []
    connection_class = redis_py.connection.AbstractConnection
    send, on_connect = connection_class.send_packed_command, connection_class.on_connect_check_health
    connecting: set[object] = set()

    def noted_send(self: object, command: object, check_health: bool = True) -> object:
        if self not in connecting:
            packed = command if isinstance(command, bytes) else b"".join(command)
            names = COMMAND_NAME.findall(packed)
            for sent in recording:
                sent.append(b" ".join(names).decode().upper())
        return send(self, command, check_health=check_health)

    def noted_connect(self: object, *args: object, **kwargs: object) -> object:
        connecting.add(self)
        try:
            return on_connect(self, *args, **kwargs)
        finally:
            connecting.discard(self)

    monkeypatch.setattr(connection_class, "send_packed_command", noted_send)
    monkeypatch.setattr(connection_class, "on_connect_check_health", noted_connect)

    @contextlib.contextmanager
    def record() -> Iterator[list[str]]:
        sent: list[str] = []
        recording.append(sent)
        try:
            yield sent
        finally:
            recording.remove(sent)

    return record


def _find_postgresql() -> str | None:
    found = find_programs()
    return os.fspath(found) if found and find_spec("psycopg") else None


def _find_chromium() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


PROGRAMS: dict[str, Callable[[], str | None]] = {
    "chromium": _find_chromium,
    "gettext": lambda: shutil.which("xgettext") and shutil.which("msgfmt"),
    "postgresql": _find_postgresql,
    "prometheus": lambda: shutil.which("prometheus"),
}


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """`require("chromium")` returns the path of a program; without it the test is skipped, or fails if CI is set."""

    def find(program: str) -> str:
        if path := PROGRAMS[program]():
            return path
        reason = f"{program} is not installed"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; .ci/run installs what CI needs")
        pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def postgres(require: Callable[[str], str]) -> Iterator[Postgres]:
    """A PostgreSQL server of this process; `postgres.create()` makes an empty database and returns its address."""
    require("postgresql")
    with Postgres.start() as server:
        yield server


@pytest.fixture(params=["recommended", "stock"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Any) -> str:
    """Both forms of CACHES, one after the other: our backend, and what a site has before it moves."""
    from shop import settings as shop_settings

    monkeypatch.setattr(shop_settings, "STOCK", request.param == "stock")
    settings.CACHES = {
        alias: shop_settings.cache_alias(database, options["KEY_PREFIX"], options["TIMEOUT"])
        for database, (alias, options) in enumerate(settings.CACHES.items())
    }
    return request.param


@pytest.fixture
def use_rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`use_rules(rule, …)` puts these in the place of all rules in code."""
    from cacheadmin import rules

    def use(*given: Any) -> None:
        monkeypatch.setattr(rules.current, "_code", given)
        rules.forget()

    yield use
    rules.forget()


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test when a read begins to wait for the lease of another."""
    monkeypatch.setattr("cacheadmin.reading.calls.Pace.patience", lambda pace: pytest.fail("a read waits for a lease"))


@pytest.fixture
def within_a_minute(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand forty seconds into a minute: a bucket that just began is not drawn yet, and one must not end meanwhile."""
    monkeypatch.setattr("cacheadmin.doctor.servers.CLOCKS_APART_SECONDS", 60)  # the server's clock does not follow
    with time_machine.travel(time.time() // 60 * 60 + 40):
        yield


@pytest.fixture(scope="module")
def chromium(require: Callable[[str], str]) -> Iterator[Any]:
    """A Chromium of Playwright, without a window."""
    path = require("chromium")
    sync = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # playwright runs a loop in this thread
        with sync.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=flags)
            yield browser
            browser.close()


@pytest.fixture
def open_page(chromium: Any, live_server: Any) -> Iterator[Callable[..., Any]]:
    """
    `open_page(path, **context options)` opens a page of the shop as a superuser of its own.

    `page.said` is what the browser's console says and what scripts raise; without a path the page stays blank.
    """
    from django.test import Client

    from cacheadmin.connections import forget_links
    from shop.models import User

    contexts: list[Any] = []
    under_way: set[Any] = set()

    def open_one(path: str | None = None, **options: Any) -> Any:
        client = Client()
        client.force_login(User.objects.create_superuser(f"amira{len(contexts)}"))
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        cookie = client.cookies["sessionid"].value
        context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        page = context.new_page()
        page.said = []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: under_way.add(request))
        page.on("requestfinished", lambda request: under_way.discard(request))
        page.on("requestfailed", lambda request: under_way.discard(request))
        if path is not None:
            page.goto(live_server.url + path)
        return page

    yield open_one
    # What the server is still answering would hold the tables that are emptied after the test.
    deadline = time.monotonic() + 5
    while under_way and time.monotonic() < deadline and (left := [page for each in contexts for page in each.pages]):
        left[0].wait_for_timeout(20)
    for context in contexts:
        context.close()
    forget_links()


@pytest.fixture
def amira(db: None) -> Any:
    """A superuser."""
    from shop.models import User

    return User.objects.create_superuser("amira")


@pytest.fixture
def admin(amira: Any) -> Any:
    """A client that she is logged in with."""
    from console import client_of

    return client_of(amira)
