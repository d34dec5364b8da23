"""What the first page asks of the roll-ups, in one round trip, cut to what a user may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..stats import EVERY_TENANT, Mark
from ..stats.history import Buckets, DroppedLine, Group, Later, Numbers, Reader, Sample, Tenant, WaitingSample
from ..stats.layout import DAY, HOUR, MINUTE, TEN_MINUTES, starts
from ..stats.servers import ServerInfo
from ..tenancy import Everyone
from .ranges import Span
from .rows import Allowed, fold


@dataclass(slots=True)
class Sources:
    """What the roll-ups said, cut to what the user may see."""

    born: float
    latency: Mapping[int, Mapping[str, Numbers]]
    counts: Mapping[int, Mapping[str, Numbers]]
    recent: Mapping[int, Mapping[str, Numbers]]
    recent_latency: Mapping[int, Mapping[str, Numbers]]
    tenants: Buckets[Tenant]
    recent_tenants: Buckets[Tenant]
    groups: Buckets[Group]
    recent_groups: Buckets[Group]
    samples: list[Sample]
    waited: list[WaitingSample]
    marks: list[Mark]
    lines: list[DroppedLine]
    info: ServerInfo | None
    """Of the server of the roll-ups."""
    is_empty: bool


def read(span: Span, allowed: Allowed) -> Sources:
    """Ask everything. Cost: one round trip. Raises: CacheAway."""
    within, reader = span.within, Reader()
    born, info = reader.born(), reader.info()
    totals, recent = reader.totals(within.step, span.since, span.now), reader.totals(MINUTE, span.recent[0], span.now)
    lines, marks = reader.dropped(span.since, span.now), reader.marks(span.since, span.now)
    ever = reader.totals(HOUR, span.now - DAY, span.now)
    groups: Later[Buckets[Group]]
    recent_groups: Later[Buckets[Group]]
    fine: Later[Buckets[Tenant]] | None = None
    samples: Later[list[Sample]] | None = None
    waited: Later[list[WaitingSample]] | None = None
    if isinstance(allowed, Everyone):
        samples, waited = reader.samples(span.since, span.now), reader.waiting(span.since, span.now)
        tenants, recent_tenants = reader.tenants(span.coarse, within.coarse), reader.tenants(span.recent, MINUTE)
        groups, recent_groups = reader.groups(span.coarse, within.coarse), reader.groups(span.recent, MINUTE)
    else:
        fine = reader.tenants(starts(within.tenant_step, span.since, span.now), within.tenant_step, allowed)
        tenants = reader.tenants(span.coarse, within.coarse, allowed)
        recent_tenants = reader.tenants(span.recent, MINUTE, allowed)
        groups = reader.groups_of(allowed, span.both, within.both)
        recent_groups = reader.groups_of(allowed, starts(TEN_MINUTES, span.now - TEN_MINUTES, span.now), TEN_MINUTES)
    reader.run()
    counts, now_counts = totals.value.counts, recent.value.counts
    kept_marks, kept_lines = marks.value, lines.value
    if fine is not None and not isinstance(allowed, Everyone):
        counts, now_counts = fold(fine.value, lambda name: name[0]), fold(recent_tenants.value, lambda name: name[0])
        whose = {EVERY_TENANT, *allowed}
        kept_marks = [m for m in kept_marks if m.kind not in ("rule", "server") and m.tenant in whose]
        kept_lines = [line for line in kept_lines if line.tenant in whose]
    return Sources(
        born=born.value,
        latency=totals.value.latency,
        counts=counts,
        recent=now_counts,
        recent_latency=recent.value.latency,
        tenants=tenants.value,
        recent_tenants=recent_tenants.value,
        groups=groups.value,
        recent_groups=recent_groups.value,
        samples=samples.value if samples else [],
        waited=waited.value if waited else [],
        marks=kept_marks,
        lines=kept_lines,
        info=info.value,
        is_empty=not (ever.value.counts or totals.value.counts),
    )
