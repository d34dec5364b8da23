"""A site that moves from its hand-written `cache_utils` changes the import and nothing else."""

from __future__ import annotations

import inspect

import pytest
from django.core.cache import caches

import cacheadmin

pytestmark = pytest.mark.django_db

POSITIONAL = {
    "cache_query_result": "timeout key_prefix alias",
    "cache_tenant_query": "timeout key_prefix alias",
    "cache_api_response": "timeout key_prefix alias",
    "get_cache_key": "prefix",
    "get_tenant_cache_key": "tenant_id prefix",
    "get_or_set_cache": "key callable timeout alias",
    "cache_dashboard_data": "tenant_id data timeout",
    "get_cached_dashboard_data": "tenant_id",
    "cache_report_result": "tenant_id report_type params data timeout",
    "get_cached_report_result": "tenant_id report_type params",
    "cache_gold_rate": "rate_data timeout",
    "get_cached_gold_rate": "",
    "invalidate_cache": "pattern alias",
    "invalidate_tenant_cache": "tenant_id prefix alias",
    "invalidate_model_cache": "model_or_name tenant_id",
}
"""The functions of the reference site, and their arguments in the order in which they may be given without names."""


@pytest.mark.parametrize(("name", "arguments"), POSITIONAL.items())
def test_arguments_keep_their_names_and_their_order(name: str, arguments: str) -> None:
    parameters = inspect.signature(getattr(cacheadmin, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted = arguments.split()
    assert positional[: len(wanted)] == wanted


def test_the_old_module_may_hand_everything_on() -> None:
    module: dict[str, object] = {}
    exec("from cacheadmin import *", module)
    assert POSITIONAL.keys() <= module.keys()


def test_cache_alias_names_the_alias_to_invalidate() -> None:
    def held() -> list[str]:
        return [name for name in caches if caches[name].get("tenant:7:stock:x") is not None]

    for drop in (
        lambda: cacheadmin.invalidate_cache("tenant:7:stock:*", cache_alias="query"),
        lambda: cacheadmin.invalidate_tenant_cache(7, "stock", cache_alias="query"),
        lambda: cacheadmin.invalidate_tenant_cache(7, cache_alias="query"),
    ):
        for name in caches:
            caches[name].set("tenant:7:stock:x", 1)
        assert drop().is_done
        assert held() == ["default", "template", "api"]
