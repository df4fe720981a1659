"""Several system prompts on the same cases: which is best, and whether it is better than what the policy has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.evalgate.comparison import Comparison, compare
from backend.evalgate.scores import Judged, Scores, scores
from backend.evalgate.significance import LEVEL


@dataclass(frozen=True, slots=True)
class Ranked:
    """One prompt's scores. ``against``: beside the policy's own prompt (drop below zero: better); None for that one."""

    prompt: str
    scores: Scores
    against: Comparison | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """Of one customer, best first. ``proven``: the best one's lead over the policy's own is not put down to chance,
    with its p-value times the number of prompts tried (Bonferroni), as the best of many is good by chance too.
    """

    customer: str
    prompts: Sequence[Ranked]
    proven: bool

    @property
    def best(self) -> Ranked:
        """The one with most right answers; of several the policy's own, as a change has to be worth it."""
        return self.prompts[0]

    def as_json(self) -> dict[str, Any]:
        """For ``tune.json``. Plus 0.0, as a loss of 0.0 turned round is written ``-0.0``."""
        return {
            "customer": self.customer,
            "best": self.best.prompt,
            "proven": self.proven,
            "prompts": [
                {
                    "prompt": one.prompt,
                    **one.scores.as_json(),
                    "gained_points": None if one.against is None else round(-one.against.drop_points, 4) + 0.0,
                    "gained_interval_points": None
                    if one.against is None
                    else [round(-end, 4) + 0.0 for end in reversed(one.against.interval)],
                    "p": None if one.against is None else one.against.p,
                }
                for one in self.prompts
            ],
        }


def rank(customer: str, judged: Mapping[str, Sequence[Judged]], own: str, *, seed: int) -> Ranking:
    """``judged``: by prompt; ``own``: which of them the policy has. Raises KeyError where that is not among them."""
    ranked = [
        Ranked(
            name,
            scores(of_prompt),
            None if name == own else compare(customer, judged[own], of_prompt, gate_points=0.5, seed=seed),
        )
        for name, of_prompt in judged.items()
    ]
    ranked.sort(key=lambda one: (-one.scores.right, one.prompt != own, one.prompt))
    lead = ranked[0].against
    proven = lead is not None and lead.drop_points < 0 and lead.p * (len(ranked) - 1) < 1 - LEVEL
    return Ranking(customer, ranked, proven)
