"""Paths from a model along its foreign keys: `tenant_id`, `branch__city`, `sale__tenant_id`, `pk`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final

from django.apps import apps
from django.db.models import Field, ForeignKey, Model
from django.utils.translation import gettext as _

from cacheadmin.exceptions import InvalidRule
from cacheadmin.rules.rule import ALL_TENANTS, SHARED_DATA
from cacheadmin.tenancy import ForeignKeyTenancy, NoTenants, SchemaTenancy, Tenancy, tenancy

ACTIVE_TENANT: Final = "@active"
"""Stands in the place of a tenant path where rows do not name their tenant: the one that is active when they change."""


def column(model: type[Model], name: str) -> Field[Any, Any] | None:
    """Return the column of a model by its name, attname or `pk`; None if there is none, or `pk` is several."""
    if name == "pk":
        return None if getattr(model._meta, "is_composite_pk", False) else model._meta.pk
    for field in model._meta.concrete_fields:
        if name in (field.name, field.attname):
            return field
    return None


def names_of(model: type[Model]) -> list[str]:
    """Return every name that a path may begin with."""
    names = {"pk", *(n for f in model._meta.concrete_fields for n in (f.name, f.attname))}
    return sorted(name for name in names if column(model, name) is not None)


def computed_columns(model: type[Model]) -> list[Any]:
    """Return the columns of a model's own table that the database computes from others: each write may change them."""
    concrete: Any = model._meta.concrete_model
    return [column for column in concrete._meta.local_concrete_fields if column.generated]


def relations_of(model: type[Model]) -> dict[str, Any]:
    """Return the many-to-many relations of a model, from either side: name -> relation."""
    meta = model._meta
    found: dict[str, Any] = {field.name: field for field in meta.many_to_many}
    for related in meta.related_objects:
        if related.many_to_many:
            found[related.name] = related
    return found


def resolve(model: type[Model], path: str) -> tuple[Field[Any, Any], str]:
    """
    Take a path apart: the model's own column, and the rest beyond its foreign key ("" if the column is the value).

    Raises:  InvalidRule, naming the wrong part and the nearest that is right.
    """
    first, _separator, rest = path.partition("__")
    field = column(model, first)
    if field is None:
        raise InvalidRule(_unknown(model, first, path))
    if not rest:
        return field, ""
    if not isinstance(field, ForeignKey):
        text = _("%(path)r: %(where)s is no foreign key, so %(rest)r cannot follow it.")
        raise InvalidRule(text % {"path": path, "where": f"{model._meta.label}.{first}", "rest": rest})
    target = field.remote_field.model
    if column(target, rest) in field.foreign_related_fields:
        return field, ""
    resolve(target, rest)
    return field, rest


def _unknown(model: type[Model], name: str, path: str) -> str:
    where = f"{model._meta.label}.{name}"
    if name in relations_of(model) or any(name == r.name for r in model._meta.related_objects):
        text = _("%(path)r: %(where)s leads to many rows; a path follows foreign keys only.")
        return text % {"path": path, "where": where}
    near = difflib.get_close_matches(name, names_of(model), n=1)
    hint = _(" Did you mean %(name)s?") if near else _(" Fields are %(names)s.")
    text = _("%(path)r: field %(where)s does not exist.") % {"path": path, "where": where}
    return text + hint % {"name": near[0] if near else "", "names": ", ".join(names_of(model))}


def tenant_path(model: type[Model], path: str) -> str:
    """
    Return where the tenant of a model's rows comes from: `path`, or what is found for an empty one.

    Found: the model's own foreign key to the tenant. A model that only hangs on one that has it: all tenants, since
    the way there may be of another meaning. One that hangs on none: shared data. With one schema a tenant: the active
    one, for a table of all schemas every tenant.

    A key that holds another column of the tenant than its id (`to_field`) is followed to the id.
    """
    ours = tenancy()
    if path in (ALL_TENANTS, SHARED_DATA):
        return path
    if path:
        return _to_the_id(ours, model, path)
    if isinstance(ours, NoTenants) or not ours.has_tenants:
        return SHARED_DATA
    if isinstance(ours, SchemaTenancy):
        return ALL_TENANTS if ours.is_shared(model) else ACTIVE_TENANT
    if _is_tenant(ours, model):
        return "pk"
    if (field := _own_column(ours, model)) is not None:
        return _to_the_id(ours, model, field.attname)
    knows_itself = type(ours).from_instance is not Tenancy.from_instance and not getattr(ours, "model", "")
    hangs = knows_itself or any(_is_tenant(ours, m) or _own_column(ours, m) is not None for m in _reachable(model))
    return ALL_TENANTS if hangs else SHARED_DATA


def _is_tenant(ours: Tenancy, model: type[Model]) -> bool:
    label = getattr(ours, "model", "")
    return bool(label) and issubclass(model, apps.get_model(label))


def _to_the_id(ours: Tenancy, model: type[Model], path: str) -> str:
    """Return the path, led on to the tenant's id if it ends at a foreign key that holds another of his columns."""
    names: list[str] = []
    field: Any = None
    for name in path.split("__"):
        field = column(model, name)
        if not isinstance(field, ForeignKey):
            return path
        names.append(field.name)
        model = field.remote_field.model
    if type(ours).from_row is not ForeignKeyTenancy.from_row or not _is_tenant(ours, model):
        return path  # its ids may be that very column
    return path if field.target_field.primary_key else "__".join((*names, "pk"))


def _own_column(ours: Tenancy, model: type[Model]) -> Field[Any, Any] | None:
    return column(model, f"{getattr(ours, 'field', 'tenant')}_id")


def _reachable(model: type[Model]) -> Iterator[type[Model]]:
    """Every model that foreign keys lead to, however far."""
    seen, waiting = {model}, [model]
    while waiting:
        for field in waiting.pop()._meta.concrete_fields:
            if isinstance(field, ForeignKey) and (target := field.remote_field.model) not in seen:
                seen.add(target)
                waiting.append(target)
                yield target
