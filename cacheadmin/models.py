"""What cacheadmin keeps in the database: rules, intents, activity; and the console, which has permissions only.

Rows are plain records: checking a rule is `rules`' business, writing and delivering intents `outbox`'.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import Any, ClassVar

from django.db import models
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import texts
from .conf import user_model


def default_events() -> list[str]:
    """Return the events of a new rule."""
    return ["create", "update", "delete"]


class AnyJSONField(models.JSONField):
    """Keeps any text: what PostgreSQL refuses in JSON is written another way, and read as it was."""

    def get_prep_value(self, value: Any) -> Any:
        """Return what the column takes."""
        value = super().get_prep_value(value)
        return texts.storable(value) if isinstance(value, (dict, list, str)) else value

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return what was kept."""
        value = super().from_db_value(value, expression, connection)
        return texts.restored(value) if isinstance(value, dict) else value

    def deconstruct(self) -> Any:
        """Name Django's field: the column is the same."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs


class AnyCharField(models.CharField):  # type: ignore[type-arg]
    """A line for people; what PostgreSQL refuses in a text is spelled out."""

    def get_prep_value(self, value: Any) -> Any:
        """Return what the column takes."""
        value = super().get_prep_value(value)
        return texts.shown(value)[: self.max_length] if isinstance(value, str) else value

    def deconstruct(self) -> Any:
        """Name Django's field: the column is the same."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.CharField", args, kwargs


class AnyTextField(models.TextField):  # type: ignore[type-arg]
    """Lines for people; what PostgreSQL refuses in a text is spelled out."""

    def get_prep_value(self, value: Any) -> Any:
        """Return what the column takes."""
        value = super().get_prep_value(value)
        return texts.shown(value) if isinstance(value, str) else value

    def deconstruct(self) -> Any:
        """Name Django's field: the column is the same."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


class RuleManager(models.Manager["InvalidationRule"]):
    """Finds a rule by its name, as fixtures and imports do."""

    def get_by_natural_key(self, name: str) -> InvalidationRule:
        """Return the rule of that name."""
        return self.get(name=name)


class InvalidationRule(models.Model):
    """One row of the map: when this model changes, these caches go. The fields of `rules.Rule`."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    model = models.CharField(
        _("model"), max_length=200, help_text=_("Label of the model, for example shop.InventoryItem.")
    )
    events = models.JSONField(_("events"), default=default_events, help_text=_("Among create, update, delete and m2m."))
    fields = models.JSONField(
        _("watched fields"),
        default=list,
        blank=True,
        help_text=_("An update that writes none of them is ignored. Empty: all."),
    )
    tenant = models.CharField(
        _("tenant from"),
        max_length=200,
        blank=True,
        help_text=_("Path to its id, for example tenant_id. Empty: found by itself; *: all tenants; -: shared data."),
    )
    targets = models.JSONField(_("targets"), default=list)
    warm = models.BooleanField(_("warm afterwards"), default=False)
    enabled = models.BooleanField(_("enabled"), default=True)
    note = models.TextField(_("note"), blank=True)

    objects = RuleManager()

    class Meta:
        ordering: ClassVar = ["name"]
        verbose_name = _("invalidation rule")
        verbose_name_plural = _("invalidation rules")
        permissions: ClassVar = [("import_rules", "Can import invalidation rules")]

    def __str__(self) -> str:
        return self.name

    def natural_key(self) -> tuple[str]:
        """Return what tells it from other rules in any database."""
        return (self.name,)


class RuleVersion(models.Model):
    """One row, id 1, counted up with every edit of a rule, so that other processes notice."""

    version = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.version)


