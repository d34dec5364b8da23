"""The smallest site that uses everything: two aliases more than one, few tables, SQLite in a file or PostgreSQL."""

from __future__ import annotations

import os
from pathlib import Path

import django
from django.conf import settings

import postgres

ALIASES = ("query", "default", "template")


def sqlite(directory: Path) -> dict[str, object]:
    """Return the settings of a database in a file of this directory."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.fspath(directory / "rows.sqlite3"),
        # A reader's snapshot must not hold a writer up, nor the other way round.
        "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF"},
    }


def set_up(url: str, directory: Path, database: str = "sqlite", **cacheadmin: object) -> None:
    """
    Configure Django for this process, and make the tables.

    `url` has no database number at its end; `database` is "sqlite", or the address of an empty one of PostgreSQL.
    """
    settings.configure(
        SECRET_KEY="nothing here is secret",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "cacheadmin", "faults"],
        DATABASES={"default": sqlite(directory) if database == "sqlite" else postgres.settings(database)},
        CACHES={
            alias: {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": f"{url}/{number}"}
            for number, alias in enumerate(ALIASES)
        },
        # A computation here takes no time: who finds a lease taken need not wait long for its holder.
        CACHEADMIN={
            "TENANCY": "cacheadmin.tenancy.Tenancy",
            "PATIENCE_SECONDS": 0.02,
            "TIMEOUT_MS": 10_000,
            "SLOW_MS": 10_000,  # on a busy machine every server is slow; nothing here is about that
            **cacheadmin,
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)
