"""What the cells of a file of rules mean, and what importing them would change.

The resource is django-import-export's; the natural key `name` tells rules apart. Nothing of a file is trusted: each row
becomes a `Rule` and is checked like one that is typed into the form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from import_export import fields, resources, widgets
from import_export.results import RowResult

from cacheadmin.exceptions import InvalidRule
from cacheadmin.models import InvalidationRule, default_events
from cacheadmin.rules import EVENTS, Rule, RuleTarget, validate

from .rule_files import COLUMNS, MISSING, target_of

ON = frozenset({"yes", "true", "on", "1", "y"})
OFF = frozenset({"no", "false", "off", "0", "n"})


class Cell(widgets.Widget):
    """A cell that is written as it is; `rule_files` makes it a text where a format needs one."""

    def render(self, value: Any, **_context: Any) -> Any:
        """Return the cell."""
        return value


class Text(Cell):
    """A text; a number stands for its digits."""

    def clean(self, value: Any, **_context: Any) -> str:
        """Read a cell. Raises: ValueError."""
        if value is None or value is MISSING:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(_("%(value)s is no text.") % {"value": repr(value)[:100]})
        return str(value).strip()


class Names(Cell):
    """A list of names; in one cell they have commas between."""

    def clean(self, value: Any, **_context: Any) -> list[str]:
        """Read a cell. Raises: ValueError."""
        if isinstance(value, str):
            value = value.replace("\n", ",").split(",")
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ValueError(_("%(value)s is no list of names.") % {"value": repr(value)[:100]})
        return list(dict.fromkeys(filter(None, (name.strip() for name in value))))


class Events(Names):
    """Names of events, in their usual order; an empty cell means the usual ones."""

    def clean(self, value: Any, **_context: Any) -> list[str]:
        """Read a cell. Raises: ValueError."""
        found = super().clean(value) or default_events()
        return sorted(found, key=lambda event: EVENTS.index(event) if event in EVENTS else len(EVENTS))


class Targets(Cell):
    """A list of objects or short texts; in one cell a line each."""

    def clean(self, value: Any, **_context: Any) -> list[dict[str, Any]]:
        """Read a cell. Raises: ValueError."""
        if isinstance(value, str):
            value = value.split("\n")
        if not isinstance(value, list):
            raise ValueError(_("%(value)s is no list of targets.") % {"value": repr(value)[:100]})
        lines = [line for line in value if line != "" and not (isinstance(line, str) and not line.strip())]
        return normal_targets(lines)

    def render(self, value: Any, **_context: Any) -> Any:
        """Return the cell: without what is as usual."""
        if not isinstance(value, list):
            return value
        return [
            {k: v for k, v in t.items() if (k, v) not in (("alias", None), ("tenant", "same"), ("name", ""))}
            if isinstance(t, dict)
            else t
            for t in value
        ]


class Switch(Cell):
    """Yes or no; an empty cell means what a new rule has."""

    def __init__(self, default: bool) -> None:
        super().__init__()
        self.default = default

    def clean(self, value: Any, **_context: Any) -> bool:
        """Read a cell. Raises: ValueError."""
        text = "" if value is None else str(value).strip().lower()
        if text in ON or text in OFF or not text:
            return text in ON if text else self.default
        raise ValueError(_("“%(value)s” is neither yes nor no.") % {"value": str(value)[:100]})


def normal_targets(targets: Iterable[Any]) -> list[dict[str, Any]]:
    """Return targets as the table keeps them, each once. Raises: InvalidRule, a ValueError."""
    parsed = (target_of(t) if isinstance(t, str) else RuleTarget.parse(t) for t in targets)
    return [target.to_json() for target in dict.fromkeys(parsed)]


def rule_of(row: InvalidationRule) -> Rule:
    """Return the rule that a row of the table means. Raises: InvalidRule if its lists are not lists of such things."""
    return Rule(
        name=row.name,
        model=row.model,
        targets=row.targets,
        events=row.events,
        fields=row.fields,
        tenant=row.tenant,
        warm=row.warm,
        enabled=row.enabled,
        note=row.note,
        source="database",
    )


class RuleResource(resources.ModelResource):
    """The rules of the table, by their names."""

    name = fields.Field("name", "name", Text())
    model = fields.Field("model", "model", Text())
    events = fields.Field("events", "events", Events())
    watched = fields.Field("fields", "fields", Names())
    tenant = fields.Field("tenant", "tenant", Text())
    targets = fields.Field("targets", "targets", Targets())
    warm = fields.Field("warm", "warm", Switch(False))
    enabled = fields.Field("enabled", "enabled", Switch(True))
    note = fields.Field("note", "note", Text())

    class Meta:
        model = InvalidationRule
        fields: ClassVar = ["watched" if column == "fields" else column for column in COLUMNS]
        import_order: ClassVar = fields
        export_order: ClassVar = fields
        import_id_fields: ClassVar = ["name"]
        skip_unchanged = True
        skip_html_diff = True
        store_instance = True
        store_row_values = True
        use_transactions = True

    def __init__(self, may_add: bool = True, may_change: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.may_add, self.may_change = may_add, may_change
        self._seen: dict[str, int] = {}
        self._known: dict[str, InvalidationRule] = {}

    def before_import(self, dataset: Any, **_options: Any) -> None:
        """Read the rules that there are. Cost: one query, whatever the file holds."""
        self._known = {row.name: row for row in InvalidationRule.objects.all()}
        for row in self._known.values():
            with contextlib.suppress(InvalidRule, TypeError):  # what cannot be read differs from all that can
                row.targets = normal_targets(row.targets)  # code may have written short texts

    def get_instance(self, instance_loader: Any, row: Mapping[str, Any]) -> InvalidationRule | None:
        """Return the rule of that name."""
        return self._known.get(row["name"])

    def before_import_row(self, row: Mapping[str, Any], **options: Any) -> None:
        """Refuse a row without a name, and the second of one name. Raises: ValidationError."""
        try:
            name = Text().clean(row["name"])
        except ValueError as error:
            raise ValidationError({"name": str(error)}) from error
        row["name"] = name  # type: ignore[index]  # an OrderedDict
        if not name:
            raise ValidationError({"name": _("There is no name.")})
        first = self._seen.setdefault(name, options["row_number"])
        if first != options["row_number"]:
            raise ValidationError({"name": _("The name stands in the file twice.")})

    def import_field(self, field: Any, instance: Any, row: Mapping[str, Any], *args: Any, **options: Any) -> None:
        """Leave alone what the file says nothing about."""
        if row.get(field.column_name, MISSING) is not MISSING:
            super().import_field(field, instance, row, *args, **options)

    def validate_instance(self, instance: Any, import_validation_errors: Any = None, **_options: Any) -> None:
        """Check a row as the form does. Raises: ValidationError."""
        errors: dict[str, Any] = dict(import_validation_errors or {})
        try:
            instance.clean_fields(exclude={*errors, "events", "fields", "targets", "note"})
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        try:
            for problem in validate(rule_of(instance)):
                if problem.field not in errors or problem.field in ("targets", "fields", "events"):
                    errors.setdefault(problem.field, []).append(ValidationError(problem.message))
        except InvalidRule as error:
            errors.setdefault("targets", []).append(ValidationError(str(error)))
        is_new = instance._state.adding
        if is_new and not self.may_add:
            errors.setdefault("name", []).append(ValidationError(_("You may not add rules.")))
        if not is_new and not self.may_change:
            errors.setdefault("name", []).append(ValidationError(_("You may not change rules.")))
        if errors:
            raise ValidationError(errors)

    def save_instance(self, instance: Any, is_create: bool, row: Any, **options: Any) -> None:
        """Save, but not in a trial: that every process reads the rules anew is more than a rollback undoes."""
        if not options.get("dry_run"):
            super().save_instance(instance, is_create, row, **options)


KINDS_OF_CHANGE: dict[str, str] = {
    RowResult.IMPORT_TYPE_NEW: "new",
    RowResult.IMPORT_TYPE_UPDATE: "changed",
    RowResult.IMPORT_TYPE_SKIP: "same",
    RowResult.IMPORT_TYPE_INVALID: "error",
    RowResult.IMPORT_TYPE_ERROR: "error",
}
"""django-import-export's word for what happens to a row -> ours."""
