"""Each of the doctor's checks of what runs: the fault is built for real, and found."""

import datetime as dt
import http.server
import itertools
import json
import os
import re
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pytest
import redis as redis_py
import time_machine
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.cache import caches
from django.core.signals import request_started
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from cacheadmin import cache_query_result, cache_tenant_query, outbox, rules, warming, writes
from cacheadmin.connections import forget_links
from cacheadmin.doctor import Facts, checks, examine, process, servers
from cacheadmin.functions import registry as functions
from cacheadmin.invalidation import invalidate_tenant_cache
from cacheadmin.models import Intent, InvalidationRule
from cacheadmin.stats import Mark, recorder
from cacheadmin.stats.layout import born_key
from cacheadmin.targets import Target
from faults.proxy import Proxy
from shop.models import Branch, Category, InventoryItem, Tenant
from shop.processes import Child, free_port

pytestmark = pytest.mark.django_db

DAY = 24 * 3600


@pytest.fixture(autouse=True)
def _as_it_was():
    rules.forget()
    yield
    for name in [name for name, function in functions.items() if function.__module__ == __name__]:
        del functions[name]
    rules.forget()


def found(check_id, *, is_whole=True, **facts):
    """What one check finds now; `is_whole=False` where it is kept from seeing everything."""
    [check] = [check for check in checks() if check.id == f"cacheadmin.{check_id}"]
    report = examine([check], Facts(**({"seconds": 60} | facts)))
    assert {finding.check for finding in report.findings} <= {check.id}
    assert (report.unfinished == ()) == is_whole
    assert all(finding.fix and finding.why and finding.where for finding in report.findings)
    return report.findings


def the_only(check_id, **facts):
    [finding] = found(check_id, **facts)
    return finding


@pytest.fixture
def on(settings):
    """Move aliases to another address: `on(server.url, "query")`, by default all of them, each to its own database."""

    def move(url, *aliases, **changed):
        base, _, number = url.rpartition("/")
        moved = {alias: f"{base}/{int(number) or i}" for i, alias in enumerate(settings.CACHES)}
        chosen = {alias: {"LOCATION": moved[alias], **changed} for alias in aliases or settings.CACHES}
        if aliases:
            chosen = {alias: changed | {"LOCATION": url} for alias in aliases}
        settings.CACHES = {alias: kept | chosen.get(alias, {}) for alias, kept in settings.CACHES.items()}

    return move


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_one_finding_for_all_its_aliases(fresh_server, on) -> None:
    server = fresh_server()
    on(server.url, "template", "api")
    server.stop()
    finding = the_only("E010")
    assert finding.where == f"127.0.0.1:{server.port}: template, api"
    assert finding.since is not None
    assert server.url not in repr(finding)
    assert "Start the server" in finding.fix


def test_a_hung_server_is_told_from_a_stopped_one(fresh_server, on, settings) -> None:
    server = fresh_server()
    settings.CACHEADMIN = settings.CACHEADMIN | {"TIMEOUT_MS": 2000}  # the other aliases' server is not hung
    on(server.url, "query")
    server.pause()
    try:
        assert "--latency" in the_only("E010").fix
    finally:
        server.resume()


def test_a_server_that_wants_a_password_says_so(fresh_server, on) -> None:
    server = fresh_server()
    with redis_py.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "opensesame")
    on(server.url.replace("//", "//:wrongword@"), "query")
    finding = the_only("E010")
    assert "PASSWORD" in finding.fix
    assert "wrongword" not in repr(finding)


def test_an_alias_that_its_server_refuses_is_told_from_a_server_that_is_away(fresh_server, on) -> None:
    server = fresh_server(args=("--databases", "1"))
    on(server.url_for(0), "default")
    on(server.url_for(5), "query")
    finding = the_only("E010")
    assert "refuses the alias query: DB index is out of range" in finding.title
    assert finding.where == "CACHES['query']"


class SlowProxy(Proxy):
    """A wire on which every answer takes its time."""

    def _forward(self, source, sink) -> None:
        recv = source.recv

        class Slow:
            def recv(self, size):
                data = recv(size)
                time.sleep(0.06)
                return data

        super()._forward(Slow(), sink)

    def _end(self, *ended) -> None:
        super()._end(*(one for one in ended if hasattr(one, "close")))


