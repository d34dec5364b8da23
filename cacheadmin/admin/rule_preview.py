"""What a rule would drop for a tenant right now: the preview of its form, and the panel on the host's change pages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, Literal

from django.contrib.admin import AdminSite
from django.core.exceptions import FieldError, ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin import browser
from cacheadmin.browser import GroupCount
from cacheadmin.conf import config, managed
from cacheadmin.exceptions import CacheAway, InvalidRule
from cacheadmin.functions import registry
from cacheadmin.rules import Change, Event, Rule, find_model, targets_for, validate
from cacheadmin.rules.snapshot import Compiled, Snapshot, build
from cacheadmin.stats.history import DroppedLine
from cacheadmin.targets import ALL, All, Target
from cacheadmin.tenancy import Everyone, Tenant, tenancy

from . import figures, formats, ids, naming
from .access import Access
from .history import Dropped
from .pages import url_to

TENANTS_OFFERED: Final = 100
EXAMPLES: Final = 3
SHOWN: Final = 7
ROWS: Final = 500
ALL_EVENTS: Final[tuple[Event, ...]] = ("create", "update", "delete", "m2m")


@dataclass(frozen=True, slots=True)
class GroupLine:
    """One group that would be dropped, in whole or in part."""

    group: str
    alias: str
    url: str
    entries: int
    size_bytes: int | None
    is_weighed_whole: bool
    recompute: float | None
    """Seconds; None where the mean is not known."""
    by: str = ""
    """`tag` or `key` where only part of the group is reached."""
    rules: Sequence[str] = ()
    tenants: int = 1
    invalidated: Dropped | None = None
    """When it was invalidated last, where somebody asked for it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    text: str
    level: Literal["good", "warn", "bad"] = "good"


@dataclass(frozen=True, slots=True)
class Preview:
    """What would be dropped, and whether that can be known."""

    state: Literal["counted", "away", "unclear"]
    """`unclear`: the rule cannot be read yet."""
    whose: str = ""
    """The tenant's name."""
    thing: str = ""
    """The model's name: "inventory item"."""
    lines: Sequence[GroupLine] = ()
    entries: int = 0
    size_bytes: int = 0
    recompute: float | None = None
    is_exact: bool = True
    is_weighed_whole: bool = True
    examples: Sequence[tuple[str, str]] = ()
    """Pairs of arguments and URL."""
    checks: Sequence[Check] = ()
    targets: Sequence[Target] = field(default=(), repr=False)
    dropped: Sequence[DroppedLine] | None = None
    """What was invalidated in the last 24 hours; None if that was not asked, or is not known."""

    @property
    def groups(self) -> int:
        return len({(line.alias, line.group) for line in self.lines})

    @property
    def rest(self) -> int:
        """Groups beyond those that a page shows."""
        return max(0, len(self.lines) - SHOWN)

    @property
    def rest_entries(self) -> int:
        """Entries of these, so that the column adds up."""
        return sum(line.entries for line in self.lines[SHOWN:])


def tenants_offered(access: Access) -> list[Tenant]:
    """Return tenants to preview for: those a user may see, at most a hundred. Cost: one query."""
    if isinstance(access.tenants, Everyone):
        return list(islice(tenancy().list(), TENANTS_OFFERED))
    found = tenancy().labels(access.tenants)
    return [Tenant(*pair) for pair in sorted(found.items(), key=lambda pair: pair[1])][:TENANTS_OFFERED]


def tenant_asked(access: Access, given: str | None, offered: Sequence[Tenant]) -> str | None:
    """Return the tenant to preview for: the one asked for if the user may see it, else the first; None without any."""
    if given and access.sees(given):
        return given
    return offered[0].id if offered else None


def preview(rule: Rule | None, tenant: str | None, access: Access, site: AdminSite) -> Preview:
    """
    Count what saving one row would drop by a rule that need not be saved.

    Cost:    one query for a row to fill placeholders from, one of the outbox; 2 round trips an alias for the counts,
             2 for the examples.
    """
    if rule is None:
        return Preview("unclear")
    try:
        model = find_model(rule.model)
    except InvalidRule:
        return Preview("unclear")
    problems = validate(rule)
    if problems:
        checks = [Check(problem.message, "bad") for problem in problems]
        return Preview("unclear", thing=str(model._meta.verbose_name), checks=checks)
    snapshot = build([replace(rule, enabled=True)], [], None)
    (compiled,) = (found[0] for found in snapshot.compiled.values())
    row = _example_row(compiled, model, tenant)
    targets = _of_row(snapshot, compiled.label, row, access, tenant)
    shown = counted(targets, access, site, whose=tenant, thing=str(model._meta.verbose_name), rules={})
    checks = [_all_exist(rule)]
    if shown.state == "counted":
        checks += [*_unknown_groups(rule, shown), *_tag_checks(rule, shown)]
    return replace(shown, checks=checks, examples=_examples(shown, tenant, site))


