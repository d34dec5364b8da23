"""Django's system checks: what is wrong with the settings is said before the site starts."""

import sys

import django
import pytest
from django.conf import settings
from django.core import checks
from django.db import models
from django.test import override_settings

from cacheadmin import Rule, doctor, rules
from cacheadmin.checks import check_setup
from cacheadmin.tenancy import ForeignKeyTenancy, Tenant
from shop.models import SaleLine

STOCK = "django_redis.cache.RedisCache"
TIMEOUTS = {"SOCKET_TIMEOUT": 0.1, "SOCKET_CONNECT_TIMEOUT": 0.1}


def found(**changed):
    """The ids of what the checks find under changed settings."""
    with override_settings(**changed):
        return [message.id[-4:] for message in check_setup()]


def caches(alias="query", **changed):
    """CACHES with some keys of one alias changed."""
    return settings.CACHES | {alias: settings.CACHES[alias] | changed}


def the_only(check_id, **changed):
    """The one message under changed settings."""
    with override_settings(**changed):
        [message] = check_setup()
    assert message.id == f"cacheadmin.{check_id}"
    return message


def test_the_shop_has_nothing_to_find() -> None:
    assert check_setup() == []


@pytest.mark.django_db  # some of Django's own checks ask the database, from 6.1 on
def test_django_runs_the_checks_by_itself() -> None:
    with override_settings(CACHEADMIN={"TIMEOUT": 3}):
        assert "cacheadmin.E001" in [message.id for message in checks.run_checks()]


def test_starting_costs_no_round_trip(round_trips) -> None:
    with round_trips() as sent:
        check_setup()
    assert sent == []


def test_a_silenced_check_is_not_run() -> None:
    changed = {"CACHES": caches(KEY_PREFIX="shop:query"), "SILENCED_SYSTEM_CHECKS": ["cacheadmin.W005"]}
    assert found(**changed) == []
    with override_settings(**changed):
        report = doctor.examine(facts=doctor.Facts(at_start=True))
    assert [one.id for one in report.silenced] == ["cacheadmin.W005"]
    assert "cacheadmin.W005" not in [one.id for one in report.passed]


# --- CACHEADMIN -------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_an_error_that_names_the_nearest() -> None:
    message = the_only("E001", CACHEADMIN={"TENNANCY": "shop.cache.Tenancy"})
    assert type(message) is checks.Error
    assert "'TENNANCY'" in message.msg
    assert "Did you mean 'TENANCY'?" in message.msg


def test_each_wrong_key_is_an_error_of_its_own() -> None:
    assert found(CACHEADMIN={"TIMEOUT_MS": "soon", "NONSENSE": 1}) == ["E001", "E001"]


def test_a_lost_link_to_the_templates_is_an_error() -> None:
    bare = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": False}]
    message = the_only("E002", TEMPLATES=bare)
    assert type(message) is checks.Error
    assert "cacheadmin/base.html" in message.msg


def test_a_site_without_redis_is_told_that_nothing_is_managed() -> None:
    local = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert found(CACHES=local) == ["W006"]


def test_a_path_that_leads_nowhere_is_an_error() -> None:
    wrong = settings.CACHEADMIN | {"MASK_VALUE": "shop.masks.secret"}
    assert found(CACHEADMIN=wrong) == ["E007"]
    assert "Correct the dotted path" in the_only("E007", CACHEADMIN=wrong).hint
    assert "E007" in found(CACHEADMIN={"TENANCY": "shop.cache.Tennancy"})


class Misnamed(ForeignKeyTenancy):
    model = "shop.Tennant"


class Nameless(ForeignKeyTenancy):
    pass


class Unlabelled(ForeignKeyTenancy):
    model, label_field = "shop.Tenant", "titel"


class Labelled(Unlabelled):
    label_field = "slug"


class ListedItsOwnWay(Unlabelled):
    def list(self) -> list[Tenant]:
        return []


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (Misnamed, "Misnamed.model is 'shop.Tennant', and there is no such model."),
        (Nameless, "Nameless.model is '', and there is no such model."),
        (Unlabelled, "Unlabelled.label_field is 'titel'. Cannot resolve keyword 'titel'"),
    ],
)
def test_tenants_of_a_model_or_with_a_label_that_there_is_not_are_an_error(site: type, said: str) -> None:
    assert said in the_only("E007", CACHEADMIN={"TENANCY": f"test_checks.{site.__name__}"}).msg


@pytest.mark.parametrize("site", [Labelled, ListedItsOwnWay])
def test_tenants_with_a_label_are_fine(site: type) -> None:
    assert found(CACHEADMIN={"TENANCY": f"test_checks.{site.__name__}"}) == []


# --- CACHES -----------------------------------------------------------------------------------------------------------


