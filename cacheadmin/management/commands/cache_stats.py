"""`manage.py cache_stats`: the figures of all processes, as the console's overview has them."""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ... import outbox
from ...overview import DEFAULT_RANGE, RANGES, Advised, Writer, advice_report, sentence, stats_report
from ...stats import EVERY_TENANT
from ...warming.runs import load_functions
from ..base import CacheCommand, check_alias, count, number, percent, seconds, size

ROWS_SHOWN: Final = 20

WRITER: Final = Writer(seconds, percent, size, number)

HEADS: Final = (
    "Hit ratio",
    "Change",
    "Reads/min",
    "Misses/min",
    "Cost s/min",
    "Saved s/min",
    "Mean",
    "Read",
    "Invalid./min",
)

WORTH_HEADS: Final = (*("Saved s/h", "Hit ratio", "Mean", "Reading s/h", "Value", "Lives", "Holds", "Saved s/h a MB"),)


class Command(CacheCommand):
    """Prints figures. They come from Redis, where every process adds its counts every few seconds."""

    help = "Hit ratios, misses and their cost, by alias, group and tenant."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the span of time and the alias."""
        parser.add_argument("--range", choices=RANGES, default=DEFAULT_RANGE, help=f"Default: {DEFAULT_RANGE}.")
        self.add_alias(parser)
        parser.add_argument(
            "--advice", action="store_true", help="What each cached function saves, and what to change about it."
        )
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Read and print."""
        check_alias(options["alias"])
        if options["advice"]:
            self._advise(options)
            return
        report = stats_report(RANGES[options["range"]], alias=options["alias"])
        waiting = outbox.pending()
        if options["format"] == "json":
            self.emit({**report, "waiting": waiting.count, "oldest_seconds": waiting.oldest_seconds})
            return
        for note in report["notes"]:
            self.warn(_sentence(note))
        self._tell_now(report["now"])
        since = f", the oldest for {seconds(waiting.oldest_seconds)}" if waiting.count else ""
        most = ""
        if report["now"]["waited_most"]:
            lag = seconds(report["now"]["lag_most_seconds"])
            most = f"; at most {number(report['now']['waited_most'])} in the last {options['range']}, for up to {lag}"
        self.say(f"{'Waiting:':<16}{count(waiting.count, 'invalidation')}{since}{most}")
        self._tell_aliases(report["aliases"])
        self._tell_figures("Group", report["groups"], lambda row: f"{_named(row['group'])} ({row['alias']})", options)
        self._tell_figures("Tenant", report["tenants"], lambda row: _named(row["tenant"]), options)

    def _advise(self, options: Mapping[str, Any]) -> None:
        try:
            load_functions()
        except Exception as error:  # noqa: BLE001 - whatever a site's URLconf may raise when it is imported
            self.warn(f"The URLconf cannot be imported, so timeouts of its functions are not known: {error}")
        found = advice_report(RANGES[options["range"]], alias=options["alias"])
        if options["format"] == "json":
            self.emit(found.to_json(lambda advice: sentence(advice, WRITER)))
            return
        self._tell_worth("Group", found.groups, lambda each: f"{_named(each.group)} ({each.alias})", options)
        self._tell_worth(
            "Tenant", found.tenants, lambda each: f"{_named(each.tenant)}: {_named(each.group)} ({each.alias})", options
        )
        said = [each for each in (*found.groups, *found.tenants) if each.judged.advice]
        self.say()
        if not said:
            self.say("No advice: all is well, or too little was counted to say.")
        for each in said:
            whose = "" if each.tenant == EVERY_TENANT else f", tenant {_named(each.tenant)}"
            self.say(f"{', '.join(each.functions) or each.group} ({each.alias}{whose})")
            for advice in each.judged.advice:
                self.say(f"    {sentence(advice, WRITER)}")

    def _tell_worth(
        self, head: str, rows: list[Advised], name: Callable[[Advised], str], options: Mapping[str, Any]
    ) -> None:
        if head == "Tenant":
            self.say()
        if not rows:
            self.say(f"Nothing was computed by {head.lower()} in the last {options['range']}.")
            return
        shown = []
        for each in rows[:ROWS_SHOWN]:
            of = each.judged.gains
            shown.append(
                (
                    name(each),
                    _rate(of.saved_seconds_per_hour),
                    percent(of.hit_ratio),
                    seconds(of.mean_compute_seconds),
                    _rate(of.overhead_seconds_per_hour),
                    size(of.mean_bytes),
                    seconds(of.residence_seconds),
                    size(of.held_bytes),
                    _rate(of.saved_per_megabyte),
                )
            )
        self.table((head, *WORTH_HEADS), shown, right=" >>>>>>>>")
        if len(rows) > ROWS_SHOWN:
            self.say(f"and {len(rows) - ROWS_SHOWN:,} more; --format json has them.")

    def _tell_now(self, now: Mapping[str, Any]) -> None:
        def of(name: str) -> Any:
            return now[name]["now"]

        memory = size(now["used_bytes"]) + (f" of {size(now['limit_bytes'])}" if now["limit_bytes"] else "")
        facts = {
            "Hit ratio": f"{percent(of('hit_ratio'))} (median {percent(now['hit_ratio']['median'])})",
            "Requests": f"{_rate(of('requests_per_second'))} a second",
            "Read": f"p50 {_ms(of('read_p50_ms'))}, p95 {_ms(of('read_p95_ms'))}",
            "Cost of misses": f"{_rate(of('cost_seconds_per_minute'))} s a minute",
            "Invalidations": f"{_rate(of('invalidations_per_minute'))} a minute",
            "Memory": f"{memory}, {number(now['evicted'])} evicted",
        }
        for name, fact in facts.items():
            self.say(f"{name + ':':<16}{fact}")

    def _tell_aliases(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.say()
        self.table(
            ("Alias", "State", "Hit ratio", "Keys", "Policy", "Server", "Backend"),
            (
                (
                    row["alias"],
                    row["state"],
                    percent(row["hit_ratio"]),
                    number(row["keys"]),
                    row["policy"] or "–",
                    row["server"] or "–",
                    row["backend"],
                )
                for row in rows
            ),
            right="  >>",
        )

    def _tell_figures(self, head: str, rows: list[Mapping[str, Any]], name: Any, options: Mapping[str, Any]) -> None:
        self.say()
        if not rows:
            self.say(f"No reads by {head.lower()} in the last {options['range']}.")
            return
        shown = [
            (
                name(row),
                percent(row["hit_ratio"]),
                _points(row["hit_ratio_change"]),
                _rate(row["requests_per_minute"]),
                _rate(row["misses_per_minute"]),
                _rate(row["cost_seconds_per_minute"]),
                _rate(row["saved_seconds_per_minute"]),
                seconds(row["mean_compute_seconds"]),
                seconds(row["mean_read_seconds"]),
                _rate(row["invalidations_per_minute"]),
            )
            for row in rows[:ROWS_SHOWN]
        ]
        self.table((head, *HEADS), shown, right=" >>>>>>>>>")
        if len(rows) > ROWS_SHOWN:
            self.say(f"and {len(rows) - ROWS_SHOWN:,} more; --format json has them.")


def _named(name: str | None) -> str:
    return "shared data" if name is None else name


def _sentence(note: Mapping[str, Any]) -> str:
    if note["kind"] == "away":
        since = f" since {dt.datetime.fromtimestamp(note['since'], dt.UTC):%H:%M:%S} UTC" if note["since"] else ""
        return f"Redis ({', '.join(note['aliases'])}) does not answer{since}. The site computes every value."
    if note["kind"] == "empty":
        return "Nothing has been cached yet. Decorate a function, or point CACHES at cacheadmin.backends.RedisCache."
    what = f"group {_named(note['group'])}" if note["kind"] == "group" else f"tenant {_named(note['tenant'])}"
    text = (
        f"The {what} misses more than usual: hit ratio {percent(note['hit_ratio'])}, before {percent(note['before'])}."
    )
    if note["cause"]:
        text += (
            f" Most was invalidated by {note['cause']['name'] or note['cause']['source']} ({note['cause']['what']})."
        )
    return text + (f" The release {note['deploy']} began then." if note["deploy"] else "")


def _rate(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 0:
        return f"-{_rate(-value)}"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _ms(value: float | None) -> str:
    return seconds(None if value is None else value / 1000)


def _points(change: float | None) -> str:
    return "–" if change is None else f"{change * 100:+.1f}"
