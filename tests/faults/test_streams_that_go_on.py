"""Two thousand streams, each broken at a random place in a random way by one box, or by both."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from tests.faults.cast import CROWD
from tests.faults.history import Asked
from tests.faults.house import TOKENS, House
from tests.faults.invariants import Weather

SEED: Final = 20261126
STREAMS: Final = 2000
AT_ONCE: Final = 16
BATCH: Final = 100
BREAKS: Final = (
    "reset_mid_stream",
    "truncate",
    "done_without_finish",
    "error_frame_mid",
    "abort",
    "malformed_frame",
)
TOOL: Final = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}


async def streams(house: House, count: int, boxes: tuple[str, ...], *, seed: int, tools: float = 0.0) -> list[Asked]:
    """So many, a few at a time, every one of which meets a fault at these boxes. A share of ``tools`` calls a tool."""
    chance = random.Random(seed)
    pairs = [(customer, adapter) for customer in CROWD for adapter in customer.adapters]
    asked: list[Asked] = []
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        rules = [
            {
                "fault": chance.choice(BREAKS),
                "after_chunks": chance.randrange(1, TOKENS),
                "contains": f'"{seed}-{number}"',
            }
            for number in numbers
        ]
        calls = {number for number in numbers if chance.random() < tools}
        for name in boxes:
            house.boxes[name].admin.faults(*rules)
        waiting = asyncio.Semaphore(AT_ONCE)

        async def ask(number: int, waiting: asyncio.Semaphore = waiting, calls: set[int] = calls) -> Asked:
            customer, adapter = pairs[number % len(pairs)]
            fields: dict[str, Any] = {"tools": [TOOL]} if number in calls else {}
            async with waiting:
                return await house.ask(customer, adapter, user=f"{seed}-{number}", **fields)

        asked += await asyncio.gather(*(ask(number) for number in numbers))
        for name in boxes:
            house.boxes[name].admin.heal()
    return asked


async def test_with_one_of_two_boxes_breaking_them_no_stream_shows_it(house: House) -> None:
    asked = await streams(house, STREAMS, ("box-b",), seed=SEED, tools=0.3)
    await house.judge(asked, Weather(boxes=frozenset({"box-b"})))
    assert [str(one) for one in asked if one.seen.error is not None or not one.seen.whole] == []
    resumed = sum(
        float(line.rpartition(" ")[2])
        for line in house.gateway.metrics().splitlines()
        if line.startswith("failsoft_stream_resumes_total{") and '"resumed"' in line
    )
    assert resumed > STREAMS / 40, "so few went on elsewhere that this shows nothing"


async def test_with_both_boxes_breaking_them_streams_end_with_an_error_and_nothing_is_made_up(house: House) -> None:
    asked = await streams(house, BATCH, ("box-a", "box-b"), seed=SEED + 1)
    reasons = frozenset({"backend_down", "circuit_open"})
    weather = Weather(boxes=frozenset({"box-a", "box-b"}), breaks_streams=True, reasons=reasons)
    await house.judge(asked, weather)
    assert any(one.seen.error is not None for one in asked)
