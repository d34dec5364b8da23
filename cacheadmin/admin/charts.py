"""Charts, said once: what a script draws, what legend and table of figures say, and the sentence for readers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from cacheadmin.admin import formats

Style = Literal["line", "dash", "area", "stack", "bars"]
Values = Sequence[float | None]
"""One number a step; None is a gap."""
Gap = tuple[float, float, str]
"""From, to, and why nothing is known of the time between."""

NAMED_MARKS: Final = 6
ROWS: Final = 180
"""Most rows of a table of figures; longer series are shown at every n-th step."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a chart."""

    label: str
    values: Values
    colour: str
    """A token's name: `hit` is `--cacheadmin-chart-hit`."""
    style: Style = "line"
    has_value: bool = True
    """Whether the legend says its latest value."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. Stacked lines come with what is on the baseline first."""

    name: str
    title: str | Promise
    times: Sequence[int]
    lines: Sequence[Line]
    unit: str = ""
    """Written after each value, `%` or ` ms`."""
    digits: int = 0
    top: float | None = None
    """Fixed upper end of the axis."""
    least: float = 1
    """The axis reaches at least so far."""
    remark: str = ""
    """Stands at the end of the legend."""
    is_named: bool = False
    """Whether marks and gaps carry their names here."""

    def say(self, value: float | None, line: Line) -> str:
        """Return a value of a line with its unit."""
        if value is None:
            return formats.UNKNOWN
        shown = formats.number(value, self._decimals(value))
        return formats.with_sign(shown) if self._is_percent(line) else f"{shown}{self._unit(line)}"

    def _unit(self, line: Line) -> str:
        return "" if line.style == "bars" else self.unit  # a histogram has an axis of its own

    def _is_percent(self, line: Line) -> bool:
        return self._unit(line) == "%"

    def _decimals(self, value: float) -> int:
        return 0 if abs(value) >= 100 or round(value, self.digits) == int(value) else self.digits

    @property
    def legend(self) -> list[tuple[int, Line, str]]:
        """The lines as the legend shows them, top of the stack first: position, line, latest value."""
        found = [
            (i, line, self.say(_latest(line.values), line) if line.has_value else "")
            for i, line in enumerate(self.lines)
        ]
        stacked = [part for part in found if part[1].style == "stack"]
        return [*reversed(stacked), *(part for part in found if part[1].style != "stack")]

    @property
    def rows(self) -> Iterator[tuple[str, list[str]]]:
        """The figures, newest first: time and one text a line."""
        step = -(-len(self.times) // ROWS) or 1
        for i in range(len(self.times) - 1, -1, -step):
            yield self._time(self.times[i]), [self.say(line.values[i], line) for line in self.lines]

    def _time(self, at: float) -> str:
        return _time(at, self.times)

    @property
    def said(self) -> str:
        """One sentence: `Hit ratio: all from 95% to 93%, lowest 84% at 02:12.`"""
        parts = [part for line in self.lines if (part := self._said(line))]
        nothing = _("nothing to show")
        return f"{formats.labelled(self.title, '; '.join(parts) or nothing)}."

    def _said(self, line: Line) -> str:
        known = [(value, at) for at, value in zip(self.times, line.values, strict=True) if value is not None]
        if not known:
            return ""
        is_ratio = self._is_percent(line)
        extreme, at = (min if is_ratio else max)(known, key=lambda pair: pair[0])
        text = _("%(line)s from %(first)s to %(last)s, lowest %(extreme)s at %(time)s")
        if not is_ratio:
            text = _("%(line)s from %(first)s to %(last)s, highest %(extreme)s at %(time)s")
        return text % {
            "line": line.label,
            "first": self.say(known[0][0], line),
            "last": self.say(known[-1][0], line),
            "extreme": self.say(extreme, line),
            "time": self._time(at),
        }

    def to_json(self) -> dict[str, Any]:
        """Return what the script draws."""
        return {
            "said": self.said,
            "unit": self.unit,
            "digits": self.digits,
            "top": self.top,
            "least": self.least,
            "lines": [
                {
                    "label": line.label,
                    "unit": formats.with_sign("") if self._is_percent(line) else self._unit(line),
                    "colour": line.colour,
                    "style": line.style,
                    "values": [*map(_short, line.values)],
                }
                for line in self.lines
            ],
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment with a line across the charts."""

    at: float
    text: str
    """A few words to stand beside the line; empty for a line without a name."""
    told: str
    """The same in full, for the table of figures and on hover."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The charts of one page, over the same times."""

    times: Sequence[int]
    charts: Sequence[Chart]
    marks: Sequence[Moment] = ()
    gaps: Sequence[Gap] = ()

    @property
    def by_name(self) -> dict[str, Chart]:
        """The charts by name, for templates."""
        return {chart.name: chart for chart in self.charts}

    @property
    def more_marks(self) -> int:
        """How many marks stand without a name."""
        return len(self.marks) - len(self._named)

    @property
    def told_marks(self) -> list[tuple[str, str]]:
        """Time and full text of each mark, newest first."""
        return [(_time(mark.at, self.times), mark.told) for mark in reversed(self.marks)]

    @property
    def _named(self) -> set[int]:
        """The places of the marks that show their names: of those that have one, the newest."""
        return {*[i for i, mark in enumerate(self.marks) if mark.text][-NAMED_MARKS:]}

    def to_json(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        named = self._named
        return {
            "times": list(self.times),
            "zone": timezone.get_current_timezone_name(),
            "marks": [
                {"at": mark.at, "text": mark.text if i in named else "", "told": mark.told}
                for i, mark in enumerate(self.marks)
            ],
            "gaps": [{"from": start, "to": end, "text": text} for start, end, text in self.gaps],
            "charts": {chart.name: chart.to_json() for chart in self.charts},
        }


def _time(at: float, times: Sequence[int]) -> str:
    """Return the time of day; with its date where the times span more than a day."""
    local = formats.moment(float(at))
    assert local is not None
    is_long = len(times) > 1 and times[-1] - times[0] > 24 * 3600
    return f"{date_format(local, 'j M')} {local:%H:%M}" if is_long else f"{local:%H:%M}"


def _latest(values: Values) -> float | None:
    """Return the last value; None if the line ends in a gap of more than a few steps."""
    return next((value for value in reversed(values[-5:]) if value is not None), None)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
