"""What an invalidation would hit, counted before it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cacheadmin.keys import split
from cacheadmin.targets import ALL, All, Target
from cacheadmin.tenancy import tenancy

from .counts import GroupCount, groups_of
from .entries import entries
from .reach import covers

TENANTS_COUNTED: Final = 200
"""Tenants whose groups are counted one by one; for more the first ones stand for all."""


@dataclass(frozen=True, slots=True)
class Blast:
    """What some targets would hit."""

    rows: tuple[GroupCount, ...]
    """Group by group; of a tag or a key only what it reaches."""
    tenants: int
    """Tenants named or meant, shared data not counted."""
    tenants_total: int | None
    entries: int | None
    """None where it cannot be counted (a pattern)."""
    size_bytes: int | None
    is_exact: bool
    """False if a tag was counted by samples, or only some of very many tenants were looked at."""
    hits_shared: bool = False


def blast(targets: Iterable[Target]) -> Blast:
    """
    Count what some targets would hit.

    Cost:    2 round trips an alias; a tag 2 more for each group of its tenants (bounded, by samples); all tenants: as
             for 200 of them.
    Raises:  CacheAway; UnknownAlias.
    """
    wanted = list(targets)
    if any(isinstance(target.tenant, All) for target in wanted):
        listed = [tenant.id for tenant in tenancy().list()]
        total: int | None = len(listed)
    else:
        listed, total = [], None
    named = {t.tenant for t in wanted if not isinstance(t.tenant, All)}
    counted: list[str | None] = [*sorted(t for t in named if isinstance(t, str))]
    hits_all = total is not None
    if hits_all:
        counted += [tenant for tenant in listed[:TENANTS_COUNTED] if tenant not in named]
    if hits_all or None in named:
        counted.append(None)
    left_out = len(set(listed) - set(counted)) if hits_all else 0
    aliases = {target.alias for target in wanted}
    only = next(iter(aliases)) if len(aliases) == 1 else None
    rows: list[GroupCount] = []
    is_exact, countable = not left_out, all(target.kind != "pattern" for target in wanted)
    for row in groups_of(counted, alias=only):
        reach = [t for t in wanted if t.alias in (None, row.alias) and (t.tenant is ALL or t.tenant == row.tenant)]
        if any(covers(t, row.alias, row.tenant, row.group) for t in reach if t.kind in ("tenant", "group", "prefix")):
            rows.append(row)
            continue
        narrow = [t for t in reach if t.kind in ("tag", "key")]
        if narrow:
            part, exact = _part(row, narrow)
            is_exact = is_exact and exact
            if part is not None:
                rows.append(part)
    scale = 1 + left_out / max(1, len(counted) - 1) if left_out else 1.0
    sizes = [row.size_bytes for row in rows if row.size_bytes is not None]
    return Blast(
        rows=tuple(sorted(rows, key=lambda row: -row.entries)),
        tenants=len({*named, *listed} - {None}),
        tenants_total=total,
        entries=round(sum(row.entries for row in rows) * scale) if countable else None,
        size_bytes=round(sum(sizes) * scale) if countable else None,
        is_exact=is_exact and countable,
        hits_shared=None in counted,
    )


def _part(row: GroupCount, narrow: Sequence[Target]) -> tuple[GroupCount | None, bool]:
    """Count what tags and keys reach in one group: its first entries stand for a large one."""
    keys = {t.name for t in narrow if t.kind == "key"}
    tags = [t for t in narrow if t.kind == "tag"]
    in_group = [key for key in keys if (parts := split(key)) is not None and parts.group == row.group]
    if not tags and not in_group:
        return None, True
    page = entries(row.alias, row.tenant, row.group, limit=200)
    hit = [e for e in page.rows if any(covers(t, row.alias, row.tenant, row.group, e.tags, e.key) for t in narrow)]
    if not hit:
        return None, page.is_whole
    share = 1.0 if page.is_whole else row.entries / max(1, len(page.rows))
    if not tags:
        share = 1.0
    count = max(1, round(len(hit) * share))
    size = round(sum(e.size_bytes for e in hit) * share)
    part = GroupCount(row.alias, row.tenant, row.group, count, size, page.is_whole, row.is_orphaned)
    return part, page.is_whole
