"""A client that has less time than its policy gets its answer, or its degraded answer, within that."""

from __future__ import annotations

import pytest

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import ServePlane
from tests.dataplane.plane import ADAPTER, provider_step
from tests.support.checker import check_error, check_plain, check_stream
from tests.support.processes import Simulator

TIMEOUT = "x-request-timeout-ms"


@pytest.mark.parametrize("stream", [True, False])
async def test_the_fallback_answers_within_the_client_s_own_deadline(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, stream: bool
) -> None:
    plane = await serve(boxes, provider_step(hosted.url), ttft_budget_s=30.0, plain_budget_s=30.0)
    for box in boxes:
        box.admin.fault("hang_before_headers")
    answer = await plane.raw().chat(ADAPTER, stream=stream, headers={TIMEOUT: "900"})
    seen = (check_stream if stream else check_plain)(answer)
    assert seen.violations == []
    assert seen.degraded is not None
    assert seen.degraded["served_by"] == "provider:hosted"
    assert answer.head_s is not None
    assert answer.head_s < 30.0 / 2, "the policy's own budgets would have been waited for"


async def test_fixed_text_comes_when_the_time_is_over(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, StaticStep("reduced"), ttft_budget_s=30.0)
    for box in boxes:
        box.admin.fault("hang_before_headers")
    answer = await plane.raw().chat(ADAPTER, headers={TIMEOUT: "300"})
    assert check_stream(answer, text="reduced").whole


async def test_a_longer_one_than_the_policy_s_changes_nothing(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, StaticStep("reduced"), ttft_budget_s=0.2, deadline_s=0.5)
    for box in boxes:
        box.admin.fault("hang_before_headers")
    answer = await plane.raw().chat(ADAPTER, headers={TIMEOUT: "60000"})
    assert check_stream(answer, text="reduced").whole


@pytest.mark.parametrize("value", ["soon", "0", "-5", "1.5", "9" * 13])
async def test_what_is_no_time_is_the_client_s_mistake(serve: ServePlane, boxes: list[Simulator], value: str) -> None:
    plane = await serve(boxes)
    answer = await plane.raw().chat(ADAPTER, headers={TIMEOUT: value})
    assert answer.status == 400
    assert check_error(answer).violations == []
    assert answer.json()["error"]["param"] == TIMEOUT
    assert boxes[0].admin.requests() == boxes[1].admin.requests() == []


async def test_the_sdk_s_own_retries_are_taken_from_the_retry_budget(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes, StaticStep("reduced"), options={"retry_share": 0.1})
    for box in boxes:
        box.admin.fault("status", status=500)
    # The one retry that is there at the beginning is the client's own.
    answer = await plane.raw().chat(ADAPTER, headers={"x-stainless-retry-count": "1"})
    assert check_stream(answer, text="reduced").whole
    assert plane.metrics.retries_denied.value() == 1
    assert len(boxes[0].admin.requests()) + len(boxes[1].admin.requests()) == 1