def test_a_pool_size_that_nobody_reads_is_a_warning_with_the_right_setting() -> None:
    message = the_only("W003", CACHES=caches(OPTIONS={"MAX_CONNECTIONS": 50}))
    assert type(message) is checks.Warning
    assert "CACHES['query']['OPTIONS']" in message.msg
    assert message.hint == '"OPTIONS": {"CONNECTION_POOL_KWARGS": {"max_connections": 50}}'


def test_two_aliases_in_one_place_are_a_warning() -> None:
    assert found(CACHES=settings.CACHES | {"query": settings.CACHES["default"]}) == ["W004"]


def test_another_way_to_write_the_same_database_is_the_same_database() -> None:
    twin = settings.CACHES["default"] | {"LOCATION": settings.CACHES["default"]["LOCATION"].removesuffix("/0")}
    assert found(CACHES=settings.CACHES | {"query": twin}) == ["W004"]


def test_another_database_prefix_or_version_keeps_two_aliases_apart() -> None:
    first = settings.CACHES["default"]
    for apart in ({"KEY_PREFIX": "other"}, {"VERSION": 2}, {"OPTIONS": first["OPTIONS"] | {"db": 7}}):
        assert found(CACHES=settings.CACHES | {"query": first | apart}) == []


def test_a_prefix_with_a_colon_is_a_warning() -> None:
    assert the_only("W005", CACHES=caches(KEY_PREFIX="shop:query")).hint == '"KEY_PREFIX": "shop_query"'


def test_two_aliases_of_one_url_with_other_options_are_a_warning() -> None:
    first = settings.CACHES["default"]
    other = first | {"KEY_PREFIX": "other", "OPTIONS": {"SOCKET_TIMEOUT": 1, **first["OPTIONS"]}}
    message = the_only("W013", CACHES=settings.CACHES | {"query": other})
    assert "SOCKET_TIMEOUT of the other is ignored" in message.msg
    assert message.hint.endswith('/1"')  # no alias has that database now


def test_a_stock_backend_in_a_database_with_another_alias_is_a_warning() -> None:
    shared = {"BACKEND": STOCK, "LOCATION": settings.CACHES["default"]["LOCATION"], "OPTIONS": TIMEOUTS}
    assert found(CACHES=caches(**shared)) == ["W013", "W014", "W017"]


def test_a_prefix_inside_another_is_a_warning() -> None:
    inner = settings.CACHES["default"] | {"KEY_PREFIX": f"{settings.CACHES['default']['KEY_PREFIX']}:1:inner"}
    assert found(CACHES=settings.CACHES | {"query": inner}) == ["W005", "W015"]


def test_a_stock_backend_without_timeouts_is_a_warning() -> None:
    with override_settings(CACHES=caches(BACKEND=STOCK, OPTIONS={})):
        hints = {message.id[-4:]: message.hint for message in check_setup()}
    assert hints["W016"] == '"OPTIONS": {"SOCKET_TIMEOUT": 0.1, "SOCKET_CONNECT_TIMEOUT": 0.1}'
    native = "django.core.cache.backends.redis.RedisCache"
    with override_settings(CACHES=caches(BACKEND=native, OPTIONS={"socket_timeout": 1})):
        hints = {message.id[-4:]: message.hint for message in check_setup()}
    assert hints["W016"] == '"OPTIONS": {"socket_connect_timeout": 0.1}'


@pytest.mark.parametrize(
    "bounded",
    [
        {"OPTIONS": TIMEOUTS},
        {"OPTIONS": {"CONNECTION_POOL_KWARGS": {"socket_timeout": 1, "socket_connect_timeout": 1}}},
        {"LOCATION": "redis://127.0.0.1:6379/1?socket_timeout=1&socket_connect_timeout=1", "OPTIONS": {}},
    ],
)
def test_timeouts_are_found_wherever_they_may_be_written(bounded) -> None:
    assert "W016" not in found(CACHES=caches(BACKEND=STOCK, **bounded))


def test_a_stock_backend_is_a_warning_that_says_what_is_not_exact() -> None:
    message = the_only("W017", CACHES=caches(BACKEND=STOCK, OPTIONS=TIMEOUTS))
    assert "Plain keys are not exact in query." in message.msg
    assert message.hint == '"BACKEND": "cacheadmin.backends.RedisCache"'


def test_a_cache_that_is_no_redis_is_a_warning_where_it_is_managed() -> None:
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    managed = settings.CACHEADMIN | {"ALIASES": list(settings.CACHES)}
    message = the_only("W017", CACHES=settings.CACHES | {"query": local}, CACHEADMIN=managed)
    assert "Not a Redis cache: query." in message.msg


def test_entries_without_a_timeout_by_default_are_a_warning() -> None:
    assert "query never expires" in the_only("W018", CACHES=caches(TIMEOUT=None)).msg