def _all_exist(rule: Rule) -> Check:
    texts = [_("Model"), *([_("fields")] if rule.fields else []), *([_("tenant path")] if rule.tenant else [])]
    if len(texts) == 1:
        return Check(_("The model exists."))
    return Check(_("%(things)s exist.") % {"things": _(" and ").join([", ".join(texts[:-1]), texts[-1]])})


def _example_row(compiled: Compiled, model: Any, tenant: str | None) -> dict[str, Any]:
    """Return what a rule wants to know of a row, from the newest of the tenant; only its tenant if there is none."""
    known = {} if tenant is None or compiled.tenant in ("*", "-") else {compiled.tenant: tenant}
    columns = [path for path in compiled.paths if not path.startswith("@")]
    if not columns:
        return known
    lookups = {path: value for path, value in known.items() if not path.startswith("@")}
    try:
        row = model._base_manager.filter(**lookups).order_by("-pk").values(*columns).first()
    except (FieldError, ValueError, ValidationError):
        return known  # an id that is none, a path that the checks name
    return {**known, **(row or {})}


def rows_of(paths: Iterable[str], queryset: Any) -> tuple[dict[str, Any], ...] | None:
    """Return what rules want to know of some rows, each once; None for more than 500 images. Cost: one query."""
    columns = [path for path in paths if not path.startswith("@")]
    active = {"@active": tenancy().current()} if "@active" in paths else {}
    if not columns:
        return (active,) if queryset.exists() else ()
    rows = queryset.order_by().values(*columns).distinct()[: ROWS + 1]
    found = tuple({**active, **row} for row in rows)
    return found if len(found) <= ROWS else None


def _of_row(snapshot: Snapshot, label: str, row: Mapping[str, Any], access: Access, tenant: str | None) -> list[Target]:
    changes = [Change(label, event, None, (row,)) for event in ALL_EVENTS]
    found = dict.fromkeys(target for fired in targets_for(changes, snapshot) for target in fired.targets)
    return visible(found, access, tenant)


def visible(targets: Iterable[Target], access: Access, tenant: str | None = None) -> list[Target]:
    """Keep what a user may see: of targets for all tenants or aliases his own ones, of shared data nothing."""
    found: dict[Target, None] = {}
    for target in access.within(targets):
        if not isinstance(target.tenant, All):
            if access.sees(target.tenant):
                found[target] = None
        elif isinstance(access.tenants, Everyone):
            found[target] = None
        else:
            for own in [tenant] if tenant in access.tenants else sorted(access.tenants):
                found[replace(target, tenant=own)] = None
    return list(found)


def counted(
    targets: Sequence[Target],
    access: Access,
    site: AdminSite,
    *,
    whose: str | None,
    thing: str,
    rules: Mapping[Target, Sequence[str]],
) -> Preview:
    """
    Count what some targets would hit, group by group; `rules` names the rules behind each target.

    Cost: as `browser.blast`; of the counters' database three round trips in all.
    """
    known = [t for t in targets if t.alias is None or t.alias in config().aliases]
    base = Preview("counted", naming.tenant_label(whose) if whose else "", thing, targets=known)
    if not known:
        return base
    span, reached, own = figures.Span(None, figures.DEFAULT_RANGE, access), browser.reached(known), config().stats_alias
    # The counters lie in the database of one of the aliases; its registries are asked in the same round trip.
    along = browser.registry_commands(own, reached.counted) if own in browser.indexed_aliases() else []
    means, dropped, replies = figures.by_group_and_dropped(span, whose if whose else ALL, along)
    try:
        blast = browser.blast(known, whose=reached, registries={own: replies} if along and replies else None)
    except CacheAway:
        return replace(base, state="away")
    merged: dict[tuple[str, str], list[GroupCount]] = {}
    for row in blast.rows:
        merged.setdefault((row.alias, row.group), []).append(row)
    lines = []
    for (alias, group), rows in merged.items():
        entries = sum(row.entries for row in rows)
        mean = means.get((alias, group), figures.NOTHING).mean_compute
        behind = [t for t in known if any(browser.covers(t, alias, row.tenant, group) for row in rows)]
        narrow = [t for t in known if t.kind in ("tag", "key") and t.alias in (None, alias)]
        lines.append(
            GroupLine(
                group=group,
                alias=alias,
                url=_group_url(site, rows, alias, group),
                entries=entries,
                size_bytes=_sum(row.size_bytes for row in rows),
                is_weighed_whole=all(row.is_weighed_whole for row in rows),
                recompute=None if mean is None else mean * entries,
                by="" if behind else (narrow[0].kind if narrow else ""),
                rules=tuple(dict.fromkeys(name for t in behind or narrow for name in rules.get(t, ()))),
                tenants=len(rows),
            )
        )
    lines.sort(key=lambda line: (-line.entries, line.group))
    work = [line.recompute for line in lines]
    return replace(
        base,
        lines=lines,
        entries=blast.entries if blast.entries is not None else sum(line.entries for line in lines),
        size_bytes=blast.size_bytes or 0,
        recompute=_sum(work) if lines and None not in work else None,
        is_exact=blast.is_exact,
        is_weighed_whole=blast.is_weighed_whole,
        dropped=dropped,
    )


