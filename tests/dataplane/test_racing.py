"""A box that is silent for the budget is not given up: the next target is asked beside it, and the first word wins."""

from __future__ import annotations

import json
from asyncio import Event
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.retry_budget import RACES_PER_SECOND, REQUESTS_PER_RACE, RetryBudget
from gateway.policy.compiled import BaseStep, StaticStep
from gateway.tasks import TaskSet
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, Plane, provider_step
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked
from tests.support.checker import Seen, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator
from tests.support.raw_client import Recording

BUDGET_S = 0.15
CANCELLED_WITHIN_S = 1.0
"""I4."""


def whole(answer: Recording, **how: Any) -> Seen:
    seen = check_stream(answer, **how)
    assert seen.violations == []
    assert seen.whole
    return seen


def races(plane: Plane) -> dict[str, float]:
    return {winner: plane.metrics.races.value(winner) for winner in ("first", "second", "neither")}


async def silent_first(serve: ServePlane, boxes: list[Simulator], *steps: Any) -> tuple[Plane, Simulator, Simulator]:
    """Whichever box is asked first shows nothing: that one, and the other."""
    plane = await serve(boxes, *steps, ttft_budget_s=BUDGET_S)
    at = (await plane.raw().chat(ADAPTER)).headers["x-failsoft-served-by"].removeprefix("box:")
    first, other = boxes if at == "a" else boxes[::-1]
    for box in boxes:
        box.admin.forget()
    first.admin.fault("hang_before_headers")
    return plane, first, other


async def test_the_other_box_is_asked_beside_a_silent_one_which_is_then_cancelled(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane, first, other = await silent_first(serve, boxes)
    answer = await plane.raw().chat(ADAPTER)
    assert whole(answer).degraded is None
    assert answer.headers["x-failsoft-attempts"] == "2"
    assert len(first.admin.requests()) == len(other.admin.requests()) == 1
    assert races(plane) == {"first": 0, "second": 1, "neither": 0}
    await eventually(lambda: first.admin.state()["running"] == 0, within_s=CANCELLED_WITHIN_S)
    await eventually(lambda: plane.idle)


async def test_the_first_box_wins_where_it_speaks_up_before_the_second(
    serve: ServePlane, scripted: StartScripted
) -> None:
    speaks = Event()
    slow = await scripted(STREAM_HEAD, speaks, chunked(*NUMBERED), END)
    mute = await scripted(STREAM_HEAD, Event())

    async def speak_when_both_are_asked() -> None:
        await eventually(lambda: slow.requests and mute.requests)
        speaks.set()

    tasks = TaskSet()
    for boxes in ([slow, mute], [mute, slow]):
        plane = await serve(boxes, ttft_budget_s=BUDGET_S)
        speaks.clear()
        slow.requests.clear()
        mute.requests.clear()
        speaking = tasks.spawn(speak_when_both_are_asked(), name="speaking")
        assert whole(await plane.raw().chat(ADAPTER)).degraded is None
        await speaking
        assert sum(races(plane).values()) == 1
        await eventually(partial(getattr, plane, "idle"))


async def test_a_provider_is_asked_beside_the_last_box_and_its_answer_is_marked(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    plane = await serve(boxes[:1], provider_step(hosted.url), ttft_budget_s=BUDGET_S)
    boxes[0].admin.fault("hang_before_headers")
    answer = await plane.raw().chat(ADAPTER)
    seen = whole(answer)
    assert seen.degraded is not None
    assert (seen.degraded["reason"], seen.degraded["served_by"]) == ("ttft_budget", "provider:hosted")
    assert answer.headers["x-failsoft-degraded"] == "ttft_budget"
    await eventually(lambda: boxes[0].admin.state()["running"] == 0, within_s=CANCELLED_WITHIN_S)
    await eventually(lambda: plane.idle)


async def test_fixed_text_does_not_race_but_is_given_when_the_budget_is_over(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(boxes[:1], StaticStep("reduced"), ttft_budget_s=BUDGET_S)
    boxes[0].admin.fault("hang_before_headers")
    seen = whole(await plane.raw().chat(ADAPTER), text="reduced")
    assert seen.degraded is not None
    assert seen.degraded["reason"] == "ttft_budget"
    assert races(plane) == {"first": 0, "second": 0, "neither": 0}


async def test_where_the_second_fails_too_what_is_left_answers_and_nothing_hangs(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane, _, other = await silent_first(serve, boxes, StaticStep("reduced"))
    other.admin.fault("status", status=500)
    seen = whole(await plane.raw().chat(ADAPTER), text="reduced")
    assert seen.degraded is not None
    assert races(plane)["neither"] == 1
    await eventually(lambda: plane.idle)


async def test_with_the_race_budget_spent_one_follows_the_other(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane, first, _ = await silent_first(serve, boxes)
    plane.dataplane._service._attempts._races = RetryBudget(0.0, per_second=0.0, requests_each=10**9)
    plane.dataplane._service._attempts._races.take(0.0)
    assert whole(await plane.raw().chat(ADAPTER)).degraded is None
    assert races(plane) == {"first": 0, "second": 0, "neither": 0}
    assert len(first.admin.requests()) == 1


async def test_a_client_that_leaves_ends_both(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, ttft_budget_s=BUDGET_S)
    for box in boxes:
        box.admin.fault("hang_before_headers")
    await plane.raw().chat(ADAPTER, timeout_s=3 * BUDGET_S)
    await eventually(lambda: plane.idle)
    for box in boxes:
        await eventually(lambda box=box: box.admin.state()["running"] == 0, within_s=CANCELLED_WITHIN_S)


async def test_what_the_second_box_finds_wrong_with_the_request_is_told(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane, _, other = await silent_first(serve, boxes)
    other.admin.fault("status", status=400)
    answer = await plane.raw().chat(ADAPTER)
    assert answer.status == 400
    assert "error" in json.loads(answer.body)
    await eventually(lambda: plane.idle)


async def test_plain_requests_do_not_race(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, BaseStep(), ttft_budget_s=0.01)
    answer = await plane.raw().chat(ADAPTER, stream=False)
    assert answer.status == 200
    assert races(plane) == {"first": 0, "second": 0, "neither": 0}


@given(st.lists(st.tuples(st.floats(0.0, 0.2), st.booleans()), max_size=300))
def test_races_are_at_most_a_tenth_of_requests_and_a_few_a_second(steps: list[tuple[float, bool]]) -> None:
    budget = RetryBudget(0.0, per_second=RACES_PER_SECOND, requests_each=REQUESTS_PER_RACE)
    now, taken = 0.0, 0
    for requests, (wait_s, races_now) in enumerate(steps, 1):
        now += wait_s
        budget.request()
        taken += races_now and budget.take(now)
        assert taken <= RACES_PER_SECOND * (now + 1) + requests / REQUESTS_PER_RACE
