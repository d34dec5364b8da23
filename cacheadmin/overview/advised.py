"""What each cached function is worth and what to change, read from the roll-ups: over tenants, and for each of them."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..conf import default_timeout
from ..functions import registry
from ..stats import EVERY_TENANT, OTHER
from ..stats.history import Buckets, DroppedLine, Group, Later, Numbers, Reader, Tenant, Totals
from ..stats.layout import HOUR, starts
from ..tenancy import Everyone
from .advice import Advice, Judged, judge
from .figures import Figures, figures, percentile_ms, total
from .gains import Known
from .ranges import DEFAULT_RANGE, RANGES, Range, Span
from .reach import rules, rules_of
from .rows import Allowed, ask_groups

TENANTS: Final = 50
"""Tenants that are looked at one by one: those whose misses cost most."""


@dataclass(frozen=True, slots=True)
class Advised:
    """One (alias, group), over tenants or of one, and what is to be said of it."""

    alias: str
    group: str
    functions: tuple[str, ...]
    """Dotted names of the functions that keep their entries there; empty if this process has imported none."""
    tenant: str | None
    """EVERY_TENANT for all that were asked for."""
    figures: Figures
    judged: Judged

    def to_json(self, say: Callable[[Advice], str]) -> dict[str, Any]:
        """Return it as plain data: seconds, bytes, counts; unknown is None. `say` puts an advice into words."""
        whose = {} if self.tenant == EVERY_TENANT else {"tenant": self.tenant}
        found = asdict(self.judged.gains) | {
            "hit_ratio": self.judged.gains.hit_ratio,
            "saved_seconds_per_hour_and_megabyte": self.judged.gains.saved_per_megabyte,
        }
        return {
            "alias": self.alias,
            "group": self.group,
            "functions": list(self.functions),
            **whose,
            **found,
            "advice": [{**asdict(advice), "text": say(advice)} for advice in self.judged.advice],
        }


@dataclass(frozen=True, slots=True)
class AdviceReport:
    """All that was computed and kept in a range, what saves most first."""

    at: float
    """Seconds since 1970."""
    range_seconds: int
    groups: list[Advised]
    tenants: list[Advised]
    """A row for each group of each tenant that was looked at."""

    def to_json(self, say: Callable[[Advice], str]) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "at": dt.datetime.fromtimestamp(self.at, dt.UTC).isoformat(timespec="seconds"),
            "range_seconds": self.range_seconds,
            "groups": [each.to_json(say) for each in self.groups],
            "tenants": [each.to_json(say) for each in self.tenants],
        }


class Facts:
    """What is known about groups besides their counts: from the code, the rules, and what was dropped."""

    def __init__(self, lines: Iterable[DroppedLine], minutes: float, latency: Mapping[str, Numbers]) -> None:
        self._hours = minutes / 60
        self._latency = latency
        self._functions: dict[Group, list[Any]] = defaultdict(list)
        for function in registry.values():
            self._functions[function.alias, function.group].append(function)
        self._rules = rules()
        # Added up once: there are thousands of lines, and each group asks.
        self._drops: dict[tuple[str, str], dict[tuple[str | None, str], int]] = defaultdict(lambda: defaultdict(int))
        for line in lines:
            rule = line.name if line.source == "rule" else ""
            self._drops[line.alias, line.what][line.tenant, rule] += line.count
        self._prefixes = [(alias, what) for alias, what in self._drops if what.startswith("prefix ")]

    def functions(self, group: Group) -> tuple[str, ...]:
        """Return the dotted names of a group's functions."""
        return tuple(sorted(function.name for function in self._functions.get(group, ())))

    def advised(self, group: Group, tenant: str | None, numbers: Numbers, minutes: float) -> Advised:
        """Return what is to be said of one group of one tenant."""
        judged = judge(numbers, minutes, self.known(group, [tenant]))
        return Advised(*group, self.functions(group), tenant, figures(numbers, minutes), judged)

    def known(self, group: Group, whose: Collection[str | None]) -> Known:
        """Return what is known of a group of some tenants."""
        found = self._functions.get(group, ())
        times = [seconds for function in found if (seconds := timeout_seconds(function)) is not None]
        drops: dict[tuple[str, str], float] = defaultdict(float)
        for what in self._that_drop_all_of(group):
            for (tenant, rule), count in self._drops.get((group[0], what), {}).items():
                if tenant == EVERY_TENANT:
                    drops[rule, what] += count / self._hours
                elif tenant in whose:
                    drops[rule, what] += count / max(len(whose), 1) / self._hours
        by_rule = {named: rate for named, rate in drops.items() if named[0]}
        first = max(by_rule, key=lambda named: by_rule[named], default=("", ""))
        read = percentile_ms(self._latency.get(group[0]), 0.5)
        return Known(
            timeout_seconds=max(times, default=None),
            read_seconds=None if read is None else read / 1000,
            drops_per_hour=sum(drops.values()),
            tenants=max(len(whose), 1),
            is_ruled=any(rules_of(function, self._rules) for function in found),
            rule=first[0],
            rule_drops=first[1],
            rule_per_hour=by_rule.get(first, 0.0),
        )

    def _that_drop_all_of(self, group: Group) -> list[str]:
        """Return what was dropped that is all that a tenant has of a group; a tag is some of it."""
        alias, name = group
        wide = [what for of, what in self._prefixes if of == alias and name.startswith(what.removeprefix("prefix "))]
        return ["tenant", f"group {name}", *wide]


