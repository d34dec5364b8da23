"""Pages before `migrate`: they say which table is missing and how to make it; on PostgreSQL too (test_on_postgres)."""

import logging

import pytest
from console import every_page, page, scope_of, text_of
from django.apps import apps
from django.contrib import admin as django_admin
from django.db import DatabaseError, OperationalError, ProgrammingError, connection
from django.http import HttpResponse
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from cacheadmin import Rule, rules
from cacheadmin.admin.console import PAGES, ConsoleAdmin
from cacheadmin.admin.unmigrated import migrated, missing_table
from cacheadmin.models import Activity, Console, InvalidationRule
from cacheadmin.targets import Target

pytestmark = pytest.mark.django_db(transaction=True)

COMMAND = "python manage.py migrate cacheadmin"


@pytest.fixture
def pages(use_rules):
    """Every page by name; a rule in code, for which no table is needed, drops what they show."""
    use_rules(Rule("stock in code", model="shop.InventoryItem", targets=["group:console_stock"]))
    return every_page()


@pytest.fixture
def unmigrated(pages):
    """The database as it is before `migrate`, after the pages were made; their rules are known."""
    rules.forget()
    rules.snapshot()
    tables = [model._meta.db_table for model in apps.get_app_config("cacheadmin").get_models() if model._meta.managed]
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} RENAME TO away_{table}")
    yield
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE away_{table} RENAME TO {table}")


def test_every_page_works_or_says_what_to_do(admin, pages, unmigrated, caplog):
    admin.raise_request_exception = False
    answers = {name: admin.get(url) for name, url in pages.items()}
    assert {name: answer.status_code for name, answer in answers.items() if answer.status_code not in (200, 503)} == {
        "not found": 404
    }
    told = {name: answer.content.decode() for name, answer in answers.items() if answer.status_code == 503}
    assert told.keys() >= {"console_changelist", "activity_list", "groups", "entry", "run", "rule changelist"}
    for name, html in told.items():
        assert COMMAND in html, name
        assert 'class="cacheadmin-frame"' in html, name
    assert answers["health"].status_code == 200
    causes = [record for record in caplog.records if record.name == "cacheadmin" and record.exc_info]
    assert len(causes) == len(told)
    assert {"no-store" in answers[name].headers["cache-control"] for name in told} == {True}


def test_scripts_are_told_in_json(admin, pages, unmigrated):
    asked = [name for route, _page, name in PAGES if route.startswith("data/") and "run" not in name]
    urls = [page(name.removeprefix("cacheadmin_")) for name in asked]
    urls += [page("data_run", 1), pages["host's panel"] + "?format=json"]
    for url in urls:
        answer = admin.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json"), url
        assert COMMAND in answer.json()["error"]


def test_a_deed_says_it_too_and_that_it_may_be_done(admin, pages, unmigrated):
    scope = scope_of(Target("group", "console_stock", "1", "query"))
    answer = admin.post(page("invalidate"), {"on": scope, "confirmed": "yes"})
    assert answer.status_code == 503
    assert f"{COMMAND} Copy What you asked for may be done" in text_of(answer)


def test_the_page_itself_asks_the_database_nothing(admin, unmigrated):
    """On PostgreSQL a transaction is of no use after an error, and with ATOMIC_REQUESTS each request is one."""
    admin.get(page("activity_list"))
    with CaptureQueriesContext(connection) as queries:
        assert admin.get(page("activity_list")).status_code == 503
    assert "cacheadmin_activity" in queries[-1]["sql"]


def test_with_a_transaction_around_each_request_it_is_the_same(admin, unmigrated, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert admin.get(page("activity_list")).status_code == 503
    assert admin.get(page("invalidationrule_changelist")).status_code == 503


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("no such table: shop_tenant"),
        OperationalError("no such column: cacheadmin_activity.state"),
        OperationalError("database is locked"),
        ProgrammingError('syntax error at or near "cacheadmin_activity"'),
        ProgrammingError(1146, "Table 'site.shop_cacheadmin_activity2' doesn't exist"),
        DatabaseError("no such table: cacheadmin_activity"),
    ],
    ids=str,
)
def test_any_other_error_of_a_database_is_raised_as_ever(error):
    def view(request):
        raise error

    console = ConsoleAdmin(Console, django_admin.site)
    with pytest.raises(type(error)):
        migrated(view, console, "overview")(RequestFactory().get("/"))


def test_what_databases_say_of_a_missing_table_is_known():
    undefined = ProgrammingError('relation "cacheadmin_activity" does not exist\nLINE 1: SELECT …')
    undefined.__cause__ = type("UndefinedTable", (Exception,), {"sqlstate": "42P01"})()
    assert missing_table(undefined) is Activity
    other = ProgrammingError('relation "shop_x" does not exist\nLINE 1: SELECT … "cacheadmin_activity"')
    other.__cause__ = undefined.__cause__
    assert missing_table(other) is None
    mysql = ProgrammingError(1146, "Table 'site.cacheadmin_invalidationrule' doesn't exist")
    assert missing_table(mysql) is InvalidationRule
    assert missing_table(OperationalError("no such table: cacheadmin_activity")) is Activity


def test_another_database_stands_in_the_command(rf, admin_user, settings, caplog):
    settings.DATABASE_ROUTERS = ["test_admin_unmigrated.Elsewhere"]

    def view(request):
        raise OperationalError("no such table: cacheadmin_activity")

    request = rf.get("/")
    request.user = admin_user
    with caplog.at_level(logging.ERROR):
        answer = migrated(view, ConsoleAdmin(Console, django_admin.site), "activity")(request)
    assert isinstance(answer, HttpResponse)
    assert f"{COMMAND} --database archive" in answer.render().content.decode()


class Elsewhere:
    """Keeps what cacheadmin keeps in a database of its own."""

    def db_for_write(self, model, **hints):
        return "archive" if model._meta.app_label == "cacheadmin" else None