class Intent(models.Model):
    """An invalidation, written in the same transaction as the data it follows, until Redis has it."""

    class State(models.TextChoices):
        """`dead` rows name an alias that is no longer configured: shown, retriable, waited for by nobody."""

        PENDING = "pending", _("waiting")
        DONE = "done", _("done")
        DEAD = "dead", _("failed")

    created = models.DateTimeField(default=timezone.now)
    due = models.DateTimeField(help_text="A relay leaves it alone until then: its writer delivers first.")
    payload = AnyJSONField(help_text='{"targets": [Target.to_json()], "rules": [names], "source": …, "name": …}')
    state = models.CharField(max_length=7, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    error = AnyTextField(blank=True)
    delivered_to = models.JSONField(default=dict, help_text="Alias -> identity of the server that has it, in hex.")
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        indexes: ClassVar = [models.Index(fields=["state", "due"], name="cacheadmin_intent_due")]
        verbose_name = _("intent")
        verbose_name_plural = _("intents")

    def __str__(self) -> str:
        return f"{self.pk} {self.state}"


def _named(ids: Iterable[str]) -> models.Q:
    """Return the condition that a list of JSON has one of these texts."""
    # JSON in text: the quotes make a match exact, and no id can contain an unescaped one. SQLite keeps what json.dumps
    # wrote (escaped), PostgreSQL renders it anew (not escaped).
    spellings = {json.dumps(text, ensure_ascii=ascii_only) for text in ids for ascii_only in (True, False)}
    return reduce(or_, (models.Q(_tenants__contains=spelling) for spelling in sorted(spellings)))


class ActivityQuerySet(models.QuerySet["Activity"]):
    """Finds activity by tenant."""

    def for_tenants(self, ids: Iterable[str]) -> ActivityQuerySet:
        """Keep what touched any of these tenants, and what touched all. Cost: reads the rows; narrow the time first."""
        wanted = ("*", *ids)
        is_escaped = models.Q(_tenants__startswith="{")
        plain = ~is_escaped & _named(text for text in wanted if texts.shown(text) == text)
        rows = self.alias(_tenants=Cast("tenants", models.TextField()))
        return rows.filter(plain | (is_escaped & _named(map(texts.escaped, wanted))))


class Activity(models.Model):
    """One thing that was done to the cache: an invalidation or a warm run, or an edit or a deploy that explains one."""

    class Kind(models.TextChoices):
        """What was done."""

        INVALIDATE = "invalidate", _("invalidate")
        WARM = "warm", _("warm")
        CLEAR = "clear", _("clear")
        RULE = "rule", _("rule edit")
        RELEASE = "release", _("release")

    class Source(models.TextChoices):
        """Who did it."""

        USER = "user", _("user")
        RULE = "rule", _("rule")
        COMMAND = "command", _("command")
        CODE = "code", _("code")
        RELAY = "relay", _("relay")

    class State(models.TextChoices):
        """How far it came."""

        DONE = "done", _("done")
        WAITING = "waiting", _("waiting")
        RUNNING = "running", _("running")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")

    at = models.DateTimeField(_("when"), default=timezone.now)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    source = models.CharField(_("source"), max_length=7, choices=Source.choices)
    who = AnyCharField(_("by"), max_length=200, blank=True)
    user: models.ForeignKey[Any, Any] = models.ForeignKey(
        user_model(), models.SET_NULL, null=True, blank=True, related_name="+", verbose_name=_("user")
    )
    tenants = AnyJSONField(_("tenants"), default=list, help_text='Ids as text; "*" for all; [] for shared data.')
    alias = models.CharField(_("alias"), max_length=100, blank=True, help_text="Empty for all.")
    targets = AnyJSONField(_("targets"), default=list, help_text="As Target.to_json().")
    what = AnyCharField(_("what"), max_length=300, blank=True)
    reason = AnyTextField(_("reason"), blank=True)
    entries = models.BigIntegerField(_("entries"), null=True, blank=True)
    bytes = models.BigIntegerField(_("memory"), null=True, blank=True)
    took_ms = models.FloatField(_("took"), null=True, blank=True)
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.DONE)
    error = AnyTextField(_("error"), blank=True)
    count = models.PositiveIntegerField(_("times"), default=1)
    pace = models.CharField(_("pace"), max_length=6, blank=True, default="", db_default="", help_text="Of a run.")

    objects = models.Manager.from_queryset(ActivityQuerySet)()

    class Meta:
        default_permissions = ()
        ordering: ClassVar = ["-at", "-pk"]
        indexes: ClassVar = [
            models.Index(fields=["at", "id"], name="cacheadmin_activity_at"),
            models.Index(fields=["state", "at"], name="cacheadmin_activity_state"),
        ]
        verbose_name = _("activity")
        verbose_name_plural = _("activities")

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.what}".strip()


class Console(models.Model):
    """No table: the pages of the admin hang on it, and so do their permissions."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions: ClassVar = [
            ("view_keys", "Can see keys"),
            ("view_values", "Can see cached values"),
            ("invalidate", "Can invalidate caches"),
            ("warm", "Can warm caches"),
            ("clear_alias", "Can clear a whole alias"),
            ("see_all_tenants", "Can see all tenants"),
        ]
        verbose_name = _("cache console")
        verbose_name_plural = _("cache console")

    def __str__(self) -> str:
        return "console"
