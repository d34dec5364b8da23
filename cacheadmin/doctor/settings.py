"""Checks of `CACHEADMIN` and of the installation. All of them run at start: they ask neither Redis nor the database."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.core.exceptions import FieldError
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.template.loader import get_template
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.conf import config, problems
from cacheadmin.exceptions import ImproperSettings
from cacheadmin.tenancy import ForeignKeyTenancy, tenancy

from .facts import Facts
from .registry import Finding, check


@check("E001", gettext_lazy("Each key of CACHEADMIN is known and has a value of its type."), at_start=True)
def settings_are_sound(_facts: Facts) -> Iterator[Finding]:
    """Report unknown keys with the nearest name, wrong types, and aliases that CACHES does not have."""
    for problem in problems():
        yield Finding(
            problem,
            where="CACHEADMIN",
            why=_("No setting of cacheadmin is in force until it is right."),
            fix=_("Change it in the settings; docs/settings.md lists all keys."),
        )


@check("E002", gettext_lazy("The templates of the console are found."), at_start=True)
def templates_are_found(_facts: Facts) -> Iterator[Finding]:
    """Load the console's frame. A checkout without symbolic links builds a wheel without any template."""
    if not apps.is_installed("django.contrib.admin"):
        return  # no admin, no console
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


@check("W006", gettext_lazy("There is an alias to look after."), at_start=True)
def something_is_managed(_facts: Facts) -> Iterator[Finding]:
    """Report that no alias of CACHES has a Redis backend."""
    if not config().aliases:
        yield Finding(
            _("No cache alias is managed."),
            where="CACHES",
            why=_("Nothing can be cached, seen or invalidated."),
            fix='CACHES = {"default": {"BACKEND": "cacheadmin.backends.RedisCache", "LOCATION": "redis://127.0.0.1:6379/0"}}',
        )


@check("E007", gettext_lazy("The classes and functions that CACHEADMIN names can be imported."), at_start=True)
def paths_lead_somewhere(_facts: Facts) -> Iterator[Finding]:
    """Import what TENANCY and MASK_VALUE name, and look for the model of tenants."""
    why = _("The console and every tenant's cache need it.")
    fix = _("Correct the dotted path, or what fails while its module is imported.")
    try:
        site = tenancy()
    except ImproperSettings as error:
        yield Finding(str(error), where="CACHEADMIN['TENANCY']", why=why, fix=fix)
    else:
        yield from _flaws(site) if isinstance(site, ForeignKeyTenancy) else ()
    mask = config().mask_value
    if mask is not None:
        try:
            import_string(mask)
        except ImportError as error:
            text = _("MASK_VALUE is %(path)r, which cannot be imported: %(error)s") % {"path": mask, "error": error}
            why = _("A page that shows a value would fail.")
            yield Finding(text, where="CACHEADMIN['MASK_VALUE']", why=why, fix=fix)


def _flaws(site: ForeignKeyTenancy) -> Iterator[Finding]:
    """Report a model or a label that there is not."""
    path = config().tenancy
    try:
        model = apps.get_model(site.model)
    except (LookupError, ValueError):
        yield Finding(
            _("%(tenancy)s.model is %(model)r, and there is no such model.") % {"tenancy": path, "model": site.model},
            where="CACHEADMIN['TENANCY']",
            why=_("Every write that a rule watches would fail, and so would the console."),
            fix='model = "shop.Tenant"',
        )
        return
    if type(site).list is not ForeignKeyTenancy.list:
        return
    try:
        model._base_manager.values_list(site.label_field)
    except FieldError as error:
        values = {"tenancy": path, "field": site.label_field, "error": error}
        yield Finding(
            _("%(tenancy)s.label_field is %(field)r. %(error)s") % values,
            where="CACHEADMIN['TENANCY']",
            why=_("The console and commands that name tenants would fail."),
            fix='label_field = "name"',
        )
