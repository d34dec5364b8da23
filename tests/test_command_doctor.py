"""`manage.py cache_doctor`."""

import json

import pytest
from django.core.management import CommandError, call_command

from cacheadmin import doctor
from cacheadmin.doctor import registry
from cacheadmin.doctor.registry import Check, Finding

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


@pytest.fixture
def finding(monkeypatch):
    """Have the doctor know nothing but some findings: `finding("W900", "I901")`."""

    def put(*ids):
        made = [Check(f"cacheadmin.{i}", i, lambda _f, i=i: [Finding(i, "there", "so", "a\nb")], False) for i in ids]
        monkeypatch.setattr(registry, "checks", lambda: tuple(made))

    return put


def test_the_shop_has_nothing_to_put_right(run):
    out, code = run()
    assert (out, code) == (f"{len(doctor.checks())} checks passed, 0 findings.\n", 0)


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


@pytest.mark.parametrize(
    ("ids", "level", "code"),
    [
        (["E900"], "error", 1),
        (["W900", "I901"], "error", 0),
        (["W900"], "warning", 1),
        (["I900"], "warning", 0),
        (["I900"], "info", 1),
        ([], "info", 0),
    ],
)
def test_the_exit_code_says_whether_the_level_that_fails_is_reached(run, finding, ids, level, code):
    finding(*ids)
    assert run("--fail-level", level)[1] == code


def test_findings_stand_by_severity_and_a_fix_of_several_lines_can_be_pasted(run, finding):
    finding("I900", "W901", "E902")
    out, _ = run()
    assert [line for line in out.splitlines() if line and line[0] != " "] == [
        "error: E902 (cacheadmin.E902)",
        "warning: W901 (cacheadmin.W901)",
        "info: I900 (cacheadmin.I900)",
        "0 checks passed, 3 findings.",
    ]
    assert "  Where: there\n  Why: so\n  Fix:\n    a\n    b\n" in out


def test_what_is_silenced_is_named(run, finding, settings):
    finding("W900", "W901")
    settings.SILENCED_SYSTEM_CHECKS = ["cacheadmin.W900"]
    out, code = run("--fail-level", "warning")
    assert "Silenced by SILENCED_SYSTEM_CHECKS: cacheadmin.W900." in out
    assert (out.count("warning:"), code) == (1, 1)


def test_as_json(run, away):
    out, code = run("--format", "json")
    said = json.loads(out)
    assert (code, said["ok"]) == (1, False)
    found = {finding["check"]: finding for finding in said["findings"]}
    assert found["cacheadmin.E010"]["level"] == "error"
    assert found["cacheadmin.E010"]["where"]
    assert {"check", "title"} == set(said["passed"][0])
    assert "cacheadmin.W024" in [check["check"] for check in said["unfinished"]]
    assert said["silenced"] == []


def test_a_broken_urlconf_is_said_and_the_rest_examined(run, settings, capsys):
    settings.ROOT_URLCONF = "no.such.module"
    call_command("cache_doctor")
    printed = capsys.readouterr()
    assert "The URLconf cannot be loaded (ModuleNotFoundError" in printed.err
    assert " passed, " in printed.out
