"""Four aliases as the reference site has them, and the peers on databases of their own of the same server."""

import os

SECRET_KEY = "bench"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.admin",
    "django.contrib.messages",
    "django.contrib.sessions",
    "import_export",
    "cacheadmin",
    "shop",
]
AUTH_USER_MODEL = "shop.User"
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("BENCH_DB", ":memory:")}}
REDIS = os.environ["BENCH_REDIS"]


def alias(backend: str, db: int, prefix: str) -> dict:
    """Return the settings of one alias."""
    return {"BACKEND": backend, "LOCATION": f"{REDIS}/{db}", "KEY_PREFIX": prefix, "TIMEOUT": 3600}


OURS = "cacheadmin.backends.RedisCache"
CACHES = {
    "default": alias(OURS, 0, "jewelry_shop"),
    "query": alias(OURS, 1, "jewelry_shop_query"),
    "template": alias(OURS, 2, "jewelry_shop_template"),
    "api": alias(OURS, 3, "jewelry_shop_api"),
    "django_redis": alias("django_redis.cache.RedisCache", 5, "peer"),
    "prometheus": alias("django_prometheus.cache.backends.redis.RedisCache", 6, "peer"),
    "memoize": alias("django_redis.cache.RedisCache", 7, "peer"),
}
CACHEADMIN = {"ALIASES": ["query", "default", "template", "api"], "TENANCY": "shop.cache.Tenancy", "TIMEOUT_MS": 2000}
