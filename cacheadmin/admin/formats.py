"""Numbers and times as the console writes them: nothing rounded up to 100% or down to 0, unknown is a dash."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Final

from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

UNKNOWN: Final = "–"
MINUTE, HOUR, DAY = 60, 3600, 86400


def number(value: float | None, decimals: int = 0) -> str:
    """Return a number with the locale's grouping, rounded: `number_format` by itself cuts digits off."""
    if value is None:
        return UNKNOWN
    return number_format(round(value, decimals) if decimals else round(value), decimals, force_grouping=True)


def estimate(value: float | None, is_exact: bool = False) -> str:
    """Return a whole number, with `~` before it unless it is exact."""
    return number(value) if is_exact or value is None else f"~ {number(value)}"


def compact(value: float | None) -> str:
    """Return `1.2 M` for what is too long for a strip; exact below 100,000."""
    if value is None or abs(value) < 100_000:
        return number(value)
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{number(value / size, 1 if abs(value) < 100 * size else 0)} {unit}"
    return number(value)


def percent(ratio: float | None, decimals: int = 0) -> str:
    """Return a ratio as percent; `>99%` and `<1%` where rounding would claim all or nothing."""
    if ratio is None:
        return UNKNOWN
    step = 10.0**-decimals
    value = ratio * 100
    if 100 - step < value < 100:
        return with_sign(f">{number(100 - step, decimals)}")
    if 0 < value < step:
        return with_sign(f"<{number(step, decimals)}")
    return with_sign(number(value, 0 if value in (0, 100) else decimals))


def with_sign(shown: str) -> str:
    """Return a number with the percent sign behind it; many languages want a space between them."""
    return _("%(n)s%%") % {"n": shown}


def labelled(name: object, value: object) -> str:
    """Return `name: value`; some languages want a space before the colon."""
    return _("%(name)s: %(value)s") % {"name": name, "value": value}


def points(delta: float | None) -> str:
    """Return a change of a ratio in points, without its sign: `2.2`, `4.0`, `33`, `0`."""
    if delta is None:
        return UNKNOWN
    value = abs(delta) * 100
    return number(value, 1 if 0.05 <= value < 9.95 else 0)


def duration(seconds: float | None) -> str:
    """Return `0.4 ms`, `188 ms`, `8.2 s`, `48 s`, `4 min 12 s`, `2 h 5 min`, `4 days`."""
    if seconds is None:
        return UNKNOWN
    seconds = abs(seconds)
    if seconds == 0:
        return number(0)
    if seconds < 0.9995:
        ms = seconds * 1000
        return _("%(n)s ms") % {"n": number(ms, 1) if ms < 9.95 else number(round(ms))} if ms >= 0.05 else _("< 0.1 ms")
    if seconds < 59.5:
        return _("%(n)s s") % {"n": number(seconds, 1) if seconds < 9.95 else number(round(seconds))}
    whole = round(seconds)
    if whole < HOUR:
        return _joined(_("%(n)s min") % {"n": whole // MINUTE}, _("%(n)s s") % {"n": whole % MINUTE}, whole % MINUTE)
    if whole < 2 * DAY:
        minutes = whole % HOUR // MINUTE
        return _joined(_("%(n)s h") % {"n": whole // HOUR}, _("%(n)s min") % {"n": minutes}, minutes)
    days = whole // DAY
    return ngettext("%(n)s day", "%(n)s days", days) % {"n": number(days)}


def took(seconds: float | None) -> str:
    """Return a measured duration: one too short for the clock is `< 0.1 ms`, not nothing."""
    return duration(1e-6 if seconds == 0 else seconds)


def _joined(large: str, small: str, shown: int) -> str:
    return f"{large} {small}" if shown else large


def size(count: float | None) -> str:
    """Return a number of bytes as Django writes file sizes."""
    return UNKNOWN if count is None else filesizeformat(count)


def size_estimate(count: float | None, is_exact: bool = False) -> str:
    """Return a number of bytes, with `~` before it unless every entry was weighed."""
    return size(count) if is_exact or not count else f"~ {size(count)}"


def rate(per_minute: float | None) -> str:
    """Return `38/min`, below one a minute `5/h`."""
    if per_minute is None:
        return UNKNOWN
    if per_minute == 0:
        return "0"
    if per_minute < 1:
        per_hour = per_minute * 60
        return _("%(n)s/h") % {"n": number(per_hour, 1 if per_hour < 1 else 0)}
    return _("%(n)s/min") % {"n": number(per_minute, 1 if per_minute < 9.95 else 0)}


def parted(text: str) -> tuple[str, str]:
    """Return a written quantity as number and unit, for a strip: "< 0.1" and "ms", "12" and "min ago"."""
    found = re.match(r"(.*?\d) (.*)", text)
    return (found[1], found[2]) if found else (text, "")


def moment(when: dt.datetime | float | None) -> dt.datetime | None:
    """Return a time or seconds since 1970 as an aware time of the current zone; None for what is no time."""
    if when is None or isinstance(when, dt.datetime):
        return None if when is None else timezone.localtime(when) if timezone.is_aware(when) else when
    try:
        return timezone.localtime(dt.datetime.fromtimestamp(when, dt.UTC))
    except (OverflowError, OSError, ValueError):
        return None


def ago(when: dt.datetime | float | None, now: float | None = None) -> str:
    """Return `just now`, `12 min ago`, `in 3 min`; after a day the date."""
    local = moment(when)
    if local is None:
        return UNKNOWN
    past = (time.time() if now is None else now) - local.timestamp()
    if abs(past) < 5:
        return _("just now")
    if abs(past) >= DAY:
        return date_format(local, "SHORT_DATE_FORMAT")
    past_minutes = abs(past) // MINUTE * MINUTE
    rounded = duration(past_minutes) if past_minutes else _("%(n)s s") % {"n": int(abs(past))}
    return _("in %(duration)s") % {"duration": rounded} if past < 0 else _("%(duration)s ago") % {"duration": rounded}


def exactly(when: dt.datetime | float | None) -> str:
    """Return a time in full, with its zone: what stands in a `title`."""
    local = moment(when)
    if local is None:
        return ""
    written = date_format(local, pgettext("format of a time in full", "j M Y H:i:s"))
    return f"{written} {local.tzname() or ''}".rstrip()


def clock(when: dt.datetime | float | None) -> str:
    """Return the time of day to the second."""
    local = moment(when)
    return UNKNOWN if local is None else f"{local:%H:%M:%S}"


def epoch(value: bytes | None) -> str:
    """Return the shortened name of an epoch: `7f3a…c1`."""
    return UNKNOWN if not value else f"{value.hex()[:4]}…{value.hex()[-2:]}"
