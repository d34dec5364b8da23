"""Invalidate what depends on a model, by its rules, without any write of it."""

from __future__ import annotations

from typing import Any

from . import invalidation
from .invalidation import Invalidation
from .keys import tenant_text
from .rules import model_targets
from .targets import ALL


def invalidate_model_cache(model_or_name: Any, tenant_id: Any = None) -> Invalidation:
    """
    Invalidate everything that a model's rules name, and the groups that begin with its name in lower case.

    `model_or_name` is a model class, an instance's class, "shop.InventoryItem" or, where only one app has it,
    "InventoryItem". `tenant_id=None` means every tenant and shared data.
    Raises:  InvalidRule for an unknown or ambiguous name; InvalidTenant.
    """
    tenant = ALL if tenant_id is None else tenant_text(tenant_id)
    return invalidation.request(model_targets(model_or_name, tenant))
