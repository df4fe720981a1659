"""Plots of a run as inline SVG: nothing is loaded from anywhere, colours come from the page's style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from backend.evalgate.comparison import Comparison
from backend.evalgate.verdict import Outcome

_WIDTH = 760
_LEFT = 170
_RIGHT = 24
_ROW = 22
_TOP = 30
_LONGEST = 24
"""Characters of a customer's name."""


def scores_plot(comparisons: Sequence[Comparison]) -> str:
    """Each customer's share of right answers on both paths, with Wilson's intervals."""
    low = min((min(one.baseline.interval[0], one.candidate.interval[0]) for one in comparisons), default=0.0)
    axis = _Axis(100 * low, 100.0)
    rows = []
    for at, one in enumerate(comparisons):
        y = _y(at)
        rows.append(_name(one.customer, y))
        for scores, side, lift in ((one.baseline, "baseline", -4), (one.candidate, "candidate", 4)):
            x, ends = axis.x(100 * scores.right), [axis.x(100 * end) for end in scores.interval]
            title = f"{one.customer}, {side}: {100 * scores.right:.1f} %"
            rows.append(
                f'<g class="{side}"><title>{escape(title)}</title><line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
                f'y1="{y + lift}" y2="{y + lift}"/><circle cx="{x:.1f}" cy="{y + lift}" r="4"/></g>'
            )
    return _svg("Right answers by customer, per cent, with 95 % intervals", len(comparisons), axis, rows)


def drops_plot(comparisons: Sequence[Comparison], gate_points: float | None) -> str:
    """How far the candidate is below the baseline, with the bootstrap's intervals and the gate's bound."""
    ends = [end for one in comparisons for end in (*one.interval, one.drop_points)]
    bound = 1.0 if gate_points is None else gate_points
    axis = _Axis(min([*ends, -1.0]), max([*ends, bound * 1.5, 1.0]))
    rows = [_rule(axis.x(0.0), len(comparisons), "zero", "no difference")]
    if gate_points is not None:
        rows.append(_rule(axis.x(gate_points), len(comparisons), "bound", f"the gate: {gate_points:g} points"))
    for at, one in enumerate(comparisons):
        y, x = _y(at), axis.x(one.drop_points)
        low, high = (axis.x(end) for end in one.interval)
        over = gate_points is not None and one.drop_points > gate_points + 1e-9
        title = f"{one.customer}: {one.drop_points:.2f} points ({one.interval[0]:.2f} to {one.interval[1]:.2f})"
        rows.append(
            f'{_name(one.customer, y)}<g class="{"over" if over else "within"}"><title>{escape(title)}</title>'
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/><circle cx="{x:.1f}" cy="{y}" r="4.5"/></g>'
        )
    return _svg("Points lost by the candidate, with 95 % intervals", len(comparisons), axis, rows)


def outcomes_plot(overall: Comparison) -> str:
    """What all answers of each path came to, as one bar a path."""
    rows = []
    for at, (name, scores) in enumerate((("baseline", overall.baseline), ("candidate", overall.candidate))):
        y, x = _y(at), float(_LEFT)
        total = sum(scores.outcomes.values())
        rows.append(_name(name, y))
        for number, outcome in enumerate(Outcome):
            count = scores.outcomes.get(outcome, 0)
            width = (_WIDTH - _LEFT - _RIGHT) * count / total
            if count:
                rows.append(
                    f'<rect class="o{number}" x="{x:.1f}" y="{y - 8}" width="{width:.1f}" height="16">'
                    f"<title>{name}: {outcome} {count} of {total}</title></rect>"
                )
            x += width
    return _svg("What the answers came to", 2, None, rows)


class _Axis:
    """From values to pixels."""

    def __init__(self, low: float, high: float) -> None:
        room = max(high - low, 0.5) * 0.04
        self.low, self.high = low - room, max(high, low + 0.5) + room

    def x(self, value: float) -> float:
        return _LEFT + (value - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        span = self.high - self.low
        step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25, 50, 100) if span / step <= 8)
        first = -(-self.low // step)
        return [step * (first + n) for n in range(9) if step * (first + n) <= self.high]


def _svg(title: str, rows: int, axis: _Axis | None, parts: list[str]) -> str:
    height = _TOP + _ROW * rows + 8
    grid = []
    for tick in axis.ticks() if axis is not None else ():
        x = axis.x(tick) if axis is not None else 0.0
        grid.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{height - 4}"/>')
        grid.append(f'<text class="tick" x="{x:.1f}" y="{_TOP - 14}" text-anchor="middle">{tick:g}</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(grid)}{''.join(parts)}</svg>"
    )


def _y(at: int) -> int:
    return _TOP + _ROW * at + _ROW // 2


def _name(text: str, y: int) -> str:
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return f'<text class="name" x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(short)}</text>'


def _rule(x: float, rows: int, kind: str, title: str) -> str:
    return (
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 8}" y2="{_TOP + _ROW * rows + 4}">'
        f"<title>{escape(title)}</title></line>"
    )
