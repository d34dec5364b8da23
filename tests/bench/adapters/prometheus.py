"""django-prometheus' backend: django-redis that counts."""

from __future__ import annotations

from typing import Any

from bench.adapters import stock


class Adapter(stock.Adapter):
    """As django-redis."""

    packages = ("django-prometheus",)

    def settings(self) -> dict[str, Any]:
        """Return its backend."""
        return {"CACHES": {"default": self.alias("django_prometheus.cache.backends.redis.RedisCache")}}
