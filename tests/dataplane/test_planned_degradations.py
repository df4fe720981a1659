"""Degraded by order, or as part of a drill: the fallback goes first, and nobody is worse off for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.decide import decide
from gateway.dataplane.drill_share import DrillShare
from gateway.dataplane.journey import MAX_CRASHES, Journey, Wait
from gateway.errors import ConnectError, Reason, UpstreamError, UpstreamStatus, UpstreamTimeout
from gateway.fleet.blame import may_have_killed
from gateway.orders.forced import Forced
from gateway.policy.compiled import BaseStep, CompiledPolicy, CustomerPolicy, StaticStep, Step
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER, Plane, compiled, provider_step
from tests.dataplane.test_journey import ALL_STEPS, HOSTED, OTHER, STATIC, FakeBox, FakeProviders, customer, full_box
from tests.dataplane.test_journey import served_by as targets
from tests.dataplane.test_journey import walk as walked
from tests.support.checker import check_stream
from tests.support.processes import Simulator
from tests.support.raw_client import Recording

DOWN = ConnectError("x")


def journey(
    policy: CustomerPolicy,
    *boxes: FakeBox,
    forced: bool = False,
    drill: Step | None = None,
    stream: bool = True,
    providers: FakeProviders | None = None,
    static_suits: bool = True,
) -> Journey:
    plan = decide(policy, boxes, adapter="acme_v3", stream=stream, fallback_allowed=True, now=0.0, planned=True)
    return Journey(
        plan,
        policy,
        stream=stream,
        now=0.0,
        take_retry=lambda now: True,
        unsuited=lambda step: None,
        static_suits=lambda step: static_suits,
        providers=providers or FakeProviders(),
        forced=forced,
        drill=drill,
    )


def test_by_order_the_steps_come_first_and_the_own_adapter_when_they_have_failed() -> None:
    way = walked(journey(customer(HOSTED, OTHER), FakeBox("a"), FakeBox("b"), forced=True), DOWN)
    assert targets(way) == ["provider:hosted", "provider:other", "box:a", "box:b"]
    assert [attempt.reason for attempt in way] == [Reason.FORCED, Reason.FORCED, None, None]


def test_by_order_no_box_is_looked_at_before_its_turn() -> None:
    box = FakeBox("a")
    way = journey(customer(HOSTED), box, forced=True)
    attempt = way.next(0.0)
    assert attempt is not None
    assert not isinstance(attempt, Wait)
    box.down = Reason.CIRCUIT_OPEN
    box.fails_fast = False
    way.failed(attempt, DOWN)
    assert way.next(1.0) is None


def test_by_order_steps_that_do_not_suit_leave_the_own_adapter_unmarked() -> None:
    way = walked(journey(customer(STATIC), FakeBox("a"), forced=True, static_suits=False), DOWN)
    assert [(attempt.served_by, attempt.reason) for attempt in way] == [("box:a", None)]


def test_by_order_without_steps_all_is_as_ever() -> None:
    assert targets(walked(journey(customer(), FakeBox("a"), forced=True), DOWN)) == ["box:a"]


def test_by_order_a_provider_that_hangs_leaves_half_of_the_time_to_the_own_adapter() -> None:
    way = journey(customer(HOSTED), FakeBox("a"), forced=True)
    first = way.next(0.0)
    assert first is not None
    assert not isinstance(first, Wait)
    assert first.until == 30
    way.failed(first, UpstreamTimeout("silent"))
    own = way.next(30.0)
    assert own is not None
    assert not isinstance(own, Wait)
    # Nothing stands behind it.
    assert (own.served_by, own.until) == ("box:a", 60)


def test_by_order_a_provider_whose_breaker_is_open_comes_behind_the_own_adapter() -> None:
    shut = FakeProviders({"hosted": "circuit open"})
    way = walked(journey(customer(HOSTED), FakeBox("a"), forced=True, providers=shut), DOWN)
    assert [(attempt.served_by, attempt.reason) for attempt in way] == [
        ("box:a", None),
        ("provider:hosted", Reason.BACKEND_DOWN),
    ]


def test_by_order_a_box_that_is_full_is_waited_for_where_no_step_answered() -> None:
    way = journey(customer(HOSTED), full_box("a"), forced=True)
    attempt = way.next(0.0)
    assert attempt is not None
    assert not isinstance(attempt, Wait)
    way.failed(attempt, DOWN)
    assert isinstance(way.next(1.0), Wait)


@pytest.mark.parametrize(("step", "target"), [(HOSTED, "provider:hosted"), (BaseStep(), "base:a")])
def test_a_drill_that_fails_goes_its_usual_way(step: Step, target: str) -> None:
    way = walked(journey(customer(*ALL_STEPS), FakeBox("a"), FakeBox("b"), drill=step), UpstreamStatus(503))
    assert targets(way)[:3] == [target, "box:a", "box:b"]
    assert [attempt.reason for attempt in way][:3] == [Reason.DRILL, None, None]
    assert way[3].reason is Reason.BACKEND_DOWN
    assert way[-1].served_by == "static"


@pytest.mark.parametrize(("stream", "until", "own_until"), [(True, 2, 4), (False, 15, 27.5)])
def test_a_drill_takes_no_more_time_than_one_box_would_get(stream: bool, until: float, own_until: float) -> None:
    way = journey(customer(HOSTED), FakeBox("a"), drill=HOSTED, stream=stream)
    drill = way.next(0.0)
    assert drill is not None
    assert not isinstance(drill, Wait)
    assert drill.until == until
    way.failed(drill, UpstreamTimeout("silent"))
    own = way.next(until)
    assert own is not None
    assert not isinstance(own, Wait)
    # Its own time begins when the drill is over.
    assert (own.served_by, own.until) == ("box:a", own_until)


def test_what_cannot_be_asked_now_is_no_drill() -> None:
    shut = FakeProviders({"hosted": "circuit open"})
    assert targets(walked(journey(customer(STATIC), FakeBox("a"), drill=HOSTED, providers=shut), DOWN)) == [
        "box:a",
        "static",
    ]
    down = FakeBox("a", base_down=Reason.CIRCUIT_OPEN)
    assert targets(walked(journey(customer(STATIC), down, drill=BaseStep()), DOWN)) == ["box:a", "static"]


errors = st.sampled_from([DOWN, UpstreamStatus(500), UpstreamStatus(404), UpstreamTimeout("x")])


@given(
    steps=st.lists(st.sampled_from([HOSTED, OTHER, BaseStep(), STATIC]), max_size=3),
    boxes=st.lists(st.sampled_from([None, Reason.CIRCUIT_OPEN]), max_size=4),
    outcomes=st.lists(st.tuples(errors, st.floats(0, 30)), min_size=30, max_size=30),
    stream=st.booleans(),
    forced=st.booleans(),
)
def test_whatever_is_planned_every_target_that_is_healthy_is_asked_before_the_503(
    steps: list[Step],
    boxes: list[Reason | None],
    outcomes: list[tuple[UpstreamError, float]],
    stream: bool,
    forced: bool,
) -> None:
    policy = customer(*steps)
    views = [FakeBox(str(i), down=down, base_down=down) for i, down in enumerate(boxes)]
    drillable = policy.drillable
    drill = drillable[0] if drillable and not forced else None
    way = journey(policy, *views, stream=stream, forced=forced, drill=drill)
    now, asked, killed = 0.0, set[str](), 0
    for error, takes in outcomes:
        attempt = way.next(now)
        if attempt is None:
            break
        assert not isinstance(attempt, Wait)
        assert now < attempt.until <= policy.deadline_s or attempt.kind == "static"
        assert (attempt.reason is None) == (attempt.kind == "own")
        asked.add(attempt.served_by)
        if attempt.kind == "static":
            return
        now = min(now + takes, attempt.until)
        way.failed(attempt, error)
        killed += attempt.box is not None and may_have_killed(error)
    else:
        pytest.fail("the way does not end")
    # What may have killed two boxes is kept from all others.
    if now < policy.deadline_s and killed < MAX_CRASHES:
        assert asked >= {f"provider:{step.provider.name}" for step in steps if step in (HOSTED, OTHER)}  # type: ignore[union-attr]
        assert not views or any(target.startswith("box:") for target in asked)


def drilled(policy: CompiledPolicy, share: float) -> CompiledPolicy:
    acme = replace(policy.customers["acme"], drill_share=share)
    keys = {digest: replace(key, customer=acme) for digest, key in policy.keys.items() if key.customer.name == "acme"}
    return replace(policy, customers={**policy.customers, "acme": acme}, keys=keys)


def test_so_many_requests_are_drawn_as_the_share_says_and_each_step_in_its_turn() -> None:
    numbers = iter([0.0, 0.2, 0.49, 0.5, 0.9, 0.1])
    share = DrillShare(lambda: next(numbers))
    acme = replace(customer(HOSTED, BaseStep(), STATIC), drill_share=0.5)
    assert [share.draw(acme) for _ in range(6)] == [HOSTED, BaseStep(), HOSTED, None, None, BaseStep()]


@given(st.lists(st.sampled_from([HOSTED, BaseStep(), STATIC]), max_size=4))
def test_what_is_not_allowed_is_never_drawn(steps: Sequence[Step]) -> None:
    own = [step for step in steps if step is not HOSTED]
    acme = replace(customer(*own), drill_share=1.0, hosted_allowed=False)
    share = DrillShare(lambda: 0.0)
    assert all(share.draw(acme) in (None, BaseStep()) for _ in range(8))


async def chat(plane: Plane, **options: Any) -> Recording:
    return await plane.raw().chat(ADAPTER, **options)


async def test_a_request_that_takes_part_in_a_drill_is_marked_and_one_that_must_not_does_not(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    policy = drilled(compiled([box.url for box in boxes], [provider_step(hosted.url), StaticStep("later")]), 1.0)
    plane = await serve(policy=policy)
    answer = await chat(plane)
    assert check_stream(answer).violations == []
    assert answer.headers["x-failsoft-degraded"] == "drill"
    assert answer.headers["x-failsoft-served-by"] == "provider:hosted"
    assert b'"degraded":{"reason":"drill"' in answer.body
    answer = await chat(plane, headers={"x-failsoft-fallback": "never"})
    assert "x-failsoft-degraded" not in answer.headers
    # Nobody's answers have become degraded.
    assert [event.kind for event in plane.events.since(0)] == []
    assert plane.metrics.requests.value("acme", "provider", "drill") == 1


async def test_nobody_suffers_from_a_drill_that_fails(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    hosted.admin.fault("status", status=500, message="broken")
    policy = drilled(compiled([box.url for box in boxes], [provider_step(hosted.url)]), 1.0)
    plane = await serve(policy=policy)
    for _ in range(6):
        answer = await chat(plane)
        assert check_stream(answer).violations == []
        assert "x-failsoft-degraded" not in answer.headers
    # Once its breaker is open, it is left alone.
    assert len(hosted.admin.requests()) < 6


async def test_by_order_who_wants_its_own_adapter_or_an_error_gets_its_own_adapter(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator
) -> None:
    forced = Forced()
    forced.ends = {"acme": float("inf")}
    plane = await serve(boxes, provider_step(hosted.url), options={"forced": forced})
    assert (await chat(plane)).headers["x-failsoft-degraded"] == "forced"
    for stream in (True, False):
        answer = await chat(plane, headers={"x-failsoft-fallback": "never"}, stream=stream)
        assert answer.headers["x-failsoft-served-by"].startswith("box:")
    # And where the provider is down, by the rule that nobody gets an error while one of its targets is healthy.
    hosted.admin.fault("status", status=500, message="broken")
    answer = await chat(plane)
    assert (answer.status, answer.headers["x-failsoft-served-by"][:4]) == (200, "box:")
    assert "x-failsoft-degraded" not in answer.headers
