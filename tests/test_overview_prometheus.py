"""Charts from a Prometheus server: what is asked, what hostile servers get, and what is shown when one fails."""

import contextlib
import http.server
import json
import socket
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings
from django.test import override_settings

from cacheadmin.overview import RANGES, fetching, overview, promql
from cacheadmin.overview.fetching import Base, FetchFailed, get, is_forbidden
from cacheadmin.stats import recorder
from faults.waits import Sleeper

NOW = 1_795_003_620 + 30
QUARTER = RANGES["15m"]


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """A server of these tests has answered late only if that is what the test is about."""
    monkeypatch.setattr(fetching, "SECONDS", 30.0)


@pytest.fixture
def served():
    """`served(answer)` starts a server on loopback; `answer(handler)` writes the whole response. Returns: its URL."""
    with contextlib.ExitStack() as stack:

        def start(answer):
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    asked.append((self.path, dict(self.headers)))
                    with contextlib.suppress(OSError):
                        answer(self)

                def log_message(self, *_):
                    return

            asked = []
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            start.asked = asked
            return f"http://127.0.0.1:{server.server_port}"

        yield start


def replies(body, status=200, **headers):
    def answer(handler):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, text in headers.items():
            handler.send_header(name.replace("_", "-"), text)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def matrix(**lines):
    """An answer to the one query: line -> {time: value}."""
    result = [
        {"metric": {"line": line}, "values": [[at, str(value)] for at, value in points.items()]}
        for line, points in lines.items()
    ]
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


@contextlib.contextmanager
def prometheus_at(url, **more):
    with override_settings(CACHEADMIN={**settings.CACHEADMIN, "PROMETHEUS_URL": url, **more}):
        yield


def why(url):
    """Why a GET of a URL fails."""
    with pytest.raises(FetchFailed) as failed:
        get(Base.of(url), "/api/v1/query_range", {"query": "up"})
    return str(failed.value)


# --- what is asked --------------------------------------------------------------------------------------------------


def test_labels_are_quoted_so_that_no_value_ends_its_quotes():
    assert promql.quoted('a"} or up{x="\\\n') == '"a\\"} or up{x=\\"\\\\\\n"'
    assert promql.selector({"job": "shop", "b": 'x"'}) == 'b="x\\"",job="shop"'
    assert promql.selector({'job="x"} or up{a': "b"}) == ""
    assert 'alias="qu\\"ery"' in promql.query('qu"ery', 60)


