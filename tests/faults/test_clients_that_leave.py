"""Clients that vanish, before their answer or in the midst of it: what was asked for them upstream ends at once."""

from __future__ import annotations

import asyncio

from tests.faults.cast import CROWD, EVERYBODY
from tests.faults.history import Asked
from tests.faults.house import House
from tests.faults.invariants import Weather
from tests.support.eventually import eventually

BOTH = ("box-a", "box-b")
HALF_WAY = b'" 1"'
"""In the third piece of a numbered answer."""


async def nothing_is_left_running(house: House) -> None:
    def idle() -> bool:
        return all(box["in_flight"] == 0 for box in house.gateway.status()["boxes"])

    await eventually(idle, within_s=5)
    assert {box["state"] for box in house.gateway.status()["boxes"]} == {"closed"}


async def test_case_41_200_clients_that_vanish_in_mid_stream_are_cancelled_upstream(house: House) -> None:
    with house.broken(BOTH, {"fault": "stall", "seconds": None}):
        halves = await asyncio.gather(
            house.streams(100, customers=EVERYBODY, leave_after=HALF_WAY),
            house.streams(100, customers=EVERYBODY, leave_after=HALF_WAY, leave_with_reset=True),
        )
        history = await house.judge([one for half in halves for one in half], Weather(boxes=frozenset(BOTH)))
    assert len(history.asked) == 200
    assert {one.recording.end for one in history.asked} == {"left"}
    assert all(arrival.client_left for one in history.asked for arrival in history.arrivals(one.question))
    await nothing_is_left_running(house)


async def test_clients_that_vanish_before_any_answer_are_cancelled_upstream_and_cost_nobody_an_attempt(
    house: House,
) -> None:
    with house.broken(BOTH, {"fault": "hang_before_headers"}):
        asked = await house.crowd(timeout_s=0.4)
        for one in asked:
            assert one.recording.end == "timeout"
            one.recording.end = "left"
        history = await house.judge(asked, Weather(boxes=frozenset(BOTH)))
    for one in asked:
        assert len(history.arrivals(one.question)) == 1, f"another target was asked for nobody: {one}"
    await nothing_is_left_running(house)


async def test_clients_that_vanish_while_the_provider_answers_are_cancelled_there(house: House) -> None:
    customers = tuple(customer for customer in CROWD if customer.steps[:1] == ("provider",))
    with house.broken(BOTH, {"fault": "refuse"}), house.broken(["hosted"], {"fault": "stall", "seconds": None}):
        asked = await house.streams(20, customers=customers, leave_after=HALF_WAY)
        # Whom the provider shows nothing in time, on a loaded machine, has its fixed text before it leaves.
        reasons = frozenset({"backend_down", "circuit_open"})
        history = await house.judge(asked, Weather(boxes=frozenset(BOTH), provider=True, reasons=reasons))
    assert all(arrival.client_left for one in asked for arrival in history.arrivals(one.question))


async def test_a_client_that_leaves_takes_no_other_with_it(house: House) -> None:
    async def leaving() -> list[Asked]:
        return await house.streams(60, leave_after=HALF_WAY, leave_with_reset=True)

    gone, stayed = await asyncio.gather(leaving(), house.crowd(times=3))
    await house.judge([*gone, *stayed], Weather())
    await nothing_is_left_running(house)
