"""`manage.py cache_doctor`."""

import json

import pytest
from django.core.management import CommandError, call_command

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(capsys):
    """Run the command and return what it printed and the exit code."""

    def run(*args):
        code = 0
        try:
            call_command("cache_doctor", *args)
        except CommandError as error:
            code = error.returncode
        return capsys.readouterr().out, code

    return run


@pytest.fixture
def away(settings):
    settings.CACHES = {a: o | {"LOCATION": "redis://127.0.0.1:1/0"} for a, o in settings.CACHES.items()}


def test_the_shop_has_no_errors(run):
    out, code = run()
    assert code == 0
    assert " passed, " in out.splitlines()[-1]


def test_an_error_is_exit_code_1_and_says_how_to_put_it_right(run, away):
    out, code = run()
    assert code == 1
    assert "error: The cache server of alias" in out
    assert "(cacheadmin.E010)" in out
    assert "  Fix: Start the server" in out


def test_a_wrong_setting_is_found(run, settings):
    settings.CACHEADMIN = {"TENANCI": "x"}
    out, code = run()
    assert code == 1
    assert "Did you mean 'TENANCY'?" in out


def test_warnings_count_if_asked(run, settings):
    settings.CACHES = settings.CACHES | {"api": settings.CACHES["api"] | {"OPTIONS": {"MAX_CONNECTIONS": 50}}}
    assert "MAX_CONNECTIONS is ignored" in run()[0]
    assert run()[1] == 0
    assert run("--fail-level", "warning")[1] == 1


def test_as_json(run, away):
    out, code = run("--format", "json")
    said = json.loads(out)
    assert code == 1
    found = {finding["check"]: finding for finding in said["findings"]}
    assert found["cacheadmin.E010"]["level"] == "error"
    assert found["cacheadmin.E010"]["where"]
    assert {"check", "title"} == set(said["passed"][0])


def test_a_broken_urlconf_is_said_and_the_rest_examined(run, settings, capsys):
    settings.ROOT_URLCONF = "no.such.module"
    call_command("cache_doctor")
    printed = capsys.readouterr()
    assert "The URLconf cannot be loaded (ModuleNotFoundError" in printed.err
    assert " passed, " in printed.out
