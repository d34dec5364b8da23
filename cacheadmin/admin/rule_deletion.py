"""Deleting rules: the questions that are asked first, of one and of several, and what Activity tells afterwards."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import InvalidationRule
from cacheadmin.rules import code_rules

from . import formats, told
from .pages import Crumb, url_to
from .rule_base import RulePages
from .rule_form import sentence_of


class Deletion(RulePages):
    """Adds deleting to the ModelAdmin of the rules."""

    delete_confirmation_template = "admin/cacheadmin/invalidationrule/delete_confirmation.html"
    delete_selected_confirmation_template = "admin/cacheadmin/invalidationrule/delete_selected_confirmation.html"

    def render_delete_form(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        """Ask in the console's frame, and say what is in force afterwards."""
        row = context["object"]
        crumb = Crumb(row.name, url_to(self.admin_site, "cacheadmin_invalidationrule_change", row.pk))
        title = _("Delete the rule %(name)s?") % {"name": row.name}
        context |= {
            **self.framed(request, title, crumb, Crumb(_("Delete"))),
            "sentence": sentence_of(row.model, row.targets),
            "replaced": _in_code().get(row.name, ""),
            "back": crumb.url,
        }
        return super().render_delete_form(request, context)

    def frame_question(self, request: HttpRequest, response: TemplateResponse) -> None:
        """Put the page on which Django's action asks whether to delete several rules into the console's frame."""
        in_code = _in_code()
        rows: list[InvalidationRule] = list((response.context_data or {})["queryset"])
        count = len(rows)
        title = ngettext("Delete %(n)s rule?", "Delete %(n)s rules?", count) % {"n": formats.number(count)}
        response.context_data = {
            **(response.context_data or {}),
            **self.framed(request, title, Crumb(_("Delete"))),
            "rules": [(row, sentence_of(row.model, row.targets), in_code.get(row.name, "")) for row in rows],
        }

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete a rule; Activity tells it."""
        super().delete_model(request, obj)
        self.note(request, told.rule("deleted", obj.name))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete rules; Activity tells it."""
        names = [row.name for row in queryset]
        super().delete_queryset(request, queryset)
        for name in names:
            self.note(request, told.rule("deleted", name))


def _in_code() -> dict[str, str]:
    """Return the rules in code: name -> module. One of the same name is in force again when its row is gone."""
    try:
        return {rule.name: rule.source.removeprefix("code:") for rule in code_rules()}
    except InvalidRule:  # a module of rules that cannot be imported; the list of rules says which
        return {}
