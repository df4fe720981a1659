"""Plots as SVG, without a library: lines, steps and points over two axes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from backend.round_values import round_values

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 16, 44
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989", "#0a7ea4", "#57606a")
TICKS = 5
_LETTER = 7.5
"""Of a mark, how wide at most."""
LEAST = 1e-6
"""Where a logarithmic axis ends at the latest: a microsecond, where it is of time."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """One named line, or points where ``dots``; ``marks``: a text for each point."""

    name: str
    points: Sequence[Point]
    dots: bool = False
    marks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """``percent``: values are shares. ``logarithmic``: only values from ``LEAST`` on are shown."""

    title: str
    percent: bool = False
    logarithmic: bool = False
    least: float | None = None
    most: float | None = None


def plot(x: Axis, y: Axis, series: Sequence[Series], lines: Sequence[tuple[float, str]] = ()) -> str:
    """An ``<svg>`` element. ``lines``: vertical ones at a value of x, with a word."""
    across = _Scale(x, (p[0] for s in series for p in s.points), LEFT, WIDTH - RIGHT)
    up = _Scale(y, (p[1] for s in series for p in s.points), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y.title)} over {escape(x.title)}" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    for value, label in up.ticks():
        at = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in across.ticks():
        at = across(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )
    for value, word in lines:
        at = across(value)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{at + 4:.1f}" y="{TOP + 12}">{escape(word)}</text>')
    for number, one in enumerate(series):
        parts += _drawn(one, COLOURS[number % len(COLOURS)], across, up)
        parts += _legend(one, COLOURS[number % len(COLOURS)], number)
    return "".join([*parts, "</svg>"])


def _drawn(one: Series, colour: str, across: _Scale, up: _Scale) -> list[str]:
    places = [(across(px), up(py)) for px, py in one.points if across.shows(px) and up.shows(py)]
    if not one.dots:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        return [f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>'] if places else []
    parts = [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" fill="{colour}"/>' for px, py in places]
    for (px, py), mark in zip(places, one.marks, strict=False):
        # What would reach into the legend stands on the point's other side.
        fits = px + 8 + _LETTER * len(mark) < WIDTH - RIGHT
        at, anchor = (px + 8, "start") if fits else (px - 8, "end")
        parts.append(f'<text x="{at:.1f}" y="{py + 4:.1f}" text-anchor="{anchor}">{escape(mark)}</text>')
    return parts


def _legend(one: Series, colour: str, number: int) -> list[str]:
    at = TOP + 8 + 18 * number
    begin = WIDTH - RIGHT + 14
    return [
        f'<line x1="{begin}" x2="{begin + 16}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="3"/>',
        f'<text x="{begin + 22}" y="{at + 4}">{escape(one.name)}</text>',
    ]


class _Scale:
    """From values to places on the page."""

    def __init__(self, axis: Axis, values: Iterable[float], begin: float, end: float) -> None:
        self._axis = axis
        found = [value for value in values if math.isfinite(value) and (value >= LEAST or not axis.logarithmic)]
        found += [value for value in (axis.least, axis.most) if value is not None]
        low, high = (min(found), max(found)) if found else (0.0, 1.0)
        if axis.logarithmic:
            low = max(low, LEAST)
            high = max(high, 2 * low)
        elif high <= low:
            high = low + 1.0
        self._low, self._high = low, high
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        low, high = self._low, self._high
        part = math.log(value / low) / math.log(high / low) if self._axis.logarithmic else (value - low) / (high - low)
        return self._begin + min(max(part, 0.0), 1.0) * (self._end - self._begin)

    def shows(self, value: float) -> bool:
        """Whether there is a place for it."""
        return math.isfinite(value) and (value >= LEAST or not self._axis.logarithmic)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values within the axis, with their labels."""
        low, high = self._low, self._high
        if self._axis.logarithmic:
            powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            found = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            within = [value for value in found if low <= value <= high]
            if len(within) > 2 * TICKS:
                within = [value for value in within if f"{value:e}".startswith("1")]
        else:
            within = round_values(low, high)
        return [(value, self._label(value)) for value in within]

    def _label(self, value: float) -> str:
        return f"{100 * value:g} %" if self._axis.percent else f"{value:,.10g}"
