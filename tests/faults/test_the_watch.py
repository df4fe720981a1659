"""What the gateway finds out about its boxes by itself, and what that spares the clients."""

from __future__ import annotations

import asyncio
import time

from tests.faults.cast import ACME, CROWD
from tests.faults.house import House
from tests.faults.invariants import Weather
from tests.support.eventually import eventually

BOTH = ("box-a", "box-b")
HANG_NOTICED_WITHIN_S = 10.0
"""Case 4."""

POISON = "poison"
KILLS = {"fault": "die", "contains": POISON}


async def test_case_4_an_engine_that_hangs_behind_a_healthy_server_is_ejected_within_ten_seconds(house: House) -> None:
    with house.broken(["box-b"], {"fault": "freeze", "healthy": True}):
        began = time.monotonic()
        asked = await house.crowd()
        await eventually(
            lambda: house.gateway.box("box-b")["state"] != "closed", within_s=HANG_NOTICED_WITHIN_S + house.slack_s
        )
        assert time.monotonic() - began <= HANG_NOTICED_WITHIN_S + house.slack_s
        # From now on nobody finds out about it by waiting.
        later = await house.crowd()
    await house.judge([*asked, *later], Weather(boxes=frozenset({"box-b"})))
    assert {one.served_by for one in later if one.degraded is None} == {"box:box-a"}


async def test_case_7_a_box_in_a_crash_loop_hurts_nobody(house: House) -> None:
    box = house.boxes["box-b"]

    async def nemesis() -> None:
        for _ in range(2):
            box.kill()
            await asyncio.sleep(1.0)
            box.start()
            await box.ready()
            await eventually(lambda: house.gateway.box("box-b")["state"] == "closed", within_s=30)

    history = await house.judge(await house.traffic(nemesis), Weather(boxes=frozenset({"box-b"}), breaks_streams=True))
    last = {(asked.adapter, asked.stream): asked for asked in history.asked}
    assert all(asked.degraded is None for asked in last.values())


async def test_case_9_a_request_that_kills_engines_takes_two_boxes_with_it_at_most_and_is_answered_elsewhere(
    house: House,
) -> None:
    for box in house.boxes.values():
        box.admin.faults(KILLS)
    poisoned = await house.ask(ACME, user=POISON)
    # What killed the boxes is not tried on the base as well.
    assert (poisoned.recording.status, poisoned.served_by, poisoned.degraded) == (
        200,
        "provider:hosted",
        "backend_down",
    )
    assert poisoned.recording.headers["x-failsoft-attempts"] == "3"


async def test_case_9_one_box_is_left_to_the_others_when_a_request_kills_the_other(house: House) -> None:
    house.boxes["box-b"].admin.faults(KILLS)
    poisoned = await asyncio.gather(*(house.ask(customer, user=POISON) for customer in CROWD))
    assert {one.recording.status for one in poisoned} == {200}
    assert {one.served_by for one in poisoned} == {"box:box-a"}
    await house.judge(await house.crowd(), Weather(boxes=frozenset({"box-b"})))
