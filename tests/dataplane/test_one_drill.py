"""A drill goes the way of a degraded request, and looks at the answer as an agent would."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.dataplane.attempt import Asker
from gateway.drills.drill import Prover
from gateway.drills.target import Target, targets_of
from gateway.policy.compiled import BaseStep, ProviderStep
from tests.dataplane.conftest import ServePlane, StartScripted
from tests.dataplane.plane import PROVIDER_KEY, Plane, provider_step
from tests.dataplane.scripted_box import END, STREAM_HEAD, chunked
from tests.support.processes import Simulator
from tests.support.streams import DONE, choice, event


def prover(plane: Plane) -> Prover:
    return Prover(Asker(plane.providers, plane.hosted), plane.fleets)


def target(plane: Plane) -> Target:
    (found,) = targets_of(plane.current).values()
    return found


async def test_the_provider_is_asked_as_the_step_says_and_no_customer_is_charged(
    serve: ServePlane, hosted: Simulator
) -> None:
    drop = frozenset({"max_tokens"})
    step = provider_step(hosted.url, asked="openai/other-mini", system_prompt="As Acme.", drop=drop)
    plane = await serve([], step)
    outcome = await prover(plane).prove(target(plane))
    assert (outcome.error, outcome.model) == ("", "other-mini")
    assert outcome.first_content_ms is not None
    (asked,) = hosted.admin.requests()
    assert asked["body"]["messages"][0]["content"] == "As Acme."
    assert "max_tokens" not in asked["body"]
    assert dict(asked["headers"])["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert list(plane.metrics.requests.items()) == []
    assert plane.idle
    assert all(pool.in_use == 0 for pool in plane.providers._pools.values())


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (
            [event(choice(role="assistant", content="")), event(choice(finish="stop")), DONE],
            "an answer without content",
        ),
        ([event(choice(role="assistant", content="ok"))], "the stream ended without a finish_reason"),
        ([event(choice(content="ok")), b'data: {"error": {"message": "overloaded"}}\n\n', DONE], "overloaded"),
    ],
)
async def test_an_answer_that_an_agent_could_not_use_is_a_failed_drill(
    serve: ServePlane, scripted: StartScripted, frames: list[bytes], error: str
) -> None:
    provider = await scripted(STREAM_HEAD, *(chunked(frame) for frame in frames), END)
    plane = await serve([], provider_step(provider.url))
    outcome = await prover(plane).prove(target(plane))
    assert error in outcome.error
    assert (outcome.model, outcome.first_content_ms) == ("", None)


async def test_failed_drills_open_the_providers_breaker_and_a_good_one_closes_it(
    serve: ServePlane, hosted: Simulator
) -> None:
    hosted.admin.fault("status", status=500, message="broken")
    step = provider_step(hosted.url)
    plane = await serve([], step)
    health = plane.hosted.of(step.provider)
    outcomes = [(await prover(plane).prove(target(plane))).error for _ in range(4)]
    assert outcomes[:3] == ["status 500"] * 3
    # While it is open nobody asks, and that is no proof either.
    assert outcomes[3] == "not asked: circuit open"
    assert not health.breaker.closed
    hosted.admin.heal()
    health.breaker._open_for_s = 0.0
    assert (await prover(plane).prove(target(plane))).error == ""
    assert health.breaker.closed


async def test_the_base_is_tried_on_a_box_that_may_be_asked(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, BaseStep())
    assert (await prover(plane).prove(target(plane))).error == ""
    (asked,) = [request for box in boxes for request in box.admin.requests() if request["path"].startswith("/v1/chat")]
    assert asked["body"]["model"] == "base"
    empty = await serve([], BaseStep())
    assert (await prover(empty).prove(target(empty))).error == "no box may be asked"


async def test_a_provider_that_is_not_configured_has_not_been_proven(serve: ServePlane, hosted: Simulator) -> None:
    step = provider_step(hosted.url)
    broken = ProviderStep(replace(step.provider, unavailable="KEY is not set"), step.model)
    plane = await serve([], broken)
    assert "KEY is not set" in (await prover(plane).prove(target(plane))).error
    assert hosted.admin.requests() == []
