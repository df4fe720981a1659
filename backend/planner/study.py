"""Every option in every scenario that is asked about, or the smallest options that reach the goal."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from backend.planner.bill import Prices
from backend.planner.figures import Figures, degraded_over_time, figures_of
from backend.planner.goal import Clause, Goal
from backend.planner.hopeless import Hopeless
from backend.planner.run import run
from backend.planner.scenario import Option, Scenario
from backend.planner.search import smallest

CDF_POINTS = 200
STEPS_OVER_TIME = 60
"""So many points has the plot of degraded shares."""
LONELY_SHARE = 0.5
"""Of a box's throughput that the first guess counts on: the goal needs some room above the mean."""
LARGE = 5000
"""From so many requests on a run takes long enough for a search to spare itself what it can: a run ends once its goal
is out of reach, and as that makes too few boxes the cheaper mistake, the first guess leaves no room above the mean."""


@dataclass(frozen=True, slots=True)
class Row:
    """One option in one scenario. ``ttft_cdf``: times in order, evenly spaced in the share of the streams from 0 to 1;
    ``degraded``: shares over time, (seconds from the start of the traffic, share)."""

    scenario: str
    figures: Figures
    missed: tuple[Clause, ...]
    ttft_cdf: tuple[float, ...] = field(repr=False)
    degraded: tuple[tuple[float, float], ...] = field(repr=False)
    stopped_at_s: float | None = None
    """When the goal was out of reach, and the run was given up: the figures are those until then."""

    @property
    def option(self) -> Option:
        """Of the run."""
        return self.figures.option


@dataclass(frozen=True, slots=True)
class Answer:
    """The smallest number of boxes with ``slots`` that reaches the goal; None: ``most`` do not."""

    scenario: str
    slots: int
    boxes: int | None
    most: int


@dataclass(slots=True)
class Study:
    """What was found. ``answers`` only where it was searched for."""

    goal: Goal
    rows: list[Row] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def cheapest(self, scenario: str) -> Row | None:
        """Of those that reach the goal in a scenario."""
        found = [row for row in self.rows if row.scenario == scenario and not row.missed]
        return min(found, key=lambda row: (row.figures.bill.total, row.option), default=None)


Told = Callable[[str], None]
"""Is told, in a few words, what is going on."""


@dataclass(slots=True)
class Studying:
    """Looks at options, each once a scenario. ``jobs``: runs at a time, each in a process of its own beyond one."""

    scenarios: Sequence[Scenario]
    goal: Goal
    prices: Prices
    told: Told = lambda words: None
    jobs: int = 1
    _rows: dict[tuple[str, Option], Row] = field(default_factory=dict)

    def compare(self, options: Sequence[Option]) -> Study:
        """All of them in all scenarios. Raises PlanError, BadKnobs."""
        self._look_at([(scenario, option) for scenario in self.scenarios for option in options])
        return self._study([])

    def search(self, slots: Sequence[int], most: int) -> Study:
        """For each scenario and number of slots the smallest number of boxes; then all of these in all scenarios."""
        wanted = [(scenario, n) for scenario in self.scenarios for n in slots]
        with self._pool() as pool, ThreadPoolExecutor(self.jobs) as threads:
            answers = list(threads.map(lambda one: self._smallest(one[0], one[1], most, pool), wanted))
            found = {Option(one.boxes, one.slots) for one in answers if one.boxes is not None}
            rest = [(scenario, option) for scenario in self.scenarios for option in sorted(found)]
            list(threads.map(lambda one: self._row(one[0], one[1], pool, searching=True), rest))
        return self._study(answers)

    def _smallest(self, scenario: Scenario, slots: int, most: int, pool: ProcessPoolExecutor) -> Answer:
        def enough(boxes: int) -> bool:
            return not self._row(scenario, Option(boxes, slots), pool, searching=True).missed

        return Answer(scenario.name, slots, smallest(enough, first=first_guess(scenario, slots), most=most), most)

    def _look_at(self, wanted: Sequence[tuple[Scenario, Option]]) -> None:
        with self._pool() as pool, ThreadPoolExecutor(self.jobs) as threads:
            list(threads.map(lambda one: self._row(one[0], one[1], pool), wanted))

    def _row(self, scenario: Scenario, option: Option, pool: ProcessPoolExecutor, *, searching: bool = False) -> Row:
        key = scenario.name, option
        if key not in self._rows:
            self.told(f"{scenario.name}: {option}")
            asked = scenario, option, self.goal, self.prices, searching and len(scenario.arrivals) >= LARGE
            self._rows[key] = look(*asked) if self.jobs == 1 else pool.submit(look, *asked).result()
        return self._rows[key]

    def _pool(self) -> ProcessPoolExecutor:
        # Fresh processes, as a fork of one that has threads may find a lock held for ever. None starts before it is
        # given something to do.
        return ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn"))

    def _study(self, answers: list[Answer]) -> Study:
        order = {scenario.name: number for number, scenario in enumerate(self.scenarios)}
        rows = sorted(self._rows.values(), key=lambda row: (order[row.scenario], row.option.slots, row.option.boxes))
        return Study(self.goal, rows, answers)


def look(scenario: Scenario, option: Option, goal: Goal, prices: Prices, give_up: bool = False) -> Row:
    """One run, and what it shows. ``give_up`` where the goal is out of reach. Raises PlanError, BadKnobs."""
    done = run(scenario, option, Hopeless(goal, scenario) if give_up else None)
    found = figures_of(done, prices)
    times = sorted(one.ttft_s for one in done.counted if one.streamed and not one.failed and not one.refused)
    cdf = tuple(times[math.ceil(n * (len(times) - 1) / CDF_POINTS)] for n in range(CDF_POINTS + 1)) if times else ()
    step_s = max(1.0, round(scenario.length_s / STEPS_OVER_TIME))
    over_time = tuple(degraded_over_time(done, step_s))
    return Row(scenario.name, found, goal.missed(found), cdf, over_time, done.stopped_at_s)


def first_guess(scenario: Scenario, slots: int) -> int:
    """Boxes by throughput alone: a batch with two sequences a slot."""
    costs, batch = scenario.knobs.costs(), 2 * slots
    answers = sum(one.output_tokens for one in scenario.arrivals)
    prompts = sum(one.prompt_tokens for one in scenario.arrivals)
    seconds = answers * costs.forward_s(decoding=batch, adapters=slots) / batch + prompts / costs.prefill_tokens_per_s
    share = 1.0 if len(scenario.arrivals) >= LARGE else LONELY_SHARE
    return max(1, math.ceil(seconds / scenario.length_s / share))


def default_jobs() -> int:
    """As many as there are processors for us, four at most."""
    return max(1, min(4, len(os.sched_getaffinity(0))))
