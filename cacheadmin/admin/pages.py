"""What every page of the console shares: access, the frame around it, notes on Redis and read-only, 403 and 404.

A page is one class in `views/`; it asks a service, shapes what came back, and renders a template. No page speaks Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar
from urllib.parse import urlencode

import django
from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views import View

from cacheadmin import browser
from cacheadmin.exceptions import CacheAway
from cacheadmin.outbox import pending
from cacheadmin.preview.values import visible
from cacheadmin.tenancy import tenancy

from . import formats
from .access import NAMES, Access, NotAllowed, Permission, access_of

if TYPE_CHECKING:
    from .console import ConsoleAdmin

T = TypeVar("T")

KEPT = ("alias", "range")
"""Parameters that stay when moving between tabs."""


@dataclass(frozen=True, slots=True)
class Crumb:
    """One step of the breadcrumbs; the last has no link."""

    label: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Tab:
    """One tab of the console's navigation."""

    label: str
    url: str
    is_current: bool
    count: int = 0
    """Open findings, shown beside *Health*."""


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence above the figures: what is wrong and who is hit."""

    text: str | Promise
    """Plain text or SafeString."""
    title: str | Promise = ""
    level: Literal["good", "info", "warn", "bad"] = "warn"
    links: Sequence[tuple[str, str]] = ()
    """Pairs of label and URL."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a strip."""

    label: str | Promise
    value: str
    unit: str = ""
    note: str = ""
    level: Literal["", "good", "bad"] = ""
    title: str = ""
    """The exact number, where `value` is shortened."""
    url: str = ""
    """Where the note leads."""


TABS: tuple[tuple[str, str | Promise, str, str], ...] = (
    ("overview", gettext_lazy("Overview"), "cacheadmin_console_changelist", "cacheadmin.view_keys"),
    ("tenants", gettext_lazy("Tenants"), "cacheadmin_tenant_list", "cacheadmin.view_keys"),
    ("functions", gettext_lazy("Functions"), "cacheadmin_function_list", "cacheadmin.view_keys"),
    ("rules", gettext_lazy("Rules"), "cacheadmin_invalidationrule_changelist", "cacheadmin.view_invalidationrule"),
    ("activity", gettext_lazy("Activity"), "cacheadmin_activity_list", "cacheadmin.view_keys"),
    ("health", gettext_lazy("Health"), "cacheadmin_health", "cacheadmin.view_keys"),
)

_counters: dict[str, Callable[[], int]] = {}


def count_beside(tab: str, counter: Callable[[], int]) -> None:
    """Show what `counter()` returns beside a tab. It runs on every page, so it must cost next to nothing."""
    _counters[tab] = counter


def url_to(site: AdminSite, name: str, *args: Any) -> str:
    """Return the URL of one of the console's pages in an admin site."""
    return reverse(f"admin:{name}", args=args, current_app=site.name)


def _tabs(request: HttpRequest, site: AdminSite, current: str) -> list[Tab]:
    found = []
    kept = request.GET.copy()
    for name in [name for name in kept if name not in KEPT]:
        del kept[name]
    query = f"?{kept.urlencode()}" if kept else ""
    for name, label, view, permission in TABS:
        if not request.user.has_perm(permission):
            continue
        if name == "tenants" and not tenancy().has_tenants:
            label, view = _("Groups"), "cacheadmin_group_list"
        try:
            url = url_to(site, view)
        except NoReverseMatch:  # a site that registered the console without the rules
            continue
        url += "" if name == "rules" else query
        counter = _counters.get(name)
        found.append(Tab(str(label), url, name == current, counter() if counter else 0))
    return found


def frame(
    request: HttpRequest, site: AdminSite, *, tab: str, crumbs: Sequence[Crumb] = (), with_notes: bool = True
) -> dict[str, Any]:
    """
    Return the context that `cacheadmin/base.html` and its includes need: tabs, find box, breadcrumbs, access, notes.

    For pages that are not a `Page` too, such as the change list of the rules.
    Cost: a ping a managed alias, and one query while something waits for Redis.
    """
    access = access_of(request.user)
    return {
        **site.each_context(request),
        "access": access,
        "tabs": _tabs(request, site, tab),
        "find_url": url_to(site, "cacheadmin_find") if access.may("view_keys") else "",
        "crumbs": [
            Crumb(_("Home"), url_to(site, "index")),
            Crumb(_("Cache"), reverse("admin:app_list", args=("cacheadmin",), current_app=site.name)),
            *(Crumb(visible(crumb.label), crumb.url) for crumb in crumbs),
        ],
        "breadcrumbs_are_list": django.VERSION >= (6, 1),
        "standing_notes": standing_notes(access) if with_notes else [],
    }


