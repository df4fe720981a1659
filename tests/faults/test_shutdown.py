"""Case 42: the gateway is told to end while it answers."""

from __future__ import annotations

import asyncio
import time

from tests.faults.cast import PATIENT
from tests.faults.history import Asked
from tests.faults.house import DRAIN_S, House
from tests.faults.invariants import Weather
from tests.support.eventually import eventually

BOTH = frozenset({"box-a", "box-b"})
COUNT = 20


async def streams_under_way(house: House) -> asyncio.Task[list[Asked]]:
    task = asyncio.get_running_loop().create_task(house.streams(COUNT, customers=(PATIENT,)))

    def all_under_way() -> bool:
        requests = [r for box in house.boxes.values() for a in PATIENT.adapters for r in box.admin.requests(model=a)]
        return len(requests) == COUNT and all(request["events"] >= 4 for request in requests)

    await eventually(all_under_way, within_s=10, every_s=0.03)
    return task


async def test_case_42_streams_that_end_within_the_drain_time_end_whole_and_the_process_ends_well(
    house: House,
) -> None:
    with house.broken(BOTH, {"fault": "stall", "seconds": DRAIN_S / 2}):
        streams = await streams_under_way(house)
        house.gateway.process.terminate()
        asked = await streams
    assert await house.gateway.process.ended() == 0
    await house.judge(asked, Weather())
    assert (await house.ask(PATIENT)).recording.end == "refused"


async def test_case_42_streams_that_do_not_end_in_time_end_in_an_error_event_before_the_process_does(
    house: House,
) -> None:
    with house.broken(BOTH, {"fault": "stall", "seconds": None}):
        streams = await streams_under_way(house)
        told = time.monotonic()
        house.gateway.process.terminate()
        asked = await streams
        assert await house.gateway.process.ended() == 0
    assert all(one.ended < told + DRAIN_S + house.slack_s for one in asked)
    assert all(one.seen.error is not None for one in asked)
    await house.judge(asked, Weather(breaks_streams=True))


async def test_case_42_streams_that_wait_for_their_rest_when_time_is_over_are_not_silently_short(house: House) -> None:
    """One box is lost, and its streams were to go on at the other one, which says nothing."""
    for box in house.boxes.values():
        rest = {"fault": "hang_before_headers", "contains": "continue_final_message"}
        box.admin.faults(rest, {"fault": "stall", "seconds": None})
    streams = await streams_under_way(house)
    lost = max(house.boxes.values(), key=lambda box: len(box.admin.requests()))
    (left,) = (box for box in house.boxes.values() if box is not lost)
    lost.kill()
    await eventually(
        lambda: any("continue_final_message" in (entry["body"] or ()) for entry in left.admin.requests()), within_s=10
    )
    house.gateway.process.terminate()
    asked = await streams
    assert await house.gateway.process.ended() == 0
    assert all(one.seen.error is not None for one in asked)
    await house.judge(asked, Weather(breaks_streams=True))