def _sum(numbers: Iterable[Any]) -> Any:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def _group_url(site: AdminSite, rows: Sequence[GroupCount], alias: str, group: str) -> str:
    if len(rows) != 1:
        return ""
    return url_to(site, "cacheadmin_entry_list", ids.tenant_id(rows[0].tenant), ids.group_id(alias, group))


def _examples(shown: Preview, tenant: str | None, site: AdminSite) -> list[tuple[str, str]]:
    """Return some entries of the largest group that would be dropped whole."""
    first = next((line for line in shown.lines if not line.by and line.url), None)
    if first is None:
        return []
    owner = tenant if any(t.tenant == tenant or t.tenant is ALL for t in shown.targets) else None
    try:
        page = browser.entries(first.alias, owner, first.group, limit=EXAMPLES, is_brief=True)
    except CacheAway:
        return []
    found = []
    for row in page.rows:
        entry = ids.entry_id(first.alias, owner, first.group, row.member)
        found.append((row.arguments or _("no arguments"), url_to(site, "cacheadmin_entry_detail", entry)))
    return found


def _unknown_groups(rule: Rule, shown: Preview) -> Iterable[Check]:
    """Name groups that no function fills and that hold nothing now: most are misspelt."""
    filled = {line.group for line in shown.lines}
    known = {function.group for function in registry.values()} | filled
    for target in rule.targets:
        if target.kind == "prefix":
            exists = any(group.startswith(target.name) for group in known)
        else:
            exists = target.kind not in ("group", "fragment") or target.name in known
        if not exists:
            near = difflib.get_close_matches(target.name, known, n=1)
            hint = _(" Did you mean %(name)s?") % {"name": near[0]} if near else ""
            missing = _("No group begins with %(name)s."), _("The group %(name)s does not exist.")
            yield Check(missing[target.kind != "prefix"] % {"name": target.name} + hint, "warn")


def _tag_checks(rule: Rule, shown: Preview) -> Iterable[Check]:
    whole = {(line.alias, line.group) for line in shown.lines if not line.by}
    for target in rule.targets:
        if target.kind != "tag":
            continue
        head = target.name.split("{", 1)[0]
        aliases = managed(None) if target.alias is None else (target.alias,)
        users = [
            f
            for f in registry.values()
            if f.alias in aliases and not callable(f.tags) and any(tag.split("{", 1)[0] == head for tag in f.tags)
        ]
        if not users:
            yield Check(_("No function that is known here uses the tag %(name)s.") % {"name": target.name}, "warn")
            continue
        count = len(users)
        text = ngettext("%(n)s function uses the tag %(name)s.", "%(n)s functions use the tag %(name)s.", count)
        yield Check(text % {"n": formats.number(count), "name": target.name})
        idle = sorted({f.group for f in users if (f.alias, f.group) in whole})
        if len(idle) == len({f.group for f in users}):
            text = _("The tag adds nothing for %(groups)s: dropped already as a whole.")
            yield Check(text % {"groups": ", ".join(idle)}, "warn")


def sentence(shown: Preview) -> str:
    """Say it in a sentence: "Saving one inventory item would drop 166 entries, 1.0 MB, in 2 groups."."""
    values = {"thing": shown.thing, "whose": shown.whose or _("shared data"), **_numbers(shown)}
    if not shown.lines:
        return _("Saving one %(thing)s would drop nothing for %(whose)s now.") % values
    return _("Saving one %(thing)s would drop %(entries)s, %(size)s, in %(groups)s.") % values


def sentence_of_row(shown: Preview) -> str:
    """Say it of one row: "Saving this inventory item would drop 7 entries, 12 KB, in 3 groups."."""
    if not shown.lines:
        return _("Saving this %(thing)s would drop nothing now.") % {"thing": shown.thing}
    values = {"thing": shown.thing, **_numbers(shown)}
    return _("Saving this %(thing)s would drop %(entries)s, %(size)s, in %(groups)s.") % values


def _numbers(shown: Preview) -> dict[str, str]:
    entries = ngettext("%(n)s entry", "%(n)s entries", shown.entries)
    groups = ngettext("%(n)s group", "%(n)s groups", shown.groups)
    return {
        "entries": entries % {"n": formats.estimate(shown.entries, shown.is_exact)},
        "size": formats.size_estimate(shown.size_bytes, shown.is_weighed_whole),
        "groups": groups % {"n": formats.number(shown.groups)},
    }
