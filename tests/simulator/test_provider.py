"""The stand-in providers answer, and refuse, as the hosted ones do."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError
from openai.types.chat import ChatCompletionMessageParam

from tests.simulator.conftest import PROVIDER_KEY
from tests.simulator.test_box import TOOLS
from tests.support.checker import check_error, check_plain, check_stream
from tests.support.processes import Processes, Simulator
from tests.support.raw_client import RawClient, Recording

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
WHOLE = "generic: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 end/14"


@pytest.fixture
async def sdk(provider: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{provider.url}/v1", api_key=PROVIDER_KEY, max_retries=0) as client:
        yield client


async def test_any_model_answers_generically_under_its_own_name(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert answer.choices[0].message.content == WHOLE
    assert answer.model == "gpt-4o-mini"
    assert answer.service_tier == "default"


@pytest.mark.parametrize("limit", [1, 5, None])
@pytest.mark.parametrize("tools", [False, True])
async def test_streams_and_plain_answers_are_whole(provider: Simulator, limit: int | None, tools: bool) -> None:
    client = RawClient(provider.url, key=PROVIDER_KEY)
    fields: dict[str, Any] = {"tools": TOOLS} if tools else {}
    if limit is not None:
        fields["max_completion_tokens"] = limit
    streamed = check_stream(await client.chat("m", stream_options={"include_usage": True}, **fields))
    plain = check_plain(await client.chat("m", stream=False, **fields))
    assert streamed.whole, streamed.violations
    assert plain.whole, plain.violations
    assert (streamed.text, streamed.usage) == (plain.text, plain.usage)
    assert streamed.choices[0].finishes == plain.choices[0].finishes


async def test_tools_are_called_through_the_sdk(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(model="m", messages=HELLO, tools=TOOLS) as events:
        answer = await events.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls
    assert json.loads(calls[0].function.arguments)["answered_by"] == "generic"
    assert answer.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("field", ["top_k", "guided_json", "continue_final_message", "repetition_penalty"])
async def test_a_field_that_only_vllm_knows_is_refused(sdk: AsyncOpenAI, field: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        await sdk.chat.completions.create(model="m", messages=HELLO, extra_body={field: 1})
    assert f"Unrecognized request argument supplied: {field}" in str(caught.value)


async def test_a_wrong_key_and_a_missing_one_are_refused(provider: Simulator) -> None:
    async with AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="wrong", max_retries=0) as sdk:
        with pytest.raises(AuthenticationError):
            await sdk.chat.completions.create(model="m", messages=HELLO)
    missing = await RawClient(provider.url).chat("m")
    assert missing.status == 401
    assert not check_error(missing).violations


async def test_there_are_no_completions(sdk: AsyncOpenAI) -> None:
    with pytest.raises(NotFoundError):
        await sdk.completions.create(model="m", prompt="hello")


async def test_it_has_only_the_models_that_it_was_given(processes: Processes) -> None:
    provider = processes.provider(model=["small"])
    await provider.ready()
    client = RawClient(provider.url, key="any")
    assert check_stream(await client.chat("small")).whole
    refused = await client.chat("large")
    assert (refused.status, refused.json()["error"]["code"]) == (404, "model_not_found")
    assert [model["id"] for model in (await client.ask("/v1/models")).json()["data"]] == ["small"]


async def test_faults_act_on_it_in_its_own_words(provider: Simulator) -> None:
    client = RawClient(provider.url, key=PROVIDER_KEY)
    provider.admin.fault("status", status=429, retry_after_s=7)
    limited = await client.chat("m")
    assert (limited.status, limited.headers["retry-after"]) == (429, "7")
    assert limited.json()["error"]["code"] == "rate_limit_exceeded"
    for fault, codes in (
        ("truncate", ["bare_end", "no_finish"]),
        ("reset_mid_stream", ["cut", "bare_end", "no_finish"]),
    ):
        provider.admin.fault(fault)
        assert check_stream(await client.chat("m")).codes == codes


async def test_it_serves_tls(processes: Processes, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    provider = processes.provider(certfile=certificate)
    await provider.ready()
    assert provider.url.startswith("https://")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with httpx2.AsyncClient(verify=context, trust_env=False, headers={"authorization": "Bearer k"}) as client:
        body = {"model": "m", "messages": HELLO}
        answer = await client.post(f"{provider.url}/v1/chat/completions", json=body)
        assert answer.json()["choices"][0]["message"]["content"] == WHOLE
        provider.admin.fault("reset_mid_stream")
        with pytest.raises(httpx2.TransportError):
            await client.post(f"{provider.url}/v1/chat/completions", json={**body, "stream": True})


def messages(url: str, **options: Any) -> Any:
    """A request to Anthropic's endpoint."""
    headers = {"x-api-key": PROVIDER_KEY, "anthropic-version": "2023-06-01"}
    body = {"model": "claude", "max_tokens": 100, "messages": HELLO, **options}
    return RawClient(url).ask("/v1/messages", body, headers=headers)


