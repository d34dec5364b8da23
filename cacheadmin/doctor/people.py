"""A check of who uses the console: whether they see anything in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db import DatabaseError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.tenancy import Everyone, tenancy

from .facts import Facts
from .registry import Finding, check

FEW: Final = 3
"""People whose tenants are asked for on a page; the command asks for so many times its steps."""

BACKEND: Final = "django.contrib.auth.backends.ModelBackend"


@check("W047", gettext_lazy("Who may use the console sees some tenant in it."))
def people_see_something(facts: Facts) -> Iterator[Finding]:
    """Report people with `cacheadmin.view_keys` for whom `Tenancy.allowed` names nobody. Those who came last first."""
    if facts.at_start or not tenancy().has_tenants:
        return
    for user in _people(FEW * facts.steps):
        allowed = tenancy().allowed(user)
        if isinstance(allowed, Everyone):
            if user.has_perm("cacheadmin.see_all_tenants"):
                continue
            fix = _("Give the permission cacheadmin.see_all_tenants, or let Tenancy.allowed(user) name tenants.")
        elif next(iter(allowed), None) is not None:
            continue
        else:
            fix = _("Let Tenancy.allowed(user) name the tenants of this user, or take the permission away.")
        yield Finding(
            _("%(user)s may use the console and sees no tenant.") % {"user": user.get_username()},
            where="Tenancy.allowed",
            why=_("Every page is empty, and each address of an entry is not found."),
            fix=fix,
        )


def _people(most: int) -> list[Any]:
    """Return some of the active staff who may see the console; none where users are not Django's. Cost: one query."""
    users: Any = get_user_model()
    manager = users._default_manager
    if not hasattr(manager, "with_perm") or not all(hasattr(users, name) for name in ("is_staff", "last_login")):
        return []
    found = manager.with_perm("cacheadmin.view_keys", backend=BACKEND, include_superusers=False)
    try:
        return list(found.filter(is_staff=True).order_by("-last_login", "pk")[:most])
    except DatabaseError:
        return []  # E039 says that the database cannot be read
