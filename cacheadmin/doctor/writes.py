"""Checks of how writes are seen: whether the hooks are in place, and what they could not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from cacheadmin import writes
from cacheadmin.conf import config
from cacheadmin.exceptions import InvalidRule
from cacheadmin.rules import Rule, find_model, table_key
from cacheadmin.stats import EVERY_TENANT
from cacheadmin.tenancy import tenancy

from .facts import Facts
from .registry import Finding, check

OFTEN: Final = 10
"""Times in 24 hours that a rule may fire for all tenants: an edit of it does so too."""


@check("E033", gettext_lazy("Writes are seen."))
def writes_are_seen(_facts: Facts) -> Iterator[Finding]:
    """Report that our hooks on the ORM and the cursor are not in place."""
    if not writes.is_installed():
        yield Finding(
            _("Writes to the database are not seen: no rule fires."),
            where="INSTALLED_APPS",
            why=_("Whatever is cached stays until its timeout, whatever is saved."),
            fix=_(
                'Name "cacheadmin" in INSTALLED_APPS; an AppConfig of your own calls super().ready(). If another '
                "package replaces compilers of the ORM, name cacheadmin after it."
            ),
        )


@check("W034", gettext_lazy("Every SQL statement could be read."))
def statements_are_known(_facts: Facts) -> Iterator[Finding]:
    """Report first words of raw statements that this process did not know."""
    for word, times in sorted(writes.unknown_statements.items(), key=lambda item: -item[1]):
        title = ngettext(
            "A raw statement that begins with %(word)r came %(n)s time.",
            "Raw statements that begin with %(word)r came %(n)s times.",
            times,
        )
        yield Finding(
            title % {"word": word, "n": times},
            where=_("this process, first in %(site)s") % {"site": writes.raw_sites.get(word) or "?"},
            why=_("Nobody can tell which table it writes, so every rule fires, for all tenants."),
            fix=_(
                "Begin it with the verb of SQL, or run it on the driver's own cursor and call invalidate_model_cache()."
            ),
        )


@check("W035", gettext_lazy("Writes say whose rows they change."))
def writes_name_their_tenant(facts: Facts) -> Iterator[Finding]:
    """Report rules of one tenant's rows that fire for all tenants again and again: raw SQL, or very wide statements."""
    if facts.counted is None or not tenancy().has_tenants:
        return
    narrow = {rule.name: rule for rule in facts.rules if _is_narrow(rule)}
    counts: Counter[str] = Counter()
    most: dict[tuple[str, int], int] = {}
    for line in facts.counted.lines:
        names = line.name.split(", ")
        if line.tenant == EVERY_TENANT and line.source == "rule" and all(name in narrow for name in names):
            for name in names:
                most[name, line.at] = max(most.get((name, line.at), 0), line.count)
    for (name, _at), count in most.items():
        counts[name] += count
    for name, count in counts.most_common():
        if count >= OFTEN:
            yield Finding(
                _("The rule %(name)s fired %(n)s times for all tenants in the last 24 hours.")
                % {"name": name, "n": count},
                where=_where(narrow[name]),
                why=_(
                    "Raw SQL, and statements that touch very many rows, do not say whose rows they write. So "
                    "everybody's entries go, and everybody misses."
                ),
                fix=_("Write through the ORM: %(model)s.objects.filter(tenant=…).update(…), tenant by tenant.")
                % {"model": narrow[name].model.rpartition(".")[2]},
            )


def _where(rule: Rule) -> str:
    """Name the model, and who wrote its table by raw SQL, where that was this process."""
    try:
        table = table_key(find_model(rule.model)._meta.db_table)
    except InvalidRule:
        return rule.model
    site = writes.raw_sites.get(table)
    return f"{rule.model}: {site}" if site else rule.model


def _is_narrow(rule: Rule) -> bool:
    """Whether a rule drops only what is the row's own tenant's, as long as that is known."""
    aliases = config().aliases
    return rule.tenant not in ("*", "-") and all(
        target.tenant == "same" for target in rule.targets if target.alias in (None, *aliases)
    )
