"""`manage.py cache_invalidate`: tenants, groups, tags, patterns, or what a model's rules name."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from django.core.management.base import CommandError
from django.db import DatabaseError
from tqdm import tqdm

from ... import browser, invalidation, rules
from ...browser import Blast
from ...conf import config
from ...dispatch import Stop, stopping
from ...exceptions import CacheAway
from ...invalidation import Invalidation
from ...keys import logical_tenant
from ...models import Activity
from ...outbox.delivery import remembered
from ...progress import Teller
from ...targets import ALL, All, Kind, Target, from_pattern
from ...tenancy import tenancy
from ..base import (
    WAITING,
    CacheCommand,
    check_alias,
    chosen_tenants,
    count,
    number,
    seconds,
    size,
    tenants_of,
    unknown_tenants,
)

GROUPS_SHOWN: Final = 20

INTERRUPTED: Final = 128
"""Added to the number of the signal that stopped a search."""

WAYS: Final = ("prefix", "pattern", "model", "tag")


class Command(CacheCommand):
    """Invalidates. Exit code 0: done; 1: not done; 3: recorded, done as soon as Redis answers; above 128: stopped."""

    help = (
        "Invalidate caches: everything of some tenants, or groups by --prefix, or a --pattern, a --model's, a --tag's."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take whose and what."""
        self.add_whose(parser, verb="invalidate")
        add = parser.add_argument
        ways = {
            "prefix": ("TEXT", "Groups whose names begin so; may be repeated."),
            "pattern": ("GLOB", "Keys that match, as they are and behind tenant:<id>:."),
            "model": ("APP.MODEL", "What the rules drop when this model changes."),
            "tag": ("TAG", "Entries that carry the tag; may be repeated."),
        }
        for way, (metavar, text) in ways.items():
            add(f"--{way}", action="append", default=[], metavar=metavar, help=text)
        self.add_alias(parser)
        add("--reason", default="", metavar="TEXT", help="Why, for the activity.")
        add("--dry-run", action="store_true", help="Count what would go, invalidate nothing.")
        add("--noinput", "--no-input", action="store_false", dest="interactive", help="Never ask.")
        self.add_format(parser)

    def handle(self, **options: Any) -> None:
        """Count, ask if it is wide, invalidate, say what was done."""
        targets = chosen_targets(options)
        self._warn_of_unknown(targets)
        try:
            blast, away = browser.blast(targets), ""
        except CacheAway as error:
            blast, away = None, str(error)
        if options["dry_run"]:
            if blast is None:
                raise CommandError(f"Nothing can be counted now. {away}")
            self._tell_blast(blast, targets, options)
            return
        if reason := why_to_ask(targets, blast):
            self.confirm(f"This invalidates {said(targets)}{counted(blast)}. {reason}", options)
        with stopping() as stop, _Search(lambda total: self._follow(targets, total, stop, options), stop) as search:
            result = invalidation.request(
                targets, source="command", name="cache_invalidate", reason=options["reason"], watch=search
            )
        if result.is_stopped:
            result = replace(result, keys=search.gone)
        if result.state == "waiting" and not set(result.targets).isdisjoint(remembered()):
            # Kept by this process alone, which is about to end.
            result = replace(result, state="failed")
        self._note(result, blast, options, search.follower)
        if result.is_stopped:
            raise CommandError(
                f"Stopped: {said(targets)} is not complete. {count(search.gone, 'value')} found and deleted; what "
                "it did not come to may still be served. Run it again to finish.",
                returncode=INTERRUPTED + (stop.signal or 0),
            )
        self._tell(result, blast, options)

    def _warn_of_unknown(self, targets: Sequence[Target]) -> None:
        try:
            unknown = unknown_tenants(target.tenant for target in targets)
        except DatabaseError:
            return  # invalidating needs no database
        if unknown:
            self.warn(
                f"No tenant has the id {', '.join(map(repr, unknown))}. Going on: a former one may still be cached."
            )

    # --- saying -----------------------------------------------------------------------------------------------------

    def _tell_blast(self, blast: Blast, targets: Sequence[Target], options: dict[str, Any]) -> None:
        if options["format"] == "json":
            self.emit({"state": "dry-run", "targets": [t.to_json() for t in targets], **as_json(blast)})
            return
        if blast.rows:
            rows = [
                (r.alias, "shared" if r.tenant is None else r.tenant, r.group, number(r.entries), size(r.size_bytes))
                for r in blast.rows[:GROUPS_SHOWN]
            ]
            self.table(("Alias", "Tenant", "Group", "Entries", "Size"), rows, right="   >>")
            if (more := len(blast.rows) - GROUPS_SHOWN) > 0:
                self.say(f"and {count(more, 'smaller group')}.")
        self.say(f"Would invalidate {said(targets)}{counted(blast)}.")

    def _tell(self, result: Invalidation, blast: Blast | None, options: dict[str, Any]) -> None:
        if options["format"] == "json":
            self.emit(
                {
                    "state": result.state,
                    "targets": [target.to_json() for target in result.targets],
                    "places": result.places,
                    "keys": result.keys,
                    "took_ms": round(result.took_ms, 1),
                    "error": result.error,
                    **as_json(blast),
                }
            )
        elif result.state == "done":
            by_name = f", {count(result.keys, 'key')} deleted by name" if result.keys else ""
            self.say(
                f"Invalidated {said(result.targets)}{counted(blast)}{by_name}, in {seconds(result.took_ms / 1000)}."
            )
        elif result.state == "deferred":
            self.say(f"Will invalidate {said(result.targets)} when the open transaction commits.")
        if result.state == "waiting":
            raise CommandError(
                f"Redis does not answer. Recorded: {said(result.targets)}; done as soon as it is back "
                "(a running site does it, or cache_relay).",
                returncode=WAITING,
            )
        if result.state == "failed":
            raise CommandError(f"Not invalidated: {said(result.targets)}. {result.error} Try again.")

    def _follow(self, targets: Sequence[Target], total: int, stop: Stop, options: dict[str, Any]) -> Teller | None:
        values = {"tenants": tenants_of(targets), "alias": options["alias"] or "", "reason": options["reason"]}
        return self.follow(Activity.Kind.INVALIDATE, stop, total, targets, what=said(targets), **values)

    def _note(
        self, result: Invalidation, blast: Blast | None, options: dict[str, Any], follower: Teller | None
    ) -> None:
        states = {
            "waiting": Activity.State.WAITING,
            "failed": Activity.State.FAILED,
            "deferred": Activity.State.WAITING,
        }
        state = Activity.State.CANCELLED if result.is_stopped else states.get(result.state, Activity.State.DONE)
        is_clear = any(target.kind == "tenant" and target.tenant is ALL for target in result.targets)
        self.record(
            Activity.Kind.CLEAR if is_clear else Activity.Kind.INVALIDATE,
            result.targets,
            begun=follower,
            tenants=tenants_of(result.targets),
            alias=options["alias"] or "",
            what=said(result.targets),
            reason=options["reason"],
            entries=result.keys if blast is None or blast.entries is None else blast.entries,
            bytes=None if blast is None else blast.size_bytes,
            took_ms=result.took_ms,
            state=state,
            error="" if result.is_stopped else result.error,
        )


