"""What a run came to: verdicts, comparisons, the gate's decision; as data, for every page and file made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.evalgate.case import Case, by_customer
from backend.evalgate.comparison import Comparison, compare, compare_all
from backend.evalgate.difference import call_shown, differences
from backend.evalgate.folder import Key
from backend.evalgate.gate import Gate, Tripped, warnings
from backend.evalgate.said import Said
from backend.evalgate.scores import Judged
from backend.evalgate.verdict import judge

BASELINE: Final = "baseline"
CANDIDATE: Final = "candidate"
ALL: Final = "all customers"


@dataclass(frozen=True, slots=True)
class Change:
    """A prompt that the two paths do not get right equally often. ``samples``: how many of them are right, on each
    side; the answers are those that show it."""

    case: Case
    baseline: Said
    candidate: Said
    right: tuple[int, int]
    of: int

    @property
    def worse(self) -> bool:
        """Whether it is the candidate that lost it."""
        return self.right[1] < self.right[0]

    def as_json(self) -> dict[str, Any]:
        """For ``result.json``."""
        expected = self.case.expected
        return {
            "customer": self.case.customer,
            "id": self.case.id,
            "worse": self.worse,
            "right": {BASELINE: self.right[0], CANDIDATE: self.right[1], "of": self.of},
            "expected": None if expected is None else call_shown(expected.name, expected.arguments),
            BASELINE: {**self.baseline.as_json(), "differs": differences(self.case, self.baseline)},
            CANDIDATE: {**self.candidate.as_json(), "differs": differences(self.case, self.candidate)},
        }


@dataclass(frozen=True, slots=True)
class Result:
    """Of a run that is complete. ``gate`` None: nothing is held up, whatever the scores."""

    plan: Mapping[str, Any]
    customers: Sequence[Comparison]
    overall: Comparison
    changes: Sequence[Change]
    gate: Gate | None
    tripped: Sequence[Tripped]
    warnings: Sequence[str]
    enum_case: bool

    @property
    def passed(self) -> bool:
        """Whether the gate lets the candidate through."""
        return not self.tripped

    def as_json(self) -> dict[str, Any]:
        """``result.json``."""
        gate = self.gate
        return {
            "passed": self.passed,
            "gate": None if gate is None else {"points": gate.points, "judged": gate.judges.value},
            "tripped": [{"customer": one.customer, "why": one.why} for one in self.tripped],
            "warnings": list(self.warnings),
            "enum_case": "match" if self.enum_case else "ignore",
            **{key: self.plan[key] for key in ("digest", BASELINE, CANDIDATE, "sampling", "began") if key in self.plan},
            "overall": self.overall.as_json(),
            "customers": [one.as_json() for one in self.customers],
            "changes": [one.as_json() for one in self.changes],
        }


def keys(paths: Iterable[str], cases: Iterable[Case], samples: int) -> Iterable[Key]:
    """All that is to be asked, both paths side by side."""
    names = list(paths)
    return ((path, *case.key, sample) for case in cases for sample in range(samples) for path in names)


def missing(cases: Sequence[Case], samples: int, answers: Mapping[Key, Said]) -> int:
    """How many answers a run still lacks."""
    return sum(key not in answers for key in keys((BASELINE, CANDIDATE), cases, samples))


def judged(
    path: str, cases: Iterable[Case], samples: int, answers: Mapping[Key, Said], *, enum_case: bool
) -> list[Judged]:
    """A path's verdicts. Raises KeyError where an answer is missing."""
    return [
        Judged(
            case,
            tuple(judge(case, answers[path, *case.key, sample], enum_case=enum_case) for sample in range(samples)),
        )
        for case in cases
    ]


def result(
    plan: Mapping[str, Any],
    cases: Sequence[Case],
    answers: Mapping[Key, Said],
    *,
    gate: Gate | None,
    enum_case: bool = True,
) -> Result:
    """Of complete ``answers``. Raises KeyError where one is missing."""
    samples, seed = plan["sampling"]["samples"], plan["sampling"]["seed"]
    points = (gate or Gate()).points
    of_customers = by_customer(cases)
    sides = [
        {name: judged(path, own, samples, answers, enum_case=enum_case) for name, own in of_customers.items()}
        for path in (BASELINE, CANDIDATE)
    ]
    comparisons = compare_all(sides[0], sides[1], gate_points=points, seed=seed)
    flat = [[one for name in of_customers for one in side[name]] for side in sides]
    changes = [
        _change(one, other, answers) for one, other in zip(flat[0], flat[1], strict=True) if one.share != other.share
    ]
    return Result(
        plan=plan,
        customers=comparisons,
        overall=compare(ALL, flat[0], flat[1], gate_points=points, seed=seed),
        changes=sorted(changes, key=lambda change: (change.case.customer, not change.worse)),
        gate=gate,
        tripped=[] if gate is None else gate.decide(comparisons),
        warnings=[] if gate is None else warnings(comparisons),
        enum_case=enum_case,
    )


def _change(one: Judged, other: Judged, answers: Mapping[Key, Said]) -> Change:
    shares = one.share, other.share
    said = []
    for path, side, wanted in ((BASELINE, one, shares[0] > shares[1]), (CANDIDATE, other, shares[1] > shares[0])):
        rights = [verdict.right for verdict in side.verdicts]
        # Of the better side an answer that is right, of the other one that is wrong.
        said.append(answers[path, *one.case.key, rights.index(wanted)])
    counts = [sum(verdict.right for verdict in side.verdicts) for side in (one, other)]
    return Change(one.case, said[0], said[1], (counts[0], counts[1]), len(one.verdicts))
