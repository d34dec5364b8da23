"""Opaque ids for URLs: a tenant, group, entry or scope, signed, so that a page acts on exactly the key it showed.

A signature proves that we made an id, not that its bearer may use it: pages check the tenant on every request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.core.signing import BadSignature, Signer
from django.http import Http404

from cacheadmin.exceptions import InvalidTarget
from cacheadmin.targets import Target

SCOPE_TARGETS: Final = 200
"""Most targets that one id may carry: a page's selection."""


def _signer(kind: str) -> Signer:
    return Signer(salt=f"cacheadmin.ids.{kind}", sep="~")


def _seal(kind: str, value: Any) -> str:
    return _signer(kind).sign_object(value, compress=True)


def _open(kind: str, token: str) -> Any:
    """Return what `_seal` was given. Raises: Http404 for anything that we did not sign as an id of this kind."""
    try:
        return _signer(kind).unsign_object(token)
    except (BadSignature, ValueError, UnicodeError) as error:
        raise Http404 from error


def tenant_id(tenant: str | None) -> str:
    """Return the id of a tenant; None is shared data."""
    return _seal("tenant", tenant)


def open_tenant(token: str) -> str | None:
    """Undo `tenant_id`. Raises: Http404."""
    return _open("tenant", token)


def group_id(alias: str, group: str) -> str:
    """Return the id of a group in an alias; whose it is stands in the tenant's id before it."""
    return _seal("group", [alias, group])


def open_group(token: str) -> tuple[str, str]:
    """Undo `group_id`. Raises: Http404."""
    alias, group = _open("group", token)
    return alias, group


def entry_id(alias: str, tenant: str | None, group: str, member: str) -> str:
    """Return the id of an entry. `member` is its name within its group, in Redis."""
    return _seal("entry", [alias, tenant, group, member])


def open_entry(token: str) -> tuple[str, str | None, str, str]:
    """Undo `entry_id`: alias, tenant, group, member. Raises: Http404."""
    alias, tenant, group, member = _open("entry", token)
    return alias, tenant, group, member


def plain_id(alias: str, tenant: str | None, full_key: str) -> str:
    """Return the id of a plain key, by its name in Redis."""
    return _seal("plain", [alias, tenant, full_key])


def open_plain(token: str) -> tuple[str, str | None, str] | None:
    """Undo `plain_id`: alias, tenant, full key; None for an id of another kind."""
    try:
        alias, tenant, full_key = _open("plain", token)
    except Http404:
        return None
    return alias, tenant, full_key


def scope_id(targets: Target | Iterable[Target]) -> str:
    """Return the id of what an act is about to hit. Raises: InvalidTarget above `SCOPE_TARGETS`."""
    found = [targets] if isinstance(targets, Target) else list(targets)
    if len(found) > SCOPE_TARGETS:
        raise InvalidTarget(f"{len(found)} were selected; at most {SCOPE_TARGETS} can be chosen at once.")
    return _seal("scope", [[t.kind, t.name, t.to_json()["tenant"], t.alias] for t in found])


def open_scope(token: str) -> tuple[Target, ...]:
    """Undo `scope_id`. Raises: Http404."""
    names = ("kind", "name", "tenant", "alias")
    return tuple(Target.from_json(dict(zip(names, parts, strict=True))) for parts in _open("scope", token))
