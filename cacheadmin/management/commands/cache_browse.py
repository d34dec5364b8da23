"""`manage.py cache_browse`: tenants, groups, entries, one entry. Values are shown without running them."""

from __future__ import annotations

import datetime as dt
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from django.core.management.base import CommandError
from django.utils.module_loading import import_string

from ... import browser, connections
from ...browser import EntryRow, EntryView, GroupCount, PlainValue
from ...conf import config
from ...keys import logical, member, split
from ...preview import Preview, inspect
from ...tenancy import Tenant, tenancy
from ..base import CacheCommand, check_alias, count, number, one_line, seconds, size

MOST_ROWS: Final = 1000


class Command(CacheCommand):
    """Shows what is cached. Changes nothing, counts nothing."""

    help = "See what is cached: tenants, the groups of one, the entries of a group, one entry with its value."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take what to look at; each has options of its own."""
        looks = parser.add_subparsers(dest="look", required=True, metavar="tenants|groups|entries|entry")
        tenants = looks.add_parser("tenants", help="Tenants, with how much is cached of each.")
        tenants.add_argument("--search", default="", metavar="TEXT", help="Only those whose name or id begins so.")
        groups = looks.add_parser("groups", help="The groups of one tenant.")
        entries = looks.add_parser("entries", help="The entries of one group.")
        entries.add_argument("--group", required=True, metavar="NAME")
        entries.add_argument("--search", default="", metavar="TEXT", help="Only those with this in arguments or tags.")
        entries.add_argument("--state", choices=browser.STATES, help="Only those in this state.")
        orders = ("expires", "-expires", "size", "-size")
        entries.add_argument("--order", choices=orders, default="expires", help="Default: soonest to expire first.")
        entry = looks.add_parser("entry", help="One entry, by the key that callers use.")
        entry.add_argument(
            "key", help="For example tenant:12:inventory_list:branch_id=5; cache_browse entries shows it."
        )
        for look in (groups, entries):
            whose = look.add_mutually_exclusive_group()
            whose.add_argument("--tenant", metavar="ID")
            whose.add_argument("--shared", action="store_true", help="Data shared by all tenants.")
        for look in (tenants, entries):
            look.add_argument(
                "--limit", type=_limit, default=50, metavar="N", help=f"Rows (default: 50, at most {MOST_ROWS})."
            )
            look.add_argument("--offset", type=int, default=0, metavar="N", help="Rows to pass over.")
        for look in (tenants, groups, entries, entry):
            self.add_alias(look)
            self.add_format(look)

    def handle(self, **options: Any) -> None:
        """Look."""
        check_alias(options["alias"])
        look = {"tenants": self._tenants, "groups": self._groups, "entries": self._entries, "entry": self._entry}
        look[options["look"]](options)

    # --- tenants ------------------------------------------------------------------------------------------------------

    def _tenants(self, options: dict[str, Any]) -> None:
        start, limit, search = max(0, options["offset"]), options["limit"], options["search"]
        listed: Iterable[Tenant] = tenancy().find(search, start + limit + 1) if search else tenancy().list()
        shown = list(islice(listed, start, start + limit + 1))
        shown, more = shown[:limit], len(shown) > limit
        whose: list[tuple[str | None, str]] = [] if start or search else [(None, "shared data")]
        whose += ((tenant.id, tenant.label) for tenant in shown)
        counts: dict[str | None, list[GroupCount]] = {}
        for row in browser.groups_of([tenant for tenant, _ in whose], alias=options["alias"]):
            counts.setdefault(row.tenant, []).append(row)
        rows = [{"tenant": tenant, "label": label, **_sums(counts.get(tenant, []))} for tenant, label in whose]
        if options["format"] == "json":
            self.emit({"tenants": rows, "has_more": more})
            return
        self.table(
            ("Tenant", "Name", "Groups", "Entries", "Size"),
            ((r["tenant"] or "–", r["label"], r["groups"], number(r["entries"]), size(r["size_bytes"])) for r in rows),
            right="  >>>",
        )
        if more:
            self.say(f"There are more: --offset {start + limit}.")

    # --- groups -------------------------------------------------------------------------------------------------------

    def _groups(self, options: dict[str, Any]) -> None:
        tenant = _tenant(options)
        rows = sorted(browser.groups_of([tenant], alias=options["alias"]), key=lambda r: (r.alias, r.group))
        if options["format"] == "json":
            self.emit({"tenant": tenant, "groups": [_group_json(row) for row in rows]})
        elif not rows:
            self.say(f"Nothing is cached now for {_name(tenant)}.")
        else:
            self.table(
                ("Group", "Alias", "Entries", "Size", ""),
                (
                    (r.group, r.alias, number(r.entries), _about(r), "invalidated" if r.is_orphaned else "")
                    for r in rows
                ),
                right="  >>",
            )

    # --- entries ------------------------------------------------------------------------------------------------------

    def _entries(self, options: dict[str, Any]) -> None:
        tenant, group = _tenant(options), options["group"]
        alias = options["alias"] or self._alias_of(tenant, group)
        page = browser.entries(
            alias,
            tenant,
            group,
            offset=max(0, options["offset"]),
            limit=options["limit"],
            order=options["order"],
            state=options["state"],
            search=options["search"],
            waiting=browser.waiting_targets(),
        )
        following = page.next_offset if page.next_offset is not None else options["offset"] + len(page.rows)
        if options["format"] == "json":
            self.emit(
                {
                    "alias": alias,
                    "tenant": tenant,
                    "group": group,
                    "total": page.total,
                    "next_offset": following if page.has_next else None,
                    "entries": [_entry_json(row, tenant) for row in page.rows],
                }
            )
            return
        self.table(
            ("Arguments", "State", "Expires in", "Size", "Computed", "Took", "Key"),
            (
                (
                    r.arguments or "–",
                    r.state,
                    "never" if r.expires_in is None else seconds(r.expires_in),
                    size(r.size_bytes),
                    _moment(r.computed_at),
                    seconds(r.took),
                    _key(r.key, tenant),
                )
                for r in page.rows
            ),
            right="  >> >",
        )
        self.say(
            f"{count(len(page.rows), 'entry', 'entries')} of {page.total:,} in {group} of {_name(tenant)}, {alias}."
        )
        if page.has_next:
            self.say(f"There are more: --offset {following}.")

    def _alias_of(self, tenant: str | None, group: str) -> str:
        found = [row.alias for row in browser.groups_of([tenant]) if row.group == group]
        if len(found) > 1:
            raise CommandError(f"The group {group!r} is in {' and '.join(found)}; say --alias.")
        if not found:
            raise CommandError(
                f"Nothing is cached now in a group {group!r} of {_name(tenant)}; see cache_browse groups."
            )
        return found[0]

    # --- one entry ----------------------------------------------------------------------------------------------------

    def _entry(self, options: dict[str, Any]) -> None:
        key = options["key"]
        scoped = split(key)
        for alias in browser.indexed_aliases(options["alias"]):
            if scoped is not None:
                name = member(scoped.rest)
                waiting = browser.waiting_targets()
                found = browser.entry(alias, scoped.tenant, scoped.group, name, waiting=waiting)
                if found is not None:
                    self._tell_entry(found, options)
                    return
            full_key = f"{connections.prefix(alias)}:{key}"
            plain = browser.plain_value(alias, scoped.tenant if scoped else None, full_key)
            if plain is not None:
                self._tell_plain(alias, plain, options)
                return
        where = options["alias"] or "any alias"
        raise CommandError(f"{key!r:.300} is not cached now in {where}.")

    def _tell_entry(self, view: EntryView, options: dict[str, Any]) -> None:
        shown = _preview(view.payload, view.payload_bytes)
        took, by, release = (view.about.get(name) for name in ("took", "by", "rel"))
        gone = [scope for scope in view.scopes if not scope.matches]
        facts = {
            "key": browser.logical_key(view),
            "redis_key": view.full_key,
            "alias": view.alias,
            "tenant": view.tenant,
            "group": view.group,
            "arguments": view.arguments,
            "state": view.state,
            "expires_in_seconds": view.expires_in,
            "size_bytes": view.stored_bytes,
            "function": view.function,
            "tags": list(view.tags),
            "computed_at": _iso(view.about.get("at")),
            "took_ms": took,
            "by": by,
            "release": release,
            "gone": [f"{scope.kind} {scope.name}".strip() for scope in gone],
        }
        self._tell_facts(facts, shown, options)

    def _tell_plain(self, alias: str, plain: PlainValue, options: dict[str, Any]) -> None:
        row = plain.row
        facts = {
            "key": row.key,
            "redis_key": row.full_key,
            "alias": alias,
            "state": "plain",
            "type": row.type_name,
            "expires_in_seconds": row.expires_in,
            "size_bytes": row.size_bytes,
        }
        self._tell_facts(facts, _preview(plain.payload, row.size_bytes or len(plain.payload)), options)

    def _tell_facts(self, facts: dict[str, Any], shown: Preview, options: dict[str, Any]) -> None:
        value = {
            "kind": shown.kind,
            "serializer": shown.serializer,
            "compressor": shown.compressor,
            "is_truncated": shown.is_truncated,
            "warnings": list(shown.warnings),
            "text": shown.text,
        }
        if options["format"] == "json":
            self.emit({**facts, "value": value})
            return
        for name, fact in facts.items():
            if fact not in (None, "", []):
                text = ", ".join(fact) if isinstance(fact, list) else str(fact)
                self.say(f"{name.replace('_', ' ').capitalize() + ':':<22}{one_line(text)}")
        self.say(f"{'Value:':<22}{shown.kind} ({shown.serializer}), read without running it")
        for warning in shown.warnings:
            self.say(f"{'':<22}{warning}")
        self.say()
        self.say(shown.text if shown.text is not None else shown.hexdump or "–")


def _tenant(options: dict[str, Any]) -> str | None:
    if options["tenant"]:
        return str(options["tenant"])
    if options["shared"] or not tenancy().has_tenants:
        return None
    raise CommandError("Say whose: --tenant ID, or --shared. cache_browse tenants lists them.")


def _name(tenant: str | None) -> str:
    return "shared data" if tenant is None else f"tenant {tenant}"


def _sums(rows: list[GroupCount]) -> dict[str, Any]:
    sizes = [row.size_bytes for row in rows if row.size_bytes is not None]
    return {"groups": len(rows), "entries": sum(row.entries for row in rows), "size_bytes": sum(sizes)}


def _about(row: GroupCount) -> str:
    return size(row.size_bytes) if row.is_weighed_whole or row.size_bytes is None else f"~ {size(row.size_bytes)}"


def _group_json(row: GroupCount) -> dict[str, Any]:
    names = ("alias", "group", "entries", "size_bytes", "is_weighed_whole", "is_orphaned")
    return {name: getattr(row, name) for name in names}


def _key(key: str, tenant: str | None) -> str:
    return logical(tenant, "", key) if key else "–"


def _entry_json(row: EntryRow, tenant: str | None) -> dict[str, Any]:
    return {
        "key": logical(tenant, "", row.key) if row.key else None,
        "arguments": row.arguments,
        "state": row.state,
        "expires_in_seconds": row.expires_in,
        "size_bytes": row.size_bytes,
        "computed_at": _iso(row.computed_at),
        "took_ms": None if row.took is None else row.took * 1000,
        "tags": list(row.tags),
        "function": row.function,
    }


def _iso(at: Any) -> str | None:
    """Return seconds since 1970 as ISO 8601 in UTC; None for what an entry's notes should not hold."""
    try:
        return dt.datetime.fromtimestamp(float(at), dt.UTC).isoformat(timespec="seconds")
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _moment(at: float | None) -> str:
    shown = _iso(at)
    return "–" if shown is None else shown.removesuffix("+00:00").replace("T", " ")


def _preview(payload: bytes, total_bytes: int) -> Preview:
    mask = config().mask_value
    return inspect(payload, total_bytes=total_bytes, mask=import_string(mask) if mask else None)


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= MOST_ROWS:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 to {MOST_ROWS}")
    return int(text)
