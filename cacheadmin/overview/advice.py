"""
What to change about something cached, and the figures that say so. Pure; `sentences` puts it into words.

Silence is the rule: nothing is said of few reads, of a short time, or where figures point both ways. Predictions take
reads of a key to come at random (Poisson), so that hits a miss grow with the time an entry lives; keys that are read at
different rates gain less, hence "up to".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from ..stats.history import Numbers
from .gains import Gains, Known, gains, residence

Kind: TypeAlias = Literal["uncache", "key", "rule", "timeout", "size"]
"""`uncache` it costs more than it saves · `key` hardly any key is read twice · `rule` one rule drops it before it is
read · `timeout` it ends before it is read again · `size` its values are too big."""

READS: Final = 100
"""Reads below which nothing is said."""

COMPUTED: Final = 20
"""Computations below which a mean is none."""

MINUTES: Final = 10
"""Minutes of counting below which nothing is said."""

LIVES: Final = 2
"""Timeouts that must have passed before a hit ratio says anything of them."""

GAIN_PER_HOUR: Final = 5.0
"""Seconds an hour that an advice must promise, unless it is plain without: computing is no slower than reading."""

LONGER: Final = 4
"""How many times the timeout a longer one is."""

SELDOM_DROPPED, OFTEN_DROPPED = 0.5, 2.0
"""Drops within one timeout: below the first the timeout ends an entry, above the second an invalidation does."""

WELL_HIT: Final = 0.9
"""Hit ratio above which neither timeout nor rule is worth changing."""

MANY_ENTRIES: Final = 100
"""Entries of one tenant that make arguments a suspect, if they are not read again."""

BIG_BYTES: Final = 256 * 1024
"""Mean size of a value that is too big: reading and decoding it takes longer than many a query."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do, and the figures it rests on: names say the unit, texts are names of things."""

    kind: Kind
    figures: Mapping[str, float | str] = field(default_factory=dict)
    gain_seconds_per_hour: float | None = None
    """What it would save at most; None where that is not told in seconds."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What something cached is worth, and what to change."""

    gains: Gains
    advice: tuple[Advice, ...] = ()


def judge(numbers: Numbers, minutes: float, known: Known) -> Judged:
    """Return what counts of `minutes` say; no advice where they are too thin."""
    found = gains(numbers, minutes, known)
    if minutes < MINUTES or found.reads < READS or found.computed < COMPUTED:
        return Judged(found)
    advised = [_key(found, known), _rule(found, known), _timeout(found, known)]
    said = [advice for advice in advised if advice is not None]
    cheap = _cheap(found)
    # What takes no longer to compute than to read is not mended by another key or timeout.
    said = [cheap] if cheap is not None else said or [advice for advice in (_loss(found),) if advice is not None]
    size = _size(found)
    return Judged(found, (*said, size) if size is not None else tuple(said))


def _cheap(found: Gains) -> Advice | None:
    compute, read, saved = found.mean_compute_seconds, found.read_seconds, found.saved_seconds_per_hour
    if compute is None or read is None or saved is None or saved >= 0 or compute > read:
        return None
    return Advice("uncache", {"mean_compute_seconds": compute, "read_seconds": read}, -saved)


def _loss(found: Gains) -> Advice | None:
    saved, ratio = found.saved_seconds_per_hour, found.hit_ratio
    # A clear loss only: a tenth of the overhead either way is within what the estimate of a miss may be off.
    if saved is None or ratio is None or saved >= -0.1 * found.overhead_seconds_per_hour or not found.read_seconds:
        return None
    if -saved < GAIN_PER_HOUR:
        return None
    compute = found.mean_compute_seconds or 0.0
    figures = {"hit_ratio": ratio, "mean_compute_seconds": compute, "read_seconds": found.read_seconds}
    return Advice("uncache", figures, -saved)


def _key(found: Gains, known: Known) -> Advice | None:
    """Many entries at a time, hardly any of them read again, and nothing drops them before."""
    if found.held_entries is None or not _was_watched(found, known) or _drops_a_life(known) >= OFTEN_DROPPED:
        return None
    again = found.hits / max(found.misses, 1)
    if again >= 0.25 or found.held_entries < MANY_ENTRIES:
        return None
    figures = {"hits_per_miss": again, "entries_per_tenant": found.held_entries}
    return Advice("key", figures | ({"held_bytes": found.held_bytes} if found.held_bytes else {}))


def _rule(found: Gains, known: Known) -> Advice | None:
    """Entries live a fraction of their timeout because one rule drops all of a tenant's."""
    if not known.rule or _drops_a_life(known) < OFTEN_DROPPED or known.rule_per_hour < known.drops_per_hour / 2:
        return None
    lives = found.residence_seconds
    left = max(known.drops_per_hour - known.rule_per_hour, 0.0)
    gain = _gain(found, lives, residence(known.timeout_seconds or 0.0, left))
    if lives is None or gain < GAIN_PER_HOUR or (found.hit_ratio or 0.0) > WELL_HIT:
        return None
    figures: dict[str, float | str] = {
        "rule": known.rule,
        "drops": known.rule_drops,
        "drops_per_hour": known.rule_per_hour,
        "lives_seconds": lives,
        "hit_ratio": found.hit_ratio or 0.0,
    }
    return Advice("rule", figures, gain)


def _timeout(found: Gains, known: Known) -> Advice | None:
    """Entries end by their timeout though rules would keep them fresh, and are read again afterwards."""
    timeout, lives, ratio = known.timeout_seconds, found.residence_seconds, found.hit_ratio
    if not known.is_ruled or timeout is None or lives is None or ratio is None or not _was_watched(found, known):
        return None
    if math.isinf(timeout) or _drops_a_life(known) > SELDOM_DROPPED or not 0.1 <= ratio <= WELL_HIT:
        return None
    then = residence(LONGER * timeout, known.drops_per_hour)
    gain = _gain(found, lives, then)
    if gain < GAIN_PER_HOUR:
        return None
    figures = {
        "timeout_seconds": timeout,
        "longer_seconds": LONGER * timeout,
        "hit_ratio": ratio,
        "hit_ratio_then": _ratio_if(found, then / lives),
    }
    return Advice("timeout", figures, gain)


def _size(found: Gains) -> Advice | None:
    if found.refused_size >= COMPUTED and found.refused_size >= found.computed / 10:
        return Advice("size", {"refused": found.refused_size, "computed": found.computed})
    if found.mean_bytes is None or found.filled < COMPUTED or found.mean_bytes < BIG_BYTES:
        return None
    return Advice("size", {"mean_bytes": found.mean_bytes})


def _was_watched(found: Gains, known: Known) -> bool:
    """Say whether the counts span some lives of an entry: before, all misses are those of a cold cache."""
    return known.timeout_seconds is not None and found.hours * 3600 >= LIVES * known.timeout_seconds


def _drops_a_life(known: Known) -> float:
    """Return how often entries are dropped within their timeout."""
    return known.drops_per_hour / 3600 * (known.timeout_seconds or 0.0)


def _ratio_if(found: Gains, times: float) -> float:
    """Return the hit ratio if entries lived so many times as long."""
    again = found.hits / max(found.misses, 1) * times
    return again / (1 + again)


def _gain(found: Gains, lives: float | None, then: float) -> float:
    """Return the seconds of computing an hour that longer lives would save."""
    if not lives or found.mean_compute_seconds is None or not found.reads:
        return 0.0
    ratio = 1.0 if math.isinf(then) else _ratio_if(found, then / lives)
    more = max(ratio - found.hits / found.reads, 0.0)
    return more * found.reads / found.hours * found.mean_compute_seconds
