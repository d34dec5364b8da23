"""dj-cache-panel: the admin panel for django-redis; it reads nothing faster, it browses."""

from __future__ import annotations

from bench.adapters import stock
from bench.adapters.base import Way


class Adapter(stock.Adapter):
    """One page of its key list."""

    packages = ("dj-cache-panel",)

    def way_browse(self) -> Way:
        """The first page of 50 of one tenant's keys, names only, as its view asks for it."""
        from dj_cache_panel.cache_panel import DjangoRedisCachePanel

        panel = DjangoRedisCachePanel("default")
        return lambda: panel.query("tenant:1:*", page=1, per_page=50)
