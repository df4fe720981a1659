"""Two paths on the same prompts: what each customer gains or loses, and how far that may be chance."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.evalgate.scores import Judged, Scores, scores
from backend.evalgate.significance import LEVEL, bootstrap, drop_shown, mcnemar_exact, prompts_needed


@dataclass(frozen=True, slots=True)
class Power:
    """What so many prompts can show. ``needed``: prompts for a drop of the gate's size. ``shown_points``: the drop that
    these show, in points; None where they are too few to show any. Both with 80 % power at 5 % (two-sided).
    """

    prompts: int
    gate_points: float
    needed: int
    shown_points: float | None

    @property
    def enough(self) -> bool:
        """Whether a drop of the gate's size would be seen."""
        return self.prompts >= self.needed


@dataclass(frozen=True, slots=True)
class Comparison:
    """``drop_points``: how far the candidate is below the baseline, in points (per cent of the prompts); below zero
    where it is better. ``interval``: of that, by the bootstrap. ``worse`` and ``better``: prompts that the candidate
    got right less often, or more often. ``p``: by McNemar's exact test; with several samples a prompt it is the exact
    sign test over prompts, which with one is the same.
    """

    customer: str
    baseline: Scores
    candidate: Scores
    drop_points: float
    interval: tuple[float, float]
    worse: int
    better: int
    p: float
    power: Power

    @property
    def significant(self) -> bool:
        """Whether chance alone would do this less than once in twenty times."""
        return self.p < 1 - LEVEL

    def as_json(self) -> dict[str, Any]:
        """For ``result.json``."""
        shown = self.power.shown_points
        return {
            "customer": self.customer,
            "baseline": self.baseline.as_json(),
            "candidate": self.candidate.as_json(),
            "drop_points": round(self.drop_points, 4),
            "interval_points": [round(end, 4) for end in self.interval],
            "worse": self.worse,
            "better": self.better,
            "p": self.p,
            "power": {
                "enough": self.power.enough,
                "prompts": self.power.prompts,
                "prompts_needed": self.power.needed,
                "shown_points": None if shown is None else round(shown, 2),
            },
        }


def compare(
    customer: str, baseline: Sequence[Judged], candidate: Sequence[Judged], *, gate_points: float, seed: int
) -> Comparison:
    """``baseline`` and ``candidate`` are verdicts on the same prompts. Raises ValueError where they are not."""
    if [one.case.key for one in baseline] != [one.case.key for one in candidate]:
        raise ValueError("the two paths were not asked the same prompts")
    moves = [one.share - other.share for one, other in zip(baseline, candidate, strict=True)]
    worse, better = sum(move > 0 for move in moves), sum(move < 0 for move in moves)
    n = len(moves)
    # A seed of each customer's own, so that one more customer changes no other's interval.
    low, high = bootstrap(moves, seed=seed ^ zlib.crc32(customer.encode()))
    differing = (worse + better) / n
    drop = max(gate_points, 0.01) / 100
    shown = drop_shown(n, differing)
    return Comparison(
        customer=customer,
        baseline=scores(baseline),
        candidate=scores(candidate),
        drop_points=100 * sum(moves) / n,
        interval=(100 * low, 100 * high),
        worse=worse,
        better=better,
        p=mcnemar_exact(worse, better),
        power=Power(n, gate_points, prompts_needed(drop, differing), None if shown is None else 100 * shown),
    )


def compare_all(
    baseline: Mapping[str, Sequence[Judged]],
    candidate: Mapping[str, Sequence[Judged]],
    *,
    gate_points: float,
    seed: int,
) -> list[Comparison]:
    """Of each customer, by name."""
    return [
        compare(name, baseline[name], candidate[name], gate_points=gate_points, seed=seed) for name in sorted(baseline)
    ]