def test_a_slow_server_is_found(redis_server, on, settings) -> None:
    proxy = SlowProxy(redis_server.port)
    try:
        settings.CACHEADMIN = settings.CACHEADMIN | {"SLOW_MS": 50}
        on(f"redis://127.0.0.1:{proxy.port}/1", "query")
        assert "ms to answer" in the_only("W019").title
    finally:
        forget_links()
        proxy.close()


def test_an_old_server_is_found(monkeypatch) -> None:
    assert found("E020") == ()
    monkeypatch.setattr(servers, "OLDEST", (99, 0))  # no server that old can be had
    assert "Redis 99.0 or newer" in the_only("E020").fix


def test_a_clock_that_is_far_off_is_found() -> None:
    caches["query"].get("warm:connection")
    with time_machine.travel(dt.timedelta(hours=1), tick=True):
        finding = the_only("W021")
    assert "behind this host's" in finding.title
    with time_machine.travel(dt.timedelta(hours=-1), tick=True):
        assert "ahead of this host's" in the_only("W021").title


def test_a_server_that_hides_who_it_is_is_found(fresh_server, on) -> None:
    server = fresh_server()
    with redis_py.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">opensesame", "~*", "&*", "+@all", "-info")
    on(server.url.replace("//", "//shop:opensesame@"), "query")
    assert "+info" in the_only("W022").fix
    assert found("E010") == ()


def test_a_database_number_on_a_cluster_is_found(fresh_server, on) -> None:
    on(fresh_server(args=("--cluster-enabled", "yes")).url)
    for _ in range(2):  # the second time it is known from before: nobody asks in vain
        finding = the_only("E023")
        assert finding.where == "CACHES['query']['LOCATION'], CACHES['template']['LOCATION'], CACHES['api']['LOCATION']"
    assert '# api\n"LOCATION": "redis://127.0.0.1:' in finding.fix
    assert found("E010") == ()


def test_a_server_without_a_limit_of_memory_is_found(fresh_server, on, settings) -> None:
    on(fresh_server(args=("--maxmemory", "0")).url, "query")
    assert the_only("W024").fix == "maxmemory 1gb\nmaxmemory-policy allkeys-lru"
    settings.SESSION_ENGINE, settings.SESSION_CACHE_ALIAS = "django.contrib.sessions.backends.cache", "query"
    assert the_only("W024").fix.startswith("maxmemory 1gb\nmaxmemory-policy noeviction  # sessions")


def test_a_policy_that_may_evict_sessions_or_queues_is_found(fresh_server, on, settings) -> None:
    server = fresh_server(args=("--maxmemory-policy", "allkeys-lru"))
    on(server.url, "default")
    assert found("W025") == ()
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    assert "may evict sessions" in the_only("W025").title
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
    assert found("W025") == ()
    with redis_py.Redis.from_url(server.url) as client:
        client.set("_kombu.binding.celery", "x")
    assert "the keys of a queue" in the_only("W025").title


def test_a_policy_that_cannot_evict_what_has_no_timeout_is_found(fresh_server, on) -> None:
    on(fresh_server(args=("--maxmemory-policy", "volatile-lru")).url, "query")
    caches["query"].set("stock:1", "x", 60)
    assert found("W025") == ()
    caches["query"].set("stock:2", "x", None)
    assert "~50% of the values" in the_only("W025").title


def test_a_full_server_that_evicts_nothing_is_found(fresh_server, on) -> None:
    server = fresh_server(args=("--maxmemory", "4mb"))
    on(server.url, "query")
    assert found("W025") == ()
    with redis_py.Redis.from_url(server.url) as client:
        names = (f"jewelry_shop_query:1:fill{n}" for n in itertools.count())
        with pytest.raises(redis_py.exceptions.OutOfMemoryError):
            all(client.set(name, "x" * 10_000, ex=60) for name in names)
    assert "nearly full" in the_only("W025").title

    @cache_query_result(key_prefix="doctor_full", shared=True)
    def full():
        return "x"

    full()
    recorder.flush()
    assert "did not store 1 value" in the_only("W025").title


def test_pickle_on_a_server_of_others_is_found(redis, on, settings) -> None:
    assert found("W026") == ()
    redis.set("someone:elses", "x")
    assert "1 key of nobody here" in the_only("W026").where
    settings.CACHEADMIN = settings.CACHEADMIN | {"SIGN_VALUES": True}
    assert found("W026") == ()


