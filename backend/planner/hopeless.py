"""Whether a goal is out of reach for a run that still goes on, whatever becomes of the requests that are left. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from backend.planner.asked import Asked
from backend.planner.goal import Clause, Goal
from backend.planner.run import Run
from backend.planner.scenario import Scenario


class Hopeless:
    """Asked of one run as it goes on. Only what is certain counts: it says True of no run that would reach the goal,
    and False of many that will not."""

    def __init__(self, goal: Goal, scenario: Scenario) -> None:
        self._warm_up_s = scenario.warm_up_s
        self._over = dict.fromkeys((clause for clause in goal.clauses if clause.what in _COUNTED), 0)
        counted = [one for one in scenario.arrivals if one.at_s >= scenario.warm_up_s]
        self._requests = len(counted)
        self._streams = sum(one.streamed for one in counted)
        self._seen = 0
        self._running: list[Asked] = []

    def __call__(self, run: Run) -> bool:
        """Whether to give up."""
        new = [one for one in run.asked[self._seen :] if one.at_s >= self._warm_up_s]
        self._seen = len(run.asked)
        looked_at = self._running + new
        self._running = [one for one in looked_at if not one.ended]
        ended = [one for one in looked_at if one.ended and not one.refused]
        for clause in self._over:
            self._over[clause] += sum(_COUNTED[clause.what](one, clause) for one in ended)
        return any(self._missed(clause, over) for clause, over in self._over.items())

    def _missed(self, clause: Clause, over: int) -> bool:
        if clause.quantile is None:
            # Those over their customers' limits leave the whole, which so is as large at most.
            share = over / self._requests
            return share > clause.limit if clause.inclusive else over > 0 and share >= clause.limit
        most = self._streams if clause.what == "ttft" else self._requests
        # A quantile of fewer is passed by fewer: those that fail leave the whole.
        return over > most - math.ceil(clause.quantile * most)


def _too_long(seconds: float, clause: Clause) -> bool:
    return seconds > clause.limit if clause.inclusive else seconds >= clause.limit


_COUNTED: dict[str, Callable[[Asked, Clause], bool]] = {
    "ttft": lambda one, clause: one.streamed and not one.failed and _too_long(one.ttft_s, clause),
    "e2e": lambda one, clause: not one.failed and _too_long(one.e2e_s, clause),
    "degraded": lambda one, clause: one.degraded is not None and not one.failed,
    "errors": lambda one, clause: one.failed,
}
