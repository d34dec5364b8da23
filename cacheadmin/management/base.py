"""What all commands share: options, how they print, whom they act on, and the activity they leave behind."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, transaction
from django.template.defaultfilters import filesizeformat

from ..conf import managed
from ..dispatch import Stop
from ..exceptions import CacheAdminError
from ..models import Activity
from ..progress import Teller
from ..targets import ALL, All, Target
from ..tenancy import tenancy

WAITING: Final = 3
"""Exit code: recorded, and done as soon as Redis answers."""

UNHEARD: Final = 141
"""Exit code: whoever read the output has gone, as a shell says it of SIGPIPE."""

TARGETS_KEPT: Final = 200
"""Targets and tenants that an activity names."""

TEXT_KEPT: Final = 300
"""Characters of each of its texts."""


class CacheCommand(BaseCommand):
    """A thin skin over a service: it parses, calls, prints. Errors of ours become a `CommandError`, exit code 1."""

    # No system checks: a broken URLconf must not keep anybody from invalidating.
    requires_system_checks = ()

    def add_format(self, parser: ArgumentParser) -> None:
        """Add `--format`."""
        parser.add_argument("--format", choices=("text", "json"), default="text", help="How to print (default: text).")

    def add_whose(self, parser: ArgumentParser, *, verb: str) -> None:
        """Add `--tenant`, `--all-tenants` and `--shared`."""
        parser.add_argument(
            "--tenant", action="append", default=[], metavar="ID", help=f"Tenant to {verb}; may be repeated."
        )
        parser.add_argument("--all-tenants", action="store_true", help="Every tenant, and data shared by all.")
        parser.add_argument("--shared", action="store_true", help="Data shared by all tenants.")

    def add_alias(self, parser: ArgumentParser) -> None:
        """Add `--alias`."""
        parser.add_argument("--alias", help="Only this cache alias (default: every managed one).")

    def run_from_argv(self, argv: list[str]) -> None:
        """Run from a command line. That `… | head` has seen enough is no error to tell of."""
        try:
            super().run_from_argv(argv)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
            sys.exit(UNHEARD)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run, and turn our errors and the database's into a `CommandError`; `--traceback` shows where from."""
        try:
            return super().execute(*args, **options)
        except CacheAdminError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"The database refused: {error}".strip()) from error

    # --- printing ---------------------------------------------------------------------------------------------------

    def say(self, text: str = "") -> None:
        """Print a line."""
        self.stdout.write(printable(text))

    def warn(self, text: str) -> None:
        """Print a line on the error output."""
        self.stderr.write(printable(text), self.style.WARNING)

    def emit(self, data: Any) -> None:
        """Print JSON. Text beyond ASCII is escaped, so that no key can steer a terminal."""
        self.stdout.write(json.dumps(data, indent=2, default=str))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]], *, right: str = "") -> None:
        """Print a table; columns whose place in `right` is `>` stand on the right: `"  >>"`."""
        lines = [list(heads), *([printable(str(cell)) for cell in row] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        for line in lines:
            cells = [
                cell.rjust(width) if right[i : i + 1] == ">" else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            self.stdout.write("  ".join(cells).rstrip())

    # --- acting -----------------------------------------------------------------------------------------------------

    def confirm(self, question: str, options: dict[str, Any]) -> None:
        """Go on after a typed "yes", or with `--noinput`. Raises: CommandError otherwise."""
        if not options["interactive"]:
            return
        # On the error output, so that --format json stays clean.
        self.stderr.write(printable(question) + "\nType 'yes' to go on, anything else to leave it: ", ending="")
        self.stderr.flush()
        try:
            answer = input()
        except EOFError as error:
            raise CommandError("Nobody was there to answer. Say --noinput if you are sure.") from error
        if answer.strip().lower() != "yes":
            raise CommandError("Nothing was done.")

    def follow(
        self, kind: Activity.Kind, stop: Stop, total: int, targets: Sequence[Target] = (), **values: Any
    ) -> Teller | None:
        """
        Begin a row of activity whose page shows how far the command is, and can slow it down or stop it.

        Returns: what keeps it up to date, to be handed to `record` at the end; None where the database refuses it.
        """
        row = self.record(kind, targets, state=Activity.State.RUNNING, **values)
        return None if row is None else Teller(row, total, stop)

    def record(
        self, kind: Activity.Kind, targets: Sequence[Target] = (), *, begun: Teller | None = None, **values: Any
    ) -> Activity | None:
        """
        Write one row of activity, or the end of one that `follow` began.

        A database that refuses it is a warning: the deed is done.
        """
        texts = {name: one_line(values[name]) for name in ("what", "reason", "error") if name in values}
        if begun is not None:
            begun.tell()
        row = Activity(
            kind=kind,
            source=Activity.Source.COMMAND,
            who=whoami(),
            targets=[target.to_json() for target in targets[:TARGETS_KEPT]],
            **(values | texts),
        )
        try:
            with transaction.atomic():
                if begun is None:
                    row.save()
                else:
                    Activity.objects.filter(pk=begun.row.pk).update(**(values | texts))
        except DatabaseError as error:
            self.warn(f"This was not noted among the activity: {error}")
            return None
        return row


def one_line(text: str) -> str:
    """Return a text as the activity keeps it: 300 characters at most, without any that could fake a line of a log."""
    return printable(text.replace("\n", "\\n"))[:TEXT_KEPT]


def whoami() -> str:
    """Return who runs this, for the activity: `amira@web-1`."""
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return f"{user}@{platform.node()}"[:200]


def tenants_of(targets: Sequence[Target]) -> list[str] | str:
    """Return the tenants of some targets as `Activity.tenants` wants them: ids, or "*" for all."""
    if any(isinstance(target.tenant, All) for target in targets):
        return "*"
    return sorted({target.tenant for target in targets if isinstance(target.tenant, str)})[:TARGETS_KEPT]


def chosen_tenants(options: dict[str, Any]) -> tuple[str | All | None, ...]:
    """
    Return whom the options name: ids, ALL, None for shared data; ALL on a site without tenants that names nobody.

    Raises:  CommandError for a combination that makes no sense, or for nobody.
    """
    named, everyone, shared = options["tenant"], options["all_tenants"], options["shared"]
    if everyone and (named or shared):
        raise CommandError("--all-tenants means every tenant and shared data; leave --tenant and --shared out.")
    if everyone:
        return (ALL,)
    if any(not tenant for tenant in named):
        raise CommandError("--tenant needs an id; it was given an empty text.")
    if named or shared:
        return (*dict.fromkeys(named), *([None] if shared else []))
    if tenancy().has_tenants:
        raise CommandError("Say whose: --tenant ID (may be repeated), --shared, or --all-tenants.")
    return (ALL,)


def unknown_tenants(tenants: Iterable[str | All | None]) -> list[str]:
    """Return the ids that the site's tenancy does not list, if it lists all. Cost: one query."""
    wanted = [tenant for tenant in tenants if isinstance(tenant, str)]
    if not wanted or not tenancy().has_tenants or not tenancy().lists_all:
        return []
    known = tenancy().labels(wanted)
    return [tenant for tenant in wanted if tenant not in known]


def check_alias(alias: str | None) -> None:
    """Raise UnknownAlias, which names the managed ones, for any other."""
    managed(alias)


def printable(text: str) -> str:
    """Return a text whose control characters are escaped: a key must not steer the terminal or fake a line."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c == "\xa0" else _escaped(c) for c in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def number(value: float | None) -> str:
    """Return `12,345`; `–` for unknown."""
    return "–" if value is None else f"{value:,.0f}"


def count(value: int, noun: str, plural: str = "") -> str:
    """Return `1 entry`, `12,345 entries`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def percent(ratio: float | None) -> str:
    """Return `93.4%`; never rounded to all or nothing; `–` for unknown."""
    if ratio is None:
        return "–"
    shown = f"{ratio:.1%}"
    if shown == "100.0%":
        return "100%" if ratio == 1 else ">99.9%"
    return "0%" if ratio == 0 else "<0.1%" if shown == "0.0%" else shown


def size(value: float | None) -> str:
    """Return bytes as Django writes file sizes; `–` for unknown."""
    return "–" if value is None else filesizeformat(value).replace("\xa0", " ")


def seconds(value: float | None) -> str:
    """Return `0.4 ms`, `188 ms`, `8.2 s`, `4 min 12 s`, `2 h 5 min`; `–` for unknown."""
    if value is None:
        return "–"
    if value < 0.9995:
        ms = value * 1000
        return f"{ms:.1f} ms" if ms < 9.95 else f"{ms:.0f} ms"
    if value < 59.5:
        return f"{value:.1f} s" if value < 9.95 else f"{value:.0f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
