"""The site's hook that hides fields of shown values, `CACHEADMIN["MASK_VALUE"]`."""

from __future__ import annotations

from functools import cache
from typing import cast

from django.utils.module_loading import import_string

from cacheadmin.conf import config, on_change
from cacheadmin.preview import Mask


@cache
def mask() -> Mask | None:
    """Return the hook, None if there is none. Raises: ImportError for a path that leads nowhere."""
    path = config().mask_value
    return cast(Mask, import_string(path)) if path else None


on_change(mask.cache_clear)