def test_a_location_that_is_no_address_is_an_error_that_keeps_its_secrets() -> None:
    message = the_only("E043", CACHES=caches(LOCATION="tcp://:hunter2secret@redis:6379/1"))
    assert type(message) is checks.Error
    assert "hunter2secret" not in f"{message.msg} {message.hint}"


# --- the map, middleware, metrics -------------------------------------------------------------------------------------


@pytest.fixture
def code_rules(monkeypatch):
    """Rules in code beside none of the shop's."""

    def put(*given):
        monkeypatch.setattr(rules.current, "_code", given)

    yield put
    rules.forget()


def test_a_rule_in_code_that_names_no_field_is_an_error(code_rules) -> None:
    code_rules(Rule("stock", model="shop.InventoryItem", fields=["qty"], targets=["tenant"]))
    message = the_only("E011")
    assert type(message) is checks.Error
    assert "rule stock, fields" in message.msg


def test_rows_that_the_database_deletes_are_noted_for_watched_models(code_rules, monkeypatch) -> None:
    class StandIn:
        operation = "CASCADE"

    cascade = models.DB_CASCADE if django.VERSION >= (6, 1) else StandIn
    monkeypatch.setattr(SaleLine._meta.get_field("sale").remote_field, "on_delete", cascade)
    code_rules()
    assert check_setup() == []  # nobody watches it
    code_rules(Rule("lines", model="shop.SaleLine", targets=["prefix:sales"], tenant="sale__tenant_id"))
    message = the_only("I032")
    assert type(message) is checks.Info
    assert "shop.SaleLine.sale (lines)" in message.msg
    assert "on_delete=models.CASCADE)" in message.hint
    setting = models.DB_SET_NULL if django.VERSION >= (6, 1) else type("StandIn", (), {"operation": "SET NULL"})
    monkeypatch.setattr(SaleLine._meta.get_field("sale").remote_field, "on_delete", setting)
    assert "on_delete=models.SET_NULL)" in the_only("I032").hint


def test_a_site_of_tenants_without_the_middleware_is_warned() -> None:
    ours = "cacheadmin.middleware.TenantMiddleware"
    rest = [path for path in settings.MIDDLEWARE if path != ours]
    assert ours in the_only("W036", MIDDLEWARE=rest).hint
    assert found(MIDDLEWARE=rest, CACHEADMIN=settings.CACHEADMIN | {"TENANCY": "cacheadmin.tenancy.NoTenants"}) == []
    assert (
        found(MIDDLEWARE=rest, CACHEADMIN=settings.CACHEADMIN | {"TENANCY": "cacheadmin.tenancy.SchemaTenancy"}) == []
    )


def test_the_middleware_above_the_log_in_is_a_warning() -> None:
    ours = "cacheadmin.middleware.TenantMiddleware"
    first = [ours, *(path for path in settings.MIDDLEWARE if path != ours)]
    changed = settings.CACHEADMIN | {"TENANCY": "test_checks.Labelled"}
    assert "stands above the middleware that logs in" in the_only("W036", MIDDLEWARE=first, CACHEADMIN=changed).msg


@pytest.mark.parametrize(
    ("environ", "ids"),
    [
        ({"WEB_CONCURRENCY": "4"}, ["W037"]),
        ({"GUNICORN_CMD_ARGS": "--bind :8000 --workers=3"}, ["W037"]),
        ({"GUNICORN_CMD_ARGS": "-w 2"}, ["W037"]),
        ({"WEB_CONCURRENCY": "1"}, []),
        ({"WEB_CONCURRENCY": "4", "GUNICORN_CMD_ARGS": "-w 1"}, []),
        ({"PROMETHEUS_MULTIPROC_DIR": "no/such/directory"}, ["W037"]),
        ({"WEB_CONCURRENCY": "4", "PROMETHEUS_MULTIPROC_DIR": "/"}, []),
    ],
)
def test_several_workers_without_a_directory_for_their_metrics_are_a_warning(monkeypatch, environ, ids) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert found() == ids


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ("/srv/bin/uvicorn shop.asgi:application --workers 4", ["W037"]),
        ("/srv/bin/gunicorn -k asgi -w2 shop.asgi", ["W037"]),
        ("/srv/lib/gunicorn/__main__.py --workers=3 shop.asgi", ["W037"]),
        ("/srv/bin/gunicorn -w 1 shop.asgi", []),
        ("/srv/bin/gunicorn shop.asgi --no-workers-of-mine 3", []),
        ("manage.py index -w 4", []),
    ],
)
def test_the_command_line_of_the_server_tells_how_many_workers_there_are(monkeypatch, line, ids) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", line.split())
    assert found() == ids