def standing_notes(access: Access) -> list[Note]:
    """Return what every page must say: that Redis is away, that acts are off, that one sees no tenant."""
    notes = []
    away = browser.away(access.aliases)
    if away:
        since = min((found.since for found in away), default=0.0)
        waiting = 0 if access.is_bound else pending().count
        text = _("The site computes every value.")
        if waiting:
            text = ngettext(
                "The site computes every value; %(n)s invalidation waits and will be done when it is back.",
                "The site computes every value; %(n)s invalidations wait and will be done when it is back.",
                waiting,
            ) % {"n": formats.number(waiting)}
        names = ", ".join(found.alias for found in away)
        title = _("Redis (%(aliases)s) does not answer since %(time)s.") % {
            "aliases": names,
            "time": formats.clock(since or timezone.now()),
        }
        notes.append(Note(text, title, "bad"))
    if access.is_read_only:
        notes.append(Note(_("This site’s settings switch acts off."), _("Read-only:"), "info"))
    if access.is_bound and not access.tenants:
        wanted = NAMES["see_all_tenants"]
        text = _("Ask an administrator for a tenant, or for “%(permission)s”.") % {"permission": wanted}
        notes.append(Note(text, _("You see no tenant here."), "info"))
    return notes


class Page(View):
    """One page. A subclass sets `tab`, `title` and `template_name`, and has a method `get` that returns `render(…)`."""

    console: ConsoleAdmin = None  # type: ignore[assignment]  # given by as_view(console=…)
    tab: ClassVar[str] = "overview"
    template_name: ClassVar[str] = ""
    needs: ClassVar[tuple[Permission, ...]] = ("view_keys",)
    """Permissions without which the answer is 403."""
    http_method_names = ["get", "head"]

    access: Access

    @property
    def site(self) -> AdminSite:
        return self.console.admin_site

    def url(self, name: str, *args: Any) -> str:
        """Return the URL of another page of the console, by its name."""
        return url_to(self.site, name, *args)

    def rules_url(self, search: str = "") -> str:
        """Return the URL of the list of rules; empty for who may not see it, and on a site without it."""
        if not any(self.request.user.has_perm(f"cacheadmin.{act}_invalidationrule") for act in ("view", "change")):
            return ""
        try:
            url = self.url("cacheadmin_invalidationrule_changelist")
        except NoReverseMatch:  # a site that registered the console without the rules
            return ""
        return f"{url}?{urlencode({'q': search})}" if search else url

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        request.current_app = self.site.name
        self.access = access_of(request.user)
        try:
            for permission in self.needs:
                self.access.require(permission)
            if not self.access.aliases and self.access.is_restricted:
                raise Http404
            return super().dispatch(request, *args, **kwargs)
        except NotAllowed as error:
            return self.refuse(error)
        except Http404:
            return self.missing()

    def ask(self, question: Callable[[], T]) -> T | None:
        """Return the answer of the browser, or None while Redis is away; the frame then says so."""
        try:
            return question()
        except CacheAway:
            return None

    def render(
        self, title: str, *, crumbs: Iterable[Crumb] = (), template: str = "", status: int = 200, **context: Any
    ) -> HttpResponse:
        """Render the page in the console's frame. Ask Redis before, so that the frame knows whether it is away."""
        title = visible(title)
        shell = frame(self.request, self.site, tab=self.tab, crumbs=[*crumbs])
        return TemplateResponse(
            self.request,
            template or self.template_name,
            {**shell, "title": title, "opts": self.console.opts, "has_permission": True, **context},
            status=status,
        )

    def refuse(self, error: NotAllowed) -> HttpResponse:
        """Return a 403 that names the permission."""
        if error.is_read_only:
            text = _("Read-only: this site’s settings switch acts off.")
        else:
            text = _("You need “%(permission)s” for this. Ask an administrator.") % {
                "permission": NAMES.get(error.permission, error.permission)
            }
        title = _("Not allowed")
        return self.render(title, crumbs=[Crumb(title)], template="cacheadmin/message.html", status=403, text=text)

    def missing(self, title: str = "", text: str = "") -> HttpResponse:
        """Return a 404 that says what one may do instead; the same for what never was and what one may not see."""
        title = title or _("Not found")
        text = text or _("There is no such page, or nothing you may see. It may have been renamed or removed.")
        return self.render(title, crumbs=[Crumb(title)], template="cacheadmin/message.html", status=404, text=text)


class Act(Page):
    """A deed: POST only, unless it asks first on GET."""

    http_method_names = ["post"]
