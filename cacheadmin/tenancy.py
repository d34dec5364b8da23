"""Who the tenants are and which one is active. A site names its class in `CACHEADMIN["TENANCY"]`."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final

from django.apps import apps
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import connection
from django.db.models import ForeignKey, Model
from django.http import HttpRequest
from django.utils.module_loading import import_string

from .conf import config, on_change, shared_apps
from .exceptions import ImproperSettings, InvalidTenant
from .keys import read_tenant_rows, tenant_text


class Everyone(enum.Enum):
    """The one value `EVERYONE`: no restriction to certain tenants."""

    EVERYONE = "everyone"


EVERYONE: Final = Everyone.EVERYONE


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant as the console shows it."""

    id: str
    label: str


_active: ContextVar[str | None] = ContextVar("cacheadmin_tenant", default=None)


class Tenancy:
    """
    What a site tells about its tenants. Subclass it, override what differs, name it in `CACHEADMIN["TENANCY"]`.

    Ids are text everywhere: 12 and "12" are one tenant.
    """

    has_tenants: ClassVar[bool] = True
    lists_all: ClassVar[bool] = False
    """Whether `list()` surely names every tenant of whom anything may be cached. If not, what drops something for all
    tenants also looks for others on the servers, with a SCAN."""

    def from_request(self, request: HttpRequest) -> str | None:
        """Return the tenant of a request, or None if it cannot be told; nothing of such a request is cached."""
        tenant = getattr(request, "tenant", None)
        if tenant is None:
            tenant = getattr(getattr(request, "user", None), "tenant", None)
        return None if tenant is None else tenant_text(tenant)

    def from_instance(self, instance: Any) -> Iterable[str]:
        """Return the tenants that a model instance belongs to; empty for shared data."""
        tenant = getattr(instance, "tenant_id", None)
        return () if tenant is None else (tenant_text(tenant),)

    def from_row(self, row: Any) -> Any:
        """
        Return the id of the tenant that a model instance is, where callers pass it in place of the id.

        Default: its primary key, whatever the model. Raises: InvalidTenant if it is no tenant's row.
        """
        return row.pk

    def list(self) -> Iterable[Tenant]:
        """Yield every tenant. Called by commands, pages and all-tenant invalidation; never on a read."""
        return ()

    def find(self, text: str, limit: int = 20) -> Sequence[Tenant]:
        """Return tenants whose name or id begins with `text`, case ignored. Override with a query for very many."""
        text, found = text.casefold(), []
        for tenant in self.list():
            if tenant.label.casefold().startswith(text) or tenant.id.casefold().startswith(text):
                found.append(tenant)
                if len(found) == limit:
                    break
        return found

    def labels(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the names of some tenants; a page calls it once. Override with a query for very many."""
        wanted = set(ids)
        return {tenant.id: tenant.label for tenant in self.list() if tenant.id in wanted}

    def current(self) -> str | None:
        """Return the tenant that is active in this thread or task, or None."""
        return _active.get()

    def activate(self, tenant: Any) -> AbstractContextManager[None]:
        """Make a tenant the active one for a `with` block, for example while one of its entries is recomputed."""
        return _activated(None if tenant is None else tenant_text(tenant))

    def allowed(self, user: Any) -> Iterable[str] | Everyone:
        """Return the tenants whose cache a user of the console may see; `EVERYONE` for all. Default: all."""
        return EVERYONE

    def allowed_aliases(self, user: Any) -> Iterable[str] | Everyone:
        """Return the cache aliases that a user of the console may see; `EVERYONE` for all. Default: all."""
        return EVERYONE


@contextmanager
def _activated(tenant: str | None) -> Iterator[None]:
    token = _active.set(tenant)
    try:
        yield
    finally:
        _active.reset(token)


class NoTenants(Tenancy):
    """A site without tenants: everything is shared data."""

    has_tenants = False
    lists_all = True

    def from_request(self, request: HttpRequest) -> str | None:
        """Return None: there are no tenants."""
        return None

    def from_instance(self, instance: Any) -> Iterable[str]:
        """Return nothing: there are no tenants."""
        return ()


class ForeignKeyTenancy(Tenancy):
    """Rows carry a foreign key to the tenant. Set `model`, and `field` if the key is not called `tenant`."""

    lists_all = True

    model: ClassVar[str] = ""
    """Label of the tenant model, for example "shop.Tenant"."""
    field: ClassVar[str] = "tenant"
    label_field: ClassVar[str] = "name"

    def from_request(self, request: HttpRequest) -> str | None:
        """Return the request's own tenant, else its user's, whose row is not fetched for that. Cost: no query."""
        names = dict.fromkeys((self.field, "tenant"))
        tenant = _first(getattr(request, name, None) for name in names)
        if tenant is None:
            user = getattr(request, "user", None)
            tenant = _first(_foreign_id(user, name) for name in names)
        return None if tenant is None else tenant_text(tenant)

    def from_instance(self, instance: Any) -> Iterable[str]:
        """Return the tenant its foreign key names; a tenant instance belongs to itself."""
        if isinstance(instance, apps.get_model(self.model)):
            return (tenant_text(instance.pk),)
        value = _foreign_id(instance, self.field)
        return () if value is None else (tenant_text(value),)

    def from_row(self, row: Any) -> Any:
        """Return the primary key of a tenant. A customer's is none: he would share with the tenant of that number."""
        model = apps.get_model(self.model)
        if isinstance(row, model):
            return row.pk
        raise InvalidTenant(f"{row!r:.100} is no tenant id and no {model._meta.label}. Give the tenant's id.")

    def list(self) -> Iterable[Tenant]:
        """Yield every row of the tenant model, by primary key. Cost: one query."""
        rows = apps.get_model(self.model)._base_manager.order_by("pk").values_list("pk", self.label_field)
        for pk, label in rows.iterator():
            yield Tenant(str(pk), str(label))

    def find(self, text: str, limit: int = 20) -> Sequence[Tenant]:
        """Return tenants whose name begins with `text` or whose id is `text`. Cost: at most two queries."""
        if not _can_be_asked(text):
            return []
        manager = apps.get_model(self.model)._base_manager
        rows = manager.filter(**{f"{self.label_field}__istartswith": text}).order_by(self.label_field)
        found = [Tenant(str(pk), str(label)) for pk, label in rows.values_list("pk", self.label_field)[:limit]]
        by_id = [] if any(t.id == text for t in found) else self.labels([text]).items()
        return [Tenant(*pair) for pair in by_id] + found[: limit - len(by_id)]

    def labels(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the names of some tenants; ids that no row has are left out. Cost: one query."""
        model = apps.get_model(self.model)
        keys = []
        for text in ids:
            try:
                if _can_be_asked(text):
                    keys.append(model._meta.pk.clean(text, None))  # looks at the range of the column, too
            except (ValidationError, TypeError, ValueError):
                continue  # not an id of this model, hence no row
        rows = model._base_manager.filter(pk__in=keys).values_list("pk", self.label_field)
        return {str(pk): str(label) for pk, label in rows}


def _first(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _foreign_id(row: Any, name: str) -> Any:
    """Return the key of the row that a foreign key leads to. Cost: no query, but where it holds another column."""
    try:
        field = row._meta.get_field(name)
    except (AttributeError, FieldDoesNotExist):
        return getattr(row, name, None)  # a property, nobody, or a double of a test
    if isinstance(field, ForeignKey) and field.target_field.primary_key:
        return getattr(row, field.attname)
    return getattr(row, name)


def _can_be_asked(text: str) -> bool:
    """Say whether every database takes this text in a query: no NUL, no half of a surrogate pair."""
    return "\0" not in text and text.encode("utf-8", "replace").decode() == text


class SchemaTenancy(Tenancy):
    """django-tenants: one PostgreSQL schema a tenant; its id is the schema's name."""

    lists_all = True

    public: ClassVar[str] = "public"

    def _model(self) -> Any:
        return import_string("django_tenants.utils.get_tenant_model")()

    def is_shared(self, model: type[Model]) -> bool:
        """Say whether a model has one table for all tenants, whichever schema the connection is set to."""
        app = apps.get_app_config(model._meta.app_label)
        names = {app.name, f"{type(app).__module__}.{type(app).__qualname__}"}
        return not names.isdisjoint(shared_apps())

    def from_request(self, request: HttpRequest) -> str | None:
        """Return the schema of `request.tenant`, None in the public one."""
        schema = getattr(getattr(request, "tenant", None), "schema_name", None)
        return None if schema == self.public else schema

    def from_instance(self, instance: Any) -> Iterable[str]:
        """Return the schema that the connection is set to: rows do not say it themselves."""
        current = self.current()
        return () if current is None else (current,)

    def from_row(self, row: Any) -> Any:
        """Return a tenant's schema; its primary key is no id here. A row without one gives InvalidTenant."""
        return getattr(row, "schema_name", None)

    def current(self) -> str | None:
        """Return the schema that the connection is set to, None in the public one."""
        schema = getattr(connection, "schema_name", None)
        return None if schema == self.public else schema

    def list(self) -> Iterable[Tenant]:
        """Yield every tenant but the public one. Cost: one query."""
        for tenant in self._model()._base_manager.exclude(schema_name=self.public).order_by("schema_name").iterator():
            yield Tenant(tenant.schema_name, str(tenant))

    def activate(self, tenant: Any) -> AbstractContextManager[None]:
        """Set the connection to a tenant's schema for a `with` block; for None leave it as it is."""
        if tenant is None:
            return nullcontext()
        return import_string("django_tenants.utils.schema_context")(tenant_text(tenant))


class ScopesTenancy(ForeignKeyTenancy):
    """django-scopes: the tenant is the value of `scope(tenant=…)`."""

    dimension: ClassVar[str] = "tenant"

    def current(self) -> str | None:
        """Return the tenant of the innermost `scope`, None outside one."""
        value = import_string("django_scopes.get_scope")().get(self.dimension)
        return None if value is None else tenant_text(value)

    def activate(self, tenant: Any) -> AbstractContextManager[None]:
        """Enter `scope(tenant=…)` for a `with` block; for None nothing. Cost: one query, before the block."""
        if tenant is None:
            return nullcontext()
        row = apps.get_model(self.model)._base_manager.get(pk=tenant_text(tenant))
        return import_string("django_scopes.scope")(**{self.dimension: row})


@cache
def tenancy() -> Tenancy:
    """Return the site's tenancy. Raises: ImproperSettings if `CACHEADMIN["TENANCY"]` names no such class."""
    path = config().tenancy
    try:
        found = import_string(path)
    except (ImportError, ValueError) as error:
        raise ImproperSettings(f"CACHEADMIN['TENANCY'] is {path!r}, which cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Tenancy)):
        raise ImproperSettings(
            f"CACHEADMIN['TENANCY'] is {path!r}, which is no subclass of cacheadmin.tenancy.Tenancy."
        )
    return found()


on_change(tenancy.cache_clear)
read_tenant_rows(lambda row: tenancy().from_row(row))
