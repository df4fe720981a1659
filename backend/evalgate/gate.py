"""The gate: whether a candidate may take the baseline's place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backend.evalgate.comparison import Comparison

POINTS = 0.5
"""What no customer may lose, in points: the field report's bound."""


class Judges(StrEnum):
    """By what a customer's drop is judged.

    ``measured``: it is over the bound, as measured. ``significant``: over it, and McNemar's test does not put it down
    to chance. ``proven``: unless the whole interval shows that it is within the bound.
    """

    MEASURED = "measured"
    SIGNIFICANT = "significant"
    PROVEN = "proven"


@dataclass(frozen=True, slots=True)
class Tripped:
    """A customer that the gate holds the candidate up for, and why, in a sentence."""

    customer: str
    why: str


@dataclass(frozen=True, slots=True)
class Gate:
    """``points``: percentage points of a customer's prompts."""

    points: float = POINTS
    judges: Judges = Judges.MEASURED

    def over(self, points: float) -> bool:
        """Whether so many points are too many. Exactly :attr:`points` are not."""
        return points > self.points + 1e-9

    def trips(self, one: Comparison) -> bool:
        """Whether this customer loses too much."""
        over = self.over(one.drop_points)
        if self.judges is Judges.SIGNIFICANT:
            return over and one.significant
        if self.judges is Judges.PROVEN:
            return over or self.over(one.interval[1])
        return over

    def decide(self, comparisons: Iterable[Comparison]) -> list[Tripped]:
        """Every customer that it trips for."""
        return [Tripped(one.customer, why(one, self)) for one in comparisons if self.trips(one)]


def why(one: Comparison, gate: Gate) -> str:
    """A drop in words."""
    low, high = one.interval
    text = (
        f"{one.drop_points:.2f} points below the baseline ({100 * one.baseline.right:.1f} % → "
        f"{100 * one.candidate.right:.1f} %), {gate.points:g} are allowed; {one.worse} prompts got worse, {one.better} "
        f"better; 95 % interval {low:.2f} to {high:.2f}, McNemar p = {p_value(one.p)}"
    )
    if gate.judges is Judges.PROVEN and not gate.over(one.drop_points):
        return f"not shown to be within {gate.points:g} points: {text}"
    return text if one.significant else f"{text}: chance alone may do that"


def warnings(comparisons: Sequence[Comparison]) -> list[str]:
    """Where there are too few prompts to show a drop of the gate's size, and how many would be enough."""
    groups: dict[tuple[int, int, float | None, float], list[str]] = {}
    for one in comparisons:
        power = one.power
        if not power.enough:
            key = power.prompts, power.needed, power.shown_points, power.gate_points
            groups.setdefault(key, []).append(one.customer)
    return [
        f"{_named(names)}: {prompts} prompts cannot show a drop of {points:g} points; it takes {needed}, with 80 % "
        f"power. {'They show none at all.' if shown is None else f'They show one of {shown:.1f} points.'}"
        for (prompts, needed, shown, points), names in sorted(groups.items(), key=lambda group: group[1])
    ]


def p_value(p: float) -> str:
    """As people read it."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
