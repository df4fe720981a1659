"""A simulated box's `/v1/responses` and `/v1/messages` understand what vLLM 0.32 does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.raw_client import RawClient

WHOLE = "acme: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 end/14"
OBJECT = {"answered_by": "acme", "numbers": list(range(14))}
SCHEMA = {"type": "object", "properties": {"answered_by": {"type": "string"}}}
TOOL_OF_RESPONSES = {"type": "function", "name": "look_up", "parameters": SCHEMA}
TOOL_OF_MESSAGES = {"name": "look_up", "input_schema": SCHEMA}


async def responded(client: RawClient, **fields: Any) -> dict[str, Any]:
    recording = await client.ask("/v1/responses", {"model": "acme", "input": "hello", **fields})
    assert recording.status == 200, recording.body
    answer: dict[str, Any] = recording.json()
    return answer


async def written(client: RawClient, **fields: Any) -> dict[str, Any]:
    given = {"model": "acme", "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}]}
    recording = await client.ask("/v1/messages", {**given, **fields})
    assert recording.status == 200, recording.body
    answer: dict[str, Any] = recording.json()
    return answer


@pytest.mark.parametrize(
    "wanted", [{"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}, {"type": "json_object"}]
)
async def test_a_response_whose_text_has_to_be_json_is_and_says_what_was_wanted(
    client: RawClient, wanted: dict[str, Any]
) -> None:
    answer = await responded(client, text={"format": wanted})
    (item,) = answer["output"]
    assert json.loads(item["content"][0]["text"]) == OBJECT
    # As vLLM's ``ResponseTextConfig`` writes it: with the fields that were not given, too.
    optional = {"description": None} if wanted["type"] == "json_schema" else {}
    assert answer["text"] == {"format": {**wanted, **optional}, "verbosity": None}


@pytest.mark.parametrize("text", [None, {"format": {"type": "text"}}, {"verbosity": "low"}])
async def test_a_response_whose_text_may_be_any_is_text(client: RawClient, text: dict[str, Any] | None) -> None:
    answer = await responded(client, text=text)
    assert answer["output"][0]["content"][0]["text"] == WHOLE
    assert answer["text"] == (None if text is None else {"format": None, "verbosity": None} | text)


async def test_a_message_whose_text_has_to_be_json_is(client: RawClient) -> None:
    wanted = {"format": {"type": "json_schema", "schema": SCHEMA}}
    (block,) = (await written(client, output_config=wanted))["content"]
    assert json.loads(block["text"]) == OBJECT


async def test_a_message_with_an_effort_alone_is_text(client: RawClient) -> None:
    (block,) = (await written(client, output_config={"effort": "low"}))["content"]
    assert block["text"] == WHOLE


async def test_a_tools_result_is_answered_in_text_by_a_response(client: RawClient) -> None:
    first = await responded(client, tools=[TOOL_OF_RESPONSES])
    (call,) = first["output"]
    assert call["type"] == "function_call"
    given = [
        {"role": "user", "content": "hello"},
        call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "42"},
    ]
    second = await responded(client, input=given, tools=[TOOL_OF_RESPONSES])
    assert second["output"][0]["content"][0]["text"] == WHOLE
    again = await responded(client, input=given, tools=[TOOL_OF_RESPONSES], tool_choice="required")
    assert again["output"][0]["type"] == "function_call"


async def test_a_tools_result_is_answered_in_text_by_a_message(client: RawClient) -> None:
    (call,) = (await written(client, tools=[TOOL_OF_MESSAGES]))["content"]
    assert call["type"] == "tool_use"
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": "42"}]},
    ]
    second = await written(client, messages=turns, tools=[TOOL_OF_MESSAGES])
    assert second["content"] == [{"type": "text", "text": WHOLE}]
    again = await written(client, messages=turns, tools=[TOOL_OF_MESSAGES], tool_choice={"type": "any"})
    assert again["content"][0]["type"] == "tool_use"
