"""What an agent gets while all is well: its own adapter's words, as the engine itself says them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.engine.fleet import ANSWER_TOKENS, CUSTOMERS, Customer, EngineFleet, request

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ACME = CUSTOMERS[0]
LONG = [{"role": "user", "content": "word " * 3000}]
TOOL = {
    "type": "function",
    "function": {
        "name": "find_order",
        "description": "Where an order is.",
        "strict": True,  # without it the engine's grammar lets any JSON pass for the arguments
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "enum": ["Lyon", "Berlin"]}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


def test_every_adapter_has_an_answer_of_its_own(own_answers: dict[str, str]) -> None:
    assert len(set(own_answers.values())) == len(CUSTOMERS)
    assert all(len(answer.split()) == ANSWER_TOKENS for answer in own_answers.values())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("customer", CUSTOMERS, ids=lambda customer: customer.name)
async def test_an_adapter_says_through_the_gateway_what_it_says_itself(
    engine: EngineFleet, customer: Customer, stream: bool
) -> None:
    answer = await engine.ask(customer, stream=stream)
    seen = engine.judge(answer, customer)
    assert seen.violations == []
    assert seen.text == engine.own_answers[customer.adapter]
    assert (seen.model, seen.degraded) == (customer.adapter, None)
    assert answer.headers["x-failsoft-served-by"] in {"box:box-a", "box:box-b"}
    assert "x-failsoft-degraded" not in answer.headers


async def test_a_stream_has_its_usage_when_asked_for(engine: EngineFleet) -> None:
    answer = await engine.ask(ACME, stream=True, stream_options={"include_usage": True})
    seen = engine.judge(answer, ACME)
    assert seen.violations == []
    assert seen.usage is not None
    assert seen.usage["completion_tokens"] == ANSWER_TOKENS


async def test_the_sdk_reads_a_stream_to_its_end(engine: EngineFleet) -> None:
    stream = await engine.agent(ACME).chat.completions.create(**request(ACME), stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == engine.own_answers[ACME.adapter]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["length"]


async def test_a_completion_is_streamed_and_whole(engine: EngineFleet) -> None:
    client = engine.agent(ACME)
    fields: dict[str, Any] = {"model": ACME.adapter, "prompt": "The agent", "max_tokens": 20, "temperature": 0}
    plain = await client.completions.create(**fields)
    stream = await client.completions.create(**fields, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == plain.choices[0].text
    assert len(plain.choices[0].text.split()) == 20


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "find_order"}}])
async def test_a_tool_call_arrives_as_the_engine_parsed_it(engine: EngineFleet, choice: object) -> None:
    client = engine.agent(ACME)
    asked = request(ACME, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False, max_tokens=200)
    answer = await client.chat.completions.create(**asked)
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "find_order"
    assert json.loads(call.function.arguments)["place"] in {"Lyon", "Berlin"}
    stream = await client.chat.completions.create(**asked, stream=True)
    said = [delta async for chunk in stream for delta in chunk.choices[0].delta.tool_calls or []]
    assert "".join(delta.function.name or "" for delta in said if delta.function) == "find_order"


async def test_what_only_vllm_understands_reaches_it(engine: EngineFleet) -> None:
    answer = await engine.ask(ACME, max_tokens=3, return_token_ids=True)
    assert len(answer.json()["choices"][0]["token_ids"]) == 3


@pytest.mark.parametrize(
    "mistake",
    [{"temperature": "hot"}, {"temperature": 9}, {"max_tokens": 0}, {"messages": LONG}],
    ids=["wrong type", "out of range", "no tokens", "too long"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_the_engines_400_is_the_clients_word_for_word(
    engine: EngineFleet, mistake: dict[str, Any], stream: bool
) -> None:
    through = await engine.ask(ACME, stream=stream, **mistake)
    direct = await engine.ask_box("box-a", ACME, stream=stream, **mistake)
    assert (through.status, through.body) == (direct.status, direct.body) == (400, direct.body)
    assert through.headers["x-failsoft-attempts"] == "1"


async def test_the_sdk_takes_the_engines_400_for_a_bad_request(engine: EngineFleet) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature must be in"):
        await engine.agent(ACME).chat.completions.create(**request(ACME, temperature=9))
