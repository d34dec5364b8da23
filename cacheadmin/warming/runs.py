"""What there is to warm, and a run over it.

What a run does to the cache is `CachedFunction.warm`: the way of any other fill, so it overwrites nothing newer.
"""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from django.db import close_old_connections
from django.urls import get_resolver

from ..conf import config, has_urls, rank
from ..dispatch import Rate, Stop, spread
from ..exceptions import CacheAdminError, CacheAway
from ..functions import CachedFunction, registry
from ..store import store
from ..tenancy import tenancy

FAILURES_KEPT: Final = 1000
"""Failures of which a report keeps the text; the rest is counted."""

ERROR_LENGTH: Final = 300

AWAY_PAUSE: Final = 0.5
"""Seconds between two looks whether a server is back."""

Result = Literal["warmed", "fresh", "refused", "failed", "away"]
"""`warmed` computed and kept · `fresh` was cached already · `refused` computed but not kept: it was invalidated or
filled by somebody else meanwhile, or is too large · `failed` raised an error · `away` the server does not answer."""


class UnknownFunction(CacheAdminError, LookupError):
    """A name that no cached function has, or one of a function that has nothing to warm."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call to warm."""

    function: CachedFunction[..., Any]
    tenant: str | None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    """Why there is no call: `warm_with` failed."""

    def __str__(self) -> str:
        given = [repr(value) for value in self.args]
        given += [f"{name}={value!r}" for name, value in self.kwargs.items() if name != self.function.tenant_parameter]
        whose = "shared data" if self.tenant is None else f"tenant {self.tenant}"
        return f"{self.function.name}({', '.join(given):.200}) of {whose}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step."""

    step: Step
    result: Result
    error: str = ""


@dataclass(slots=True)
class Report:
    """What a run has done."""

    counts: Counter[str] = field(default_factory=Counter)
    """Steps by result."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """The call and its error, of the first 1,000 failures."""
    seconds: float = 0.0
    is_stopped: bool = False
    """Whether the run ended before all was done: somebody stopped it, or the server went away."""
    away: str = ""
    """The alias whose server does not answer; the run ends at the first such step."""

    @property
    def done(self) -> int:
        """Steps that were taken and came to an end, whichever."""
        return self.counts.total() - self.counts["away"]


# --- what there is to warm ------------------------------------------------------------------------------------------


def load_functions() -> None:
    """Import the URLconf, and with it all views and the cached functions that they use."""
    if has_urls():
        get_resolver().url_patterns  # noqa: B018 - importing is what we want


def warmable(names: Sequence[str] = ()) -> list[CachedFunction[..., Any]]:
    """
    Return the functions that have something to warm, inner aliases first, so that outer values are made of warm ones.

    `names` chooses among them: a dotted name or the end of one, or a group. Loads the URLconf, because views and what
    they import are known only then.
    Raises:  UnknownFunction, with the nearest names; UnknownAlias for a named function whose alias is not managed.
    """
    load_functions()
    functions = list(registry.values())
    found = [f for f in functions if f.warm_with is not None and f.alias in config().aliases]
    found.sort(key=lambda f: (rank(f.alias), f.name))
    if not names:
        return found
    chosen: dict[str, CachedFunction[..., Any]] = {}
    for name in names:
        named = [f for f in functions if _is_called(f, name)]
        fit = [f for f in named if f.warm_with is not None]
        if not fit:
            raise UnknownFunction(_unknown(name, named, found))
        for function in fit:
            rank(function.alias)
            chosen[function.name] = function
    return [f for f in found if f.name in chosen]


def _is_called(function: CachedFunction[..., Any], name: str) -> bool:
    return name in (function.name, function.group) or function.name.endswith(f".{name}")


def _unknown(name: str, named: Sequence[Any], found: Sequence[Any]) -> str:
    if named:
        return f"{named[0].name}() has nothing to warm. Give its decorator warm_with=[…], the arguments to warm."
    known = [f.name for f in found]
    short = {f.name.rpartition(".")[2]: f.name for f in found} | {f.group: f.name for f in found}
    near = dict.fromkeys(short[n] for n in difflib.get_close_matches(name, short, n=3))
    near |= dict.fromkeys(difflib.get_close_matches(name, known, n=3))
    if near:
        return f"No cached function is called {name!r}. Did you mean {' or '.join(near)}?"
    return f"No cached function is called {name!r}. With something to warm there are: {', '.join(known) or 'none'}."


def plan(
    functions: Iterable[CachedFunction[..., Any]], tenants: Iterable[str], *, shared: bool = False
) -> Iterator[Step]:
    """
    Yield the calls that warm some functions for some tenants and, if `shared`, for shared data, which goes first.

    Cost:    what the functions' `warm_with` costs; one that raises becomes a step that fails.
    """
    functions = list(functions)
    if shared:
        for function in functions:
            if function.shared or (function.may_fall_back and not tenancy().has_tenants):
                yield from _steps(function, None)
    for tenant in tenants:
        for function in functions:
            if function.tenant_parameter is not None or (function.may_fall_back and tenancy().has_tenants):
                yield from _steps(function, tenant)


def _steps(function: CachedFunction[..., Any], tenant: str | None) -> Iterator[Step]:
    steps: dict[Any, Step] = {}  # one an entry: two workers would take the lease of the same one from each other
    try:
        with _active(tenant):
            for args, kwargs in function.warm_calls(tenant):
                step = Step(function, tenant, args, kwargs)
                steps.setdefault(_key(step), step)
    except Exception as error:  # noqa: BLE001 - a site's own code; the other functions go on
        yield Step(function, tenant, error=f"warm_with failed: {_said(error)}")
        return
    yield from steps.values()


def _key(step: Step) -> Any:
    try:
        return step.function.key(*step.args, **step.kwargs)
    except Exception:  # noqa: BLE001 - wrong arguments: `warm` says so
        return id(step)


def _active(tenant: str | None) -> Any:
    return nullcontext() if tenant is None else tenancy().activate(tenant)


def _said(error: BaseException) -> str:
    """Return an error in one line: databases answer in several."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")[:ERROR_LENGTH]


