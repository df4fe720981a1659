"""Runs one option through one scenario, to the end of its last answer."""

from __future__ import annotations

import asyncio
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

    @property
    def counted(self) -> list[Asked]:
        """The requests after the warm-up."""
        return [one for one in self.asked if one.at_s >= self.scenario.warm_up_s]


def run(scenario: Scenario, option: Option) -> Run:
    """The same for the same arguments, on any machine. Raises PlanError, BadKnobs."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_run(scenario, option))


async def _run(scenario: Scenario, option: Option) -> Run:
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
                await at(now_s + SAMPLE_S)

        async def die(at_s: float) -> None:
            await at(at_s)
            result.died = house.busiest()
            await house.kill(result.died)

        async def count() -> None:
            await at(scenario.warm_up_s)
            before = house.swaps, house.disk_loads, house.hosted_nano_usd, house.unpriced
            await at(scenario.length_s)
            now = house.swaps, house.disk_loads, house.hosted_nano_usd, house.unpriced
            swaps, disk_loads, nano_usd, unpriced = (after - was for was, after in zip(before, now, strict=True))
            result.swaps, result.disk_loads, result.unpriced = swaps, disk_loads, unpriced
            result.hosted_usd = nano_usd / 1e9

        watching = tasks.spawn(watch(), name="samples")
        rest = [tasks.spawn(count(), name="counts")]
        if scenario.dies_at_s is not None:
            rest.append(tasks.spawn(die(scenario.dies_at_s), name="the death of a box"))
        for number, arrival in enumerate(scenario.arrivals):
            await at(arrival.at_s)
            asked = Asked(arrival.at_s, arrival.customer, arrival.streamed, arrival.output_tokens)
            result.asked.append(asked)
            rest.append(tasks.spawn(house.ask(arrival, asked), name=f"request {number}"))
        for task in rest:
            await task
        watching.cancel()
    finally:
        await tasks.close()
        await house.close()
    return result
