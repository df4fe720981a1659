"""`/v1/responses` through the unmodified OpenAI SDK."""

from __future__ import annotations

import json

import openai
import pytest
from openai.types.responses import ResponseFunctionToolCall

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import TOKENS, ServePlane
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, provider_step
from tests.support.processes import Processes, Simulator

NO_BOX = "http://127.0.0.1:1"
OWN = f"{ADAPTER}: " + " ".join(map(str, range(TOKENS - 2))) + f" end/{TOKENS - 2}"
WHERE = pytest.mark.parametrize("degraded", [False, True], ids=["own", "provider"])


async def served(serve: ServePlane, boxes: list[Simulator], hosted: Simulator, degraded: bool) -> openai.AsyncOpenAI:
    plane = await serve([NO_BOX] if degraded else boxes, provider_step(hosted.url))
    return plane.sdk()


@WHERE
async def test_a_whole_response(serve: ServePlane, boxes: list[Simulator], hosted: Simulator, degraded: bool) -> None:
    client = await served(serve, boxes, hosted, degraded)
    response = await client.responses.create(model=ADAPTER, input="hello", instructions="Be brief.")
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == TOKENS
    if degraded:
        assert response.output_text.startswith("generic: 0 1")
        assert response.model == GENERIC_MODEL
        assert response.model_extra is not None
        assert response.model_extra["degraded"]["served_by"] == "provider:hosted"
    else:
        assert response.output_text == OWN


@WHERE
async def test_the_sdks_own_accumulation_of_a_stream(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, degraded: bool
) -> None:
    """`responses.stream` puts the answer together itself, and raises where events do not fit each other."""
    client = await served(serve, boxes, hosted, degraded)
    async with client.responses.stream(model=ADAPTER, input="hello") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert events[0].type == "response.created"
    assert ((events[0].model_extra or {}).get("degraded") is not None) == degraded
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == final.output_text
    assert (final.output_text == OWN) != degraded


@WHERE
async def test_a_loop_of_tool_calls(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, degraded: bool
) -> None:
    client = await served(serve, boxes, hosted, degraded)
    tool = {
        "type": "function",
        "name": "look_up",
        "strict": False,
        "parameters": {"type": "object", "properties": {}},
    }
    async with client.responses.stream(model=ADAPTER, input="hello", tools=[tool]) as stream:  # type: ignore[list-item]
        first = await stream.get_final_response()
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert json.loads(call.arguments)["answered_by"] == ("generic" if degraded else ADAPTER)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "42"}
    given = [{"role": "user", "content": "hello"}, call.model_dump(exclude_none=True), result]
    second = await client.responses.create(model=ADAPTER, input=given)  # type: ignore[arg-type]
    assert second.output_text
    if degraded:
        sent = hosted.admin.requests(path="/v1/chat/completions")[-1]["body"]["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.call_id
        assert sent[2]["content"] == "42"


async def test_a_stream_that_breaks_raises(serve: ServePlane, session_processes: Processes) -> None:
    box = session_processes.box(name="breaks", adapters=[ADAPTER], itl_ms=20)
    await box.ready()
    plane = await serve([box])
    box.admin.fault("reset_mid_stream", after_chunks=8)
    stream = await plane.sdk().responses.create(model=ADAPTER, input="hello", stream=True)
    seen: list[str] = []

    async def listen() -> None:
        async for event in stream:
            seen.append(event.type)  # noqa: PERF401  # kept when it raises

    with pytest.raises(openai.APIError, match="broke off") as raised:
        await listen()
    assert raised.value.code == "stream_broken"
    assert "response.output_text.delta" in seen
    assert "response.completed" not in seen


async def test_errors_are_the_sdks_own(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    with pytest.raises(openai.NotFoundError):
        await plane.sdk().responses.create(model="nobodys", input="hello")
    with pytest.raises(openai.AuthenticationError):
        await plane.sdk(key="wrong").responses.create(model=ADAPTER, input="hello")
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        await plane.sdk().responses.create(model=ADAPTER, input="hello", previous_response_id="resp_1")
    down = await serve([NO_BOX])
    with pytest.raises(openai.InternalServerError):
        await down.sdk().responses.create(model=ADAPTER, input="hello")


async def test_the_fixed_text(serve: ServePlane) -> None:
    plane = await serve([NO_BOX], StaticStep("later"))
    async with plane.sdk().responses.stream(model=ADAPTER, input="hello") as stream:
        assert (await stream.get_final_response()).output_text == "later"
