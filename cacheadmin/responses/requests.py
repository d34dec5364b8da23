"""What tells requests apart: whose they are, what they ask for, and what answering one did to its visitor."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from django.core.exceptions import DisallowedHost
from django.utils.timezone import get_current_timezone_name
from django.utils.translation import get_language

from cacheadmin.encoding import canonical, digest
from cacheadmin.exceptions import InvalidKey
from cacheadmin.keys import tenant_text
from cacheadmin.tenancy import tenancy

SESSION: Final = "@session"
"""Stands among the headers that a response varies on, where its view has read the session; no header is called so."""


class Whose(NamedTuple):
    """Whom a request comes from."""

    tenant: str | None
    user: str
    """Primary key; of a bearer whom only the view will recognise the digest of his credentials; else empty."""


def whose_request(request: Any, *, vary_on_user: bool) -> Whose | None:
    """Return whom a request comes from; None if its tenant cannot be told."""
    site = tenancy()
    tenant = site.from_request(getattr(request, "_request", request))
    if tenant is None and site.has_tenants:
        return None
    user = ""
    if vary_on_user:
        pk = getattr(getattr(request, "user", None), "pk", None)
        user = "" if pk is None else str(pk)
        if not user and (credentials := request.META.get("HTTP_AUTHORIZATION")):
            user = digest(credentials.encode("utf-8", "surrogatepass"))
    return Whose(None if tenant is None else tenant_text(tenant), user)


def asked_for(request: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a request asks a view for; the user and the headers of `Vary` come on top."""
    parts: dict[str, Any] = {
        "path": request.path,
        "method": request.method,
        "site": _site(request),
        # As Django's own cache: `LocaleMiddleware` adds its `Vary` when the view has returned.
        "locale": (get_language(), get_current_timezone_name()),
    }
    if query := sorted(request.GET.lists()):
        parts["query"] = query
    if version := getattr(request, "version", None):  # REST framework's, which a header may say
        parts["version"] = str(version)
    if given := _given(request, args, kwargs):
        parts["given"] = given
    return parts


def _site(request: Any) -> str:
    """Return scheme and host, which absolute links in a response begin with."""
    try:
        return f"{request.scheme}://{request.get_host()}"
    except DisallowedHost:  # the view's own matter, if it looks
        return ""


def _given(request: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the view's other arguments: the path tells most, but not those that another view gives it."""
    after = next(i for i, arg in enumerate(args) if arg is request) + 1
    return [(name, _told(arg)) for name, arg in (*enumerate(args[after:]), *sorted(kwargs.items()))]


def _told(arg: Any) -> Any:
    """Return an argument as it can be part of a key. Of an object, a path converter's say, the path tells the rest."""
    try:
        canonical(arg)
    except InvalidKey:
        kind, row = type(arg), getattr(arg, "_meta", None)
        return (f"{kind.__module__}.{kind.__qualname__}", "" if row is None else str(getattr(arg, "pk", "")))
    return arg


def header_value(request: Any, header: str) -> str:
    """Return what a request says in a header; empty if it says nothing. Of `SESSION` a digest of what is in it."""
    if header == SESSION:
        return _session_digest(request)
    name = header.upper().replace("-", "_")
    return str(request.META.get(name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}", ""))


def _session_digest(request: Any) -> str:
    session = getattr(request, "session", None)
    if session is None:
        return ""
    try:
        return digest(canonical(dict(session.items())))
    except InvalidKey:  # it holds objects: nobody can say whose else is like it
        return uuid.uuid4().hex


def share_user(request: Any) -> None:
    """Let `request.auser()` know the user that `request.user` has loaded: else it would read the session once more."""
    if (known := getattr(request, "_cached_user", None)) is not None and not hasattr(request, "_acached_user"):
        request._acached_user = known


class SessionReads:
    """Whether the session was read in a `with` block, entered any number of times."""

    def __init__(self, request: Any) -> None:
        self.any = False
        self._session = getattr(request, "session", None)

    def __enter__(self) -> None:
        self._before = getattr(self._session, "accessed", None)
        if self._before is not None:
            self._session.accessed = False  # type: ignore[union-attr]

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            self.any |= self._session.accessed  # type: ignore[union-attr]
            self._session.accessed |= self._before  # type: ignore[union-attr]


def left_a_mark(request: Any) -> bool:
    """
    Say whether answering did something to this visitor alone that a hit would not do again.

    A CSRF token or a nonce made for him, a changed session (a middleware sets its cookie later), a message left or
    shown.
    """
    messages = getattr(request, "_messages", None)
    return bool(
        request.META.get("CSRF_COOKIE_NEEDS_UPDATE")
        or getattr(request, "_csp_nonce", None)  # false until it is asked for; a policy names it only then
        or getattr(getattr(request, "session", None), "modified", False)
        or (messages is not None and (messages.added_new or (messages.used and len(messages))))
    )