def test_one_query_asks_for_all_lines_of_the_charts(served):
    url = served(replies(matrix()))
    with prometheus_at(url.replace("//", "//amira:s%40cret@") + "/prom/", PROMETHEUS_LABELS={"job": "shop"}):
        page = overview(QUARTER, alias="query", now=NOW)
    [(path, headers)] = served.asked
    asked = parse_qs(urlsplit(path).query)
    assert urlsplit(path).path == "/prom/api/v1/query_range"
    assert asked["step"] == ["60"]
    assert asked["start"] == [str(page.series.times[0] + 60)]
    assert asked["end"] == [str(NOW // 60 * 60)]
    [query] = asked["query"]
    assert query.count("label_replace(") == len(promql.LINES) + 2 * (1 + len(promql.COUNTED))
    assert query.count("cacheadmin_") == query.count('alias="query",job="shop"') + 4 + 9  # servers have no alias
    assert query.count('up{job="shop"} ') == 1 + len(promql.COUNTED)
    assert len(path) < 6_000  # what proxies let through
    assert headers["Authorization"] == "Basic YW1pcmE6c0BjcmV0"
    assert "s@cret" not in repr(page)


def test_points_stand_at_the_buckets_they_are_the_rates_of(served):
    end = NOW // 60 * 60
    lines = {
        "hit": {end: 480, end - 60: 300},
        "hit again": {end - 60: 60, end - 120: 5},
        "miss": {end: 120, end - 120: 180},
        "p50": {end: 0.0004},
        "p95": {end: "NaN"},
        "cost": {end: 1.5},
        "invalidations": {end: 4},
        "used": {end: 1000},
        "limit": {end: 5000},
        "evicted": {end: 3.2},
        "waiting": {end: 7, end - 60: 0},
        "lag": {end: 41.5, end - 60: 0},
    }
    with prometheus_at(served(replies(matrix(**lines)))):
        page = overview(QUARTER, now=NOW)
    points = page.series
    assert (page.charts_from, page.charts_error) == ("prometheus", "")
    assert points.times[-1] == end  # not over yet: nothing is known
    assert points.hit[-4:] == [0.0, 6.0, 8.0, None]
    assert points.miss[-4:] == [3.0, 0.0, 2.0, None]
    assert points.stale[-4:] == [0.0, 0.0, 0.0, None]
    assert points.hit_ratio[-5:] == [None, 0.0, 1.0, 0.8, None]
    assert (points.p50_ms[-2], points.p95_ms[-2]) == (0.4, None)
    assert (points.cost[-2], points.invalidations[-2]) == (1.5, 4.0)
    assert points.waiting[-4:] == [None, 0, 7, None]
    assert points.lag_seconds[-4:] == [None, 0.0, 41.5, None]
    assert (points.used_bytes[-2], points.limit_bytes, points.evicted[-2]) == (1000, 5000, 3)


def test_no_traffic_is_a_gap(served):
    end = NOW // 60 * 60
    with prometheus_at(served(replies(matrix(hit={end: 0}, miss={end: 0})))):
        points = overview(QUARTER, now=NOW).series
    assert (points.hit[-2], points.hit_ratio[-2]) == (0.0, None)


def test_a_user_bound_to_tenants_is_shown_the_roll_ups(served):
    url = served(replies(matrix()))
    with prometheus_at(url):
        assert overview(QUARTER, tenants={"3"}, now=NOW).charts_from == "rollups"
    assert served.asked == []


# --- hostile and broken servers -------------------------------------------------------------------------------------


def test_what_is_not_an_answer_falls_back_to_the_roll_ups_with_a_reason(served, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: float(NOW))
    recorder.read("query", "stock", "12", "hit")
    recorder.flush()
    url = served(replies(b"<html>", 502))
    with prometheus_at(url):
        page = overview(QUARTER)
        assert (page.charts_from, page.charts_error) == ("rollups", "Prometheus answers with status 502.")
        assert sum(rate * 60 for rate in page.series.hit if rate) > 0
        assert overview(QUARTER).charts_error == page.charts_error
    assert len(served.asked) == 1  # then it is left alone for a while
    recorder.reset()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"status": "success"}',
        b'{"status": "error", "errorType": "bad_data"}',
        b'{"status": "success", "data": {"resultType": "vector", "result": []}}',
        b'{"status": "success", "data": {"resultType": "matrix", "result": 5}}',
        b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": []}]}}',
        b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {"line": 1}, "values": [1]}]}}',
        b'{"status":"success","data":{"resultType": "matrix","result":[{"metric":{"line":1},"values":[[1e9999,0]]}]}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_json_of_another_shape_is_refused(body):
    with pytest.raises(FetchFailed):
        promql.parsed(body, 60)


def test_lines_that_nobody_asked_for_and_values_that_are_no_numbers_are_not_drawn(served):
    end = NOW // 60 * 60
    lines = matrix(hit={end: "Inf"}, miss={end: "-Inf"}, evil={end: 1})
    with prometheus_at(served(replies(lines))):
        points = overview(QUARTER, now=NOW).series
    assert points.hit[-2] is None
    assert points.hit_ratio[-2] is None


def test_a_redirect_is_not_followed(served):
    hidden = served(replies(matrix()))
    seen = served.asked
    url = served(replies(b"", 302, Location=hidden + "/api/v1/query_range"))
    assert why(url) == "Prometheus answers with status 302."
    assert seen == []


