"""`manage.py cache_relay`: deliver the invalidations that wait for Redis."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import CommandError
from django.db import close_old_connections

from ... import outbox
from ...dispatch import Stop, stopping
from ..base import WAITING, CacheCommand, count, seconds


class Command(CacheCommand):
    """Delivers once, or again and again. Any number may run: what two of them deliver only costs misses."""

    help = "Deliver recorded invalidations. A running site does so itself; this is for a process of its own, or cron."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take how often."""
        parser.add_argument("--loop", action="store_true", help="Go on until SIGTERM or Ctrl-C.")
        parser.add_argument(
            "--interval", type=_seconds, default=1.0, metavar="S", help="Seconds between two looks (default: 1)."
        )
        parser.add_argument(
            "--retry-dead",
            action="store_true",
            help="First take up what was given up because its cache alias was not configured.",
        )
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Deliver."""
        if options["retry_dead"]:
            outbox.retry_dead()
        with stopping() as stop:
            if options["loop"]:
                self._loop(stop, options["interval"])
                return
            delivered, dead = 0, 0
            while not stop.is_set:  # one report is one batch
                report = outbox.relay_once()
                delivered, dead = delivered + report.delivered, dead + report.dead
                if report.waiting or not report.delivered:
                    break
        waiting = outbox.pending()
        if options["format"] == "json":
            self.emit(
                {
                    "delivered": delivered,
                    "dead": dead,
                    "waiting": waiting.count,
                    "oldest_seconds": waiting.oldest_seconds,
                }
            )
        else:
            self.say(f"Delivered {count(delivered, 'invalidation')}.")
        if dead:
            self.warn(f"{count(dead, 'invalidation')} cannot be delivered: see Activity.")
        if waiting.count:
            raise CommandError(
                f"{count(waiting.count, 'invalidation')} still {'waits' if waiting.count == 1 else 'wait'}, "
                f"the oldest for {seconds(waiting.oldest_seconds)}.",
                returncode=WAITING,
            )

    def _loop(self, stop: Stop, interval: float) -> None:
        """Deliver until told to stop, and tell what changes: the log of a quiet night is empty."""
        was_away = False
        while not stop.is_set:
            report = outbox.relay_once()
            close_old_connections()
            if report.delivered:
                self.say(f"Delivered {count(report.delivered, 'invalidation')}.")
            if report.waiting and not was_away:
                self.warn("Redis does not answer: invalidations wait.")
            was_away = bool(report.waiting)
            if was_away or not report.delivered:
                stop.wait(interval)
        self.say("Stopped; what waits stays recorded.")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is no number of seconds") from error
    if not 0.1 <= value <= 3600:
        raise ArgumentTypeError(f"{text} is not between 0.1 and 3600")
    return value
