"""Checks of the outbox: invalidations that are written down and do not arrive."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import router
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule
from cacheadmin.outbox import rows
from cacheadmin.rules import find_model

from .facts import Facts, Outbox
from .registry import Finding, check


def _where(found: Outbox) -> str:
    return _("table cacheadmin_intent of database %(alias)s") % {"alias": found.alias}


@check("E039", gettext_lazy("What waits to be invalidated is delivered."))
def rows_are_delivered(facts: Facts) -> Iterator[Finding]:
    """Report rows that a relay has tried for a minute while the servers answer, and an outbox that cannot be read."""
    is_away = any(server.error for server in facts.servers)
    for found in facts.outbox:
        if not found.can_be_read:
            yield Finding(
                _("The outbox cannot be read: %(error)s.") % {"error": found.error},
                where=_where(found),
                why=_("It is not known what waits, and no process reads a cache again that was away."),
                fix=f"python manage.py migrate cacheadmin --database {found.alias}",
            )
        elif found.tried and not is_away:  # E010 says why they wait otherwise
            title = ngettext(
                "%(n)s invalidation is tried again and again.",
                "%(n)s invalidations are tried again and again.",
                found.tried,
            )
            yield Finding(
                title % {"n": found.tried},
                where=f"{_where(found)}: {found.error}",
                why=_("Old values may be read until they arrive."),
                fix=_("Look into the log of cacheadmin, put right what it says, then:")
                + "\npython manage.py cache_relay",
                since=found.oldest.timestamp() if found.oldest else None,
            )


@check("W040", gettext_lazy("No invalidation was given up."))
def rows_are_alive(facts: Facts) -> Iterator[Finding]:
    """Report rows that name an alias which is not configured any more."""
    for found in facts.outbox:
        if found.dead:
            title = ngettext("%(n)s invalidation was given up.", "%(n)s invalidations were given up.", found.dead)
            intents = f'Intent.objects.using("{found.alias}").filter(state="dead")'
            yield Finding(
                title % {"n": found.dead},
                where=_where(found),
                why=_(
                    "They name a cache alias that is not managed any more. If it is used elsewhere, it is stale there."
                ),
                fix="python manage.py cache_relay --retry-dead  # "
                + _("once the alias is back")
                + "\npython manage.py shell\n>>> from cacheadmin.models import Intent"
                + f"\n>>> {intents}.delete()  # "
                + _("if it never will be"),
                since=found.oldest_dead.timestamp() if found.oldest_dead else None,
            )


@check("E041", gettext_lazy("Some process delivers what waits."))
def a_relay_runs(facts: Facts) -> Iterator[Finding]:
    """Report rows that wait for more than a minute and that no relay has touched."""
    for found in facts.outbox:
        if found.untried:
            title = ngettext(
                "%(n)s invalidation waits, and nobody delivers it.",
                "%(n)s invalidations wait, and nobody delivers them.",
                found.untried,
            )
            yield Finding(
                title % {"n": found.untried},
                where=_where(found),
                why=_(
                    "The process that wrote them ended or may have no threads (uWSGI without enable-threads), and no "
                    "other looks after the outbox. Old values may be read until somebody does."
                ),
                fix="python manage.py cache_relay --loop",
                since=found.oldest.timestamp() if found.oldest else None,
            )


@check("W042", gettext_lazy("Invalidations are kept beside the data they follow."))
def outboxes_are_there(facts: Facts) -> Iterator[Finding]:
    """Report databases that watched models are written to and that have no table for the outbox."""
    if config().outbox == "off":
        return
    watched: dict[str, set[str]] = {}
    for rule in facts.rules:
        try:
            model = find_model(rule.model)
        except InvalidRule:
            continue  # E011 says so
        watched.setdefault(router.db_for_write(model), set()).add(model._meta.label)
    having = set(rows.databases(watched))
    for alias in sorted(set(watched) - having):
        labels = sorted(watched[alias])
        yield Finding(
            _("The database %(alias)s has no outbox.") % {"alias": alias},
            where=", ".join(labels[:5]) + (" …" if len(labels) > 5 else ""),
            why=_("A crash right after a commit, or an outage of Redis, loses the invalidation of these writes."),
            fix=f"python manage.py migrate cacheadmin --database {alias}\n# "
            + _('and a router lets it: allow_migrate(db, "cacheadmin") is not False'),
        )
