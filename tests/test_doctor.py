"""The doctor: a registry of checks that cannot raise, what an examination costs, and the pages that tell of it."""

import re
import threading
from pathlib import Path

import pytest
import time_machine
from django.core.cache import caches
from django.test import override_settings
from django.utils import translation

from cacheadmin import connections, doctor
from cacheadmin.doctor import registry
from cacheadmin.doctor.registry import MOST, Check, Finding, check, examine, known, latest
from shop.inventory import inventory_list
from shop.models import Tenant

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parent.parent
SYMPTOMS = ["Not working", "Not invalidating", "High memory", "Slow", "Stale"]


@pytest.fixture(autouse=True)
def _no_memory():
    registry._latest.clear()
    yield
    registry._latest.clear()


def failing(facts):
    raise RuntimeError("no such thing")
    yield


def made(check_id, *titles, title="Things are there."):
    """A check that finds what it is told."""
    return Check(f"cacheadmin.{check_id}", title, lambda _facts: [Finding(text) for text in titles], False)


# --- the registry -----------------------------------------------------------------------------------------------------


def test_a_healthy_site_passes_every_check() -> None:
    report = examine()
    assert report.findings == ()
    assert [one.id for one in report.passed] == [one.id for one in doctor.checks()]


def test_a_check_that_fails_is_a_finding_and_the_others_run() -> None:
    report = examine([Check("cacheadmin.W900", "Things are there.", failing, False), *doctor.checks()])
    [finding] = report.findings
    assert finding.title == "Could not run: RuntimeError: no such thing"
    assert (finding.check, finding.where, finding.level) == ("cacheadmin.W900", "Things are there.", "warning")
    assert len(report.passed) == len(doctor.checks())


def test_errors_come_before_warnings_and_notes_last() -> None:
    checks = [made(name, name) for name in ("I900", "W901", "E902", "W903")]
    report = examine(checks)
    assert [finding.check[-4:] for finding in report.findings] == ["E902", "W901", "W903", "I900"]
    assert [finding.title for finding in report.problems] == ["E902", "W901", "W903"]


@pytest.mark.parametrize("taken", ["E001", "W001", "I001"])
def test_a_number_is_never_given_twice(taken) -> None:
    with pytest.raises(ValueError, match=r"cacheadmin\.E001 is taken by settings_are_sound"):
        check(taken, "Another.")(failing)


def test_of_many_findings_of_one_kind_some_are_told_apart() -> None:
    report = examine([made("W900", *map(str, range(MOST + 5)))])
    assert len(report.findings) == MOST + 1
    assert report.findings[-1].title == "5 more of this kind."


def test_wrong_settings_are_said_once_not_by_each_check() -> None:
    with override_settings(CACHEADMIN={"NONSENSE": 1}):
        assert [finding.check for finding in examine().findings] == ["cacheadmin.E001"]


def test_no_check_begins_when_the_time_is_over_and_the_one_under_way_ends() -> None:
    facts = doctor.Facts(seconds=60)

    def slow(_facts):
        yield Finding("first")
        facts.deadline = 0.0
        yield Finding("second")

    report = examine([Check("cacheadmin.W900", "", slow, False), made("W901", "late")], facts)
    assert [finding.title for finding in report.findings] == ["first", "second"]
    assert [one.id for one in report.unfinished] == ["cacheadmin.W900", "cacheadmin.W901"]
    assert report.passed == ()


def test_passwords_of_servers_are_in_no_finding(settings) -> None:
    settings.CACHES = {
        "default": settings.CACHES["default"] | {"LOCATION": "redis://admin:hunter2@127.0.0.1:1/0"},
        "query": settings.CACHES["query"] | {"OPTIONS": {"PASSWORD": "tr0ub4dor"}},
        "api": settings.CACHES["api"] | {"LOCATION": "redis://127.0.0.1:1/0?password=correcthorse"},
    }
    leaky = Finding("admin:hunter2@", "hunter2", "tr0ub4dor", "redis://h/0?password=correcthorse")
    report = examine([Check("cacheadmin.W900", "", lambda _facts: [leaky], False), *doctor.checks()])
    said = repr(report.findings)
    for secret in ("hunter2", "tr0ub4dor", "correcthorse"):
        assert secret not in said
    assert report.findings[0].check == "cacheadmin.E010"


# --- what it costs ----------------------------------------------------------------------------------------------------

READS = {"TIME", "DBSIZE", "SCAN", "INFO", "CLIENT", "MEMORY", "PTTL", "GETRANGE", "GET", "HGETALL", "ZRANGEBYSCORE"}


@pytest.fixture
def filled():
    """A shop that has cached something in every alias."""
    tenant = Tenant.objects.create(name="Ruby", slug="ruby")
    inventory_list(tenant.pk)
    for alias in caches.settings:
        for n in range(200):
            caches[alias].set(f"tenant:{tenant.pk}:stock:{n}", "x" * 100)


def test_it_asks_each_database_twice_and_the_counters_once(filled, round_trips, django_assert_max_num_queries) -> None:
    examine()  # the tables of the database are known
    with round_trips() as sent, django_assert_max_num_queries(3):
        assert examine().findings == ()
    assert len(sent) == 4 * 2 + 1
    assert {name for commands in sent for name in commands.split()} <= READS


def test_it_changes_nothing(filled, redis, commandstats) -> None:
    before = redis.info("keyspace")
    with commandstats() as calls:
        examine(facts=doctor.Facts(steps=5))
    assert {name.partition("|")[0].upper() for name in calls} <= READS
    assert {db: kept["keys"] for db, kept in redis.info("keyspace").items()} == {
        db: kept["keys"] for db, kept in before.items()
    }
    assert len(before) == 4


