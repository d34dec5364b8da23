"""Checks of what runs: servers, rules, cached functions."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cacheadmin.connections import link
from cacheadmin.exceptions import CacheAway, InvalidRule
from cacheadmin.functions import registry
from cacheadmin.rules import problems
from cacheadmin.stats.servers import servers
from cacheadmin.tenancy import tenancy

from .registry import Finding, check


@check("E010", gettext_lazy("Every server of the cache answers."))
def servers_answer() -> Iterator[Finding]:
    """Ping the server of each alias. Cost: a round trip a server, at most our own short timeout if it is away."""
    for aliases in servers().values():
        try:
            link(aliases[0]).call(("PING",))
        except CacheAway as error:
            yield Finding(
                str(error),
                where=", ".join(aliases),
                why=_("The site computes every value; invalidations wait until it answers."),
                fix=_("Start the server, or correct LOCATION; invalidations that wait are then done by themselves."),
                since=link(aliases[0]).away_since or None,
            )


@check("E011", gettext_lazy("Each rule names models, fields, aliases and groups that exist."))
def rules_are_sound() -> Iterator[Finding]:
    """Report what is wrong with the rules, in code and in the database. Cost: one query."""
    try:
        found = problems()
    except InvalidRule as error:
        yield Finding(str(error), where="cache_rules.py", why=_("No rule of code is in force until it is right."))
        return
    for rule, problem in found:
        where = _("rule %(name)s, %(field)s (%(source)s)")
        yield Finding(
            problem.message,
            where=where % {"name": rule.name, "field": problem.field, "source": rule.source.removeprefix("code:")},
            why=_("The rule never fires, or fires too widely."),
            fix=_("Correct this field of the rule."),
        )


@check("W012", gettext_lazy("It is plain whose entries each cached function keeps."))
def functions_know_their_tenant() -> Iterator[Finding]:
    """Report functions whose entries are shared by all tenants whenever none is active."""
    if not tenancy().has_tenants:
        return
    for function in sorted(registry.values(), key=lambda known: known.name):
        if function.may_fall_back:
            yield Finding(
                _("%(function)s does not say whose its entries are.") % {"function": function.name},
                where=function.name,
                why=_("Called while no tenant is active, it keeps one value for everybody."),
                fix=_("Give it an argument tenant_id, decorate it with cache_tenant_query, or say shared=True."),
            )
