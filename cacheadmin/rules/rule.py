"""What a rule says, and what a write was: plain values, free of models and of I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from cacheadmin.exceptions import InvalidRule

Event = Literal["create", "update", "delete", "m2m"]
"""`m2m`: a relation of the model was added to, removed from or cleared, from either side."""

EVENTS: Final[tuple[Event, ...]] = ("create", "update", "delete", "m2m")
KINDS: Final = ("group", "prefix", "tag", "fragment", "key", "pattern", "tenant")
TENANTS: Final = ("same", "all", "shared")

ALL_TENANTS: Final = "*"
SHARED_DATA: Final = "-"

PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class RuleTarget:
    """One thing that a rule drops. `alias=None` means every managed alias."""

    kind: str
    """`group` exactly it · `prefix` groups that begin with it · `tag` · `fragment` a template fragment's name ·
    `key` one entry · `pattern` a glob, widened to groups · `tenant` everything of the tenant."""
    name: str = ""
    """A tag or a key may hold placeholders: `branch:{branch_id}`, `customer:{sale__customer_id}`, `{pk}`."""
    alias: str | None = None
    tenant: str = "same"
    """`same` as the row's · `all` tenants and shared data · `shared` data only."""

    @classmethod
    def parse(cls, target: RuleTarget | Mapping[str, Any] | str) -> RuleTarget:
        """
        Return a target from its short form: `prefix:inventory`, `tag:branch:{branch_id}`, `tenant`, or a group's name.

        Raises:  InvalidRule for what is neither a text, a mapping of the fields nor a RuleTarget.
        """
        if isinstance(target, RuleTarget):
            return target
        if isinstance(target, str):
            kind, colon, name = target.partition(":")
            if colon and kind in KINDS:
                return cls(kind, name)
            return cls("tenant") if target == "tenant" else cls("group", target)
        if isinstance(target, Mapping) and set(target) <= {"kind", "name", "alias", "tenant"}:
            given = target.get
            parts = (given("kind"), given("name") or "", given("alias") or "", given("tenant") or "same")
            if all(isinstance(part, str) for part in parts):
                kind, name, alias, tenant = map(str, parts)
                return cls(kind, name, alias or None, tenant)
        raise InvalidRule(
            f"{target!r:.200} is no target. Write a text such as 'prefix:inventory', "
            "or RuleTarget(kind, name, alias, tenant)."
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; `parse` reads it."""
        return {"kind": self.kind, "name": self.name, "alias": self.alias, "tenant": self.tenant}

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The field paths in its name."""
        return tuple(PLACEHOLDER.findall(self.name)) if self.kind in ("tag", "key") else ()

    def __str__(self) -> str:
        text = f"{self.kind}:{self.name}" if self.name else self.kind
        whose = {"all": " of all tenants", "shared": " of shared data"}.get(self.tenant, "")
        return text + whose + (f" in {self.alias}" if self.alias else "")


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One row of the map: when this model changes, these caches go.

        Rule("inventory", model="shop.InventoryItem",
             targets=["prefix:inventory", "group:dashboard", "tag:branch:{branch_id}"])
    """

    name: str
    """Unique. A rule in the database overrides one of the same name in code."""
    model: str = ""
    """Label, for example `shop.InventoryItem`."""
    targets: tuple[RuleTarget, ...] = ()
    """Given as RuleTargets or in their short form."""
    events: tuple[str, ...] = ("create", "update", "delete")
    fields: tuple[str, ...] = ()
    """An update that writes none of them is ignored; empty: any field. A relation's name narrows `m2m` the same way."""
    tenant: str = ""
    """Path to the tenant's id in the row, `tenant_id` or `sale__tenant_id`; empty: found by itself; `*`: all tenants;
    `-`: shared data."""
    warm: bool = False
    """Warm what was dropped afterwards."""
    enabled: bool = True
    note: str = ""
    source: str = "code"
    """`code:<module>` or `database`."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidRule(f"A rule needs a name, not {self.name!r:.100}.")
        targets = _sequence(self.name, "targets", self.targets)
        object.__setattr__(self, "targets", tuple(map(RuleTarget.parse, targets)))
        for field in ("events", "fields"):
            values = _sequence(self.name, field, getattr(self, field))
            if not all(isinstance(value, str) for value in values):
                raise InvalidRule(f"Rule {self.name!r}: {field} must be texts, not {values!r:.200}.")
            object.__setattr__(self, field, tuple(values))
        for field in ("model", "tenant", "note"):
            if not isinstance(getattr(self, field), str):
                raise InvalidRule(f"Rule {self.name!r}: {field} must be a text, not {getattr(self, field)!r:.100}.")

    def __str__(self) -> str:
        return self.name


def _sequence(rule: str, field: str, value: Any) -> Sequence[Any]:
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(value)
    if isinstance(value, (str, RuleTarget)):
        return (value,)
    raise InvalidRule(f"Rule {rule!r}: {field} must be a list, not {value!r:.100}.")


@dataclass(frozen=True, slots=True)
class Change:
    """What one or several writes did to one model."""

    model: str
    """Label of the concrete model."""
    event: Event
    fields: frozenset[str] | None
    """Names and attnames of what was written; None: unknown."""
    rows: tuple[Mapping[str, Any], ...] | None
    """Path -> value for each distinct image of the touched rows, old and new. A path that is absent is unknown; None:
    nothing is known of the rows."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a rule."""

    field: str
    """Field of the rule: `name`, `model`, `events`, `fields`, `tenant` or `targets`."""
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"
