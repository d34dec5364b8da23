"""The form of a rule, which reads as a sentence: when this model changes, drop these.

Its lists are plain inputs that work without script; `rule-form.js` adds rows and completions to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from django import forms
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models import ForeignKey
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule
from cacheadmin.functions import registry
from cacheadmin.models import InvalidationRule, default_events
from cacheadmin.rules import Rule, RuleTarget, all_rules, find_model, validate

from . import naming

ROWS: Final = 50
"""Most targets of one rule."""

SPARE_ROWS: Final = 2
"""Empty rows of targets that a page without script offers."""

EVENT_LABELS: Final[dict[str, str | Promise]] = {
    "create": gettext_lazy("created"),
    "update": gettext_lazy("changed"),
    "delete": gettext_lazy("deleted"),
    "m2m": gettext_lazy("relations change"),
}
KIND_LABELS: Final[dict[str, str | Promise]] = {
    "group": gettext_lazy("Group"),
    "prefix": gettext_lazy("Group prefix"),
    "tag": gettext_lazy("Tag"),
    "fragment": gettext_lazy("Fragment"),
    "key": gettext_lazy("Entry"),
    "pattern": gettext_lazy("Pattern"),
    "tenant": gettext_lazy("Everything"),
}
WHOSE_LABELS: Final[dict[str, str | Promise]] = {
    "same": gettext_lazy("its tenant"),
    "all": gettext_lazy("all tenants"),
    "shared": gettext_lazy("shared data"),
}


def model_label(label: str) -> str:
    """Return a model's name as people say it: "Inventory item"; the label itself if there is no such model."""
    try:
        return str(capfirst(find_model(label)._meta.verbose_name))
    except InvalidRule:
        return label


def model_choices(current: str = "") -> list[tuple[str, Any]]:
    """Return the models of the site, by app; a model that does not exist (any more) stays choosable where it stands."""
    groups = []
    for app in apps.get_app_configs():
        models = sorted(app.get_models(), key=lambda model: str(model._meta.verbose_name))
        listed = [(m._meta.label, capfirst(m._meta.verbose_name)) for m in models if not m._meta.proxy]
        if listed:
            groups.append((str(app.verbose_name), listed))
    known = {label for _app, models in groups for label, _name in models}
    groups.sort(key=lambda group: group[0])
    strange = [(current, current)] if current and current not in known else []
    return [("", "---------"), *strange, *groups]


def known_rules() -> tuple[Rule, ...]:
    """Return every rule; none while a module of rules cannot be imported, which the list reports."""
    try:
        return all_rules()
    except InvalidRule:
        return ()


class NamesField(forms.CharField):
    """A list of names with commas between."""

    def prepare_value(self, value: Any) -> Any:
        """Return the text for a list."""
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        """Return the list for a text."""
        text = super().to_python(value) or ""
        return list(dict.fromkeys(filter(None, (name.strip() for name in str(text).replace("\n", ",").split(",")))))

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Say whether the text means another list."""
        return list(initial or []) != self.to_python(data)


PARTS: Final = ("kind", "name", "alias", "tenant")


class TargetsWidget(forms.Widget):
    """Reads rows of inputs of the same names; the page's template writes them."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:
        """Return a list of dicts, one a row."""
        columns = [data.getlist(f"{name}-{part}")[: ROWS + SPARE_ROWS] for part in PARTS]
        length = max(map(len, columns))
        filled = [[*column, *[""] * (length - len(column))] for column in columns]
        return [dict(zip(PARTS, row, strict=True)) for row in zip(*filled, strict=True)]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Return False: no rows are an empty list."""
        return False


class TargetsField(forms.Field):
    """What a rule drops. Rows without a name are left out, unless they are of the kind that has none."""

    widget = TargetsWidget

    def to_python(self, value: Any) -> Any:
        """Return targets as the table keeps them, each once."""
        found = []
        for row in value or ():
            kind, alias, whose = row.get("kind") or "group", row.get("alias") or None, row.get("tenant") or "same"
            name = str(row.get("name") or "").strip()
            if name or kind == "tenant":
                found.append(RuleTarget(kind, name, alias, whose).to_json())
        return [target for i, target in enumerate(found) if target not in found[:i]]

    def validate(self, value: Any) -> None:
        """Refuse too many. Raises: ValidationError."""
        if len(value) > ROWS:
            raise ValidationError(_("A rule has at most %(n)s targets.") % {"n": ROWS})

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Say whether the rows mean other targets."""
        return list(initial or []) != self.to_python(data)


class RuleForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rule. Errors stand at their field and name the value, what is allowed, and the nearest match."""

    name = forms.CharField(
        max_length=100,
        required=False,
        label=gettext_lazy("Name"),
        help_text=gettext_lazy("Tells it from others in Activity and in files. Empty: made from what it says."),
    )
    model = forms.ChoiceField(label=pgettext_lazy("rule", "When"))
    events = forms.MultipleChoiceField(
        label=gettext_lazy("Events"),
        choices=[*EVENT_LABELS.items()],
        widget=forms.CheckboxSelectMultiple,
        initial=default_events,
    )
    fields = NamesField(  # type: ignore[assignment]  # the model's own name for them; an instance has Django's dict there
        required=False,
        label=gettext_lazy("Only if these fields changed"),
        help_text=gettext_lazy("Names with commas between. Empty means any field."),
    )
    tenant = forms.CharField(
        max_length=200,
        required=False,
        label=gettext_lazy("Tenant from"),
        help_text=gettext_lazy("Path to its id: branch__tenant_id. Empty: found by itself; *: all; -: shared data."),
    )
    targets = TargetsField(required=False, label=gettext_lazy("Drop"))
    warm = forms.BooleanField(
        required=False,
        label=gettext_lazy("Warm afterwards"),
        help_text=gettext_lazy("Recompute what was dropped and has arguments to warm."),
    )
    enabled = forms.TypedChoiceField(
        label=gettext_lazy("State"),
        choices=[("1", gettext_lazy("On")), ("0", gettext_lazy("Off"))],
        coerce=lambda value: value == "1",
        widget=forms.RadioSelect,
        initial="1",
    )
    note = forms.CharField(required=False, label=gettext_lazy("Note"), max_length=2000)

    class Meta:
        model = InvalidationRule
        fields: ClassVar = ["name", "model", "events", "fields", "tenant", "targets", "warm", "enabled", "note"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target_errors: dict[int, list[str]] = {}
        self.typed: dict[str, Any] = {}
        """What was read of the fields, also of those that turned out to be wrong."""
        self.initial_columns = dict(self.initial)
        """The columns as they were before anything is saved."""
        self.inputs: dict[str, forms.Field] = vars(self)["fields"]
        """Django's own dict of the fields; none are there for those who may only look."""
        if "model" in self.inputs:
            self.inputs["model"].choices = model_choices(self._value("model"))
            self.inputs["tenant"].widget.attrs["placeholder"] = _("found by itself")
            for name, listed in (("fields", "cacheadmin-fields"), ("tenant", "cacheadmin-paths")):
                attrs = {"list": listed, "autocomplete": "off", "spellcheck": "false"}
                self.inputs[name].widget.attrs.update(attrs)
        self.initial["enabled"] = "1" if self.initial.get("enabled", True) in (True, "1") else "0"

    def _value(self, name: str) -> str:
        value = self.data.get(self.add_prefix(name)) if self.is_bound else self.initial.get(name)
        return str(value or "")

    def clean(self) -> dict[str, Any]:
        """Check the rule as a whole. Errors of a target are kept by its position too."""
        super().clean()  # asks for the model's own check that names are unique
        data = self.cleaned_data
        if "model" in data and "targets" in data and not data.get("name"):
            data["name"] = name_for(data["model"], data["targets"], taken=self._taken())
        self.typed = dict(data)
        rule = self.rule()
        if rule is None:
            return data
        for problem in validate(replace(rule, targets=())):
            if problem.field != "targets" and problem.field not in self.errors:
                self.add_error(problem.field, problem.message)
        if not rule.targets and "targets" not in self.errors:
            self.add_error("targets", _("It drops nothing yet. Name at least one group, tag or entry."))
        for position, target in enumerate(rule.targets):
            wrong = [p.message for p in validate(replace(rule, targets=(target,))) if p.field == "targets"]
            if wrong:
                self.target_errors[position] = [message.removeprefix(f"{target}: ") for message in wrong]
        if self.target_errors and "targets" not in self.errors:
            self.add_error("targets", _("Some targets are wrong."))
        return data

    def _taken(self) -> set[str]:
        rows = InvalidationRule.objects.exclude(pk=self.instance.pk).values_list("name", flat=True)
        return {*rows, *(rule.name for rule in known_rules())} - {self.instance.name}

    def rule(self) -> Rule | None:
        """Return the rule as it is typed, as far as it can be read; None without a model."""
        data = self.typed
        if not data.get("model"):
            return None
        return Rule(
            name=data.get("name") or _("New rule"),
            model=data["model"],
            targets=data.get("targets", ()),
            events=data.get("events") or (),
            fields=data.get("fields") or (),
            tenant=data.get("tenant") or "",
            warm=bool(data.get("warm")),
            enabled=bool(data.get("enabled", True)),
            note=data.get("note") or "",
            source="database",
        )

    @property
    def target_rows(self) -> list[dict[str, Any]]:
        """The rows of targets for the template, two empty ones at their end, each with its errors."""
        if self.is_bound:
            given = self.inputs["targets"].widget.value_from_datadict(self.data, self.files, self.add_prefix("targets"))
            rows = [row for row in given if row["name"].strip() or row["kind"] == "tenant"]
        else:
            rows = [_row(target) for target in self.initial.get("targets") or ()]
        shown: list[dict[str, Any]] = []
        position = -1
        for row in rows:
            is_first = row not in [{part: old[part] for part in PARTS} for old in shown]
            position += is_first
            shown.append({**row, "errors": self.target_errors.get(position, ()) if is_first else ()})
        spare = dict.fromkeys(PARTS, "") | {"kind": "group", "tenant": "same", "errors": (), "is_spare": True}
        return [*shown, *(spare for _ in range(SPARE_ROWS))]

    kind_labels: ClassVar = KIND_LABELS
    whose_labels: ClassVar = WHOSE_LABELS

    @property
    def aliases(self) -> list[str]:
        """The managed aliases, and those that the rule names although they are not managed."""
        strange = [row["alias"] for row in self.target_rows if row["alias"]]
        return list(dict.fromkeys([*config().aliases, *strange]))


