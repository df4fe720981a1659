"""`/v1/messages` through the unmodified Anthropic SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.policy.compiled import StaticStep
from tests.dataplane.conftest import TOKENS, ServePlane
from tests.dataplane.plane import ADAPTER, GENERIC_MODEL, KEY, Plane, provider_step
from tests.support.processes import Processes, Simulator

anthropic = pytest.importorskip("anthropic", reason="the Anthropic SDK is not installed")

NO_BOX = "http://127.0.0.1:1"
OWN = f"{ADAPTER}: " + " ".join(map(str, range(TOKENS - 2))) + f" end/{TOKENS - 2}"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
WHERE = pytest.mark.parametrize("degraded", [False, True], ids=["own", "provider"])


class Clients:
    """Makes clients of data planes, and closes them."""

    def __init__(self) -> None:
        self._made: list[Any] = []

    def of(self, plane: Plane, **options: Any) -> Any:
        """Without retries; its key goes out as `x-api-key`."""
        options = {"api_key": KEY, "auth_token": None, **options}
        client = anthropic.AsyncAnthropic(base_url=plane.url, max_retries=0, timeout=20.0, **options)
        self._made.append(client)
        return client

    async def close(self) -> None:
        """All of them."""
        for client in self._made:
            await client.close()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    await made.close()


async def served(serve: ServePlane, boxes: list[Simulator], hosted: Simulator, degraded: bool) -> Plane:
    return await serve([NO_BOX] if degraded else boxes, provider_step(hosted.url))


@WHERE
async def test_a_whole_message(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, clients: Clients, degraded: bool
) -> None:
    client = clients.of(await served(serve, boxes, hosted, degraded))
    message = await client.messages.create(model=ADAPTER, max_tokens=1000, messages=HELLO, system="Be brief.")
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == TOKENS
    if degraded:
        assert message.content[0].text.startswith("generic: 0 1")
        assert message.model == GENERIC_MODEL
        assert message.model_extra["degraded"]["served_by"] == "provider:hosted"
    else:
        assert message.content[0].text == OWN


@WHERE
async def test_the_sdks_own_accumulation_of_a_stream(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, clients: Clients, degraded: bool
) -> None:
    client = clients.of(await served(serve, boxes, hosted, degraded))
    async with client.messages.stream(model=ADAPTER, max_tokens=1000, messages=HELLO) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_message()
        text = await stream.get_final_text()
    assert events[0].type == "message_start"
    assert ((events[0].model_extra or {}).get("degraded") is not None) == degraded
    assert final.content[0].text == text
    assert (text == OWN) != degraded
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", TOKENS)


@WHERE
async def test_a_loop_of_tool_calls(
    serve: ServePlane, boxes: list[Simulator], hosted: Simulator, clients: Clients, degraded: bool
) -> None:
    client = clients.of(await served(serve, boxes, hosted, degraded))
    tools: list[Any] = [{"name": "look_up", "input_schema": {"type": "object", "properties": {}}}]
    async with client.messages.stream(model=ADAPTER, max_tokens=1000, messages=HELLO, tools=tools) as stream:
        first = await stream.get_final_message()
    (call,) = first.content
    assert (call.type, call.name, first.stop_reason) == ("tool_use", "look_up", "tool_use")
    assert call.input["answered_by"] == ("generic" if degraded else ADAPTER)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "42"}]}
    turns = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = await client.messages.create(model=ADAPTER, max_tokens=1000, messages=turns)
    assert second.content[0].text
    if degraded:
        sent = hosted.admin.requests(path="/v1/chat/completions")[-1]["body"]["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.id
        assert sent[2]["content"] == "42"


async def test_a_stream_that_breaks_raises(serve: ServePlane, session_processes: Processes, clients: Clients) -> None:
    box = session_processes.box(name="broken", adapters=[ADAPTER], itl_ms=20)
    await box.ready()
    plane = await serve([box])
    box.admin.fault("reset_mid_stream", after_chunks=6)
    seen: list[str] = []

    async def listen() -> None:
        async with clients.of(plane).messages.stream(model=ADAPTER, max_tokens=1000, messages=HELLO) as stream:
            async for event in stream:
                seen.append(event.type)  # noqa: PERF401  # kept when it raises

    with pytest.raises(anthropic.APIError, match="broke off"):
        await listen()
    assert "content_block_delta" in seen
    assert "message_stop" not in seen


async def test_errors_are_the_sdks_own(serve: ServePlane, boxes: list[Simulator], clients: Clients) -> None:
    plane = await serve(boxes)
    ask: dict[str, Any] = {"max_tokens": 9, "messages": HELLO}
    with pytest.raises(anthropic.NotFoundError):
        await clients.of(plane).messages.create(model="nobodys", **ask)
    with pytest.raises(anthropic.AuthenticationError):
        await clients.of(plane, api_key="wrong").messages.create(model=ADAPTER, **ask)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await clients.of(plane).messages.create(model=ADAPTER, **{**ask, "max_tokens": 0})
    with pytest.raises(anthropic.InternalServerError):
        await clients.of(await serve([NO_BOX])).messages.create(model=ADAPTER, **ask)


async def test_a_bearer_token_does_as_well(serve: ServePlane, boxes: list[Simulator], clients: Clients) -> None:
    client = clients.of(await serve(boxes), api_key=None, auth_token=KEY)
    message = await client.messages.create(model=ADAPTER, max_tokens=1000, messages=HELLO)
    assert message.content[0].text == OWN


async def test_the_fixed_text(serve: ServePlane, clients: Clients) -> None:
    client = clients.of(await serve([NO_BOX], StaticStep("later")))
    async with client.messages.stream(model=ADAPTER, max_tokens=9, messages=HELLO) as stream:
        assert await stream.get_final_text() == "later"