def test_other_databases_and_clients_show_that_a_server_is_shared(redis_server, settings) -> None:
    url = redis_server.url_for(9)
    with redis_py.Redis.from_url(url, single_connection_client=True) as client:
        client.execute_command("CLIENT", "SETINFO", "LIB-NAME", "ioredis")
        client.set("job", 1)
        where = the_only("W026").where
        assert "keys in database 9" in where
        assert "clients of ioredis" in where
        json = {"OPTIONS": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"}}
        settings.CACHES = {alias: kept | json for alias, kept in settings.CACHES.items()}
        assert found("W026") == ()


# --- entries ----------------------------------------------------------------------------------------------------------


def test_entries_without_a_timeout_are_found_by_function() -> None:
    @cache_query_result(timeout=None, key_prefix="doctor_for_ever", shared=True)
    def for_ever(n):
        return n

    for n in range(3):
        for_ever(n)
    caches["api"].set("sidebar:1", "x", None)
    by_alias = {finding.where: finding.title for finding in found("W027")}
    assert by_alias == {
        f"{for_ever.name} (query: 3)": "~3 values never expire.",
        "sidebar (api: 1)": "~1 value never expires.",
    }


def test_memory_that_orphans_hold_is_found(fresh_server, on) -> None:
    on(fresh_server().url, "query")

    @cache_tenant_query(key_prefix="doctor_orphan")
    def orphan(tenant_id, n):
        return bytes(7_000_000)

    for n in range(3):
        orphan(1, n)
    assert found("W028") == ()
    invalidate_tenant_cache(1)
    finding = the_only("W028")
    assert finding.where == f"{orphan.name} (query: 3)"
    assert finding.title.startswith("Orphans take ~20.")


def test_a_big_value_is_found_by_its_function_without_its_arguments() -> None:
    @cache_tenant_query(key_prefix="doctor_big")
    def big(tenant_id, who):
        return bytes(1_500_000)

    big(1, "amira")
    finding = the_only("W029")
    assert finding.title.startswith(f"{big.name} keeps values of up to 1.")
    assert "amira" not in repr(finding)


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def known_functions():
    warming.load_functions()


def add_rule(name, *targets, model="shop.InventoryItem", **values):
    InvalidationRule.objects.create(name=name, model=model, targets=list(targets), **values)
    rules.forget()


def has_counted_for_a_day(redis):
    redis.set(born_key(), int(time.time() - 2 * DAY))


def test_a_rule_that_names_no_field_is_a_finding() -> None:
    add_rule("stock", {"kind": "tenant"}, fields=["qty"])
    finding = the_only("E011")
    assert "qty" in finding.title
    assert finding.where == "rule stock, fields (database)"


def test_a_rule_that_misspells_a_group_or_its_alias_is_found_at_once(known_functions) -> None:
    add_rule("spelt", {"kind": "group", "name": "inventory_lst"})
    assert the_only("W030").fix == "Did you mean inventory_list?"
    InvalidationRule.objects.all().delete()
    add_rule("elsewhere", {"kind": "group", "name": "inventory_list", "alias": "api"})
    assert "Name the alias it lies in: query." in the_only("W030").fix


def test_a_rule_that_names_a_group_nobody_reads_is_found_after_a_day(redis, known_functions) -> None:
    add_rule("gone", {"kind": "prefix", "name": "zebra", "alias": "query"})
    assert found("W030") == ()
    has_counted_for_a_day(redis)
    assert "gone" in " ".join(finding.where for finding in found("W030"))
    caches["query"].get("zebra_stripes:1")
    recorder.flush()
    assert "gone" not in " ".join(finding.where for finding in found("W030"))


@pytest.fixture
def item():
    tenant = Tenant.objects.create(name="Ruby", slug="ruby")
    branch = Branch.objects.create(tenant=tenant, name="Main", city="Basel")
    category = Category.objects.create(tenant=tenant, name="Rings", slug="rings")
    return InventoryItem.objects.create(
        tenant=tenant, branch=branch, category=category, sku="R1", name="Ring", weight=1, price=1
    )


def test_rules_that_never_fired_are_noted_after_a_day(redis, item) -> None:
    recorder.flush()
    assert found("I031") == ()
    has_counted_for_a_day(redis)
    idle = the_only("I031").where
    assert "gold rate" in idle
    assert "inventory" not in idle.split(", ")


def test_rows_that_the_database_deletes_are_noted_for_rules_of_the_database_too(monkeypatch) -> None:
    class StandIn:
        operation = "CASCADE"

    monkeypatch.setattr(Branch._meta.get_field("tenant").remote_field, "on_delete", StandIn)
    assert "shop.Branch.tenant (branches)" in the_only("I032").where


# --- writes -----------------------------------------------------------------------------------------------------------


def test_writes_that_nobody_sees_are_found() -> None:
    assert found("E033") == ()
    writes.uninstall()
    try:
        assert "no rule fires" in the_only("E033").title
    finally:
        writes.install()
    assert found("E033") == ()


def test_hooks_that_somebody_has_wrapped_are_still_there_and_replaced_ones_are_not(monkeypatch) -> None:
    import functools

    from django.db.models.sql.compiler import SQLUpdateCompiler

    ours = SQLUpdateCompiler.execute_sql
    monkeypatch.setattr(SQLUpdateCompiler, "execute_sql", functools.wraps(ours)(lambda *a, **k: ours(*a, **k)))
    assert found("E033") == ()
    monkeypatch.setattr(SQLUpdateCompiler, "execute_sql", lambda *_a, **_k: None)
    assert found("E033") != ()


def test_a_statement_that_nobody_can_read_is_found(monkeypatch) -> None:
    monkeypatch.setattr(writes.cursors, "unknown_statements", {})
    writes.raw_sites.clear()
    monkeypatch.setattr(writes, "unknown_statements", writes.cursors.unknown_statements)
    assert found("W034") == ()
    for _ in range(2):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("frobnicate everything")
    finding = the_only("W034")
    assert "begin with 'frobnicate' came 2 times" in finding.title
    assert re.search(r"test_doctor_faults:\d+ \(test_a_statement_that_nobody_can_read_is_found\)", finding.where)


def test_writes_that_do_not_say_whose_they_are_are_found(item) -> None:
    for n in range(12):
        InventoryItem.objects.filter(pk=item.pk).update(price=n)
    recorder.flush()
    assert found("W035") == ()
    writes.raw_sites.clear()
    for n in range(12):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE shop_inventoryitem SET price = %s", [n])
    recorder.flush()
    findings = {finding.title: finding.where for finding in found("W035")}
    where = findings["The rule inventory fired 12 times for all tenants in the last 24 hours."]
    assert re.fullmatch(r"shop.InventoryItem: test_doctor_faults:\d+ \(test_writes_that_do_not_say\w+\)", where)


# --- the site ---------------------------------------------------------------------------------------------------------


def test_a_function_of_no_stated_tenant_is_a_finding(settings) -> None:
    @cache_query_result(key_prefix="doctor_lost")
    def lost():
        return 1

    @cache_query_result(key_prefix="doctor_shared", shared=True)
    def shared():
        return 1

    assert [finding.where for finding in found("W012")] == [lost.name]
    settings.CACHEADMIN = {}
    assert found("W012") == ()


# --- what readers meet ------------------------------------------------------------------------------------------------


@pytest.fixture
def lookup():
    """A cached function of one argument, and how often it computed."""

    @cache_tenant_query(timeout=60, key_prefix="doctor_lookup", alias="query")
    def lookup(tenant_id, number):
        return [number]

    return lookup


def test_a_function_whose_arguments_are_new_each_time_is_found(lookup, redis) -> None:
    for number in range(220):
        lookup(12, number)
    recorder.flush()
    assert found("W044") == ()  # each cache begins cold
    has_counted_for_a_day(redis)
    finding = the_only("W044")
    assert finding.title == "0 of 220 reads in the last 24 hours were hits."
    assert finding.where == "doctor_lookup, alias query"
    assert "Its arguments are new each time" in finding.fix
    for number in range(20):
        lookup(12, number)
    recorder.flush()
    assert found("W044") == ()  # every twelfth read is worth something


def test_a_function_that_is_dropped_before_it_is_read_again_is_found(lookup, redis) -> None:
    has_counted_for_a_day(redis)
    for _ in range(201):
        lookup(12, 1)
        lookup.invalidate_all(tenant=12)
    recorder.flush()
    assert "let them watch fewer fields" in the_only("W044").fix


def test_few_reads_are_not_judged(lookup, redis) -> None:
    has_counted_for_a_day(redis)
    for number in range(199):
        lookup(12, number)
    recorder.flush()
    assert found("W044") == found("W045") == found("W046") == ()


@pytest.mark.django_db(transaction=True)
def test_reads_in_transactions_that_have_written_are_found(lookup, redis) -> None:
    has_counted_for_a_day(redis)
    with transaction.atomic():
        Tenant.objects.create(name="Ruby", slug="ruby")
        for _ in range(200):
            lookup(12, 1)
    recorder.flush()
    assert the_only("W045").title == "200 of 200 reads in the last 24 hours did not ask the cache."
    assert found("W044") == ()
    recorder.mark(Mark("away", "query", time.time()))
    recorder.flush()
    assert found("W045") == ()  # an outage looks the same


@pytest.mark.django_db(transaction=True)
def test_values_of_old_snapshots_are_found(lookup, redis) -> None:
    """SQLite: a transaction that has read may see an older state than the others."""
    has_counted_for_a_day(redis)
    with transaction.atomic():
        list(Tenant.objects.all())
        for _ in range(200):
            lookup(12, 1)
    recorder.flush()
    finding = the_only("W046")
    assert finding.title == "200 of 200 values computed in the last 24 hours could not be stored."
    assert found("W044") == ()  # one reason is enough


def person(name, *codenames, **fields):
    user = get_user_model().objects.create(username=name, is_staff=True, last_login=timezone.now(), **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def test_somebody_who_may_use_the_console_and_sees_nobody_in_it_is_found(settings) -> None:
    person("bound", "view_keys", tenant=Tenant.objects.create(name="Ruby", slug="ruby"))
    person("whole", "view_keys", "see_all_tenants")
    person("elsewhere", "view_values")
    assert found("W047") == ()
    person("lost", "view_keys")
    finding = the_only("W047")
    assert finding.title == "lost may use the console and sees no tenant."
    assert "name the tenants of this user" in finding.fix
    settings.CACHEADMIN = settings.CACHEADMIN | {"TENANCY": "cacheadmin.tenancy.ForeignKeyTenancy"}
    assert {f.title.split()[0] for f in found("W047")} == {"lost", "bound"}  # allowed() says everybody, no permission
    assert "see_all_tenants" in found("W047")[0].fix
    settings.CACHEADMIN = settings.CACHEADMIN | {"TENANCY": "cacheadmin.tenancy.NoTenants"}
    assert found("W047") == ()


def test_a_page_looks_at_few_people_and_the_command_at_more(settings) -> None:
    for number in range(7):
        person(f"lost{number}", "view_keys")
    assert [f.title.split()[0] for f in found("W047")] == ["lost6", "lost5", "lost4"]
    assert len(found("W047", steps=20)) == 7


def test_people_who_cannot_be_read_are_not_a_finding_of_their_own() -> None:
    def refuse(*_):
        raise DatabaseError("no such table: shop_user")

    with connection.execute_wrapper(refuse):
        assert found("W047") == ()


@pytest.fixture
def prometheus(settings):
    """`prometheus(body)` answers every query with it and is named in the settings; -> the queries it got."""
    asked, servers_ = [], []

    def serve(body):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(parse_qs(urlsplit(self.path).query)["query"][0])
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                return

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        servers_.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings.CACHEADMIN = settings.CACHEADMIN | {"PROMETHEUS_URL": url, "PROMETHEUS_LABELS": {"job": "shop"}}
        return asked

    yield serve
    for server in servers_:
        server.shutdown()
        server.server_close()


def vector(*values):
    result = [{"metric": {}, "value": [1.5, str(value)]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_a_prometheus_that_does_not_know_the_site_is_found(prometheus) -> None:
    asked = prometheus(vector())
    assert the_only("W048").where == "PROMETHEUS_LABELS"
    assert asked == ['count(cacheadmin_reads_total{job="shop"})']
    prometheus(vector(12))
    assert found("W048") == ()


def test_a_prometheus_that_does_not_answer_or_answers_nonsense_is_found(prometheus, settings) -> None:
    prometheus({"status": "error"})
    assert the_only("W048").title == "Prometheus answers with something else than a number."
    settings.CACHEADMIN = settings.CACHEADMIN | {"PROMETHEUS_URL": "http://amira:s3cret@127.0.0.1:1"}
    finding = the_only("W048")
    assert finding.where == "PROMETHEUS_URL"
    assert "s3cret" not in repr(finding)


def test_functions_of_tenants_on_a_site_that_says_it_has_none_are_found(settings, known_functions) -> None:
    settings.CACHEADMIN = settings.CACHEADMIN | {"TENANCY": "cacheadmin.tenancy.NoTenants"}
    finding = the_only("W038")
    assert "(tenant_id)" in finding.where


def test_a_server_with_several_processes_is_noticed_by_its_first_request(monkeypatch) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process, "_served", {})
    monkeypatch.setattr(process, "in_tests", lambda: False)
    request_started.connect(process.note_server, dispatch_uid="cacheadmin.doctor")
    request_started.send(sender=None, environ={"wsgi.multiprocess": True})
    request_started.send(sender=None, environ={"wsgi.multiprocess": False})  # nobody listens any more
    assert "Several workers run" in the_only("W037").title
    monkeypatch.setattr(process, "_served", {})
    request_started.connect(process.note_server, dispatch_uid="cacheadmin.doctor")
    request_started.send(sender=None, environ={"wsgi.multiprocess": False})
    assert found("W037") == ()


SEVERAL = """
from shop.wsgi import application as site

from cacheadmin.doctor import process


def wsgi(environ, start_response):
    list(site(environ, lambda *_: None))
    start_response("200 OK", [])
    return [str(process.has_several_workers()).encode()]


async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(process.has_several_workers()).encode()})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "several"),
    [
        (["-c", "python:two", "several:wsgi"], b"True"),
        (["several:wsgi"], b"False"),
        (["-k", "asgi", "-w", "2", "several:asgi"], b"True"),
        (["-k", "asgi", "several:asgi"], b"False"),
    ],
)
def test_the_workers_of_a_real_server_know_whether_there_are_others(tmp_path, options, several) -> None:
    tests = Path(__file__).resolve().parent
    (tmp_path / "several.py").write_text(SEVERAL)
    (tmp_path / "two.py").write_text("workers = 2\n")
    kept = {name: text for name, text in os.environ.items() if name not in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")}
    path = os.pathsep.join(map(os.fspath, (tmp_path, tests.parent, tests)))
    port = free_port(0)
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", *options]
    with (tmp_path / "log").open("wb") as log:
        server = Child(command, log=log, env=kept | {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "shop.settings"})
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{port}/nowhere", timeout=5) as answer:
                    assert answer.read() == several
                break
            except OSError:  # not there yet, or ended
                assert server.is_running(), (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.1)
    finally:
        server.stop()


# --- the outbox -------------------------------------------------------------------------------------------------------


def waits(*targets, minutes=5, **values):
    """A row that was written some minutes ago."""
    at = timezone.now() - dt.timedelta(minutes=minutes)
    payload = {"targets": [target.to_json() for target in targets or [Target("tenant", tenant="1")]]}
    return Intent.objects.create(created=at, due=at, payload=payload, **values)


def test_rows_that_are_tried_in_vain_are_found_once_the_server_is_back(fresh_server, on, settings) -> None:
    before, server = settings.CACHES, fresh_server()
    on(server.url)
    server.stop()
    row = waits()
    outbox.relay_once()
    row.refresh_from_db()
    assert (row.state, row.attempts) == ("pending", 1)
    assert found("E039", is_whole=False) == ()  # the server is away: E010 says so
    settings.CACHES = before
    finding = the_only("E039")
    assert finding.title == "1 invalidation is tried again and again."
    assert "does not answer" in finding.where
    assert finding.since == pytest.approx(row.created.timestamp(), abs=1)


def test_an_outbox_that_cannot_be_read_is_found() -> None:
    with connection.cursor() as cursor:
        outbox.pending()  # the table is known to be there
        cursor.execute("ALTER TABLE cacheadmin_intent RENAME COLUMN state TO condition")
    assert "The outbox cannot be read" in the_only("E039").title


def test_rows_that_were_given_up_are_found() -> None:
    waits(Target("tenant", tenant="1", alias="gone"))
    assert found("W040") == ()
    outbox.relay_once()
    finding = the_only("W040")
    assert finding.title == "1 invalidation was given up."
    assert Intent.objects.using("default").filter(state="dead").delete()[0] == 1  # what the fix says
    assert found("W040") == ()


def test_rows_that_no_process_takes_are_found() -> None:
    waits(minutes=0)
    assert found("E041") == ()  # its writer is at it
    waits(minutes=5)
    finding = the_only("E041")
    assert finding.title == "1 invalidation waits, and nobody delivers it."
    assert "cache_relay" in finding.fix
    outbox.relay_once()
    assert found("E041") == ()


def test_a_database_without_an_outbox_is_found(settings) -> None:
    assert found("W042") == ()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cacheadmin_intent RENAME TO cacheadmin_gone")
    outbox.reset()
    from cacheadmin.transactions import own_sql

    own_sql.forget_tables()
    finding = the_only("W042")
    assert "migrate cacheadmin --database default" in finding.fix
    settings.CACHEADMIN = settings.CACHEADMIN | {"OUTBOX": "off"}
    assert found("W042") == ()
