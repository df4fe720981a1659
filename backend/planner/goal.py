"""What an option has to reach, as somebody writes it: ``p95 ttft < 2s and degraded < 1 %``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from backend.planner.figures import QUANTILES, Figures

DEFAULT = "p95 ttft < 2s and degraded < 1% and errors < 1%"
_UNITS = {"ms": 0.001, "s": 1.0, "%": 0.01, "": 1.0}
_CLAUSE = re.compile(
    r"\s*(?:p(?P<percent>\d{1,2}(?:\.\d+)?)\s+)?(?P<what>[a-z0-9]+)\s*(?P<sign><=?)\s*"
    r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|%)?\s*",
    re.IGNORECASE,
)
_PLAIN: dict[str, Callable[[Figures], float]] = {
    "degraded": lambda found: found.degraded_share,
    "errors": lambda found: found.failed,
    "swaps": lambda found: found.swaps,
    "cost": lambda found: found.bill.total,
}
_TIME, _SHARE, _BARE = ("ms", "s"), ("%",), ("",)
_UNIT_OF = {"ttft": _TIME, "e2e": _TIME, "degraded": _SHARE, "errors": _SHARE, "swaps": _BARE, "cost": _BARE}
HELP = (
    "clauses joined by 'and', each of p50, p90, p95 or p99 with ttft or e2e (500ms, 2s), degraded or errors (1%), "
    "swaps (a request), cost (USD a month), and a number that it has to stay below: " + repr(DEFAULT)
)


class BadGoal(ValueError):
    """A goal that cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One bound. ``limit``: seconds, a share from 0 to 1, swaps a request, or USD."""

    text: str
    what: str
    quantile: float | None
    inclusive: bool
    limit: float

    def value(self, found: Figures) -> float:
        """What the bound is on."""
        if self.quantile is None:
            return _PLAIN[self.what](found)
        return (found.ttft_s if self.what == "ttft" else found.e2e_s)[self.quantile]

    def holds(self, found: Figures) -> bool:
        """Whether it is kept; a quantile of nothing is kept by nobody."""
        value = self.value(found)
        return value <= self.limit if self.inclusive else value < self.limit


@dataclass(frozen=True, slots=True)
class Goal:
    """All clauses have to hold."""

    clauses: tuple[Clause, ...]

    def __str__(self) -> str:
        return " and ".join(clause.text for clause in self.clauses)

    def missed(self, found: Figures) -> tuple[Clause, ...]:
        """The clauses that do not hold."""
        return tuple(clause for clause in self.clauses if not clause.holds(found))


def read_goal(text: str) -> Goal:
    """Raises BadGoal."""
    return Goal(tuple(_clause(part) for part in re.split(r"\band\b|,", text, flags=re.IGNORECASE)))


def _clause(text: str) -> Clause:
    read = _CLAUSE.fullmatch(text)
    what = "" if read is None else read["what"].lower()
    if read is None or what not in _UNIT_OF:
        raise BadGoal(f"{text.strip()!r} is no bound of a goal. A goal has {HELP}")
    timed = what in ("ttft", "e2e")
    quantile = None if read["percent"] is None else float(read["percent"]) / 100
    if timed != (quantile is not None) or (timed and quantile not in QUANTILES):
        which = ", ".join(f"p{q * 100:g}" for q in QUANTILES)
        raise BadGoal(f"{text.strip()!r}: " + (f"say which of {which}" if timed else f"{what} has no percentile"))
    unit = (read["unit"] or "").lower()
    if unit not in _UNIT_OF[what]:
        raise BadGoal(f"{text.strip()!r}: {what} is in {' or '.join(_UNIT_OF[what]) or 'a bare number'}")
    return Clause(text.strip(), what, quantile, "=" in read["sign"], float(read["number"]) * _UNITS[unit])
