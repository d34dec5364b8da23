"""`manage.py cache_sweep`: give back the memory of what nobody can read any more."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from ... import reclaiming
from ...conf import managed
from ...dispatch import stopping
from ..base import CacheCommand, count


class Command(CacheCommand):
    """Looks at every value of ours. A running site frees most by itself; this finds what it lost sight of."""

    help = "Free the memory of invalidated entries, those without a timeout too. For cron, once a day or a week."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the alias."""
        self.add_alias(parser)
        parser.add_argument("--dry-run", action="store_true", help="Count, free nothing.")
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Sweep."""
        found: dict[str, reclaiming.Swept] = {}
        with stopping() as stop:
            for alias in managed(options["alias"]):
                found[alias] = reclaiming.Swept(0, 0)
                for sum_so_far in reclaiming.sweep(alias, only_look=options["dry_run"]):
                    found[alias] = sum_so_far
                    if stop.is_set:
                        break
                if stop.is_set:
                    break
        self._tell(found, options)

    def _tell(self, found: dict[str, reclaiming.Swept], options: dict[str, Any]) -> None:
        if options["format"] == "json":
            self.emit({alias: swept._asdict() for alias, swept in found.items()})
            return
        for alias, swept in found.items():
            done = "of them could be freed" if options["dry_run"] else "freed"
            self.say(f"{alias}: {count(swept.seen, 'value')} seen, {swept.orphans:,} {done}.")