# --- a run ----------------------------------------------------------------------------------------------------------


def warm(step: Step) -> Outcome:
    """
    Take one step, the tenant activated. Never raises.

    Cost:    1 round trip if it is fresh, else what the function costs and 5 round trips, the last one to see whether
             the value was kept.
    """
    function = step.function
    if step.error:
        return Outcome(step, "failed", step.error)
    try:
        with _active(step.tenant):
            where, entry = store(function.alias), function.entry(*step.args, **step.kwargs)
            if where.read(entry).state == "hit":
                return Outcome(step, "fresh")
            has_computed = function.warm(*step.args, **step.kwargs)
            if where.read(entry).state == "hit":
                return Outcome(step, "warmed" if has_computed else "fresh")
            return Outcome(step, "refused")
    except CacheAway as error:
        return Outcome(step, "away", str(error))
    except Exception as error:  # noqa: BLE001 - a site's own code; listed, and the run goes on
        close_old_connections()  # the database may have cut this thread's connection
        return Outcome(step, "failed", _said(error))


def run(
    steps: Iterable[Step],
    *,
    workers: int = 1,
    per_second: Rate = None,
    patience: float = 0.0,
    stop: Stop | None = None,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> Report:
    """
    Warm one step after the other, or in several threads, and say what was done.

    A run may be stopped and begun again at any time: what is fresh is passed over, so it goes on where it was. It
    stops by itself when a server does not answer for `patience` seconds, for then it would compute for nothing.
    Cost:    as `warm` for each step; at most `per_second` steps a second.
    """
    stop = Stop() if stop is None else stop
    report, begun, is_all = Report(), time.perf_counter(), False

    def handed_out() -> Iterator[Step]:
        nonlocal is_all
        yield from steps
        is_all = True

    def take(step: Step) -> Outcome:
        ends = time.monotonic() + patience
        while (outcome := warm(step)).result == "away" and time.monotonic() < ends and not stop.is_set:
            stop.wait(AWAY_PAUSE)
        return outcome

    for outcome in spread(take, handed_out(), workers=workers, per_second=per_second, stop=stop):
        report.counts[outcome.result] += 1
        if outcome.result == "failed" and len(report.failures) < FAILURES_KEPT:
            report.failures.append((str(outcome.step), outcome.error))
        if outcome.result == "away":
            report.away = report.away or outcome.step.function.alias
            stop.set()
        if on_outcome is not None:
            on_outcome(outcome)
    report.seconds = time.perf_counter() - begun
    report.is_stopped = bool(report.away) or not is_all
    return report
