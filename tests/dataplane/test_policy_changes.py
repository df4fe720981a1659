"""A request is decided by the policy it came under, whatever changes while it runs."""

from __future__ import annotations

import asyncio
from asyncio import Event

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, OTHER_KEY, compiled
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked
from tests.support.checker import check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator


async def test_a_stream_goes_on_when_its_box_leaves_the_policy(
    serve: ServePlane, scripted: StartScripted, boxes: list[Simulator]
) -> None:
    go_on = Event()
    leaving = await scripted(STREAM_HEAD, chunked(*NUMBERED[:4]), go_on, chunked(*NUMBERED[4:]), END)
    plane = await serve([leaving])
    (old,) = plane.fleets.all()
    running = asyncio.ensure_future(plane.raw().chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: plane.metrics.attempts.value("box:a", "committed"))

    plane.change(compiled([box.url for box in boxes], version=8))
    new = await plane.raw().chat(ADAPTER)
    assert check_stream(new).whole
    assert (new.headers["x-failsoft-policy"], len(leaving.requests)) == ("8", 1)

    go_on.set()
    answer = await running
    assert check_stream(answer).whole
    assert (answer.headers["x-failsoft-policy"], answer.headers["x-failsoft-served-by"]) == ("7", "box:a")
    await eventually(lambda: plane.idle and old.in_flight == 0 and old.pool.open == 0)


async def test_a_request_whose_boxes_left_while_its_body_came_is_still_served_by_its_policys_steps(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(boxes, StaticStep("reduced"))
    (fleet,) = plane.current.fleets.values()
    plane.fleets.follow(compiled([]))
    assert fleet.boxes
    seen = check_stream(await plane.raw().chat(ADAPTER), text="reduced")
    assert seen.whole


async def test_a_key_that_is_taken_away_is_refused_from_the_next_request_on(
    serve: ServePlane, scripted: StartScripted
) -> None:
    go_on = Event()
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED[:4]), go_on, chunked(*NUMBERED[4:]), END)
    plane = await serve([box])
    running = asyncio.ensure_future(plane.raw().chat(ADAPTER))  # noqa: TID251
    await eventually(lambda: plane.metrics.attempts.value("box:a", "committed"))
    plane.change(compiled([box.url], version=8, key="fs-another-key"))
    refused = await plane.raw().chat(ADAPTER)
    assert (refused.status, refused.headers["x-failsoft-policy"]) == (401, "8")
    assert (await plane.raw(OTHER_KEY).ask("/v1/models")).status == 200
    go_on.set()
    assert check_stream(await running).whole
