"""Boxes that are killed, frozen, ended, started or unreachable while clients keep asking."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from tests.faults.black_hole import syn_black_hole
from tests.faults.cast import BOX_KEY, EVERYBODY, PATIENT
from tests.faults.history import Asked
from tests.faults.house import House
from tests.faults.invariants import SLACK_S, Weather
from tests.support.eventually import eventually
from tests.support.processes import Processes

NOTICED_WITHIN_S = 1.0
"""Case 1: how long a box may be dead before every stream that it was sending has ended."""

DEADLINE_S = 5.0
"""The crowd's: until the first content is out, whoever answers."""

CONNECT_TIMEOUT_S = 1.0
"""Case 11."""

AT_ONCE = 25
"""Streams that are begun together: with more, what each adds to the others' first content would count as the box's."""

ONE_OF_TWO = Weather(boxes=frozenset({"box-b"}), breaks_streams=True)
BOTH = frozenset({"box-a", "box-b"})
EVERY_ADAPTER = [adapter for customer in EVERYBODY for adapter in customer.adapters]


async def streams_that_hang_half_way(house: House, count: int) -> asyncio.Task[list[Asked]]:
    """So many streams for the adapter that prefers box-b, which stalls them all behind their first content. Beside
    them whatever the gateway sent elsewhere, as it may where a loaded machine makes the box look slow.
    """
    admin = house.boxes["box-b"].admin
    admin.fault("stall", adapter="patient_v1", seconds=None)
    loop = asyncio.get_running_loop()
    asked: list[asyncio.Task[Asked]] = []

    def hanging() -> int:
        return sum(one["events"] >= 4 for one in admin.requests(model="patient_v1"))

    def asking() -> int:
        return sum(not task.done() for task in asked)

    began = loop.time()
    while (missing := count - hanging()) > 0:
        assert loop.time() < began + 60, f"{missing} of {count} streams never came to hang"
        asked += [loop.create_task(house.ask(PATIENT, "patient_v1")) for _ in range(min(missing, AT_ONCE))]
        await eventually(lambda: hanging() >= asking(), within_s=20, every_s=0.05)
    return loop.create_task(collected(asyncio.gather(*asked)))


async def let_in(house: House, count: int) -> None:
    """Have the gateway let so many in at box-b: tests before may have taught it to let fewer in."""
    if house.gateway.box("box-b")["concurrency_limit"] > count:
        return
    box = house.boxes["box-b"]
    box.kill()
    await eventually(lambda: house.gateway.box("box-b")["state"] != "closed", within_s=10)
    box.start()
    await box.ready()
    await house.recovered()


async def collected(asked: asyncio.Future[list[Asked]]) -> list[Asked]:
    return list(await asked)


async def test_case_1_a_box_that_is_killed_under_200_streams_leaves_none_of_them_silently_short(house: House) -> None:
    await let_in(house, 200)
    streams = await streams_that_hang_half_way(house, 200)
    killed = time.monotonic()
    house.boxes["box-b"].kill()
    meanwhile = await house.crowd()
    asked = await streams
    assert len(asked) >= 200
    for one in asked:
        assert one.ended <= killed + NOTICED_WITHIN_S + house.slack_s
    # All of them go on at the other box at the same time: who asks meanwhile may find it too busy, on a loaded machine,
    # and is told of that one or of the one that is dead.
    reasons = frozenset({"backend_saturated", "circuit_open", "backend_down"})
    await house.judge([*asked, *meanwhile], replace(ONE_OF_TWO, reasons=reasons))


async def test_case_1_nobody_sees_an_error_while_one_box_is_killed_and_started_again(house: House) -> None:
    async def nemesis() -> None:
        house.boxes["box-b"].kill()
        await asyncio.sleep(0.5)
        house.boxes["box-b"].start()
        await house.boxes["box-b"].ready()
        await eventually(lambda: house.gateway.box("box-b")["state"] == "closed", within_s=30)

    history = await house.judge(await house.traffic(nemesis), ONE_OF_TWO)
    last = {(asked.adapter, asked.stream): asked.served_by for asked in history.asked}
    assert set(last.values()) == {"box:box-a", "box:box-b"}, "the box that came back is not used"


async def test_case_1_with_both_boxes_killed_everybody_gets_what_the_policy_has_left_and_then_the_adapters_are_back(
    house: House,
) -> None:
    async def nemesis() -> None:
        for box in house.boxes.values():
            box.kill()
        await asyncio.sleep(0.5)
        for box in house.boxes.values():
            box.start()
        for box in house.boxes.values():
            await box.ready()
        await eventually(lambda: all(b["state"] == "closed" for b in house.gateway.status()["boxes"]), within_s=30)

    reasons = frozenset({"backend_down", "circuit_open"})
    history = await house.judge(await house.traffic(nemesis), Weather(boxes=BOTH, reasons=reasons, breaks_streams=True))
    assert any(asked.served_by == "provider:hosted" for asked in history.asked)
    assert any(asked.served_by == "static" for asked in history.asked)
    last = {(asked.adapter, asked.stream): asked for asked in history.asked}
    assert all(asked.degraded is None for asked in last.values())


async def test_case_2_an_engine_that_dies_before_its_server_does_leaves_no_stream_short_and_nobody_unanswered(
    house: House,
) -> None:
    box = house.boxes["box-b"]

    async def nemesis() -> None:
        box.admin.faults(
            {"fault": "error_frame_mid", "contains": '"stream": true'},
            {"fault": "status", "status": 500},
        )
        await asyncio.sleep(0.5)
        box.kill()
        await asyncio.sleep(0.3)

    await house.judge(await house.traffic(nemesis), ONE_OF_TWO)


