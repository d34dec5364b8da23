"""Django's system checks: what is wrong with the settings is said before the site starts."""

from pathlib import Path

import pytest
from django.conf import settings
from django.core import checks
from django.test import override_settings

from cacheadmin import doctor
from cacheadmin.checks import check_setup

DOCS = Path(__file__).parent.parent / "docs" / "checks.md"


def found(**changed):
    """The ids of what the checks find under changed settings."""
    with override_settings(**changed):
        return [message.id for message in check_setup()]


def caches(**changed):
    """CACHES with some keys of the alias `query` changed."""
    return settings.CACHES | {"query": settings.CACHES["query"] | changed}


def test_the_shop_has_nothing_to_find() -> None:
    assert check_setup() == []


@pytest.mark.django_db  # some of Django's own checks ask the database, from 6.1 on
def test_django_runs_the_checks_by_itself() -> None:
    with override_settings(CACHEADMIN={"TIMEOUT": 3}):
        assert "cacheadmin.E001" in [message.id for message in checks.run_checks()]


def test_an_unknown_key_is_an_error_that_names_the_nearest() -> None:
    with override_settings(CACHEADMIN={"TENNANCY": "shop.cache.Tenancy"}):
        [message] = check_setup()
    assert (type(message), message.id) == (checks.Error, "cacheadmin.E001")
    assert "'TENNANCY'" in message.msg
    assert "Did you mean 'TENANCY'?" in message.msg


def test_each_wrong_key_is_an_error_of_its_own() -> None:
    assert found(CACHEADMIN={"TIMEOUT_MS": "soon", "NONSENSE": 1}) == ["cacheadmin.E001", "cacheadmin.E001"]


def test_a_lost_link_to_the_templates_is_an_error() -> None:
    bare = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": False}]
    with override_settings(TEMPLATES=bare):
        [message] = check_setup()
    assert (type(message), message.id) == (checks.Error, "cacheadmin.E002")
    assert "cacheadmin/base.html" in message.msg


def test_a_pool_size_that_nobody_reads_is_a_warning_with_the_right_setting() -> None:
    with override_settings(CACHES=caches(OPTIONS={"MAX_CONNECTIONS": 50})):
        [message] = check_setup()
    assert (type(message), message.id) == (checks.Warning, "cacheadmin.W003")
    assert "CACHES['query']['OPTIONS']" in message.msg
    assert message.hint == '"OPTIONS": {"CONNECTION_POOL_KWARGS": {"max_connections": 50}}'


def test_two_aliases_in_one_place_are_a_warning() -> None:
    twin = settings.CACHES | {"query": settings.CACHES["default"]}
    assert found(CACHES=twin) == ["cacheadmin.W004"]


def test_another_database_prefix_or_version_keeps_two_aliases_apart() -> None:
    first = settings.CACHES["default"]
    for apart in ({"KEY_PREFIX": "other"}, {"VERSION": 2}, {"OPTIONS": {"db": 7}}):
        assert found(CACHES=settings.CACHES | {"query": first | apart}) == []


def test_a_prefix_with_a_colon_is_a_warning() -> None:
    with override_settings(CACHES=caches(KEY_PREFIX="shop:query")):
        [message] = check_setup()
    assert message.id == "cacheadmin.W005"
    assert message.hint == '"KEY_PREFIX": "shop_query"'


def test_a_site_without_redis_is_told_that_nothing_is_managed() -> None:
    local = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert found(CACHES=local) == ["cacheadmin.W006"]


def test_a_path_that_leads_nowhere_is_an_error() -> None:
    wrong = {"TENANCY": "shop.cache.Tennancy", "MASK_VALUE": "shop.masks.secret"}
    assert found(CACHEADMIN=wrong) == ["cacheadmin.E007", "cacheadmin.E007"]


def test_starting_costs_no_round_trip(round_trips) -> None:
    with round_trips() as sent:
        check_setup()
    assert sent == []


def test_each_check_is_in_the_docs_and_the_docs_have_no_other() -> None:
    rows = [line.split("`")[1] for line in DOCS.read_text().splitlines() if line.startswith("| `cacheadmin.")]
    assert rows == [check.id for check in doctor.checks()]