def _row(target: Any) -> dict[str, str]:
    try:
        parsed = RuleTarget.parse(target)
    except InvalidRule:
        return {"kind": "group", "name": str(target)[:200], "alias": "", "tenant": "same"}
    return {"kind": parsed.kind, "name": parsed.name, "alias": parsed.alias or "", "tenant": parsed.tenant}


def name_for(model: str, targets: Iterable[Mapping[str, Any]], taken: Iterable[str] = ()) -> str:
    """Return a name for a rule that has none: "Inventory item → inventory_list + tag x", numbered if taken."""
    text = sentence_of(model, targets).replace(", ", " + ")[:90]
    used, number, name = set(taken), 2, text
    while name in used:
        name, number = f"{text} {number}", number + 1
    return name


def sentence_of(model: str, targets: Iterable[Any]) -> str:
    """Return a rule in a line: "Inventory item → inventory_list, tag branch:{branch_id}"."""
    texts = []
    for target in targets:
        parsed = RuleTarget.parse(target)
        texts.append(naming.shortly(parsed.kind, parsed.name))
    return f"{model_label(model)} → {', '.join(dict.fromkeys(texts)) or '–'}"


def completions(model: str) -> dict[str, list[str]]:
    """Return what can be typed for a model: its `fields`, paths to the tenant's id, and known groups and tags."""
    groups = sorted({function.group for function in registry.values()})
    tags = {tag for f in registry.values() if not callable(f.tags) for tag in f.tags}
    tags |= {target.name for rule in known_rules() for target in rule.targets if target.kind == "tag"}
    try:
        found = find_model(model)
    except InvalidRule:
        return {"fields": [], "paths": ["*", "-"], "groups": groups, "tags": sorted(tags)}
    columns = [field.name for field in found._meta.concrete_fields]
    relations = [field.name for field in found._meta.many_to_many]
    return {
        "fields": columns + relations,
        "paths": ["*", "-", *paths_of(found)],
        "groups": groups,
        "tags": sorted(tags),
    }


def paths_of(model: Any) -> list[str]:
    """Return the foreign keys of a model, and those one step further, as paths to an id."""
    found = []
    for field in model._meta.concrete_fields:
        if isinstance(field, ForeignKey):
            found.append(field.attname)
            further = field.remote_field.model._meta.concrete_fields
            found += [f"{field.name}__{each.attname}" for each in further if isinstance(each, ForeignKey)]
    return found
