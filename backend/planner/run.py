"""Runs one option through one scenario, to the end of its last answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from backend.planner.asked import Asked
from backend.planner.house import House
from backend.planner.scenario import Option, Scenario
from backend.planner.virtual_loop import VirtualLoop
from gateway.tasks import TaskSet

SAMPLE_S = 1.0
SETTLE_S = 1.0
"""Between the boxes' start and the first request: every box was probed and its metrics were read."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How the boxes were at a moment: swaps since the start."""

    at_s: float
    swaps: int


@dataclass(slots=True)
class Run:
    """What happened. Counts are of the time that is counted, which is that after the warm-up."""

    scenario: Scenario
    option: Option
    asked: list[Asked] = field(default_factory=list, repr=False)
    samples: list[Sample] = field(default_factory=list, repr=False)
    swaps: int = 0
    disk_loads: int = 0
    hosted_usd: float = 0.0
    unpriced: int = 0
    died: str | None = None
    stopped_at_s: float | None = None
    """When it was given up; requests that were not answered then are left out."""

    @property
    def counted_s(self) -> float:
        """How long requests were counted."""
        scenario = self.scenario
        return scenario.counted_s if self.stopped_at_s is None else self.stopped_at_s - scenario.warm_up_s

    @property
    def counted(self) -> list[Asked]:
        """The requests after the warm-up."""
        return [one for one in self.asked if one.at_s >= self.scenario.warm_up_s]


def run(scenario: Scenario, option: Option, hopeless: Callable[[Run], bool] | None = None) -> Run:
    """The same for the same arguments, on any machine. Raises PlanError, BadKnobs.

    ``hopeless`` is asked from time to time, once requests are counted, whether to give up.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(scenario, option, hopeless))


async def _run(scenario: Scenario, option: Option, hopeless: Callable[[Run], bool] | None) -> Run:
    house, tasks = House(scenario, option), TaskSet()
    result = Run(scenario, option)
    loop = asyncio.get_running_loop()
    try:
        await house.start()
        await asyncio.sleep(SETTLE_S)
        began_s = loop.time()

        async def at(seconds: float) -> None:
            await asyncio.sleep(max(0.0, began_s + seconds - loop.time()))

        async def watch() -> None:
            while True:
                now_s = loop.time() - began_s
                result.samples.append(Sample(now_s, house.swaps))
                if hopeless is not None and now_s > scenario.warm_up_s and hopeless(result):
                    result.stopped_at_s = now_s
                    return
                await at(now_s + SAMPLE_S)

        async def die(at_s: float) -> None:
            await at(at_s)
            result.died = house.busiest()
            await house.kill(result.died)

        def counts() -> tuple[int, int, int, int]:
            return house.swaps, house.disk_loads, house.hosted_nano_usd, house.unpriced

        async def count() -> None:
            await at(scenario.warm_up_s)
            looks.append(counts())
            await at(scenario.length_s)
            looks.append(counts())

        looks: list[tuple[int, int, int, int]] = []
        watching = tasks.spawn(watch(), name="samples")
        rest = [tasks.spawn(count(), name="counts")]
        if scenario.dies_at_s is not None:
            rest.append(tasks.spawn(die(scenario.dies_at_s), name="the death of a box"))
        for number, arrival in enumerate(scenario.arrivals):
            await at(arrival.at_s)
            if result.stopped_at_s is not None:
                break
            asked = Asked(arrival.at_s, arrival.customer, arrival.streamed, arrival.output_tokens)
            result.asked.append(asked)
            rest.append(tasks.spawn(house.ask(arrival, asked), name=f"request {number}"))
        for task in rest:
            await asyncio.wait({task, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                break
            await task
        if watching.done():
            await watching
            result.asked = [one for one in result.asked if one.ended]
            looks.append(counts())
        watching.cancel()
        was, now = looks[:2]
        swaps, disk_loads, nano_usd, unpriced = (after - one for one, after in zip(was, now, strict=True))
        result.swaps, result.disk_loads, result.unpriced = swaps, disk_loads, unpriced
        result.hosted_usd = nano_usd / 1e9
    finally:
        await tasks.close()
        await house.close()
    return result