def test_more_than_two_megabytes_are_not_read(served):
    sent, ended = [], threading.Event()

    def flood(handler):
        try:
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(b" " * 65_536)
                sent.append(65_536)
        finally:
            ended.set()

    assert why(served(flood)) == "Prometheus answers with more than 2 MB."
    assert ended.wait(30)  # nobody goes on reading
    assert sum(sent) < 64_000_000  # what fits into the buffers of both ends, too


@pytest.mark.parametrize("part", ["header", "body"])
def test_a_server_that_drips_is_left_after_two_seconds(served, part, monkeypatch):
    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    ended = threading.Event()

    def drip(handler):
        try:
            if part == "body":
                handler.send_response(200)
                handler.end_headers()
            else:
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while True:
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.1)
        except OSError:
            ended.set()
            raise

    with Sleeper() as sleeper:
        begun = time.monotonic()
        assert why(served(drip)) == "Prometheus does not answer within 2 s."
        over = time.monotonic()
    assert over - begun - sleeper.late_ms(begun, over) / 1000 < 5
    assert ended.wait(30)  # and nothing of ours goes on listening
    for thread in threading.enumerate():
        if thread.name == "cacheadmin-prometheus":
            thread.join(30)
            assert not thread.is_alive()


def test_a_server_that_is_not_there_is_a_reason(served):
    with socket.socket() as nobody:  # has the port and does not listen
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        assert why(f"http://amira:secret@127.0.0.1:{port}/") == "Prometheus does not answer: ConnectionRefusedError."


def test_plain_text_on_the_port_of_https_is_a_reason(served):
    assert why(served(replies(b"x")).replace("http:", "https:")).startswith("Prometheus does not answer: SSL")


@pytest.mark.parametrize(
    "url",
    ["", "file:///etc/passwd", "ftp://a/", "gopher://a/", "//a/", "http://", "http://[", "http://a:x/", "unix:/a"],
)
def test_other_schemes_and_no_urls_are_refused_without_repeating_them(url):
    with pytest.raises(FetchFailed) as failed:
        Base.of(url.replace("//", "//amira:secret@", 1))
    assert "secret" not in str(failed.value)


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200"),
        *("0.0.0.0", "::", "224.0.0.1", "ff02::1", "168.63.129.16"),
        *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
    ],
)
def test_addresses_of_secrets_and_of_nobody_are_not_asked(address):
    assert is_forbidden(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "172.17.0.2", "fd12::1", "8.8.8.8"])
def test_loopback_and_private_networks_are_where_prometheus_is(address):
    assert not is_forbidden(address)


def test_the_address_that_was_looked_at_is_the_one_that_is_asked(served, monkeypatch):
    """A name that resolves to something else a moment later: it is resolved once, and refused or asked there."""
    url, resolved = served(replies(matrix())), []
    port = urlsplit(url).port
    first = [("169.254.169.254", port)]

    def resolve(host, port, *_, **__):
        if host == "prometheus.example":
            resolved.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in first]
        return real(host, port, *_, **__)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert why(f"http://prometheus.example:{port}").startswith("The host of PROMETHEUS_URL has an address")
    assert served.asked == []
    first.append(("127.0.0.1", port))  # one that may be asked, behind one that may not
    assert promql.parsed(get(Base.of(f"http://prometheus.example:{port}"), "/", {}), 60) == {}
    assert served.asked[0][1]["Host"] == f"prometheus.example:{port}"
    assert resolved == ["prometheus.example"] * 2


@pytest.mark.django_db
def test_the_console_says_why_and_never_where(admin_client, served):
    recorder.read("query", "stock", "12", "hit")
    recorder.flush()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with prometheus_at(f"http://amira:secret@127.0.0.1:{port}/"):
            html = admin_client.get("/admin/cacheadmin/console/").content.decode()
    assert "No charts from Prometheus." in html
    assert "ConnectionRefusedError" in html
    assert "secret" not in html
    assert "127.0.0.1:" not in html
    assert f":{port}/" not in html  # its digits alone are found in many a moment
