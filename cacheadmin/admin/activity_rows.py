"""Lines of Activity as tables show them: names, links, and who did it in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin.admin import formats, ids, lines, naming, told
from cacheadmin.admin.pages import Page
from cacheadmin.conf import config
from cacheadmin.functions import registry
from cacheadmin.models import Activity
from cacheadmin.targets import Target
from cacheadmin.tenancy import Everyone, tenancy

KINDS: Final[dict[str, str | Promise]] = {
    **dict(Activity.Kind.choices),
    "deploy": gettext_lazy("release"),
    "server": gettext_lazy("server"),
    "away": gettext_lazy("server"),
    "back": gettext_lazy("server"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line as the table shows it."""

    line: lines.Line
    parts: Sequence[tuple[str, str]]
    """What it was about: pairs of text and URL."""
    by: str
    by_url: str
    whose: str
    whose_url: str
    url: str
    """Its own page."""

    @property
    def since(self) -> str:
        """Time of day of the first of the times it stands for."""
        return formats.clock(self.line.since)[:5]

    @property
    def took(self) -> float | None:
        """Seconds."""
        return None if self.line.took_ms is None else self.line.took_ms / 1000


def rows_of(page: Page, found: Sequence[lines.Line]) -> list[Row]:
    """Return lines with the links and names that a table needs. Cost: what `Tenancy.labels` costs, once."""
    labels = lines.labels_of(found)
    return [_row(page, line, labels) for line in found]


def _row(page: Page, line: lines.Line, labels: dict[str | None, str]) -> Row:
    whose, whose_url = _("all tenants") if tenancy().has_tenants else formats.UNKNOWN, ""
    if not isinstance(line.tenants, Everyone):
        whose = formats.UNKNOWN
        if len(line.tenants) == 1:
            [tenant] = line.tenants
            whose, whose_url = labels[tenant], page.url("cacheadmin_tenant_detail", ids.tenant_id(tenant))
        elif line.tenants:
            count = len(line.tenants)
            whose = ngettext("%(n)s tenant", "%(n)s tenants", count) % {"n": formats.number(count)}
    return Row(
        line=line,
        parts=parts_of(page, line, labels),
        by=by_of(line),
        by_url=_rule_url(page, line),
        whose=whose,
        whose_url=whose_url,
        url=page.url("cacheadmin_activity_detail", line.pk) if line.pk is not None else "",
    )


def parts_of(page: Page, line: lines.Line, labels: told.Labels) -> list[tuple[str, str]]:
    """Return what a line was about; each thing one can look at is a link."""
    linked = [(naming.thing([target]), url) for target in line.targets[:3] if (url := target_url(page, target))]
    if line.pk is None and len(linked) == len(line.targets) > 0:
        return linked
    words = line.words(labels) or str(KINDS.get(line.kind, line.kind))
    own = "" if line.pk is None else page.url("cacheadmin_activity_detail", line.pk)
    return [(words, linked[0][1] if len(line.targets) == 1 and linked else own)]


def target_url(page: Page, target: Target) -> str:
    """Return the page of a target: the group's entries or the tenant's groups; empty where there is none."""
    if not (target.tenant is None or isinstance(target.tenant, str)) or not page.access.sees(target.tenant):
        return ""
    whose = ids.tenant_id(target.tenant)
    if target.kind == "tenant":
        return page.url("cacheadmin_tenant_detail", whose)
    if target.kind != "group":
        return ""
    alias = target.alias or next((f.alias for f in registry.values() if f.group == target.name), config().aliases[0])
    return page.url("cacheadmin_entry_list", whose, ids.group_id(alias, target.name))


def by_of(line: lines.Line) -> str:
    """Return who did it, in words. Of very many rules together only a digest was kept, and of many two are named."""
    names = line.who.split(", ") if line.source in ("rule", "relay") else [line.who]
    who = line.who
    if len(names) > 3:
        who = _("%(some)s and %(n)s more") % {"some": ", ".join(names[:2]), "n": len(names) - 2}
    if who.startswith("~") and line.source in ("rule", "relay"):
        return _("several rules") if line.source == "rule" else _("relay")
    words = {
        "rule": _("rule %(who)s"),
        "relay": _("relay %(who)s"),
        "command": _("command %(who)s"),
        "code": _("code %(who)s"),
    }
    return (words.get(line.source, "%(who)s") % {"who": who}).strip() or formats.UNKNOWN


def _rule_url(page: Page, line: lines.Line) -> str:
    if line.source not in ("rule", "relay") or not line.who or line.who.startswith("~"):
        return ""
    return page.rules_url(line.who.split(", ")[0])