class _Search:
    """Shows how far the search for a pattern is, on a terminal and on its page, and ends it when it is time to stop."""

    def __init__(self, follow: Callable[[int], Teller | None], stop: Stop) -> None:
        self.gone = 0
        self.follower: Teller | None = None
        self._follow = follow
        self._stop = stop
        self._aliases: dict[str, invalidation.Looked] = {}
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> _Search:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, alias: str, looked: invalidation.Looked) -> bool:
        """Take in what was looked at; say whether to go on."""
        self._aliases[alias] = looked
        seen, total, self.gone = map(sum, zip(*self._aliases.values(), strict=True))
        if self._bar is None:  # tqdm is silent where the error output is no terminal
            self.follower = self._follow(total)
            self._bar = tqdm(desc="Looking", unit="key", unit_scale=True, disable=None)
        self._bar.total = total
        self._bar.set_postfix(found=self.gone, refresh=False)
        self._bar.update(seen - self._bar.n)
        if self.follower is None:
            return not self._stop.is_set
        self.follower.looked(seen, total, self.gone)
        return self.follower.goes_on()


# --- what is meant --------------------------------------------------------------------------------------------------


def chosen_targets(options: dict[str, Any]) -> list[Target]:
    """
    Return the targets that the options mean.

    Raises:  CommandError for combinations that make no sense, and what the services raise for unknown names.
    """
    check_alias(options["alias"])
    ways = [way for way in WAYS if options[way]]
    if len(ways) > 1:
        flags = " and ".join(f"--{way}" for way in ways)
        raise CommandError(f"{flags} cannot be combined; run the command once for each.")
    way = ways[0] if ways else ""
    if way == "pattern":
        return _by_pattern(options)
    if way == "model":
        return _by_model(options)
    tenants, alias = chosen_tenants(options), options["alias"]
    if not way:
        found = [Target("tenant", "", tenant, alias) for tenant in tenants]
    else:
        kind: Kind = "prefix" if way == "prefix" else "tag"
        found = [Target(kind, name, tenant, alias) for tenant in tenants for name in options[way]]
    return list(dict.fromkeys(found))


