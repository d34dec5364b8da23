"""The smallest site that uses everything: two aliases more than one, one table, SQLite in a file."""

from __future__ import annotations

import os
from pathlib import Path

import django
from django.conf import settings

ALIASES = ("query", "default", "template")


def set_up(url: str, directory: Path, **cacheadmin: object) -> None:
    """Configure Django for this process, and make the tables. `url` has no database number at its end."""
    settings.configure(
        SECRET_KEY="nothing here is secret",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "cacheadmin", "faults"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": os.fspath(directory / "rows.sqlite3"),
                # A reader's snapshot must not hold a writer up, nor the other way round.
                "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF"},
            }
        },
        CACHES={
            alias: {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": f"{url}/{number}"}
            for number, alias in enumerate(ALIASES)
        },
        # A computation here takes no time: who finds a lease taken need not wait long for its holder.
        CACHEADMIN={
            "TENANCY": "cacheadmin.tenancy.Tenancy",
            "PATIENCE_SECONDS": 0.02,
            "TIMEOUT_MS": 2000,
            **cacheadmin,
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
