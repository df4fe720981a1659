"""Small plots as inline SVG: no script, no style sheet of others, nothing fetched. Pure.

Colours are ``currentColor`` and custom properties (``--c0`` to ``--c5``) of the page that they stand in, so that they
follow its light or dark scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from backend.round_values import round_values

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 36
COLOURS = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One line. A point whose value is None leaves a gap."""

    name: str
    points: Sequence[tuple[float, float | None]]


def line_chart(title: str, series: Sequence[Series], *, x: str, y: str, logarithmic_x: bool = False) -> str:
    """Lines over a common axis, with a legend; a sentence where there is nothing to draw."""
    known = [(px, py) for one in series for px, py in one.points if py is not None and (px > 0 or not logarithmic_x)]
    if not known:
        return f"<p>{escape(title)}: nothing to draw.</p>"
    scale: Callable[[float], float] = math.log10 if logarithmic_x else float
    low, high = min(px for px, _ in known), max(px for px, _ in known)
    xs = _Axis(scale(low), scale(high), LEFT, WIDTH - RIGHT)
    ys = _Axis(0.0, _round_up(max(py for _, py in known)), HEIGHT - BOTTOM, TOP)
    parts = [_frame(title), _y_ticks(ys, y)]
    ticks = _decades(low, high) if logarithmic_x else xs.marks()
    for tick in ticks:
        at = xs.at(scale(tick))
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_short(tick)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x)}</text>')
    for number, one in enumerate(series):
        path = _path(one, xs, ys, scale, positive=logarithmic_x)
        parts.append(f'<path d="{path}" fill="none" stroke="var(--c{number % COLOURS})" stroke-width="2"/>')
    return "".join(parts) + "</svg>" + _legend([one.name for one in series])


def bar_chart(title: str, bars: Sequence[tuple[str, float]], *, unit: str) -> str:
    """Horizontal bars, in the order given, each with its value."""
    if not bars:
        return f"<p>{escape(title)}: nothing to draw.</p>"
    row, left = 20, 170
    height = TOP * 2 + row * len(bars)
    longest = max(value for _, value in bars) or 1.0
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    ]
    for number, (name, value) in enumerate(bars):
        top = TOP + row * number
        width = (WIDTH - left - 90) * value / longest
        parts.append(f'<text x="{left - 6}" y="{top + 13}" text-anchor="end">{escape(name[:26])}</text>')
        parts.append(
            f'<rect x="{left}" y="{top + 3}" width="{max(width, 1):.1f}" height="{row - 6}" fill="var(--c0)"/>'
        )
        parts.append(f'<text x="{left + width + 6:.1f}" y="{top + 13}">{value:,.4g} {escape(unit)}</text>')
    return "".join(parts) + "</svg>"


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        span = self.high - self.low
        return self.begin + (self.end - self.begin) * ((value - self.low) / span if span else 0.5)

    def marks(self) -> list[float]:
        return round_values(self.low, self.high) if self.high > self.low else [self.low]


def _frame(title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" opacity=".5"/>'
    )


def _y_ticks(axis: _Axis, label: str) -> str:
    parts = [f'<text x="{LEFT + 6}" y="{TOP + 10}">{escape(label)}</text>']
    for tick in axis.marks():
        at = axis.at(tick)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity=".12"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(tick)}</text>')
    return "".join(parts)


def _path(one: Series, xs: _Axis, ys: _Axis, scale: Callable[[float], float], *, positive: bool) -> str:
    path, pen_up = "", True
    for px, py in one.points:
        if py is None or (positive and px <= 0):
            pen_up = True
            continue
        path += f"{'M' if pen_up else 'L'}{xs.at(scale(px)):.1f} {ys.at(py):.1f}"
        pen_up = False
    return path


def _legend(names: Sequence[str]) -> str:
    spans = (
        f'<span><i style="background:var(--c{n % COLOURS})"></i>{escape(name)}</span>' for n, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(spans)}</p>'


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between."""
    steps = (mantissa * 10.0**power for power in range(-6, 9) for mantissa in (1, 2, 5))
    return [step for step in steps if low <= step <= high] or [low, high]


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if value <= step * power * (1 + 1e-9))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
