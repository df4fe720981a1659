"""Both boxes are gone and the provider fails too: the next step, or one well-formed 503 in good time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.faults.cast import ACME, CROWD, GLOBEX, INITECH, PROVIDER_KEY
from tests.faults.house import THINKING_S, House
from tests.faults.invariants import SLACK_S, Weather

BOTH = ("box-a", "box-b")
REFUSED = {"fault": "refuse"}
DOWN = frozenset({"backend_down", "circuit_open"})
UNAVAILABLE_WITHIN_S = 2.0
"""Case 32."""

BEFORE_CONTENT: dict[str, dict[str, Any]] = {
    "case 31: it says 429": {"fault": "status", "status": 429, "retry_after_s": 2},
    "case 32: it refuses connections": {"fault": "refuse"},
    "case 32: it says 500": {"fault": "status", "status": 500},
    "case 32: it says 400": {"fault": "status", "status": 400},
    "case 32: it refuses our key": {"fault": "status", "status": 401},
    "case 13: it resets connections": {"fault": "reset_before_headers"},
    "case 21: it ends before any content": {"fault": "truncate", "after_chunks": 1},
    "case 22: it answers with a web page": {"fault": "html_200"},
    "case 22: its first frame is malformed": {"fault": "malformed_frame", "after_chunks": 0},
    "case 23: its first frame is an error": {"fault": "error_frame_first"},
    "case 25: its first frame is huge": {"fault": "huge_frame", "bytes": 5_000_000, "contains": '"stream":true'},
}

AFTER_CONTENT: dict[str, dict[str, Any]] = {
    "case 15: it resets half-way": {"fault": "reset_mid_stream"},
    "case 21: it ends cleanly without a finish": {"fault": "truncate"},
    "case 21: it says [DONE] without a finish": {"fault": "done_without_finish"},
    "case 22: a later frame is malformed": {"fault": "malformed_frame"},
    "case 24: a later frame is an error": {"fault": "error_frame_mid"},
    "case 17: it stalls half-way": {"fault": "stall", "seconds": None},
}


async def test_with_both_boxes_gone_only_those_are_answered_by_the_provider_whose_policy_allows_it(
    house: House,
) -> None:
    with house.broken(BOTH, REFUSED):
        asked = await house.crowd(times=2)
    history = await house.judge(asked, Weather(boxes=frozenset(BOTH), reasons=DOWN))
    for customer in (ACME, INITECH):
        assert {one.served_by for one in history.of(customer)} == {"provider:hosted"}
    assert {one.served_by for one in history.of(GLOBEX)} == {"static"}
    at_provider = [arrival for arrival in history.arrived if arrival.target == "hosted"]
    assert all(f"Bearer {PROVIDER_KEY}" in arrival.text for arrival in at_provider)


@pytest.mark.parametrize("rule", BEFORE_CONTENT.values(), ids=BEFORE_CONTENT.keys())
async def test_a_provider_that_fails_before_its_answer_is_asked_once_and_the_next_step_answers(
    house: House, rule: dict[str, Any]
) -> None:
    weather = Weather(boxes=frozenset(BOTH), provider=True, reasons=DOWN)
    with house.broken(BOTH, REFUSED), house.broken(["hosted"], rule):
        history = await house.judge(await house.crowd(), weather)
    if "contains" not in rule:
        assert {one.served_by for one in history.of(ACME)} == {"static"}
        for one in history.of(INITECH):
            assert one.recording.status == 503
            assert one.recording.ended_s < UNAVAILABLE_WITHIN_S + house.slack_s


@pytest.mark.parametrize("rule", AFTER_CONTENT.values(), ids=AFTER_CONTENT.keys())
async def test_a_provider_that_fails_in_mid_answer_leaves_no_stream_short_and_no_plain_request_unanswered(
    house: House, rule: dict[str, Any]
) -> None:
    weather = Weather(boxes=frozenset(BOTH), provider=True, reasons=DOWN, breaks_streams=True)
    with house.broken(BOTH, REFUSED), house.broken(["hosted"], rule):
        asked = await house.crowd(customers=(ACME, GLOBEX))
        # On a loaded machine the first content and what breaks the stream may arrive in one piece: nothing has gone out
        # then, and the next step answers.
        async with asyncio.timeout(60):
            while not any(one.served_by == "provider:hosted" for one in asked):
                await asyncio.sleep(THINKING_S)
                asked.append(await house.ask(ACME))
        history = await house.judge(asked, weather)
    assert {one.served_by for one in history.of(ACME) if not one.stream} == {"static"}
    assert {one.served_by for one in history.of(ACME) if one.stream} <= {"provider:hosted", "static"}


async def test_a_provider_that_is_silent_leaves_time_for_the_step_behind_it(house: House) -> None:
    weather = Weather(boxes=frozenset(BOTH), provider=True, reasons=DOWN)
    with house.broken(BOTH, REFUSED), house.broken(["hosted"], {"fault": "role_only_then_silence"}):
        history = await house.judge(await house.crowd(customers=(ACME, GLOBEX)), weather)
    assert {one.served_by for one in history.of(ACME)} == {"static"}


async def test_a_provider_that_refuses_our_key_raises_an_alarm_and_one_that_takes_it_ends_it(house: House) -> None:
    with house.broken(BOTH, REFUSED):
        with house.broken(["hosted"], {"fault": "status", "status": 403}):
            await house.crowd(customers=(INITECH,))
        assert "provider_unauthorized" in house.gateway.alarms()
        await house.crowd(customers=(INITECH,))
        assert "provider_unauthorized" not in house.gateway.alarms()


def provider_state(house: House) -> str:
    return str(house.gateway.provider("hosted")["state"])


def asked_of_provider(house: House) -> int:
    return len(house.provider.admin.requests())


async def test_a_provider_that_is_busy_is_left_alone_for_as_long_as_it_says_and_is_then_asked_again(
    house: House,
) -> None:
    weather = Weather(boxes=frozenset(BOTH), provider=True, reasons=DOWN)
    with house.broken(BOTH, REFUSED):
        with house.broken(["hosted"], {"fault": "status", "status": 429, "retry_after_s": 3}):
            first = await house.ask(INITECH)
            began = time.monotonic()
            asked = [first, *await house.crowd(times=2)]
            assert asked_of_provider(house) == 1, "case 31: no ping-pong"
            assert provider_state(house) == "backing_off"
        history = await house.judge(asked, weather)
        assert {one.served_by for one in history.of(ACME)} == {"static"}
        assert {one.recording.status for one in history.of(INITECH)} == {503}
        assert any(b"provider:hosted: skipped: it is busy" in one.recording.body for one in history.of(INITECH))
        while (await house.ask(INITECH)).recording.status != 200:
            assert time.monotonic() < began + 3 + house.slack_s
        assert time.monotonic() > began + 3 - SLACK_S / 10
        assert provider_state(house) == "closed"
        crowd = await house.crowd(customers=(ACME, INITECH))
    assert {one.served_by for one in crowd} == {"provider:hosted"}


async def test_a_provider_that_hangs_costs_its_time_a_few_times_only(house: House) -> None:
    weather = Weather(boxes=frozenset(BOTH), provider=True, reasons=DOWN)
    with house.broken(BOTH, REFUSED):
        with house.broken(["hosted"], {"fault": "role_only_then_silence"}):
            slow = await house.crowd(customers=(ACME, INITECH), times=2)
            assert provider_state(house) in ("open", "half_open")
            began, asked = asked_of_provider(house), []
            for _ in range(5):
                asked += await house.crowd(customers=(ACME, INITECH))
            trials = asked_of_provider(house) - began
        history = await house.judge([*slow, *asked], weather)
        quick = [one for one in history.asked[len(slow) :] if one.recording.ended_s < UNAVAILABLE_WITHIN_S]
        assert len(quick) >= len(asked) - trials, "case 32: only who tries it waits"
        assert trials <= 5, "one at a time"
        assert {one.recording.status for one in quick if one.customer is INITECH} == {503}


@pytest.mark.parametrize("rule", [REFUSED, {"fault": "status", "status": 500}], ids=["it refuses", "it says 500"])
async def test_a_provider_whose_breaker_is_open_is_skipped_until_nothing_else_is_left_and_is_found_to_be_back(
    house: House, rule: dict[str, Any]
) -> None:
    weather = Weather(boxes=frozenset(BOTH), provider=True, reasons=DOWN)
    with house.broken(BOTH, REFUSED):
        with house.broken(["hosted"], rule):
            down = await house.crowd(times=2)
            down += await house.crowd(customers=(ACME, INITECH))
            assert provider_state(house) in ("open", "half_open")
            metrics = house.gateway.metrics()
            assert 'failsoft_breaker_transitions_total{target="provider:hosted",to="open"}' in metrics
            history = await house.judge(down, weather)
        for one in history.of(INITECH):
            assert one.recording.status == 503
            assert one.recording.ended_s < UNAVAILABLE_WITHIN_S + house.slack_s
        assert any(b"provider:hosted: skipped: circuit open" in one.recording.body for one in history.of(INITECH))
        # I1: it is healthy, whatever its breaker says, and INITECH has nothing else.
        answered = await house.crowd(customers=(INITECH,))
        assert {one.served_by for one in answered} == {"provider:hosted"}
        assert provider_state(house) == "closed"


async def test_who_asks_for_the_own_adapter_or_an_error_gets_the_error_and_nobody_else_is_asked(house: House) -> None:
    with house.broken(BOTH, REFUSED):
        asked = await house.crowd(headers={"x-failsoft-fallback": "never"})
    history = await house.history(asked)
    assert {one.recording.status for one in asked} == {503}
    assert all(one.seen.violations == [] for one in asked)
    assert all(one.recording.headers["x-should-retry"] == "false" for one in asked)
    assert not [arrival for arrival in history.arrived if arrival.target == "hosted"]


async def test_a_request_that_wants_a_tool_call_gets_one_from_whoever_answers_and_never_the_fixed_text(
    house: House,
) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    fields: dict[str, Any] = {"tools": [tool], "tool_choice": {"type": "function", "function": {"name": "look_up"}}}
    own = await house.crowd(customers=CROWD, **fields)
    await house.judge(own, Weather())
    with house.broken(BOTH, REFUSED):
        degraded = await house.crowd(customers=CROWD, **fields)
    assert {one.served_by for one in degraded} == {"provider:hosted", "none"}
    for one in degraded:
        assert one.seen.violations == []
        assert one.recording.status == (200 if "provider" in one.customer.steps else 503)
        assert one.recording.status == 503 or one.seen.answered_by == "generic"


async def test_failures_too_few_to_open_the_breaker_in_one_test_are_not_added_up_with_those_of_the_next(
    house: House,
) -> None:
    """What would show nowhere, and have a test fail for what ran before it in the same house."""
    for _ in range(2):
        with house.broken(BOTH, REFUSED), house.broken(["hosted"], {"fault": "status", "status": 500}):
            for _ in range(2):
                assert (await house.ask(ACME)).served_by == "static"
            assert provider_state(house) == "closed"
        house.heal()
        await house.calm()
