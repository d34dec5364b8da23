"""Advice in words, the same on the page and in the terminal; each writes numbers its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .advice import Advice


@dataclass(frozen=True, slots=True)
class Writer:
    """How a page writes numbers."""

    duration: Callable[[float], str]
    percent: Callable[[float], str]
    size: Callable[[float], str]
    number: Callable[[float], str]
    thing: Callable[[str], str] = str
    """How it says what was dropped: `group stock`, `prefix stock`, `tenant`."""


def sentence(advice: Advice, write: Writer) -> str:
    """Return what to do and why, with the figures it rests on."""
    said = _KINDS[advice.kind](advice.figures, write)
    if advice.gain_seconds_per_hour is None:
        return said
    return _("%(advice)s It would save up to %(gain)s an hour.") % {
        "advice": said,
        "gain": write.duration(advice.gain_seconds_per_hour),
    }


def _uncache(figures: Mapping[str, Any], write: Writer) -> str:
    told = {
        "compute": write.duration(figures["mean_compute_seconds"]),
        "read": write.duration(figures["read_seconds"]),
    }
    if "hit_ratio" in figures:
        told["ratio"] = write.percent(figures["hit_ratio"])
        return _(
            "Do not cache it: at a hit ratio of %(ratio)s its reads (%(read)s each) cost more than they spare "
            "(%(compute)s each)."
        ) % (told)
    return _("Do not cache it: computing takes %(compute)s, reading the cache %(read)s.") % told


def _key(figures: Mapping[str, Any], write: Writer) -> str:
    return _(
        "Its key varies too much: a tenant has about %(entries)s entries at a time, and 100 of them are read again "
        "%(again)s times. Leave out arguments that rarely repeat, round them, or do not cache it."
    ) % {
        "entries": write.number(figures["entries_per_tenant"]),
        "again": write.number(100 * figures["hits_per_miss"]),
    }


def _rule(figures: Mapping[str, Any], write: Writer) -> str:
    return ngettext(
        "The rule %(rule)s is too broad: it drops %(drops)s of a tenant %(times)s times an hour, so an entry lives "
        "%(lives)s and the hit ratio is %(ratio)s. Name the fields that matter, or drop by a tag.",
        "The rules %(rule)s are too broad: together they drop %(drops)s of a tenant %(times)s times an hour, so an "
        "entry lives %(lives)s and the hit ratio is %(ratio)s. Name the fields that matter, or drop by a tag.",
        len(figures["rule"].split(", ")),
    ) % {
        "rule": figures["rule"],
        "drops": write.thing(figures["drops"]),
        "times": write.number(figures["drops_per_hour"]),
        "lives": write.duration(figures["lives_seconds"]),
        "ratio": write.percent(figures["hit_ratio"]),
    }


def _timeout(figures: Mapping[str, Any], write: Writer) -> str:
    return _(
        "Give it a longer timeout: rules drop it when it changes, yet it ends after %(timeout)s. With %(longer)s its "
        "hit ratio could rise from %(ratio)s to %(then)s."
    ) % {
        "timeout": write.duration(figures["timeout_seconds"]),
        "longer": write.duration(figures["longer_seconds"]),
        "ratio": write.percent(figures["hit_ratio"]),
        "then": write.percent(figures["hit_ratio_then"]),
    }


def _size(figures: Mapping[str, Any], write: Writer) -> str:
    if "refused" in figures:
        return _(
            "Its values are too big: %(refused)s of %(computed)s were not stored. Cache less of it, page it, or raise "
            "MAX_VALUE_BYTES."
        ) % {"refused": write.number(figures["refused"]), "computed": write.number(figures["computed"])}
    return _("Its values are too big: %(size)s on average. Cache only what is shown, or page it.") % {
        "size": write.size(figures["mean_bytes"])
    }


_KINDS: dict[str, Callable[[Mapping[str, Any], Writer], str]] = {
    "uncache": _uncache,
    "key": _key,
    "rule": _rule,
    "timeout": _timeout,
    "size": _size,
}
