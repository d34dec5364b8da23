"""Before `migrate`: a page that says which table is missing and how to make it, in the place of an error 500.

For no other error of a database: those are raised as ever.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from django.apps import apps
from django.contrib.admin import ModelAdmin
from django.db import DEFAULT_DB_ALIAS, OperationalError, ProgrammingError, models, router
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _

from cacheadmin.models import Activity

from .pages import Crumb, frame

logger = logging.getLogger("cacheadmin")

UNDEFINED_TABLE: Final = ("42P01", 1146)
"""What PostgreSQL and MySQL call it; SQLite has words only."""

View = Callable[..., HttpResponseBase]


def missing_table(error: Exception) -> type[models.Model] | None:
    """Return the model of ours whose table a database says it does not have; None for any other error."""
    said = str(error).partition("\n")[0]
    codes = (getattr(error.__cause__, "sqlstate", None), getattr(error.__cause__, "pgcode", None), *error.args[:1])
    if "no such table" not in said and not any(code in UNDEFINED_TABLE for code in codes):
        return None
    ours = apps.get_app_config("cacheadmin").get_models()
    return next((one for one in ours if re.search(rf"\b{re.escape(one._meta.db_table)}\b", said)), None)


def migrated(view: View, admin: ModelAdmin[Any], tab: str, *, is_data: bool = False) -> View:
    """Return a view that answers 503 with what to do while a table of ours is missing; with JSON for a script."""

    @functools.wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except (ProgrammingError, OperationalError) as error:
            model = missing_table(error)
            if model is None:
                raise
            logger.exception("%s needs a table that does not exist: run %s", request.path, command(model))
            is_for_script = is_data or request.GET.get("format") == "json"
            answer = _told(model) if is_for_script else _page(request, admin, tab, model)
            add_never_cache_headers(answer)
            return answer

    return checked


def command(model: type[models.Model]) -> str:
    """Return the command that makes the table of a model."""
    alias = router.db_for_write(model)
    return "python manage.py migrate cacheadmin" + (f" --database {alias}" if alias != DEFAULT_DB_ALIAS else "")


def _page(request: HttpRequest, admin: ModelAdmin[Any], tab: str, model: type[models.Model]) -> HttpResponse:
    """Return the page. It asks the database nothing: a transaction that is open may be of no use any more."""
    request.current_app = admin.admin_site.name
    title = _("The database lacks a table")
    context = {
        **frame(request, admin.admin_site, tab=tab, crumbs=[Crumb(title)], with_notes=False),
        "title": title,
        "opts": admin.opts,
        "has_permission": True,
        "table": model._meta.db_table,
        "database": router.db_for_write(model),
        "command": command(model),
        "may_be_done": request.method == "POST" and model is Activity,
    }
    return TemplateResponse(request, "cacheadmin/unmigrated.html", context, status=503)


def _told(model: type[models.Model]) -> HttpResponse:
    text = _("The table %(table)s does not exist. Run: %(command)s") % {
        "table": model._meta.db_table,
        "command": command(model),
    }
    return JsonResponse({"error": text}, status=503)