def timeout_seconds(function: Any) -> float | None:
    """Return for how long a function's entries are kept, grace included; inf for ever, None for not at all."""
    given = function.timeout
    if given is DEFAULT_TIMEOUT:
        given = default_timeout(function.alias)
    if given is None:
        return math.inf
    return float(given) + function.grace if given > 0 else None


def ask_facts(reader: Reader, span: Span) -> Callable[[list[DroppedLine], float], Facts]:
    """Ask how long reads took; the facts are there once the reader has run."""
    timed: Later[Totals] = reader.totals(HOUR, span.since, span.now)

    def answer(lines: list[DroppedLine], minutes: float) -> Facts:
        latency: dict[str, Numbers] = {}
        for by_alias in timed.value.latency.values():
            for alias, counts in by_alias.items():
                latency[alias] = total([counts, latency[alias]] if alias in latency else [counts]) or []
        return Facts(lines, minutes, latency)

    return answer


def active(found: Buckets[Tenant]) -> dict[str, dict[str | None, list[Numbers]]]:
    """Return alias -> the tenants that were counted, and what."""
    by_alias: dict[str, dict[str | None, list[Numbers]]] = defaultdict(lambda: defaultdict(list))
    for names in found.values():
        for (alias, tenant), numbers in names.items():
            if tenant not in (EVERY_TENANT, OTHER):
                by_alias[alias][tenant].append(numbers)
    return by_alias


def advised_groups(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    now: float | None = None,
) -> dict[Group, Advised]:
    """
    Return what each (alias, group) that was counted in the range is worth, over all tenants or over some.

    Cost:    one round trip; grows with the groups and tenants that were active.
    Raises:  CacheAway.
    """
    span, reader = Span(within, time.time() if now is None else now), Reader()
    groups = ask_groups(reader, span, alias, tenants)
    ask = ask_facts(reader, span)
    seen = reader.tenants(_hours(span), HOUR, None if isinstance(tenants, Everyone) else tenants)
    reader.run()
    counts = groups()
    facts, whose = ask(counts.lines, counts.day), active(seen.value)
    return {
        group: Advised(
            *group,
            functions=facts.functions(group),
            tenant=EVERY_TENANT,
            figures=shown,
            judged=judge(counts.sums[group], counts.minutes, facts.known(group, whose[group[0]])),
        )
        for group, shown in counts.figures().items()
    }


def advised_tenants(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    now: float | None = None,
) -> list[Advised]:
    """
    Return the same for each group of each of the 50 tenants whose misses cost most.

    Cost:    two round trips, of as many commands as the range has buckets, times the tenants looked at.
    Raises:  CacheAway.
    """
    span, first, second = Span(within, time.time() if now is None else now), Reader(), Reader()
    born = first.born()
    lines = first.dropped(max(span.since, span.now - 24 * HOUR), span.now)
    ask = ask_facts(first, span)
    seen = first.tenants(_hours(span), HOUR, None if isinstance(tenants, Everyone) else tenants)
    first.run()
    asked = [(tenant, second.groups_of([tenant], span.both, within.both)) for tenant in _dearest(seen.value, alias)]
    second.run()
    minutes = span.minutes(span.both[0], span.now, born.value)
    facts = ask(lines.value, minutes)
    found: list[Advised] = []
    for tenant, later in asked:
        sums: dict[Group, list[Numbers]] = defaultdict(list)
        for names in later.value.values():
            for group, numbers in names.items():
                if group[1] != OTHER and alias in (None, group[0]):
                    sums[group].append(numbers)
        found += [facts.advised(group, tenant, total(some) or [], minutes) for group, some in sums.items()]
    return found


def advice_report(
    within: Range = RANGES[DEFAULT_RANGE],
    *,
    alias: str | None = None,
    tenants: Allowed = Everyone.EVERYONE,
    now: float | None = None,
) -> AdviceReport:
    """
    Return what `cache_stats --advice` prints: each group that something was computed for, and each of its tenants.

    Cost:    three round trips.
    Raises:  CacheAway.
    """
    at = time.time() if now is None else now
    groups = advised_groups(within, alias=alias, tenants=tenants, now=at)
    by_tenant = advised_tenants(within, alias=alias, tenants=tenants, now=at)
    return AdviceReport(at, within.seconds, _dear(groups.values()), _dear(by_tenant))


def _dear(found: Iterable[Advised]) -> list[Advised]:
    computed = [each for each in found if each.judged.gains.saved_seconds_per_hour is not None]
    return sorted(computed, key=lambda each: -(each.judged.gains.saved_seconds_per_hour or 0.0))


def _hours(span: Span) -> range:
    return starts(HOUR, span.since, span.now)


def _dearest(found: Buckets[Tenant], alias: str | None) -> list[str | None]:
    costs: dict[str | None, float] = defaultdict(float)
    for of, tenants in active(found).items():
        if alias in (None, of):
            for tenant, some in tenants.items():
                costs[tenant] += figures(total(some), 1).cost or 0.0
    return sorted(costs, key=lambda tenant: -costs[tenant])[:TENANTS]
