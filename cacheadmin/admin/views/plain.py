"""Plain keys: what was written without a group? There is no index of them, so each look is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from cacheadmin import browser
from cacheadmin.admin import formats, ids, naming, paging, shown_values
from cacheadmin.admin.pages import Crumb, Page
from cacheadmin.admin.patterns import beginning_of, pattern_form
from cacheadmin.admin.views.entries import crumbs_to, expires_text
from cacheadmin.browser import PlainKey, PlainPage
from cacheadmin.targets import Target

LONGEST_KEY = 1500
"""Characters of a key that still fits into a link; longer ones are counted only."""


@dataclass(frozen=True, slots=True)
class Row:
    """One plain key as the list shows it."""

    key: PlainKey
    url: str
    expires: str
    scope: str
    """Empty for bytes that are no text: our targets name texts."""


def scope_of(row: PlainKey, tenant: str | None, alias: str) -> str:
    """Return the id of a plain key as a target; empty where it cannot be one."""
    bare = row.key.split(":", 2)[2] if tenant is not None else row.key
    try:
        bare.encode()
    except UnicodeEncodeError:
        return ""
    return ids.scope_id(Target("key", bare, tenant, alias)) if bare else ""


class PlainList(Page):
    """A bounded look at the plain keys of a tenant in one alias."""

    tab = "tenants"
    template_name = "cacheadmin/plain.html"

    def get(self, request: HttpRequest, tenant: str) -> HttpResponse:
        """Look for at most a second, from a cursor on."""
        whose = ids.open_tenant(tenant)
        self.access.require_tenant(whose)
        indexed = [name for name in browser.indexed_aliases() if self.access.sees_alias(name)]
        alias = request.GET.get("alias", "")
        alias = alias if alias in indexed else next(iter(indexed), "")
        label = naming.tenant_label(whose)
        title = _("Plain keys")
        if not alias:
            return self.missing(text=_("No alias of this site can be searched for keys."))
        cursor = paging.whole(request.GET.get("cursor"), 0, 0, 2**64 - 1)
        page = self.ask(lambda: browser.plain_keys(alias, whose, cursor=cursor))
        rows = self._rows(page, alias, whose)
        return self.render(
            title,
            crumbs=[*crumbs_to(self, whose, label), Crumb(title)],
            alias=alias,
            aliases=[(name, name == alias) for name in indexed],
            tenant_label=label,
            tenant_url=self.url("cacheadmin_tenant_detail", tenant),
            page=page,
            rows=rows,
            said=_said(page) if page else "",
            left_out=len(page.rows) - len(rows) if page else 0,
            continue_link=f"?alias={alias}&cursor={page.cursor}" if page and page.cursor else "",
            invalidate_url=self.url("cacheadmin_invalidate"),
            **pattern_form(self, beginning_of(whose), alias),
        )

    def _rows(self, page: PlainPage | None, alias: str, tenant: str | None) -> Sequence[Row]:
        return [
            Row(
                key=row,
                url=self.url("cacheadmin_entry_detail", ids.plain_id(alias, tenant, row.full_key)),
                expires=expires_text(row.expires_in, "live"),
                scope=scope_of(row, tenant, alias),
            )
            for row in (page.rows if page else ())
            if len(row.key) <= LONGEST_KEY
        ]


def _said(page: PlainPage) -> str:
    found = len(page.rows)
    text = ngettext(
        "Scanned %(scanned)s of ~ %(total)s keys in %(time)s, %(found)s found.",
        "Scanned %(scanned)s of ~ %(total)s keys in %(time)s, %(found)s found.",
        found,
    )
    return text % {
        "scanned": formats.number(page.scanned),
        "total": formats.number(page.total),
        "time": formats.duration(page.took),
        "found": formats.number(found),
    }


class PlainDetail(Page):
    """One plain key: reached through the address of entries, by an id of another kind."""

    tab = "tenants"
    template_name = "cacheadmin/plain_key.html"

    def get(self, request: HttpRequest, entry: str) -> HttpResponse:
        """Show what is known about it, and the beginning of its value."""
        found = ids.open_plain(entry)
        if found is None or found[0] not in self.access.aliases:
            return self.missing()
        alias, tenant, full_key = found
        self.access.require_tenant(tenant)
        label = naming.tenant_label(tenant)
        parent = self.url("cacheadmin_plain_list", ids.tenant_id(tenant)) + f"?alias={alias}"
        crumbs = [*crumbs_to(self, tenant, label), Crumb(_("Plain keys"), parent), Crumb(_("Key"))]
        value = self.ask(lambda: browser.plain_value(alias, tenant, full_key))
        if value is None:
            title = _("Not cached now")
            text = _("No such key is there now, or Redis is away.")
            return self.render(title, crumbs=crumbs, template="cacheadmin/message.html", status=404, text=text)
        row = value.row
        is_string = row.type_name == "string" and self.access.may_view_values
        preview = shown_values.preview_of(value.payload, row.size_bytes) if is_string else None
        shown = request.GET.get("value", "tree")
        facts = [
            (pgettext("of a key", "Type"), row.type_name),
            (_("Expires in"), expires_text(row.expires_in, "live")),
            (_("Size"), formats.size(row.size_bytes)),
        ]
        return self.render(
            row.key,
            crumbs=crumbs,
            alias=alias,
            tenant_label=label,
            tenant_url=self.url("cacheadmin_tenant_detail", ids.tenant_id(tenant)),
            row=row,
            facts=facts,
            preview=preview,
            is_string=row.type_name == "string",
            shown=shown if shown in ("tree", "json", "text", "hex") else "tree",
            differences={},
            scope=scope_of(row, tenant, alias),
            invalidate_url=self.url("cacheadmin_invalidate"),
        )
