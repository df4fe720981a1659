"""From a traffic to the scenarios that are asked about: as it is, a box that dies at the peak, more customers. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from backend.planner.scenario import Scenario
from backend.planner.terms import PlanError, made_up, twin, with_twins
from backend.traffic.arrival import Arrival
from backend.traffic.mix import TrafficMix
from backend.traffic.population import Asker, population
from backend.traffic.schedule import schedule
from gateway.policy.compiled import CompiledPolicy

PEAK_S = 30.0
"""The peak is the middle of the so many seconds with most requests."""
AFTERMATH = 1 / 3
"""Of the counted time that has to be left after a death, so that its effect is seen."""
APART_S = 30.0
"""A twin's requests of a recorded trace come up to so much before or after the original's."""
MOST_TWINS = 1000


@dataclass(frozen=True, slots=True)
class WhatIf:
    """``times``: so many times the customers. ``dies``: the busiest box dies, at the peak or at ``at_s`` of the counted
    time."""

    name: str
    times: int = 1
    dies: bool = False
    at_s: float | None = None


def read_what_if(text: str) -> WhatIf:
    """``box-dies``, ``box-dies@90s``, ``customers=10x``, or several of them with ``+``. Raises PlanError."""
    found = WhatIf(text)
    for part in text.split("+"):
        if (dies := re.fullmatch(r"box-dies(?:@(\d+(?:\.\d+)?)(s|m)?)?", part.strip())) is not None:
            at_s = None if dies[1] is None else float(dies[1]) * (60 if dies[2] == "m" else 1)
            found = replace(found, dies=True, at_s=at_s)
        elif (more := re.fullmatch(r"customers=(\d{1,4})x?", part.strip())) is not None:
            times = int(more[1])
            if not 1 <= times <= MOST_TWINS:
                raise PlanError(f"customers={times}: 1 to {MOST_TWINS} times can be simulated")
            found = replace(found, times=times)
        else:
            raise PlanError(f"{part!r} is no what-if: box-dies, box-dies@90s, customers=10x, or two of them with +")
    return found


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked: a mix, or a recorded trace. ``length_s`` and ``warm_up_s`` of the whole run.

    ``policy`` None: policies are made up for whoever asks. ``source``: where the traffic comes from, in words.
    """

    mix: TrafficMix | None
    trace: Sequence[Arrival]
    length_s: float
    warm_up_s: float
    policy: CompiledPolicy | None
    known: Mapping[str, str] | None = None
    source: str = ""

    def scenario(self, what_if: WhatIf, like: Scenario) -> Scenario:
        """``like`` with this traffic under ``what_if``. Raises PlanError, NobodyToAsk."""
        arrivals = self._arrivals(what_if.times, like.seed)
        policy = made_up(arrivals) if self.policy is None else with_twins(self.policy, what_if.times)
        dies_at_s = None
        if what_if.dies:
            at_s = what_if.at_s
            dies_at_s = peak_of(arrivals, self.warm_up_s, self.length_s) if at_s is None else self.warm_up_s + at_s
            if not 0 <= dies_at_s < self.length_s:
                raise PlanError(f"{what_if.name}: the traffic is over by then")
        return replace(
            like,
            name=what_if.name,
            arrivals=arrivals,
            length_s=self.length_s,
            warm_up_s=self.warm_up_s,
            policy=policy,
            dies_at_s=dies_at_s,
            mix=self._mix(what_if.times),
            source=self.source,
        )

    def _mix(self, times: int) -> TrafficMix | None:
        if self.mix is None:
            return None
        return self.mix.model_copy(update={"requests_per_minute": self.mix.requests_per_minute * times})

    def _arrivals(self, times: int, seed: int) -> Sequence[Arrival]:
        mix = self._mix(times)
        if mix is None:
            return more_of(self.trace, times, self.length_s, seed)
        askers = [
            Asker(twin(one.customer, n), twin(one.model, n), one.share / times)
            for one in population(mix, self.known)
            for n in range(times)
        ]
        return schedule(mix, seed, askers)


def more_of(trace: Sequence[Arrival], times: int, length_s: float, seed: int) -> list[Arrival]:
    """A trace with ``times`` as many customers: each twin does what its original did, a little before or after."""
    chance = random.Random(f"{seed} twins")  # noqa: S311 - no secret
    found = list(trace)
    for number in range(1, times):
        for one in trace:
            at_s = (one.at_s + chance.uniform(-APART_S, APART_S)) % length_s
            name, model = twin(one.customer, number), twin(one.model, number)
            found.append(replace(one, at_s=at_s, customer=name, model=model))
    return sorted(found, key=lambda one: one.at_s)


def peak_of(arrivals: Sequence[Arrival], warm_up_s: float, length_s: float) -> float:
    """When most is asked, of the counted time that leaves some for what comes after it."""
    counted_s = length_s - warm_up_s
    latest = warm_up_s + counted_s * (1 - AFTERMATH)
    times = [one.at_s for one in arrivals]
    best, best_count, begin = min(warm_up_s + PEAK_S / 2, latest), 0, 0
    for end, at_s in enumerate(times):
        while times[begin] < at_s - PEAK_S:
            begin += 1
        middle = at_s - PEAK_S / 2
        if warm_up_s <= middle <= latest and end - begin + 1 > best_count:
            best, best_count = middle, end - begin + 1
    return best
