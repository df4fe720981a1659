"""One path's scores for one customer: shares of the prompts that it got right, and in which ways it went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from backend.evalgate.case import Case
from backend.evalgate.significance import wilson
from backend.evalgate.verdict import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Judged:
    """One prompt's verdicts, one of each sample."""

    case: Case
    verdicts: tuple[Verdict, ...]

    @property
    def share(self) -> float:
        """Of the samples that are right."""
        return sum(verdict.right for verdict in self.verdicts) / len(self.verdicts)


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares from 0 to 1; None where no prompt bears on it.

    ``right``: all prompts, those that must get no call too. ``name``, ``arguments`` and ``both``: prompts that expect a
    call. ``refusals``: prompts that must get no call, and got none. ``interval``: Wilson's, of ``right``.
    """

    prompts: int
    right: float
    interval: tuple[float, float]
    name: float | None
    arguments: float | None
    both: float | None
    refusals: float | None
    outcomes: dict[str, int]

    @property
    def invalid_json(self) -> int:
        """Answers whose call was no JSON object."""
        return self.outcomes.get(Outcome.INVALID_JSON, 0)

    def as_json(self) -> dict[str, Any]:
        """For ``result.json``."""
        return {
            "prompts": self.prompts,
            "right": _rounded(self.right),
            "interval": [_rounded(end) for end in self.interval],
            "tool_name": _rounded(self.name),
            "arguments": _rounded(self.arguments),
            "both": _rounded(self.both),
            "refusals": _rounded(self.refusals),
            "invalid_json": self.invalid_json,
            "outcomes": self.outcomes,
        }


def scores(judged: Sequence[Judged]) -> Scores:
    """Of one path and one customer (or all). Raises ValueError where there is nothing to score."""
    if not judged:
        raise ValueError("no prompts")
    of_calls = [verdict for one in judged if one.case.expected is not None for verdict in one.verdicts]
    of_none = [verdict for one in judged if one.case.expected is None for verdict in one.verdicts]
    right = sum(one.share for one in judged)
    outcomes = Counter(str(verdict.outcome) for one in judged for verdict in one.verdicts)
    return Scores(
        prompts=len(judged),
        right=right / len(judged),
        interval=wilson(right, len(judged)),
        name=_share(verdict.name for verdict in of_calls),
        arguments=_share(verdict.arguments for verdict in of_calls),
        both=_share(verdict.right for verdict in of_calls),
        refusals=_share(verdict.right for verdict in of_none),
        outcomes={str(outcome): outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
    )


def _share(found: Iterable[bool | None]) -> float | None:
    known = list(found)
    return sum(map(bool, known)) / len(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