def events_of(recording: Recording) -> list[dict[str, Any]]:
    blocks = recording.body.decode().split("\n\n")[:-1]
    events = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
    assert [block.partition("\n")[0] for block in blocks] == [f"event: {event['type']}" for event in events]
    return events


async def test_anthropic_answers_plainly(anthropic: Simulator) -> None:
    answer = (await messages(anthropic.url)).json()
    assert answer["content"] == [{"type": "text", "text": WHOLE}]
    assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "end_turn")


async def test_anthropic_streams_its_events_in_order(anthropic: Simulator) -> None:
    events = events_of(await messages(anthropic.url, stream=True, max_tokens=3))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event["delta"]["text"] for event in events[3:6]) == "generic: 0 1"
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


async def test_anthropic_calls_tools(anthropic: Simulator) -> None:
    tools = [{"name": "look_up", "input_schema": {"type": "object"}}]
    (block,) = (await messages(anthropic.url, tools=tools)).json()["content"]
    assert (block["type"], block["name"], block["input"]["answered_by"]) == ("tool_use", "look_up", "generic")
    events = events_of(await messages(anthropic.url, tools=tools, stream=True))
    pieces = [event["delta"]["partial_json"] for event in events if event["type"] == "content_block_delta"]
    assert json.loads("".join(pieces)) == block["input"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frequency_penalty": 1}, "frequency_penalty: Extra inputs are not permitted"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages.0.role: "),
    ],
)
async def test_anthropic_is_strict_too(anthropic: Simulator, fields: dict[str, Any], message: str) -> None:
    refused = await messages(anthropic.url, **fields)
    assert refused.status == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
    assert refused.json()["error"]["message"].startswith(message)


async def test_anthropic_refuses_a_wrong_key(anthropic: Simulator) -> None:
    refused = await RawClient(anthropic.url).ask("/v1/messages", {}, headers={"x-api-key": "wrong"})
    assert (refused.status, refused.json()["error"]["type"]) == (401, "authentication_error")


async def test_anthropic_breaks_on_demand(anthropic: Simulator) -> None:
    anthropic.admin.fault("truncate")
    cut = await messages(anthropic.url, stream=True)
    assert cut.end == "complete"
    assert [event["type"] for event in events_of(cut)][-1] == "content_block_delta"
    anthropic.admin.fault("reset_mid_stream")
    assert (await messages(anthropic.url, stream=True)).end == "reset"
    anthropic.admin.fault("error_frame_mid", status=529)
    assert events_of(await messages(anthropic.url, stream=True))[-2]["error"]["type"] == "overloaded_error"


async def test_litellm_takes_it_for_the_real_one(anthropic: Simulator) -> None:
    # In a process of its own: importing LiteLLM changes the whole interpreter (warnings, event loop policy, logging).
    script = """
import litellm, sys
litellm.suppress_debug_info = True
url, key = sys.argv[1:]
ask = dict(model="anthropic/claude-x", api_base=url, api_key=key, messages=[{"role": "user", "content": "hello"}])
print(litellm.completion(**ask).choices[0].message.content)
print("".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **ask)))
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, anthropic.url, PROVIDER_KEY,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    out, err = await child.communicate()
    assert out.decode().splitlines() == [WHOLE, WHOLE], err.decode()
