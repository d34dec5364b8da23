"""Entry: why is this here, why is it stale, why did it miss?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser
from cacheadmin.admin import acts, formats, history, ids, naming, shown_values, story, unwatched
from cacheadmin.admin.dropping import Dropper, rules_for
from cacheadmin.admin.masks import mask
from cacheadmin.admin.pages import Act, Crumb, Note, Page
from cacheadmin.admin.recompute import CannotRecompute, can_recompute, recompute
from cacheadmin.admin.views.plain import PlainDetail
from cacheadmin.browser import EntryView, Scope
from cacheadmin.conf import config
from cacheadmin.exceptions import CacheAway
from cacheadmin.functions import registry
from cacheadmin.preview import Preview, diff, inspect

from .entries import crumbs_to, expires_text, timeout_texts

VIEWS = ("tree", "json", "text", "hex")
DIFFERENCES = 20
SESSION_KEY = "cacheadmin.recomputed"


@dataclass(frozen=True, slots=True)
class ScopeRow:
    """One thing an entry stands on."""

    scope: Scope
    label: str
    since: float | None


def preview_of(view: EntryView) -> Preview:
    """Return a value as far as it can be compared without running it."""
    return inspect(view.payload, total_bytes=view.payload_bytes, mask=mask())


class EntryDetail(Page):
    """One entry, or a plain key."""

    tab = "tenants"
    template_name = "cacheadmin/entry.html"

    def get(self, request: HttpRequest, entry: str) -> HttpResponse:
        """Show what is known about it; 404 in our frame, with its history, if it is gone."""
        if ids.open_plain(entry) is not None:
            return self.as_plain(entry)
        alias, tenant, group, member = ids.open_entry(entry)
        self.access.require_tenant(tenant)
        self.access.require_alias(alias)
        if alias not in config().aliases:
            return self.missing(text=_("The alias %(alias)s is not configured any more.") % {"alias": alias})
        label = naming.tenant_label(tenant)
        parent = self.url("cacheadmin_entry_list", ids.tenant_id(tenant), ids.group_id(alias, group))
        crumbs = [*crumbs_to(self, tenant, label), Crumb(group or _("(no group)"), parent), Crumb(_("Entry"))]
        waiting = browser.waiting_targets()
        try:
            view = browser.entry(alias, tenant, group, member, waiting=waiting)
        except CacheAway:
            text = _("Entries cannot be read while Redis is away.")
            return self.render(_("Entry"), crumbs=crumbs, template="cacheadmin/message.html", status=503, text=text)
        shared: dict[str, Any] = {
            "alias": alias,
            "group": group,
            "group_url": parent,
            "tenant_label": label,
            "tenant_url": self.url("cacheadmin_tenant_detail", ids.tenant_id(tenant)),
            "entry_id": entry,
        }
        rows, told = history.recent(tenant), story.read()
        if view is None:
            return self.render(
                _("Not cached now"),
                crumbs=crumbs,
                status=404,
                events=story.events(self, story.Subject(alias, tenant, group), rows, told, None),
                **shared,
            )
        droppers = rules_for(alias, group, view.tags)
        subject = story.Subject(alias, tenant, group, view.key, view.tags)
        result = request.session.pop(SESSION_KEY, None) if SESSION_KEY in request.session else None
        result = result if isinstance(result, dict) and result.get("entry") == entry else None
        target = browser.key_target(alias, tenant, group, member, view.about)
        shown = request.GET.get("value", "tree")
        return self.render(
            view.arguments or _("no arguments"),
            crumbs=crumbs,
            notes=self._notes(view, result, droppers),
            verdict=_verdict(view) if result is None else "",
            view=view,
            preview=shown_values.preview_of(view.payload, view.payload_bytes) if self.access.may_view_values else None,
            shown=shown if shown in VIEWS else "tree",
            views=VIEWS,
            facts=_facts(view),
            events=story.events(self, subject, rows, told, _computed(view)),
            scopes=[
                ScopeRow(
                    scope, _scope_label(scope, label, tenant is not None), story.since(scope, subject, rows, told.lines)
                )
                for scope in view.scopes
            ],
            droppers=[(rule, self.rules_url(rule.name), history.last_by(rule.name, told.lines)) for rule in droppers],
            rules_url=self.rules_url(),
            differences={item["path"]: item for item in result["differences"]} if result else {},
            can_recompute=self.access.may_warm and can_recompute(view),
            scope=ids.scope_id(target),
            is_widened=target.kind != "key",
            invalidate_url=self.url("cacheadmin_invalidate"),
            expires=expires_text(view.expires_in, view.state),
            **shared,
        )

    def as_plain(self, entry: str) -> HttpResponse:
        """Show a plain key, which has no header, no scopes and no history."""
        page = PlainDetail(console=self.console)
        page.setup(self.request)
        page.access = self.access
        return page.get(self.request, entry)

    def _notes(self, view: EntryView, result: Mapping[str, Any] | None, droppers: Sequence[Dropper]) -> list[Note]:
        if result is not None:
            note = _result_note(result)
            return [unwatched.explained(self, note, result, droppers)]
        if view.state == "orphan":
            return [Note(_orphan_reason(view), _("This value is never served again."), "info")]
        if view.state == "stale":
            text = _("It is past its timeout and in its grace: served while one worker recomputes it.")
            return [Note(text, level="info")]
        if view.state == "waiting":
            return [Note(_("Not served until its invalidation is done."), _("An invalidation waits."), "warn")]
        return []


def _verdict(view: EntryView) -> str:
    """Return the quiet line of an entry that is well."""
    if view.state != "live":
        return ""
    at = view.about.get("at")
    if not isinstance(at, (int, float)):
        return _("The next read is a hit.")
    return _("The next read is a hit. Nothing has invalidated it since it was computed, %(ago)s.") % {
        "ago": formats.ago(at)
    }


def _orphan_reason(view: EntryView) -> str:
    if not view.is_ours:
        return _("It has no header of ours, so nothing can serve it.")
    if not view.same_server:
        return _("It was written before the server restarted or failed over.")
    gone = [scope for scope in view.scopes if not scope.matches]
    labels = (_("tenant") if scope.kind == "tenant" else naming.named(scope.kind, scope.name or "") for scope in gone)
    names = ", ".join(label.strip() for label in labels)
    return _("An epoch it stood on is gone: %(names)s.") % {"names": names}


def _result_note(result: Mapping[str, Any]) -> Note:
    took = formats.duration(result["seconds"])
    count = len(result["differences"])
    if not result["kept"]:
        text = _(
            "Recomputed in %(time)s, but the new value was not kept: it was invalidated meanwhile, or is too large."
        )
        return Note(text % {"time": took}, level="warn")
    if not result["comparable"]:
        return Note(_("Recomputed in %(time)s; the new value is stored.") % {"time": took}, level="good")
    if not count:
        text = _("Recomputed in %(time)s, nothing differs.") % {"time": took}
        return Note(text, _("The value was right."), "good")
    text = ngettext(
        "Recomputed in %(time)s: %(n)s of %(total)s fields differs; the new value is stored.",
        "Recomputed in %(time)s: %(n)s of %(total)s fields differ; the new value is stored.",
        count,
    ) % {"time": took, "n": formats.number(count), "total": formats.number(result["fields"])}
    return Note(text, _("This value was out of date."), "warn")


def _facts(view: EntryView) -> list[tuple[str, str, bool]]:
    """Return label, text, and whether the text is code."""
    about = view.about
    facts = []
    if view.function:
        facts.append((_("Function"), view.function, True))
    if isinstance(about.get("at"), (int, float)):
        took = (
            formats.took(about["took"] / 1000).replace(" ", "\xa0")
            if isinstance(about.get("took"), (int, float))
            else ""
        )
        facts.append((_("Computed"), ", ".join(filter(None, (formats.exactly(about["at"]), took))), False))
    function = registry.get(view.function)
    timeout, grace = timeout_texts(function) if function else ("", "")
    left = expires_text(view.expires_in, view.state)
    of = _("of %(timeout)s") % {"timeout": timeout} if timeout and view.expires_in is not None else ""
    facts.append((_("Expires in"), " ".join(filter(None, (left, f"{of}, {grace}" if of and grace else of))), False))
    facts.append((_("Size"), _("%(size)s stored") % {"size": formats.size(view.stored_bytes)}, False))
    if view.tags:
        facts.append((_("Tags"), ", ".join(view.tags), True))
    if about.get("by"):
        facts.append((_("Process"), str(about["by"]), True))
    if about.get("rel"):
        facts.append((_("Release"), str(about["rel"]), True))
    return facts


def _computed(view: EntryView) -> tuple[float, str] | None:
    """Return when a value was computed, and by whom, in how long."""
    at, by, took = (view.about.get(name) for name in ("at", "by", "took"))
    if not isinstance(at, (int, float)):
        return None
    text = _("Computed by %(process)s") % {"process": by} if by else _("Computed")
    if isinstance(took, (int, float)):
        text = _("%(computed)s in %(time)s") % {"computed": text, "time": formats.took(took / 1000)}
    return float(at), f"{text}."


def _scope_label(scope: Scope, tenant_label: str, is_of_tenant: bool) -> str:
    if scope.kind == "tenant":
        return formats.labelled(_("Tenant"), tenant_label) if is_of_tenant else tenant_label
    return capfirst(naming.named(scope.kind, scope.name or formats.UNKNOWN))


@method_decorator(transaction.non_atomic_requests, name="dispatch")
class EntryRecompute(Act):
    """Compute an entry now, without a question: it changes nothing but the cached value."""

    tab = "tenants"
    needs = ("view_keys", "warm")

    def post(self, request: HttpRequest, entry: str) -> HttpResponse:
        """Recompute, compare, and show the entry again with what differs."""
        alias, tenant, group, member = ids.open_entry(entry)
        self.access.require_tenant(tenant)
        self.access.require_alias(alias)
        back = HttpResponseRedirect(self.url("cacheadmin_entry_detail", entry))
        before = self.ask(lambda: browser.entry(alias, tenant, group, member)) if alias in config().aliases else None
        if before is None:
            return back
        try:
            done = recompute(before)
        except CannotRecompute as error:
            acts.warn(request, _("Nothing was recomputed: %(error)s") % {"error": error})
            return back
        except Exception as error:  # noqa: BLE001 - the site's own function: whatever it raises is told, not shown in full
            text = _("%(function)s raised %(error)s. The cached value was left as it is.")
            acts.warn(request, text % {"function": before.function, "error": type(error).__name__})
            return back
        after = self.ask(lambda: browser.entry(alias, tenant, group, member))
        acts.record_recompute(request, tenant, alias, before, done.seconds)
        kept = after is not None and after.about.get("at") != before.about.get("at")
        result: dict[str, Any] = {
            "entry": entry,
            "seconds": done.seconds,
            "differences": [],
            "comparable": False,
            "kept": kept,
            "was_live": before.state == "live",
            "since": before.about["at"] if isinstance(before.about.get("at"), (int, float)) else None,
        }
        if kept and after is not None and before.state in ("live", "stale") and before.same_server:
            old, new = preview_of(before), preview_of(after)
            if old.root is not None and new.root is not None:
                shows = self.access.may_view_values
                result |= {
                    "comparable": True,
                    "fields": new.field_count,
                    "differences": [
                        {"path": d.path, "was": _short(d.was) if shows else "", "now": _short(d.now) if shows else ""}
                        for d in diff(old, new)[:DIFFERENCES]
                    ],
                }
        request.session[SESSION_KEY] = result
        return back


def _short(text: str | None) -> str:
    return formats.UNKNOWN if text is None else text if len(text) <= 80 else text[:79] + "…"
