"""Wiring: what happens when Django starts."""

from importlib import import_module
from importlib.util import find_spec

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CacheAdminConfig(AppConfig):
    """The app `cacheadmin`. Starting costs no query and no round trip."""

    name = "cacheadmin"
    verbose_name = _("Cache")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Begin to notice writes and the ends of transactions, and to export counters; register the system checks."""
        for room in ("writes", "warming", "prometheus", "checks"):
            if find_spec(f"cacheadmin.{room}"):
                module = import_module(f"cacheadmin.{room}")
                if room != "checks":
                    module.install()
