"""Plain keys: what was written without a group? There is no index of them, so each look is bounded."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from cacheadmin import browser
from cacheadmin.admin import formats, ids, naming, paging
from cacheadmin.admin.pages import Crumb, Page
from cacheadmin.browser import PlainKey
from cacheadmin.conf import config
from cacheadmin.targets import Target

from .entries import crumbs_to, expires_text


@dataclass(frozen=True, slots=True)
class Row:
    """One plain key as the list shows it."""

    key: PlainKey
    expires: str
    scope: str


class PlainList(Page):
    """A bounded look at the plain keys of a tenant in one alias."""

    tab = "tenants"
    template_name = "cacheadmin/plain.html"

    def get(self, request: HttpRequest, tenant: str) -> HttpResponse:
        """Look for at most a second, from a cursor on."""
        whose = ids.open_tenant(tenant)
        self.access.require_tenant(whose)
        indexed = browser.indexed_aliases()
        alias = request.GET.get("alias", "")
        alias = alias if alias in indexed else next(iter(indexed), "")
        label = naming.tenant_label(whose)
        title = _("Plain keys")
        if not alias:
            return self.missing(text=_("No alias of this site can be searched for keys."))
        cursor = paging.whole(request.GET.get("cursor"), 0, 0, 2**64 - 1)
        page = self.ask(lambda: browser.plain_keys(alias, whose, cursor=cursor))
        rows = [
            Row(row, expires_text(row.expires_in, "live"), _scope(row, whose, alias))
            for row in (page.rows if page else ())
            if row.full_key.isprintable() and len(row.key) <= 1000
        ]
        skipped = len(page.rows) - len(rows) if page else 0
        return self.render(
            title,
            crumbs=[*crumbs_to(self, whose, label), Crumb(title)],
            alias=alias,
            aliases=[(name, name == alias) for name in config().aliases if name in indexed],
            tenant_label=label,
            tenant_url=self.url("cacheadmin_tenant_detail", tenant),
            page=page,
            rows=rows,
            skipped=skipped,
            continue_link=f"?alias={alias}&cursor={page.cursor}" if page and page.cursor else "",
            took=formats.duration(page.took) if page else "",
            invalidate_url=self.url("cacheadmin_invalidate"),
        )


def _scope(row: PlainKey, tenant: str | None, alias: str) -> str:
    """Return the id of a plain key as a target: without `tenant:<id>:`."""
    bare = row.key.split(":", 2)[2] if tenant is not None else row.key
    return ids.scope_id(Target("key", bare, tenant, alias))
