"""The doctor: a registry of checks that cannot raise, and what they find in a running site."""

import pytest
import time_machine
from django.test import override_settings
from django.utils import translation

from cacheadmin import cache_query_result, doctor
from cacheadmin.connections import forget_links
from cacheadmin.doctor import live, registry
from cacheadmin.doctor.registry import Check, Finding, check, examine, latest
from cacheadmin.functions import registry as functions
from cacheadmin.models import InvalidationRule
from cacheadmin.rules import forget

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_memory():
    registry._latest.clear()
    forget()
    yield
    registry._latest.clear()
    forget()


def failing():
    raise RuntimeError("no such thing")
    yield


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


def test_errors_come_before_warnings() -> None:
    made = [Check(f"cacheadmin.{i}", i, lambda i=i: [Finding(i)], True) for i in ("W901", "E902", "W903")]
    assert [finding.check[-4:] for finding in examine(made).findings] == ["E902", "W901", "W903"]


def test_an_id_is_never_given_twice() -> None:
    with pytest.raises(ValueError, match=r"cacheadmin\.E001 is taken by settings_are_sound"):
        check("E001", "Another.")(failing)


def test_wrong_settings_are_said_once_not_by_each_check() -> None:
    with override_settings(CACHEADMIN={"NONSENSE": 1}):
        assert [finding.check for finding in examine().findings] == ["cacheadmin.E001"]


def test_a_server_that_is_away_is_one_finding_for_all_its_aliases(fresh_server, settings) -> None:
    server = fresh_server()
    settings.CACHES = {
        alias: made | {"LOCATION": server.url if alias in ("api", "template") else made["LOCATION"]}
        for alias, made in settings.CACHES.items()
    }
    server.stop()
    [finding] = live.servers_answer()
    assert finding.where == "template, api"
    assert finding.since is not None
    assert server.url not in finding.title
    forget_links()


def test_a_rule_that_names_no_field_is_a_finding() -> None:
    everything = [{"kind": "tenant"}]
    InvalidationRule.objects.create(name="stock", model="shop.InventoryItem", fields=["qty"], targets=everything)
    forget()
    [finding] = [found for found in examine().findings if found.check == "cacheadmin.E011"]
    assert "qty" in finding.title
    assert finding.where == "rule stock, fields (database)"


def test_a_function_of_no_stated_tenant_is_a_finding() -> None:
    @cache_query_result(key_prefix="doctor_lost")
    def lost():
        return 1

    @cache_query_result(key_prefix="doctor_shared", shared=True)
    def shared():
        return 1

    try:
        assert [finding.where for finding in live.functions_know_their_tenant()] == [lost.name]
        with override_settings(CACHEADMIN={}):
            assert list(live.functions_know_their_tenant()) == []
    finally:
        del functions[lost.name], functions[shared.name]


def test_a_report_is_kept_for_a_while_and_in_each_language() -> None:
    first = latest(300)
    assert latest(300) is first
    with translation.override("de"):
        assert latest(300) is not first
    assert latest(0) is not first


def test_findings_are_looked_at_again_soon(monkeypatch) -> None:
    broken = Check("cacheadmin.W900", "Never.", lambda: [Finding("Broken.")], False)
    monkeypatch.setattr(registry, "checks", lambda: (broken,))
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