async def test_case_3_nobody_sees_an_error_while_one_box_stands_still(house: House) -> None:
    async def nemesis() -> None:
        house.boxes["box-b"].freeze()
        await asyncio.sleep(1.5)
        house.boxes["box-b"].thaw()

    weather = Weather(boxes=frozenset({"box-b"}), breaks_streams=True, blind=frozenset({"box-b"}))
    await house.judge(await house.traffic(nemesis), weather)


async def test_case_3_with_both_boxes_standing_still_everybody_gets_what_the_policy_has_left_in_time(
    house: House,
) -> None:
    for box in house.boxes.values():
        box.freeze()
    asked = await house.crowd()
    for box in house.boxes.values():
        box.thaw()
    reasons = frozenset({"ttft_budget", "circuit_open"})
    await house.judge(asked, Weather(boxes=BOTH, reasons=reasons, blind=BOTH))
    assert all(one.recording.head_s is not None and one.recording.head_s < DEADLINE_S + house.slack_s for one in asked)


async def test_case_5_a_box_that_drains_ends_its_streams_and_whoever_comes_meanwhile_goes_elsewhere(
    house: House, processes: Processes
) -> None:
    house.boxes["box-b"].kill()
    draining = processes.box(
        name="box-b",
        port=house.boxes["box-b"].port,
        adapters=EVERY_ADAPTER,
        api_key=BOX_KEY,
        shutdown_timeout_s=20,
        fault=[{"fault": "stall", "adapter": "patient_v1", "seconds": 1.5}],
    )
    await draining.ready()
    await house.recovered()
    streams = asyncio.get_running_loop().create_task(house.streams(10, customers=(PATIENT,)))
    await eventually(lambda: draining.admin.state()["running"] >= 5)
    draining.terminate()
    await eventually(lambda: draining.admin.state()["draining"])
    asked = [*await house.crowd(), *await house.crowd(), *await streams]
    await house.judge(asked, Weather(boxes=frozenset({"box-b"})))
    assert {one.served_by for one in asked if one.adapter == "patient_v1"} == {"box:box-b"}
    assert await draining.ended() == 0
    draining.clean_up()


async def test_case_6_a_box_that_is_ended_without_a_drain_shows_nobody_its_abort(house: House) -> None:
    streams = await streams_that_hang_half_way(house, 20)
    house.boxes["box-b"].terminate()
    meanwhile = await house.crowd()
    await house.judge([*await streams, *meanwhile], ONE_OF_TWO)
    await house.boxes["box-b"].ended()


async def test_case_6_nobody_sees_an_error_while_a_box_is_ended_and_started_again(house: House) -> None:
    async def nemesis() -> None:
        house.boxes["box-b"].terminate()
        await house.boxes["box-b"].ended()
        house.boxes["box-b"].start()
        await house.boxes["box-b"].ready()
        await eventually(lambda: house.gateway.box("box-b")["state"] == "closed", within_s=30)

    await house.judge(await house.traffic(nemesis), ONE_OF_TWO)


async def test_case_8_nobody_waits_for_a_box_that_still_loads_its_model(house: House, processes: Processes) -> None:
    house.boxes["box-b"].kill()
    cold = processes.box(
        name="box-b",
        port=house.boxes["box-b"].port,
        adapters=EVERY_ADAPTER,
        api_key=BOX_KEY,
        start_delay_s=1.2,
        loading="hang",
    )
    await cold.ready()

    async def nemesis() -> None:
        await eventually(lambda: not cold.admin.state()["loading"], within_s=10)
        await eventually(lambda: house.gateway.box("box-b")["state"] == "closed", within_s=30)

    try:
        await house.judge(await house.traffic(nemesis), Weather(boxes=frozenset({"box-b"})))
        await eventually(lambda: cold.admin.requests(model="acme_v1"), within_s=1)
    finally:
        cold.clean_up()


async def test_case_10_a_refused_connection_costs_none_of_the_time_to_first_token(house: House) -> None:
    house.boxes["box-b"].kill()
    asked = await house.crowd()
    await house.judge(asked, Weather(boxes=frozenset({"box-b"})))
    # The smallest budget of anybody in the crowd is a second: had it been waited out, this would be more.
    assert all(one.recording.ended_s < 1 + house.slack_s - SLACK_S for one in asked)


async def test_case_11_an_address_that_answers_no_syn_is_given_up_within_the_connect_time_out(house: House) -> None:
    box = house.boxes["box-b"]
    box.kill()
    with syn_black_hole(box.port):
        asked = [*await house.crowd(customers=(PATIENT,)), *await house.crowd()]
        error = house.gateway.box("box-b")["last_error"]
    await house.judge(asked, Weather(boxes=frozenset({"box-b"})))
    assert all(one.recording.ended_s < CONNECT_TIMEOUT_S + house.slack_s for one in asked)
    assert "within 1 s" in error or "in the time that was left" in error, f"something else was found wrong: {error}"


async def test_case_11_with_both_addresses_silent_everybody_gets_what_the_policy_has_left(house: House) -> None:
    for box in house.boxes.values():
        box.kill()
    with syn_black_hole(house.boxes["box-a"].port), syn_black_hole(house.boxes["box-b"].port):
        asked = await house.crowd()
    reasons = frozenset({"backend_down", "ttft_budget", "circuit_open"})
    await house.judge(asked, Weather(boxes=BOTH, reasons=reasons))
