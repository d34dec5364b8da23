"""Who may see and do what in the console: its permissions, the tenants of a user, and read-only mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from cacheadmin.conf import config
from cacheadmin.targets import Target
from cacheadmin.tenancy import EVERYONE, Everyone, tenancy

Permission = Literal["view_keys", "view_values", "invalidate", "warm", "clear_alias", "see_all_tenants"]

NAMES: Final[dict[str, str | Promise]] = {
    "view_keys": _("Can see what is cached"),
    "view_values": _("Can see cached values"),
    "invalidate": _("Can invalidate caches"),
    "warm": _("Can warm caches"),
    "clear_alias": _("Can clear a whole alias"),
    "see_all_tenants": _("Can see all tenants"),
}
"""The permissions of the console as a page names them when one is lacking."""

ACTS: Final = frozenset({"invalidate", "warm", "clear_alias"})
"""Permissions that nobody has while `CACHEADMIN["READ_ONLY"]` is set."""


class NotAllowed(PermissionDenied):
    """A permission is lacking, or the site is read-only. The page says which."""

    def __init__(self, permission: str, *, is_read_only: bool = False) -> None:
        super().__init__(permission)
        self.permission = permission
        self.is_read_only = is_read_only


@dataclass(frozen=True, slots=True)
class Access:
    """What one user may see and do. Templates ask it too: `access.may_invalidate`."""

    user: Any
    tenants: frozenset[str] | Everyone
    """Ids of the tenants the user may see, or EVERYONE, which includes shared data."""
    is_read_only: bool = False
    allowed_aliases: frozenset[str] | Everyone = EVERYONE
    """Aliases the user may see. Somebody restricted to some sees one at a time, never a sum over all."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """The managed aliases that the user may see, in their order."""
        return tuple(filter(self.sees_alias, config().aliases))

    @property
    def is_restricted(self) -> bool:
        """Whether the user sees certain aliases only."""
        return self.allowed_aliases is not EVERYONE

    def sees_alias(self, alias: str) -> bool:
        """Say whether the user may see an alias."""
        return isinstance(self.allowed_aliases, Everyone) or alias in self.allowed_aliases

    def require_alias(self, alias: str) -> None:
        """Raise Http404 for an alias that the user may not see: the same answer as for one that never was."""
        if not self.sees_alias(alias):
            raise Http404

    def within(self, targets: Iterable[Target]) -> tuple[Target, ...]:
        """Narrow what is meant for all aliases to those that the user may see, and leave out other aliases."""
        if isinstance(self.allowed_aliases, Everyone):
            return tuple(targets)
        found = (
            replace(target, alias=alias)
            for target in targets
            for alias in (self.aliases if target.alias is None else (target.alias,))
        )
        return tuple(target for target in found if self.sees_alias(str(target.alias)))

    @property
    def is_bound(self) -> bool:
        """Whether the user sees certain tenants only; shared data and the server's own figures are then hidden."""
        return self.tenants is not EVERYONE

    def has(self, permission: Permission) -> bool:
        """Say whether the user was given a permission, whatever the site's mode."""
        return bool(self.user.has_perm(f"cacheadmin.{permission}"))

    def may(self, permission: Permission) -> bool:
        """Say whether the user may do it now."""
        return self.has(permission) and not (self.is_read_only and permission in ACTS)

    def require(self, permission: Permission) -> None:
        """Raise NotAllowed unless the user may do it now."""
        if not self.may(permission):
            raise NotAllowed(permission, is_read_only=self.is_read_only and self.has(permission))

    def sees(self, tenant: str | None) -> bool:
        """Say whether the user may see a tenant; None is shared data."""
        return isinstance(self.tenants, Everyone) or (tenant is not None and tenant in self.tenants)

    def require_tenant(self, tenant: str | None) -> None:
        """Raise Http404 for a tenant that the user may not see: the same answer as for one that never was."""
        if not self.sees(tenant):
            raise Http404

    def only(self, tenants: Iterable[str | None]) -> list[str | None]:
        """Return those of some tenants that the user may see."""
        return [tenant for tenant in tenants if self.sees(tenant)]

    @property
    def may_view_values(self) -> bool:
        return self.may("view_values")

    @property
    def may_invalidate(self) -> bool:
        return self.may("invalidate")

    @property
    def may_warm(self) -> bool:
        return self.may("warm")

    @property
    def may_sweep(self) -> bool:
        """Whether the user may look for a pattern: it reaches every tenant."""
        return self.may("invalidate") and not self.is_bound

    @property
    def may_clear_alias(self) -> bool:
        return self.may("clear_alias") and not self.is_bound


def access_of(user: Any) -> Access:
    """
    Return what a user may see and do.

    On a site with tenants, all of them takes both: `Tenancy.allowed` saying so, and the permission `see_all_tenants`.
    """
    whose = tenancy()
    allowed = whose.allowed(user)
    tenants: frozenset[str] | Everyone
    if isinstance(allowed, Everyone):
        sees_all = not whose.has_tenants or user.has_perm("cacheadmin.see_all_tenants")
        tenants = EVERYONE if sees_all else frozenset()
    else:
        tenants = frozenset(str(tenant) for tenant in allowed)
    named = whose.allowed_aliases(user)
    aliases = named if isinstance(named, Everyone) else frozenset(map(str, named))
    return Access(user, tenants, config().read_only, aliases)
