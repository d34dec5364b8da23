"""The rules in Django's admin: an ordinary ModelAdmin, in the console's frame, that also lists the rules in code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods

from cacheadmin.conf import config
from cacheadmin.models import InvalidationRule
from cacheadmin.rules import Rule

from . import paging, rule_changes, rule_list, rule_preview, rule_transfer, told
from .access import access_of
from .pages import Crumb, Note, url_to
from .rule_deletion import Deletion
from .rule_form import RuleForm, completions, known_rules, model_label, sentence_of
from .rule_resource import rule_of
from .unmigrated import migrated

HISTORY = 100

FOR_SCRIPTS = ("cacheadmin_invalidationrule_preview", "cacheadmin_invalidationrule_choices")


@admin.register(InvalidationRule)
class InvalidationRuleAdmin(Deletion, rule_transfer.Transfer):
    """Lists, edits, deletes, imports and exports rules."""

    form = RuleForm
    fields = tuple(RuleForm.Meta.fields)
    actions = ("switch_on", "switch_off", "export_selected")
    change_list_template = "admin/cacheadmin/invalidationrule/change_list.html"
    change_form_template = "admin/cacheadmin/invalidationrule/change_form.html"

    # --- addresses --------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern | URLResolver]:  # type: ignore[override]
        """Add import, export, and what the form's script asks; methods that mean nothing here are refused."""
        guard = self.admin_site.admin_view
        own: tuple[tuple[str, Callable[..., Any], str], ...] = (
            ("import/", self.import_view, "cacheadmin_invalidationrule_import"),
            ("export/", self.export_view, "cacheadmin_invalidationrule_export"),
            ("preview/", self.preview_view, "cacheadmin_invalidationrule_preview"),
            ("choices/", self.choices_view, "cacheadmin_invalidationrule_choices"),
        )
        urls: list[URLPattern | URLResolver] = [
            *(path(route, guard(view), name=name) for route, view, name in own),
            *super().get_urls(),
        ]
        known = require_http_methods(["GET", "HEAD", "POST"])
        for url in urls:
            if isinstance(url, URLPattern):
                is_data = url.name in FOR_SCRIPTS
                url.callback = known(migrated(url.callback, self, "rules", is_data=is_data))
        return urls

    # --- the list -------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:  # type: ignore[override]
        """List the rules of the database and those in code; POST runs an action on selected ones."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._run_action(request)
        access = access_of(request.user)
        wish = paging.asked(request.GET, orders=rule_list.ORDERS, size=50)
        found = rule_list.listed(
            self.admin_site, may_add=self.has_add_permission(request), with_figures=not access.is_bound
        )
        filters = {
            "source": wish.value("source", rule_list.SOURCES),
            "state": wish.value("state", rule_list.STATES),
            "model": request.GET.get("model", ""),
            "alias": request.GET.get("alias", ""),
        }
        rows = rule_list.ordered(rule_list.chosen(found.rows, search=wish.search, **filters), wish.order)
        shown, pager = paging.page_of(rows, wish)
        notes = [Note(found.error, _("The rules in code cannot be read."), "bad")] if found.error else []
        can_select = any(row.pk for row in shown)  # rules in code have no row to act on
        context = {
            **self.framed(request, _("Invalidation rules")),
            "notes": notes,
            "rows": shown,
            "pager": pager,
            "wish": wish,
            "filters": filters,
            "is_filtered": bool(wish.search or any(filters.values())),
            "counts": rule_list.counts(found.rows),
            "models": sorted({(row.model, model_label(row.model)) for row in found.rows}, key=lambda pair: pair[1]),
            "aliases": config().aliases,
            "columns": rule_list.columns(wish, with_figures=found.knows_fired),
            "knows_fired": found.knows_fired,
            "action_choices": self.get_action_choices(request) if can_select and self.get_actions(request) else [],
            "total": len(found.rows),
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.change_list_template, context)

    def _run_action(self, request: HttpRequest) -> HttpResponseBase:
        """Run a chosen action as Django's change list does."""
        chosen = self.get_actions(request).get(request.POST.get("action", ""))
        back = HttpResponseRedirect(request.get_full_path())
        if chosen is None:
            messages.warning(request, _("No action selected."))
            return back
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)[: rule_transfer.MOST_SELECTED]
        rows = self.get_queryset(request).filter(pk__in=[pk for pk in selected if pk.isdecimal() and len(pk) < 19])
        if not selected:
            messages.warning(request, _("Items must be selected in order to perform actions on them."))
            return back
        function = getattr(chosen, "func", None) or chosen[0]  # Django 6.1 has an object, earlier ones a tuple
        response = function(self, request, rows)
        if isinstance(response, TemplateResponse) and request.POST.get("action") == "delete_selected":
            self.frame_question(request, response)
        return response if isinstance(response, HttpResponseBase) else back

    @admin.action(description=gettext_lazy("Switch on"), permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: Any) -> None:
        """Switch rules on."""
        self._switch(request, queryset, to=True)

    @admin.action(description=gettext_lazy("Switch off"), permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: Any) -> None:
        """Switch rules off."""
        self._switch(request, queryset, to=False)

    def _switch(self, request: HttpRequest, queryset: Any, *, to: bool) -> None:
        rows = [row for row in queryset if row.enabled != to]
        for row in rows:
            before = rule_changes.columns_of(row)
            row.enabled = to
            row.save(update_fields=["enabled"])
            self.log_change(request, row, rule_changes.message(rule_changes.changes(before, row), is_new=False))
        if to:
            text = ngettext("%(n)s rule is on now.", "%(n)s rules are on now.", len(rows))
        else:
            text = ngettext("%(n)s rule is off now.", "%(n)s rules are off now.", len(rows))
        messages.success(request, text % {"n": len(rows)})

    @admin.action(description=gettext_lazy("Export"), permissions=["view"])
    def export_selected(self, request: HttpRequest, queryset: Any) -> HttpResponse:
        """Lead to the page that offers the selected rules as a file."""
        pks = ",".join(str(pk) for pk in queryset.values_list("pk", flat=True))
        return HttpResponseRedirect(f"{url_to(self.admin_site, 'cacheadmin_invalidationrule_export')}?only={pks}")

    # --- the form -------------------------------------------------------------------------------------------------

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Fill the form of a new rule in from a rule in code that it is to replace."""
        initial: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        wanted = request.GET.get("override")
        rule = next((rule for rule in known_rules() if rule.name == wanted and rule.source != "database"), None)
        return _initial(rule) if rule is not None else initial

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        """Show or save a rule; the button *Preview* shows it again with what it would drop, and saves nothing."""
        if request.method == "POST" and "_preview" in request.POST:
            return self._previewed(request, object_id)
        return super().changeform_view(request, object_id, form_url, extra_context)

    def _previewed(self, request: HttpRequest, object_id: str | None) -> HttpResponse:
        row = self._writable(request, object_id)
        form = self.get_form(request, row, change=row is not None)(request.POST, instance=row)
        form.is_valid()
        shown = _Form(form)
        context = {"adminform": shown, "inline_admin_formsets": [], "errors": [], "original": row, "is_preview": True}
        return self.render_change_form(request, context, add=row is None, change=row is not None, obj=row)

    def _writable(self, request: HttpRequest, object_id: str | None) -> InvalidationRule | None:
        """Return the rule of a form that may be sent. Raises: PermissionDenied; Http404."""
        if object_id is None:
            if not self.has_add_permission(request):
                raise PermissionDenied
            return None
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        return row

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        """Put the form into the console's frame, with a preview at its side."""
        form = context["adminform"].form
        title = _("Add invalidation rule") if add else _("Change invalidation rule")
        if not add and not self.has_change_permission(request, obj):
            title = _("View invalidation rule")
        context.update(self.framed(request, title, Crumb(_("Add") if add else obj.name)))
        access = access_of(request.user)
        offered = rule_preview.tenants_offered(access)
        asked = request.POST.get("preview_tenant") or request.GET.get("tenant")
        tenant = rule_preview.tenant_asked(access, asked, offered)
        rule = form.rule() if form.is_bound else _rule_or_none(obj, form.initial)
        may_see = access.may("view_keys")
        known = offered if tenant is None or any(t.id == tenant for t in offered) else []
        context.update(
            {
                "form": form,
                "watched": form["fields"] if "fields" in form.fields else None,
                "rule": rule,
                "listed": None if rule is None else rule_list.described(rule),
                "sentence": sentence_of(rule.model, rule.targets) if rule else "",
                "last_edit": self._last_edit(obj),
                "choices": completions(rule.model if rule else ""),
                "choices_url": url_to(self.admin_site, "cacheadmin_invalidationrule_choices"),
                "preview_url": url_to(self.admin_site, "cacheadmin_invalidationrule_preview"),
                "may_preview": may_see,
                "tenants": known,
                "tenant": tenant,
                **(self._preview_context(rule, tenant, request) if may_see else {}),
            }
        )
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _preview_context(self, rule: Rule | None, tenant: str | None, request: HttpRequest) -> dict[str, Any]:
        access = access_of(request.user)
        shown = rule_preview.preview(rule, tenant, access, self.admin_site)
        lines = None if access.is_bound else shown.dropped
        return {
            "preview": shown,
            "preview_sentence": rule_preview.sentence(shown) if shown.state == "counted" else "",
            "fired": rule_list.fired({rule.name}, lines).get(rule.name) if rule and lines else None,
        }

    def _last_edit(self, row: InvalidationRule | None) -> Any:
        """Return the newest entry of Django's log about a rule."""
        if row is None:
            return None
        return _log_of(row).first()

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Show the edits of a rule, field by field."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined]
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        crumb = Crumb(row.name, url_to(self.admin_site, "cacheadmin_invalidationrule_change", row.pk))
        entries = list(_log_of(row)[:HISTORY])
        for entry in entries:
            entry.parts = rule_changes.told_by(entry)
        context = {
            **self.framed(request, _("History of %(name)s") % {"name": row.name}, crumb, Crumb(_("History"))),
            "entries": entries,
            "change_url": crumb.url,
            **(extra_context or {}),
        }
        return self.page(request, "object_history.html", context)

    def _may_open_the_form(self, request: HttpRequest) -> bool:
        return self.has_view_or_change_permission(request) or self.has_add_permission(request)

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Answer the form's script: what the rule, as it is typed, would drop. Saves nothing."""
        if request.method != "POST" or not self._may_open_the_form(request):
            raise PermissionDenied
        access = access_of(request.user)
        access.require("view_keys")
        form = RuleForm(request.POST)
        form.is_valid()
        offered = rule_preview.tenants_offered(access)
        tenant = rule_preview.tenant_asked(access, request.POST.get("preview_tenant"), offered)
        context = {"access": access, **self._preview_context(form.rule(), tenant, request)}
        html = render_to_string("admin/cacheadmin/invalidationrule/preview.html", context, request)
        return JsonResponse({"html": html})

    def choices_view(self, request: HttpRequest) -> HttpResponse:
        """Answer the form's script: which fields, paths, groups and tags a model offers."""
        if not self._may_open_the_form(request):
            raise PermissionDenied
        return JsonResponse(completions(request.GET.get("model", "")[:200]))

    # --- the log ---------------------------------------------------------------------------------------------------

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Say what changed, old and new, for the history."""
        found = rule_changes.changes(None if add else form.initial_columns, form.instance)
        return rule_changes.message(found, is_new=add)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Write to Django's log and to Activity."""
        self._note("added", request, obj, message)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Write to Django's log and to Activity."""
        self._note("changed", request, obj, message)
        return super().log_change(request, obj, message)

    def _note(self, act: str, request: HttpRequest, obj: Any, message: Any) -> None:
        said = told.rule(act, obj.name, rule_changes.of_message(message))
        self.note(request, said, message if isinstance(message, str) else "")


class _Form:
    """The little of Django's AdminForm that `render_change_form` looks at."""

    def __init__(self, form: Any) -> None:
        self.form = form
        self.media = form.media

    def __iter__(self) -> Any:
        return iter(())


def _log_of(row: InvalidationRule) -> Any:
    """Return Django's log of a rule, newest first."""
    entries = LogEntry.objects.filter(
        content_type__app_label="cacheadmin", content_type__model="invalidationrule", object_id=str(row.pk)
    )
    return entries.select_related("user").order_by("-action_time")


def _initial(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "model": rule.model,
        "events": list(rule.events),
        "fields": list(rule.fields),
        "tenant": rule.tenant,
        "targets": [target.to_json() for target in rule.targets],
        "warm": rule.warm,
        "enabled": rule.enabled,
        "note": rule.note,
    }


def _rule_or_none(row: InvalidationRule | None, initial: dict[str, Any]) -> Rule | None:
    """Return the rule that a form shows before anything is sent."""
    try:
        if row is not None:
            return rule_of(row)
        if initial.get("model"):
            values = {name: value for name, value in initial.items() if name != "enabled"}
            return Rule(**{"name": _("New rule"), **values})
    except (ValueError, TypeError):
        return None
    return None
