"""`manage.py cache_warm`: run the registered functions' `warm_with` arguments."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from typing import Any, Final

from django.core.management.base import CommandError
from tqdm import tqdm

from ... import warming
from ...dispatch import Stop, stopping
from ...models import Activity
from ...progress import Teller
from ...targets import ALL
from ...tenancy import tenancy
from ...warming.runs import FAILURES_KEPT
from ..base import TARGETS_KEPT, CacheCommand, chosen_tenants, count, seconds, unknown_tenants

MOST_WORKERS: Final = 64
FAILURES_SHOWN: Final = 20
AWAY_SECONDS: Final = 10.0
"""How long a run waits for a server to come back before it ends."""
INTERRUPTED: Final = 128
"""Exit code after a signal: this and its number, as shells have it."""


class Command(CacheCommand):
    """Warms. A run may be stopped and begun again: what is cached already is passed over."""

    help = "Compute and cache the values that functions name in warm_with. Nothing newer is overwritten."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whose, which, how fast."""
        self.add_whose(parser, verb="warm")
        parser.add_argument(
            "--function",
            action="append",
            default=[],
            metavar="NAME",
            help="Only this function: its dotted name, the end of it, or its group; may be repeated.",
        )
        parser.add_argument(
            "--workers",
            type=_workers,
            default=1,
            metavar="N",
            help=f"Compute in N threads, each with its own database connections (default: 1, at most {MOST_WORKERS}).",
        )
        parser.add_argument("--rate", type=_rate, metavar="N", help="At most N calls a second.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be warmed, compute nothing.")
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Warm."""
        functions = warming.warmable(options["function"])
        whose = chosen_tenants(options)
        if unknown := unknown_tenants(whose):
            raise CommandError(f"No tenant has the id {', '.join(map(repr, unknown))}. Nothing was warmed.")
        everyone = ALL in whose
        tenants = [t.id for t in tenancy().list()] if everyone else [t for t in whose if isinstance(t, str)]
        with stopping() as stop:
            steps = []
            for step in warming.plan(functions, tenants, shared=everyone or None in whose):
                steps.append(step)
                if stop.is_set:
                    raise CommandError(
                        "Stopped before anything was warmed.", returncode=INTERRUPTED + (stop.signal or 0)
                    )
            if options["dry_run"]:
                self._preview(steps, options)
                return
            follower = self._follow(functions, "*" if everyone else tenants[:TARGETS_KEPT], len(steps), stop)

            def heard(outcome: warming.Outcome) -> None:
                bar.update()
                if follower is not None:
                    follower.step(str(outcome.step), outcome.result, outcome.error)

            def rate() -> float | None:
                chosen: float | None = follower.per_second() if follower is not None else None
                return chosen or options["rate"]

            # tqdm is silent where the error output is no terminal.
            with tqdm(total=len(steps), desc="Warming", unit="call", disable=None) as bar:
                report = warming.run(
                    steps,
                    workers=options["workers"],
                    per_second=rate,
                    patience=AWAY_SECONDS,
                    stop=stop,
                    on_outcome=heard,
                )
        if steps:
            self._note(functions, "*" if everyone else tenants[:TARGETS_KEPT], report, follower)
        self._tell(len(steps), report, options)
        if report.away:
            raise CommandError(
                f"Redis ({report.away}) does not answer: stopped after {report.done:,} of {len(steps):,}. "
                "Run it again when it is back; what is warm is passed over."
            )
        if report.is_stopped:
            raise CommandError("Stopped. Run it again to go on.", returncode=INTERRUPTED + (stop.signal or 0))
        if failed := report.counts["failed"]:
            raise CommandError(f"{count(failed, 'call')} failed.")

    def _preview(self, steps: list[warming.Step], options: dict[str, Any]) -> None:
        by_function = Counter(step.function.name for step in steps)
        tenants = {step.tenant for step in steps} - {None}
        failures = [(str(step), step.error) for step in steps if step.error]
        if options["format"] == "json":
            rows = [{"function": name, "calls": calls} for name, calls in by_function.items()]
            self.emit(
                {
                    "state": "dry-run",
                    "calls": len(steps),
                    "tenants": len(tenants),
                    "functions": rows,
                    "failures": _rows(failures),
                }
            )
        else:
            self.table(("Function", "Calls"), by_function.items(), right=" >")
            whose = count(len(tenants), "tenant")
            self.say(f"Would warm {count(len(steps), 'call')} of {whose}; what is cached is passed over.")
            self._list(failures, len(failures))
        if failures:
            raise CommandError(f"{count(len(failures), 'function')} could not say what to warm.")

    def _tell(self, planned: int, report: warming.Report, options: dict[str, Any]) -> None:
        counts = report.counts
        if options["format"] == "json":
            state = (
                "away" if report.away else "stopped" if report.is_stopped else "failed" if counts["failed"] else "done"
            )
            results = {name: counts[name] for name in ("warmed", "fresh", "refused", "failed")}
            rest: dict[str, Any] = {"left": planned - report.done, "took_seconds": round(report.seconds, 3)}
            rest["failures"] = _rows(report.failures)
            self.emit({"state": state, "calls": planned, **results, **rest})
            return
        if not planned:
            self.say("Nothing to warm: no function names arguments for these tenants (warm_with).")
            return
        was = "was" if counts["fresh"] == 1 else "were"
        parts = [f"{counts['warmed']:,} warmed", f"{counts['fresh']:,} {was} cached already"]
        if counts["refused"]:
            parts.append(f"{counts['refused']:,} not kept (invalidated meanwhile, too large, or the server is full)")
        if counts["failed"]:
            parts.append(f"{counts['failed']:,} failed")
        if left := planned - report.done:
            parts.append(f"{left:,} left")
        self.say(f"{', '.join(parts)}, of {count(planned, 'call')} in {seconds(report.seconds)}.")
        self._list(report.failures, counts["failed"])

    def _list(self, failures: list[tuple[str, str]], total: int) -> None:
        for call, error in failures[:FAILURES_SHOWN]:
            self.warn(f"  {call}: {error}")
        if total > FAILURES_SHOWN:
            self.warn(f"  and {total - FAILURES_SHOWN:,} more; --format json lists the first {FAILURES_KEPT:,}.")

    def _follow(self, functions: list[Any], tenants: list[str] | str, total: int, stop: Stop) -> Teller | None:
        if not total:
            return None
        return self.follow(Activity.Kind.WARM, stop, total, tenants=tenants, what=_what(functions))

    def _note(
        self, functions: list[Any], tenants: list[str] | str, report: warming.Report, follower: Teller | None
    ) -> None:
        state = Activity.State.DONE
        error = f"{report.failures[0][0]}: {report.failures[0][1]}" if report.failures else ""
        if report.away:
            state, error = Activity.State.FAILED, f"Redis ({report.away}) does not answer."
        elif report.is_stopped:
            state = Activity.State.CANCELLED
        elif report.failures:
            state = Activity.State.FAILED
        self.record(
            Activity.Kind.WARM,
            begun=follower,
            tenants=tenants,
            what=_what(functions),
            entries=report.counts["warmed"],
            took_ms=report.seconds * 1000,
            state=state,
            error=error,
        )


def _what(functions: list[Any]) -> str:
    return "warm " + ", ".join(sorted({f.group for f in functions}))


def _rows(failures: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"call": call, "error": error} for call, error in failures]


def _workers(text: str) -> int:
    return int(_between(text, 1, MOST_WORKERS, whole=True))


def _rate(text: str) -> float:
    return _between(text, 0.001, 1_000_000)


def _between(text: str, least: float, most: float, *, whole: bool = False) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no {'whole ' if whole else ''}number") from error
    if not least <= value <= most:
        raise ArgumentTypeError(f"{text} is not between {least:,} and {most:,}")
    return value
