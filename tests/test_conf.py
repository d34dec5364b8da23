"""The settings: defaults, what is refused and how, and what is derived from CACHES."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from django.core.cache import caches
from django.test import override_settings

from cacheadmin import conf
from cacheadmin.conf import Config, config
from cacheadmin.exceptions import ImproperSettings, UnknownAlias

REDIS = {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def test_without_any_setting_there_are_defaults() -> None:
    with override_settings(CACHEADMIN={}):
        assert config() == Config(aliases=("query", "default", "template", "api"), stats_alias="default")
        assert config().max_value_bytes == 8 * 1024 * 1024
        assert conf.problems() == []
    of_a_site = {f.name: f.default for f in fields(Config)}  # these tests wait longer
    assert (of_a_site["timeout_ms"], of_a_site["slow_ms"], of_a_site["patience_seconds"]) == (100, 50, 2.0)


def test_each_setting_has_a_default_and_a_sentence() -> None:
    assert Config()
    assert conf.setting_names() == tuple(f.name.upper() for f in fields(Config))
    source = Path(conf.__file__).read_text()
    for field in fields(Config):
        after = source.split(f"    {field.name}: ", 1)[1].split("\n", 2)[1]
        assert after.startswith('    """'), field.name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"TIMEOUT_M": 5}, "Did you mean 'TIMEOUT_MS'?"),
        ({"timeout_ms": 5}, "Did you mean 'TIMEOUT_MS'?"),
        ({"zzz": 1}, "Known keys: ALIASES"),
        ({5: 1}, "is not a setting"),
        ({"TIMEOUT_MS": "5"}, "must be int"),
        ({"TIMEOUT_MS": True}, "must be int"),
        ({"TIMEOUT_MS": 1.5}, "must be int"),
        ({"TIMEOUT_MS": 0}, "above zero"),
        ({"TIMEOUT_MS": -1}, "above zero"),
        ({"TIMEOUT_MS": None}, "must be int"),
        ({"RETRY_SECONDS": 0}, "above zero"),
        ({"METRICS_TENANTS": -1}, "above zero"),
        ({"METRICS_TENANTS": 51}, "at most 50"),
        ({"PROMETHEUS_LABELS": {"job": 5}}, "dict of texts"),
        ({"PROMETHEUS_LABELS": [("job", "shop")]}, "dict of texts"),
        ({"RETRY_SECONDS": "1"}, "must be float"),
        ({"READ_ONLY": 1}, "must be bool"),
        ({"OUTBOX": "sometimes"}, "allowed are 'durable', 'on_failure', 'off'"),
        ({"ALIASES": "default"}, "list of texts"),
        ({"ALIASES": [1]}, "list of texts"),
        ({"ALIASES": ["nope"]}, "names 'nope', which CACHES does not have"),
        ({"STATS_ALIAS": "nope"}, "names 'nope', which CACHES does not have"),
        ({"REPLICAS": ["nope"]}, "names 'nope', which DATABASES does not have"),
        ({"RETRY_SECONDS": float("inf")}, "finite number, not inf"),
        ({"PATIENCE_SECONDS": float("nan")}, "finite number, not nan"),
        ({"RELEASE": 5}, "must be str or None"),
        ([], "must be a dict"),
        (None, "must be a dict"),
    ],
    ids=str,
)
def test_wrong_setting_is_named_with_what_would_be_right(given: object, said: str) -> None:
    with override_settings(CACHEADMIN=given):
        assert len(conf.problems()) == 1
        with pytest.raises(ImproperSettings) as raised:
            config()
        assert said in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {"RETRY_SECONDS": 1},
        {"RETRY_SECONDS": 0.5},
        {"RELEASE": None},
        {"RELEASE": "1.2"},
        {"ALIASES": ["api"]},
        {"ALIASES": ("api",)},
        {"ALIASES": []},
        {"OUTBOX": "off"},
        {"REPLICAS": ["default"]},
        {"STATS_ALIAS": "api"},
    ],
    ids=str,
)
def test_right_setting_is_taken(given: dict) -> None:
    with override_settings(CACHEADMIN=given):
        assert conf.problems() == []
        [(name, value)] = given.items()
        assert (
            getattr(config(), name.lower()) in (value, tuple(value or ()) if name == "ALIASES" else value) or not value
        )


def test_all_that_is_wrong_is_said_at_once() -> None:
    with override_settings(CACHEADMIN={"TIMEOUT_MS": 0, "NOPE": 1, "ALIASES": ["x", "y"]}):
        assert len(conf.problems()) == 4


def test_redis_aliases_are_managed_in_the_order_of_the_reference_site() -> None:
    found = {"sessions": REDIS, "api": REDIS, "local": LOCMEM, "default": REDIS, "query": REDIS, "template": REDIS}
    with override_settings(CACHES=found, CACHEADMIN={}):
        assert config().aliases == ("query", "default", "template", "api", "sessions")
        assert [conf.rank(alias) for alias in config().aliases] == [0, 1, 2, 3, 4]
        assert conf.managed(None) == config().aliases
        assert conf.managed("api") == ("api",)
        for alias in ("local", "nope"):
            with pytest.raises(UnknownAlias, match="is not managed; managed are query, default"):
                conf.managed(alias)
    with override_settings(CACHES=found, CACHEADMIN={"ALIASES": ["local", "default"]}):
        assert config().aliases == ("local", "default")
    with override_settings(CACHES={"default": LOCMEM}, CACHEADMIN={}):
        assert config().aliases == ()
        assert config().stats_alias == ""
        with pytest.raises(UnknownAlias, match="managed are none"):
            conf.rank("default")


def test_stats_live_in_default_or_else_in_the_first_alias() -> None:
    with override_settings(CACHES={"default": LOCMEM, "api": REDIS, "query": REDIS}, CACHEADMIN={}):
        assert config().stats_alias == "query"
    with override_settings(CACHEADMIN={"STATS_ALIAS": "api"}):
        assert config().stats_alias == "api"


def test_backend_finds_its_own_alias() -> None:
    for alias in ("default", "query", "template", "api"):
        assert caches[alias]._alias == alias
    twins = {"default": REDIS | {"KEY_PREFIX": "a"}, "b": REDIS | {"KEY_PREFIX": "b"}, "c": REDIS | {"TIMEOUT": 5}}
    with override_settings(CACHES=twins):
        assert [caches[alias]._alias for alias in twins] == list(twins)
    assert conf.alias_of("redis://nowhere", {}) is None


@pytest.mark.parametrize(
    "given", [{}, {"TIMEOUT": None}, {"TIMEOUT": 60}, {"TIMEOUT": "60"}, {"timeout": 5}, {"TIMEOUT": "soon"}], ids=str
)
def test_an_alias_timeout_is_read_as_django_reads_it(given: dict) -> None:
    local = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"} | given}
    with override_settings(CACHES=local, CACHEADMIN={}):
        assert conf.default_timeout("default") == caches["default"].default_timeout


def test_replicas_are_those_listed_and_mirrors() -> None:
    with override_settings(CACHEADMIN={"REPLICAS": ["default"]}):
        assert conf.replicas() == {"default"}


def test_listeners_hear_of_changed_settings() -> None:
    heard: list[int] = []
    callback = conf.on_change(lambda: heard.append(1))
    try:
        with override_settings(CACHEADMIN={}):
            assert len(heard) == 1
        with override_settings(LANGUAGE_CODE="de"):
            assert len(heard) == 2
    finally:
        conf._callbacks.remove(callback)