def _by_pattern(options: dict[str, Any]) -> list[Target]:
    """A pattern names its tenants itself; given with `--tenant` or `--shared` it is looked for there only."""
    named = options["tenant"] or options["shared"]
    tenants = chosen_tenants(options) if named or options["all_tenants"] else (ALL,)
    found: list[Target] = []
    for pattern in options["pattern"]:
        if named and pattern.startswith("tenant:"):
            raise CommandError(f"The pattern {pattern!r} names a tenant itself; leave --tenant and --shared out.")
        for target in from_pattern(pattern, options["alias"]):
            if target.kind != "pattern":
                found += [replace(target, tenant=tenant) for tenant in tenants] if named else [target]
            elif options["shared"]:
                raise CommandError(
                    f"The pattern {pattern!r} has to be looked for key by key; leave --shared out, or say --prefix."
                )
            else:
                found += [Target("pattern", _inside(tenant) + pattern, ALL, options["alias"]) for tenant in tenants]
    return list(dict.fromkeys(found))


def _inside(tenant: str | All | None) -> str:
    """Return what keys of a tenant begin with, as a glob that matches only that."""
    if not isinstance(tenant, str):
        return ""
    return "tenant:" + "".join("\\" + c if c in "*?[]\\" else c for c in logical_tenant(tenant)) + ":"


def _by_model(options: dict[str, Any]) -> list[Target]:
    if options["alias"]:
        raise CommandError("--model and --alias cannot be combined: the rules of the model name the aliases.")
    tenants = chosen_tenants(options)
    found = [t for model in options["model"] for tenant in tenants for t in rules.model_targets(model, tenant)]
    return list(dict.fromkeys(found))


# --- how wide it is -------------------------------------------------------------------------------------------------


def why_to_ask(targets: Sequence[Target], blast: Blast | None) -> str:
    """Return why these targets need a yes; empty if they are narrow."""
    if any(target.kind == "tenant" and target.tenant is ALL for target in targets):
        return "That is everything in " + (targets[0].alias or "every alias") + "."
    if tenancy().has_tenants and any(target.kind != "key" and target.tenant is ALL for target in targets):
        return "That is every tenant."
    if blast is not None and (blast.entries or 0) > config().confirm_above:
        return f"That is more than {count(config().confirm_above, 'entry', 'entries')}."
    return ""


def said(targets: Sequence[Target]) -> str:
    """Return the targets as a phrase."""
    shown = "; ".join(map(str, targets[:3]))
    return shown + (f"; and {len(targets) - 3:,} more" if len(targets) > 3 else "")


def counted(blast: Blast | None) -> str:
    """Return how much that is, as the end of a phrase."""
    if blast is None or blast.entries is None:
        return ""
    about = "" if blast.is_exact else "about "
    groups = len({(row.alias, row.group) for row in blast.rows})
    return f" ({about}{count(blast.entries, 'entry', 'entries')} in {count(groups, 'group')}, {size(blast.size_bytes)})"


def as_json(blast: Blast | None) -> dict[str, Any]:
    """Return the counts as plain data."""
    if blast is None:
        return {"entries": None, "size_bytes": None, "is_exact": False, "groups": []}
    groups = [
        {"alias": r.alias, "tenant": r.tenant, "group": r.group, "entries": r.entries, "size_bytes": r.size_bytes}
        for r in blast.rows
    ]
    return {"entries": blast.entries, "size_bytes": blast.size_bytes, "is_exact": blast.is_exact, "groups": groups}