def test_more_steps_sample_more_keys(filled, redis) -> None:
    redis.mset({f"jewelry_shop:1:more{n}": "x" for n in range(3000)})
    few, many = (len(doctor.Facts(steps=steps, seconds=60).sample) for steps in (1, 10))
    assert few <= 4 * 150
    assert many > few


def test_a_hung_server_is_asked_once_whatever_the_checks(fresh_server, settings, monkeypatch) -> None:
    server = fresh_server()
    settings.CACHES = {
        alias: kept | {"LOCATION": server.url_for(n)} for n, (alias, kept) in enumerate(settings.CACHES.items())
    }
    settings.CACHEADMIN = settings.CACHEADMIN | {"TIMEOUT_MS": 100}
    asked = []
    call = connections.Link._call
    monkeypatch.setattr(connections.Link, "_call", lambda self, *a: asked.append(self.alias) or call(self, *a))
    server.pause()
    try:
        report = examine()
        assert [finding.check for finding in report.findings] == ["cacheadmin.E010"]
        unknown = {one.id[-4:] for one in report.unfinished}
        assert {"W019", "W024", "W028", "I031"} <= unknown  # nobody can say that they pass
        assert not {"E001", "E011", "W012", "W040"} & unknown
    finally:
        server.resume()
    assert len(asked) == 1


# --- the last report --------------------------------------------------------------------------------------------------


def test_a_report_is_kept_for_a_while_and_in_each_language() -> None:
    first = latest(300)
    assert latest(300) is first
    with translation.override("de"):
        assert latest(300) is not first
    assert latest(0) is not first


def test_findings_are_looked_at_again_soon(monkeypatch) -> None:
    monkeypatch.setattr(registry, "checks", lambda: (made("W900", "Broken."),))
    with time_machine.travel(1_000_000, tick=False) as clock:
        first = latest(300)
        assert len(first.findings) == 1
        clock.shift(29)
        assert latest(300) is first
        clock.shift(2)
        monkeypatch.setattr(registry, "checks", tuple)
        assert latest(300).findings == ()
        clock.shift(200)
        assert latest(300).at < 1_000_100


def test_changed_settings_forget_the_report() -> None:
    first = latest(300)
    with override_settings(CACHEADMIN={"NONSENSE": 1}):
        assert [finding.check for finding in latest(300).findings] == ["cacheadmin.E001"]
    assert latest(300) is not first


@pytest.mark.django_db(transaction=True)
def test_a_page_about_something_else_does_not_wait_for_the_checks(monkeypatch) -> None:
    monkeypatch.setattr(registry, "in_tests", lambda: False)
    monkeypatch.setattr(registry, "_is_in_memory", lambda _connection: False)
    began, may_end = threading.Event(), threading.Event()

    def slow(_facts):
        began.set()
        assert may_end.wait(60)
        yield Finding("Gefunden")

    monkeypatch.setattr(registry, "checks", lambda: (Check("cacheadmin.W900", "", slow, False),))
    with translation.override("de"):
        assert known(300) is None
        assert began.wait(60)
        assert known(300) is None  # one thread looks; this one makes no second
        may_end.set()
        assert [finding.title for finding in latest(300).findings] == ["Gefunden"]
        assert known(300) is latest(300)


# --- the documentation ------------------------------------------------------------------------------------------------


def ids_in(text):
    return re.findall(r"\b[EWI]\d{3}\b", text)


def sections():
    """Heading -> text of docs/troubleshooting.md."""
    parts = re.split(r"^## (.+)$", (ROOT / "docs" / "troubleshooting.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries():
    """The rows of the symptoms' tables: what one sees, why and what to do, which check finds it."""
    for symptom in SYMPTOMS:
        for line in sections()[symptom].splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| ") and cells[0] != "what you see" and not set(cells[0]) <= set("-: "):
                yield symptom, cells


def test_the_page_of_checks_has_a_row_for_each_and_no_other() -> None:
    lines = (ROOT / "docs" / "checks.md").read_text().splitlines()
    rows = {line.split("`")[1]: line.split("|") for line in lines if line.startswith("| `cacheadmin.")}
    assert list(rows) == [check.id for check in doctor.checks()]
    assert {check_id for check_id, cells in rows.items() if "start" in cells[2]} == {
        check.id for check in doctor.checks() if check.at_start
    }


def test_troubleshooting_goes_by_symptom_and_each_entry_names_the_check_that_finds_it() -> None:
    assert [heading for heading in sections() if heading in SYMPTOMS] == SYMPTOMS
    names = {check.id[-4:] for check in doctor.checks()}
    rows = list(entries())
    assert {symptom for symptom, _ in rows} == set(SYMPTOMS)
    for symptom, cells in rows:
        assert len(cells) == 3, (symptom, cells)
        assert set(ids_in(cells[2])) <= names, (symptom, cells)
        assert ids_in(cells[2]), (symptom, cells)


def test_each_check_is_found_from_a_symptom() -> None:
    named = {name for _, cells in entries() for name in ids_in(cells[2])}
    assert named == {check.id[-4:] for check in doctor.checks()}


def test_each_check_has_a_test_that_builds_the_fault() -> None:
    texts = [(ROOT / "tests" / name).read_text() for name in ("test_checks.py", "test_doctor_faults.py")]
    built = {name for text in texts for name in re.findall(r'"([EWI]\d{3})"', text)}
    assert built >= {check.id[-4:] for check in doctor.checks()}
