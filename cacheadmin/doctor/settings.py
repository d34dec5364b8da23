"""Checks of the settings and of the installation. They need neither Redis nor the database."""

from __future__ import annotations

from collections.abc import Iterator

from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.template.loader import get_template
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.conf import cache_settings, config, problems
from cacheadmin.exceptions import ImproperSettings
from cacheadmin.tenancy import tenancy

from .registry import Finding, check


@check("E001", gettext_lazy("Each key of CACHEADMIN is known and has a value of its type."), at_start=True)
def settings_are_sound() -> Iterator[Finding]:
    """Report unknown keys with the nearest name, wrong types, and aliases that CACHES does not have."""
    for problem in problems():
        yield Finding(
            problem,
            where="CACHEADMIN",
            why=_("No setting of cacheadmin is in force until it is right."),
            fix=_("Change it in the settings; docs/settings.md lists all keys."),
        )


@check("E002", gettext_lazy("The templates of the console are found."), at_start=True)
def templates_are_found() -> Iterator[Finding]:
    """Load the console's frame. A checkout without symbolic links builds a wheel without any template."""
    try:
        get_template("cacheadmin/base.html")
    except (TemplateDoesNotExist, TemplateSyntaxError) as error:
        yield Finding(
            _("The console's templates cannot be loaded: %(error)s") % {"error": f"{type(error).__name__}: {error}"},
            where="cacheadmin/base.html",
            why=_("Every page of the console would fail."),
            fix=_(
                "Keep APP_DIRS on and django.contrib.admin installed. In a checkout cacheadmin/templates must be a "
                "link to ../templates: git config core.symlinks true, then git checkout cacheadmin/templates."
            ),
        )


@check("W003", gettext_lazy("No alias sets MAX_CONNECTIONS, which django-redis ignores."), at_start=True)
def pool_size_is_heard() -> Iterator[Finding]:
    """Report OPTIONS["MAX_CONNECTIONS"]: django-redis takes the size of its pool from CONNECTION_POOL_KWARGS."""
    for alias in config().aliases:
        wish = cache_settings(alias).get("OPTIONS", {}).get("MAX_CONNECTIONS")
        if wish is not None:
            yield Finding(
                _("MAX_CONNECTIONS is ignored by django-redis."),
                where=f"CACHES[{alias!r}]['OPTIONS']",
                why=_("The pool of connections has no limit, whatever the setting says."),
                fix=f'"OPTIONS": {{"CONNECTION_POOL_KWARGS": {{"max_connections": {wish}}}}}',
            )


@check("W004", gettext_lazy("No two aliases share both server and prefix."), at_start=True)
def aliases_are_apart() -> Iterator[Finding]:
    """Report aliases with the same LOCATION, KEY_PREFIX and VERSION: their plain keys are each other's."""
    first: dict[tuple[str, str, int], str] = {}
    for alias in config().aliases:
        kept = cache_settings(alias)
        database = kept.get("OPTIONS", {}).get("db", "")
        where = (f"{kept.get('LOCATION', '')} {database}", kept.get("KEY_PREFIX", ""), kept.get("VERSION", 1))
        other = first.setdefault(where, alias)
        if other != alias:
            yield Finding(
                _("The aliases %(one)s and %(other)s keep their keys in one place.") % {"one": other, "other": alias},
                where=f"CACHES[{alias!r}]",
                why=_("A plain key set in one is read from the other, and clearing one clears both."),
                fix=f'"KEY_PREFIX": "{kept.get("KEY_PREFIX") or "site"}_{alias}"',
            )


@check("W005", gettext_lazy("No KEY_PREFIX holds a colon."), at_start=True)
def prefixes_are_plain() -> Iterator[Finding]:
    """Report prefixes with a colon, which separates prefix, version and key."""
    for alias in config().aliases:
        prefix = str(cache_settings(alias).get("KEY_PREFIX", ""))
        if ":" in prefix:
            yield Finding(
                _("The prefix %(prefix)r holds a colon.") % {"prefix": prefix},
                where=f"CACHES[{alias!r}]['KEY_PREFIX']",
                why=_(
                    "A colon separates prefix, version and key, so clearing an alias with the prefix before the colon "
                    "can reach the keys of this one."
                ),
                fix=f'"KEY_PREFIX": "{prefix.replace(":", "_")}"',
            )


@check("W006", gettext_lazy("There is an alias to look after."), at_start=True)
def something_is_managed() -> Iterator[Finding]:
    """Report that no alias of CACHES has a Redis backend."""
    if not config().aliases:
        yield Finding(
            _("No cache alias is managed."),
            where="CACHES",
            why=_("Nothing can be cached, seen or invalidated."),
            fix='CACHES = {"default": {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": "redis://127.0.0.1:6379/0"}}',
        )


@check("E007", gettext_lazy("The classes and functions that CACHEADMIN names can be imported."), at_start=True)
def paths_lead_somewhere() -> Iterator[Finding]:
    """Import what TENANCY and MASK_VALUE name."""
    why = _("The console and every tenant's cache need it.")
    try:
        tenancy()
    except ImproperSettings as error:
        yield Finding(
            str(error), where="CACHEADMIN['TENANCY']", why=why, fix='"TENANCY": "cacheadmin.tenancy.NoTenants"'
        )
    mask = config().mask_value
    if mask is not None:
        try:
            import_string(mask)
        except ImportError as error:
            text = _("MASK_VALUE is %(path)r, which cannot be imported: %(error)s") % {"path": mask, "error": error}
            yield Finding(text, where="CACHEADMIN['MASK_VALUE']", why=_("A page that shows a value would fail."))
