"""What a person did to the cache: done through the services, written to Activity and to Django's own log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import invalidation
from cacheadmin.browser import EntryView
from cacheadmin.exceptions import CacheAdminError
from cacheadmin.invalidation import Invalidation
from cacheadmin.models import Activity
from cacheadmin.outbox import Delivery, on_delivered
from cacheadmin.targets import All, Target

from . import formats, log, told, troubles
from .log import one_line as one_line
from .pages import url_to

SHOWN_TARGETS = 200


@dataclass(frozen=True, slots=True)
class Deed:
    """An act that was carried out, recorded or refused."""

    result: Invalidation
    activity: Activity


@on_delivered
def settle(delivery: Delivery, result: Invalidation) -> None:
    """Mark lines of Activity that waited as done, when a relay has delivered their targets."""
    if delivery.source != "relay":
        return
    done = set(result.targets)
    waiting = Activity.objects.filter(state=Activity.State.WAITING).only("pk", "targets")
    settled = [row.pk for row in waiting if done.issuperset(_targets(row))]
    if settled:
        Activity.objects.filter(pk__in=settled).update(state=Activity.State.DONE)


def _targets(row: Activity) -> list[Target]:
    try:
        return [Target.from_json(data) for data in row.targets]
    except CacheAdminError:  # not written by us; nothing can be said of it
        return [Target("tenant")]


def tenants_of(targets: Iterable[Target]) -> list[str] | str:
    """Return what `Activity.tenants` holds for some targets: ids, or "*" for all."""
    found = [target.tenant for target in targets]
    if any(isinstance(tenant, All) for tenant in found):
        return "*"
    return sorted({tenant for tenant in found if isinstance(tenant, str)})


def invalidate(
    request: HttpRequest,
    targets: Sequence[Target],
    *,
    what: str,
    reason: str = "",
    entries: int | None = None,
    size_bytes: int | None = None,
) -> Deed:
    """
    Invalidate for the user of a request and write down who, what, how many and why.

    The view that calls this must be non-atomic: within ATOMIC_REQUESTS the deed would wait for the end of the request.
    """
    user: Any = request.user
    result = invalidation.request(targets, source="user", name=user.get_username(), reason=reason)
    aliases = {target.alias for target in targets}
    state = Activity.State.WAITING if result.state in ("waiting", "deferred") else Activity.State.DONE
    activity = Activity.objects.create(
        kind=Activity.Kind.INVALIDATE,
        source=Activity.Source.USER,
        who=one_line(user.get_username(), 200),
        user=user,
        tenants=tenants_of(targets),
        alias=(aliases.pop() or "") if len(aliases) == 1 else "",
        targets=[target.to_json() for target in targets[:SHOWN_TARGETS]],
        what=one_line(what),
        reason=one_line(reason, 1000),
        entries=entries,
        bytes=size_bytes,
        took_ms=result.took_ms,
        state=Activity.State.FAILED if result.state == "failed" else state,
        error=one_line(troubles.plain(result.error), 1000),
    )
    log.write(request, "invalidated", log.notation(targets), reason)
    return Deed(result, activity)


def tell(request: HttpRequest, site: AdminSite, deed: Deed, whose: str) -> None:
    """Say with Django's message what became of an invalidation, with a link to Activity."""
    link = url_to(site, "cacheadmin_activity_detail", deed.activity.pk)
    count = deed.activity.entries
    if deed.result.state == "failed":
        text = f"{_('Nothing was invalidated.')} {troubles.trouble(deed.result.error)}"
        level = messages.ERROR
    elif deed.activity.state == Activity.State.WAITING:
        text = _("Recorded. %(whose)s will be invalidated as soon as Redis answers.") % {"whose": whose}
        level = messages.WARNING
    elif count is None:
        text, level = _("Invalidated %(whose)s.") % {"whose": whose}, messages.SUCCESS
    else:
        text = ngettext("Invalidated %(n)s entry of %(whose)s.", "Invalidated %(n)s entries of %(whose)s.", count) % {
            "n": formats.number(count),
            "whose": whose,
        }
        level = messages.SUCCESS
    messages.add_message(request, level, format_html('{} <a href="{}">{}</a>', text, link, _("Activity")))


def tell_run(request: HttpRequest, site: AdminSite, run: Activity) -> None:
    """Say that a run was begun, with a link to it."""
    url = url_to(site, "cacheadmin_run_detail", run.pk)
    messages.info(request, format_html('{} <a href="{}">{}</a>', _("Warming has begun."), url, _("Follow it")))


def warn(request: HttpRequest, text: str) -> None:
    """Say why an act was not carried out."""
    messages.warning(request, text)


def inform(request: HttpRequest, text: str) -> None:
    """Say that there was nothing to do."""
    messages.info(request, text)


def record_recompute(request: HttpRequest, tenant: str | None, alias: str, view: EntryView, seconds: float) -> None:
    """Write down that one entry was computed anew."""
    user: Any = request.user
    said = told.recomputed(view.group, view.arguments)
    Activity.objects.create(
        kind=Activity.Kind.WARM,
        source=Activity.Source.USER,
        who=one_line(user.get_username(), 200),
        user=user,
        tenants=[] if tenant is None else [tenant],
        alias=alias,
        targets=[said],
        what=one_line(told.text(said)),
        entries=1,
        took_ms=seconds * 1000,
    )
    group = [Target("group", view.group, tenant, alias)] if view.group else []
    log.write(request, "recomputed", f"{log.notation(group)} {view.arguments}".strip())
