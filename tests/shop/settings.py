"""
Settings of the jewelry shop, for the tests and for the demo.

Everything that differs between the two comes from the environment:

    REDIS_URL           the server; the four aliases use its databases 0 to 3
    SHOP_BACKEND        "stock" for the settings of a site that has not moved to our backend yet
    SHOP_DB             path of the SQLite file, or postgresql://user:password@host:port/name, with ?host=/directory
                        for a unix socket; SQLite in memory when absent
    SHOP_DEMO           "1" serves static files from the apps, as the demo needs
    SHOP_CACHE          "off" for four aliases that keep nothing: what the shop costs without a cache
    SHOP_SLOW_MS        extra milliseconds that each cached computation takes, so that a visitor can see a hit
    SHOP_FLUSH_SECONDS  how often the demo's processes flush their counters
    SHOP_PROMETHEUS_URL a Prometheus server that the console's charts read
    SHOP_SECRET_KEY     the demo makes a new one at each start
"""

import os
from importlib.util import find_spec
from urllib.parse import urlsplit, urlunsplit

import postgres

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
STOCK = os.environ.get("SHOP_BACKEND") == "stock"
HAS_CACHE = os.environ.get("SHOP_CACHE") != "off"
DEMO = os.environ.get("SHOP_DEMO") == "1"
HAS_REST_FRAMEWORK = find_spec("rest_framework") is not None

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "the shop is a toy, nothing in it is secret")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "import_export",
    "django_prometheus",
    *(["rest_framework"] if HAS_REST_FRAMEWORK else []),
    "cacheadmin",
    "shop",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    *(["whitenoise.middleware.WhiteNoiseMiddleware"] if DEMO else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "cacheadmin.middleware.TenantMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "shop.middleware.ContentSecurityPolicyMiddleware",
    "shop.middleware.OutcomesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

SHOP_DB = os.environ.get("SHOP_DB", ":memory:")


def database(address):
    """Return the settings of one database: a path or `:memory:` for SQLite, a URL for PostgreSQL."""
    if address.startswith("postgresql://"):
        return postgres.settings(address)
    found = {"ENGINE": "django.db.backends.sqlite3", "NAME": address}
    if address != ":memory:":
        # Two web workers and the traffic write to one file: readers must not wait for the writer, and a
        # transaction must take its write lock when it begins, since SQLite cannot wait for it later.
        found["OPTIONS"] = {
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
        }
    return found


DATABASES = {"default": database(SHOP_DB)}


def redis_url(database):
    """Return REDIS_URL with another database number; `redis://`, `rediss://` and `unix://` are understood."""
    url = urlsplit(REDIS_URL)
    if url.scheme == "unix":
        return urlunsplit(url._replace(query=f"db={database}"))
    return urlunsplit(url._replace(path=f"/{database}"))


def cache_alias(database, key_prefix, timeout):
    """Return one entry of CACHES: the recommended form, or the one a site has before it moves to our backend."""
    if not HAS_CACHE:
        return {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    if STOCK:
        backend = "django_prometheus.cache.backends.redis.RedisCache"
        options = {"CLIENT_CLASS": "django_redis.client.DefaultClient", "MAX_CONNECTIONS": 50}
    else:
        backend = "cacheadmin.backends.RedisCache"
        options = {"CONNECTION_POOL_KWARGS": {"max_connections": 50}}
    return {
        "BACKEND": backend,
        "LOCATION": redis_url(database),
        "OPTIONS": options,
        "KEY_PREFIX": key_prefix,
        "TIMEOUT": timeout,
    }


CACHES = {
    "default": cache_alias(0, "jewelry_shop", 300),
    "query": cache_alias(1, "jewelry_shop_query", 900),
    "template": cache_alias(2, "jewelry_shop_template", 600),
    "api": cache_alias(3, "jewelry_shop_api", 180),
}

CACHEADMIN = {
    **({} if HAS_CACHE else {"ALIASES": ["query", "default", "template", "api"]}),
    "TENANCY": "shop.cache.Tenancy",
    "TIMEOUT_MS": int(os.environ.get("SHOP_TIMEOUT_MS", "100")),
    "SLOW_MS": int(os.environ.get("SHOP_TIMEOUT_MS", "100")) // 2,
    # Tests count round trips and flush when they mean to; a thread that did so in between would be counted.
    "FLUSH_SECONDS": float(os.environ.get("SHOP_FLUSH_SECONDS", "3")) if DEMO else 3600.0,
    "METRICS_TENANTS": 5 if DEMO else 0,
    "PROMETHEUS_URL": os.environ.get("SHOP_PROMETHEUS_URL"),
}

AUTH_USER_MODEL = "shop.User"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "home"
# Fast, and good for nothing else: the accounts of the tests and of the demo are public.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True

PROMETHEUS_EXPORT_MIGRATIONS = False

SHOP_SLOW_MS = int(os.environ.get("SHOP_SLOW_MS", "0"))

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {
        "cacheadmin": {"handlers": ["console"], "level": "WARNING"},
        "django.request": {"handlers": ["console"], "level": "ERROR"},
        "shop": {"handlers": ["console"], "level": "INFO"},
    },
}
