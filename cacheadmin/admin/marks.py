"""The marks of charts in words: a few beside a line, all of them where the figures are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cacheadmin.admin import formats, naming
from cacheadmin.admin.charts import Gap, Moment
from cacheadmin.overview.drops import Drop
from cacheadmin.stats import EVERY_TENANT, Mark
from cacheadmin.stats.layout import MINUTE

NAMED_DROPS: Final = 2
"""Marks with names for what rules and code dropped, at most; so for servers that were away for a moment."""

LONGEST: Final = 28
"""Characters of a name on a chart."""

TOGETHER_SECONDS: Final = 5
"""What a person dropped in several aliases within so long was one deed."""

WHO: Final = 3
"""Rules that a mark's full text names."""

_DIGEST: Final = re.compile(r"~[\w-]{16,}")
"""What the counters keep in the place of many names."""


def named(marks: Sequence[Mark], now: float, step: float = MINUTE) -> tuple[list[Moment], list[Gap]]:
    """
    Return the moments to name, and the times in which a server was away; shorter than a step of the chart, a moment.

    Cost: what `Tenancy.labels` costs, once, if a whole tenant was dropped.
    """
    # What happens by itself may happen often, and is not to take the names from deeds.
    unnamed = [mark for mark in marks if mark.kind == "drop"][:-NAMED_DROPS]
    single = [mark for mark in marks if mark.kind == "clear" or (isinstance(mark, Drop) and len(mark.tenants) == 1)]
    labels = naming.tenant_labels(mark.tenant for mark in single if mark.tenant != EVERY_TENANT)
    moments = []
    for mark in _deeds(marks):
        short, told = _words(mark, labels)
        if short:
            moments.append(Moment(mark.at, "" if mark in unnamed else _fitting(short), told or short))
    gaps = [*_gaps(marks, now)]
    brief = [(gap, text) for gap, text in gaps if gap[1] - gap[0] < step]
    for i, (gap, text) in enumerate(brief):
        moments.append(Moment(gap[0], gap[2] if i >= len(brief) - NAMED_DROPS else "", text))
    return sorted(moments, key=lambda moment: moment.at), [gap for gap, _text in gaps if gap[1] - gap[0] >= step]


def _deeds(marks: Sequence[Mark]) -> list[Mark]:
    """Return marks of which those are one that a person's deed left in several aliases."""
    found: list[Mark] = []
    last: dict[str | None, int] = {}
    for mark in marks:
        at = last.get(mark.tenant)
        if mark.kind == "clear" and at is not None and mark.at - found[at].at <= TOGETHER_SECONDS:
            aliases = dict.fromkeys([*found[at].text.split(", "), mark.text])
            found[at] = Mark("clear", ", ".join(aliases), found[at].at, mark.tenant)
            continue
        if mark.kind == "clear":
            last[mark.tenant] = len(found)
        found.append(mark)
    return found


def _words(mark: Mark, labels: dict[str | None, str]) -> tuple[str, str]:
    """Return what a mark says in a few words and in full; nothing for what is no moment."""
    text = _DIGEST.sub(_("several rules"), mark.text)
    names = text.split(", ")
    if isinstance(mark, Drop):
        short = _("%(what)s dropped") % {"what": _whole(names, mark.tenants, labels)}
        told = _("%(aliases)s by %(who)s") % {"aliases": text, "who": _who(mark)}
        return short, formats.labelled(short, told)
    if mark.kind == "clear":
        words = _("%(what)s cleared") if mark.tenant == EVERY_TENANT else _("%(what)s invalidated")
        what = _whole(names, (mark.tenant,), labels)
        short = words % {"what": what}
        return short, "" if what == text else formats.labelled(short, text)
    if mark.kind == "rule" and len(names) == 1:
        return _("rule %(text)s edited") % {"text": text}, ""
    if mark.kind == "rule":
        short = ngettext("%(n)s rule edited", "%(n)s rules edited", len(names)) % {"n": formats.number(len(names))}
        return short, formats.labelled(short, text)
    if mark.kind == "deploy":
        return _("deploy %(text)s") % {"text": text}, ""
    return (_("other server"), text) if mark.kind == "server" else ("", "")


def _whole(aliases: Sequence[str], tenants: Sequence[str | None], labels: dict[str | None, str]) -> str:
    """Return what was dropped as a whole: a tenant, several, or of all tenants an alias or several."""
    if EVERY_TENANT not in tenants:
        if len(tenants) == 1:
            return labels.get(tenants[0]) or str(tenants[0])
        return ngettext("%(n)s tenant", "%(n)s tenants", len(tenants)) % {"n": formats.number(len(tenants))}
    if len(aliases) == 1:
        return aliases[0]
    return ngettext("%(n)s alias", "%(n)s aliases", len(aliases)) % {"n": formats.number(len(aliases))}


def _who(drop: Drop) -> str:
    """Return who dropped it: rules by their names, up to a few of them."""
    names: dict[str, None] = {}
    for source, name in drop.by:
        if _DIGEST.fullmatch(name):
            names[_("several rules")] = None
        elif name and source in ("rule", "relay"):
            names.update(dict.fromkeys(name.split(", ")))
        else:
            names[name or {"code": _("code"), "relay": _("relay")}.get(source, source)] = None
    some = [*names]
    if len(some) <= WHO + 1:
        return ", ".join(some)
    return _("%(some)s and %(n)s more") % {"some": ", ".join(some[:WHO]), "n": formats.number(len(some) - WHO)}


def _fitting(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1].rstrip(' ,(')}…"


def _gaps(marks: Sequence[Mark], now: float) -> Iterable[tuple[Gap, str]]:
    """Yield from when to when a server was away with the words for it, and the same in full."""
    for mark in marks:
        if mark.kind == "away":
            later = (other for other in marks if other.kind == "back" and other.text == mark.text)
            back = next((other.at for other in later if other.at > mark.at), now)
            told = _("Redis (%(aliases)s) away for %(time)s") % {
                "aliases": mark.text,
                "time": formats.duration(max(back - mark.at, 0.0)),
            }
            yield (mark.at, back, _("Redis away")), told
