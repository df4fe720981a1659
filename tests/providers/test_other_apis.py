"""Requests of the Responses and the Messages API as chat, and chat answers in those APIs' words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProtocolError
from gateway.policy.compiled import ProviderSpec, ProviderStep
from gateway.upstream.messages_answer import MessagesAnswer
from gateway.upstream.provider_request import CHAT_FIELDS, Endpoint, translate, unsuited
from gateway.upstream.responses_answer import ResponsesAnswer

STEP = ProviderStep(ProviderSpec("hosted", "openai/generic", None, None), "openai/generic", system_prompt="As Acme.")
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
SYSTEM = {"role": "system", "content": "As Acme."}
USER = {"role": "user", "content": "hello"}


def responses(input: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": "acme_v3", "input": input, **fields}


def messages(*turns: Any, **fields: Any) -> dict[str, Any]:
    return {"model": "acme_v3", "max_tokens": 50, "messages": list(turns or [USER]), **fields}


# Requests.


def test_a_response_is_asked_for_as_a_chat() -> None:
    asked = responses(
        [
            {"role": "developer", "content": "Answer in German."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is this?"},
             {"type": "input_image", "image_url": "data:image/png;base64,eA==", "detail": "low"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "I look ", "annotations": []},
                         {"type": "output_text", "text": "it up.", "annotations": []}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look_up", "arguments": '{"a":"x"}'},
            {"type": "function_call", "id": "fc_2", "call_id": "call_2", "name": "look_up", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "a cat"},
            {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "a dog"}]},
        ],
        instructions="Be brief.",
        max_output_tokens=99,
        temperature=0.5,
        top_k=5,
        ignore_eos=True,
        store=True,
        stream=True,
        include=["reasoning.encrypted_content"],
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
        tools=[{"type": "function", "name": "look_up", "parameters": SCHEMA, "strict": False}],
        tool_choice={"type": "function", "name": "look_up"},
        parallel_tool_calls=True,
    )  # fmt: skip
    body = translate(STEP, "responses", asked)
    assert unsuited(STEP, "responses", asked) is None
    assert body.keys() <= CHAT_FIELDS
    assert body == {
        "model": "generic",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 99,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "verbosity": "low",
        "parallel_tool_calls": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}},
        "tools": [{"type": "function", "function": {"name": "look_up", "parameters": SCHEMA, "strict": False}}],
        "tool_choice": {"type": "function", "function": {"name": "look_up"}},
        "messages": [
            SYSTEM,
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Answer in German."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA==", "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": "I look it up.",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a":"x"}'}},
                    {"id": "call_2", "type": "function", "function": {"name": "look_up", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
            {"role": "tool", "tool_call_id": "call_2", "content": "a dog"},
        ],
    }


def test_a_message_is_asked_for_as_a_chat() -> None:
    asked = messages(
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "text", "text": "I look it up."},
                {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"a": "x"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "a cat"}]},
                {"type": "text", "text": "And this?", "cache_control": {"type": "ephemeral"}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}},
            ],
        },
        system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "x-anthropic-billing-header: 1"}],
        stop_sequences=["END"],
        top_k=5,
        top_p=0.9,
        metadata={"user_id": "u1"},
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        tools=[{"name": "look_up", "description": "Looks up.", "input_schema": SCHEMA}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        vllm_xargs={"x": 1},
    )
    assert unsuited(STEP, "messages", asked) is None
    assert translate(STEP, "messages", asked) == {
        "model": "generic",
        "max_tokens": 50,
        "stop": ["END"],
        "top_p": 0.9,
        "user": "u1",
        "reasoning_effort": "low",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        "tools": [
            {"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": SCHEMA}}
        ],
        "tool_choice": "required",
        "messages": [
            SYSTEM,
            {"role": "system", "content": "Be brief."},
            USER,
            {
                "role": "assistant",
                "content": "I look it up.",
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a":"x"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "a cat"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
                ],
            },
        ],
    }


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("embeddings", {"model": "acme_v3", "input": "hello"}),
        ("responses", responses(previous_response_id="resp_1")),
        ("responses", responses(prompt={"id": "pmpt_1"})),
        ("responses", responses(5)),
        ("responses", responses(["hello"])),
        ("responses", responses([{"type": "item_reference", "id": "x"}])),
        ("responses", responses([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}])),
        ("responses", responses([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}])),
        ("responses", responses([{"role": "assistant", "content": "Hel", "status": "incomplete"}])),
        ("responses", responses([{"type": "function_call_output", "output": [{"type": "input_image"}]}])),
        ("responses", responses(tools=[{"type": "web_search"}])),
        ("responses", responses(tools=[{"type": "custom", "name": "x"}])),
        ("responses", responses(tools=[{"type": "function", "name": "x"}], tool_choice={"type": "allowed_tools"})),
        ("responses", responses(structured_outputs={"regex": "a+"})),
        ("messages", messages(mcp_servers=[{"url": "x"}])),
        ("messages", messages("hello")),
        ("messages", messages({"role": "user", "content": 5})),
        ("messages", messages({"role": "user", "content": [{"type": "document"}]})),
        ("messages", messages({"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]})),
        ("messages", messages({"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]})),
        ("messages", messages(tools=[{"type": "web_search_20250305", "name": "web_search"}])),
        ("messages", messages(output_config={"format": {"type": "xml"}})),
    ],
)  # fmt: skip
def test_what_chat_has_no_word_for_skips_the_step_and_says_why(endpoint: Endpoint, asked: dict[str, Any]) -> None:
    why = unsuited(STEP, endpoint, asked)
    assert why
    assert "\n" not in why


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "role", "content", "text", "source", "format", "name", "tools", "image_url", "input", "output"]
            ),
            inner
            | st.sampled_from(["message", "user", "assistant", "text", "tool_use", "image", "function_call", "base64"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
@given(
    asked=st.dictionaries(
        st.sampled_from(
            ["input", "instructions", "tools", "tool_choice", "text", "messages", "system", "output_config", "metadata"]
        ),
        anything,
    )
)
def test_whatever_is_asked_is_translated_or_not_suited(endpoint: Endpoint, asked: dict[str, Any]) -> None:
    """Boxes judge what is wrong with a request; where none is there, a wrong one is no reason to fail otherwise."""
    if unsuited(STEP, endpoint, asked) is None:
        body = translate(STEP, endpoint, asked)
        assert body["messages"][0] == SYSTEM
        assert body.keys() <= CHAT_FIELDS


# Answers.


def chunk(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "generic", "choices": [choice], **fields}).encode()


def call(index: int, *, id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"tool_calls": [{"index": index, "function": function} | ({"id": id} if id else {})]}


USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 7,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
STREAM = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Let me "}),
    chunk({"reasoning_content": "think."}),
    chunk({"content": "I look "}),
    chunk({"content": "it up."}),
    chunk(call(0, id="call_1", name="look_up")),
    chunk(call(0, arguments='{"a":')),
    chunk(call(0, arguments='"x"}')),
    chunk(call(1, id="call_2", name="look_up", arguments="{}")),
    chunk({}, "tool_calls"),
    json.dumps({"choices": [], "model": "generic", "usage": USAGE}).encode(),
]
WHOLE = json.dumps(
    {
        "model": "generic",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "I look it up.",
                    "reasoning_content": "Let me think.",
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"a":"x"}'}},
                        {"id": "call_2", "type": "function", "function": {"name": "look_up", "arguments": "{}"}},
                    ],
                },
            }
        ],
        "usage": USAGE,
    }
).encode()


def parsed(data: bytes) -> list[dict[str, Any]]:
    *frames, rest = data.split(b"\n\n")
    assert rest == b""
    events = []
    for frame in frames:
        name, _, event = frame.partition(b"\ndata: ")
        events.append(json.loads(event))
        assert name == b"event: " + events[-1]["type"].encode()
    return events


def test_a_streamed_response_says_what_the_whole_one_does() -> None:
    fields = responses(tools=[{"type": "function", "name": "look_up"}], temperature=0.5)
    streamed = ResponsesAnswer(fields, request_id="r", created_s=1)
    events = parsed(b"".join(map(streamed.events, STREAM)) + streamed.end())
    whole = json.loads(ResponsesAnswer(fields, request_id="r", created_s=1).body(WHOLE))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"] == whole
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert [item.get("arguments") for item in whole["output"]] == [None, None, '{"a":"x"}', "{}"]
    assert len({item["id"] for item in whole["output"]}) == 4
    assert (whole["temperature"], whole["tools"], whole["top_p"]) == (0.5, fields["tools"], 1.0)
    assert whole["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 17,
    }
    for place, item in enumerate(whole["output"]):
        of_it = [event for event in events if event.get("output_index") == place]
        assert of_it[0]["type"] == "response.output_item.added"
        assert of_it[-1]["type"] == "response.output_item.done"
        assert of_it[-1]["item"] == item
        assert {event["item_id"] for event in of_it[1:-1]} == {item["id"]}


def test_a_streamed_message_says_what_the_whole_one_does() -> None:
    streamed = MessagesAnswer(request_id="r")
    events = parsed(b"".join(map(streamed.events, STREAM)) + streamed.end())
    whole = json.loads(MessagesAnswer(request_id="r").body(WHOLE))
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.get("input") for block in whole["content"]] == [None, None, {"a": "x"}, {}]
    assert whole["stop_reason"] == "tool_use"
    assert whole["usage"] == {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 7}
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"] == whole["usage"]
    said = ["", "", "", ""]
    for event in events:
        if event["type"] == "content_block_delta":
            said[event["index"]] += next(value for key, value in event["delta"].items() if key != "type")
    assert said == ["Let me think.", "I look it up.", '{"a":"x"}', "{}"]


@pytest.mark.parametrize(
    ("finish", "status", "reason", "stop_reason"),
    [
        ("stop", "completed", None, "end_turn"),
        ("length", "incomplete", "max_output_tokens", "max_tokens"),
        ("content_filter", "incomplete", "content_filter", "refusal"),
    ],
)
def test_a_finish_in_each_apis_words(finish: str, status: str, reason: str | None, stop_reason: str) -> None:
    for chunks in ([chunk({"content": "x"}, finish)], [chunk({"content": "x"}), chunk({}, finish)]):
        response = ResponsesAnswer({}, request_id="r", created_s=1)
        last = parsed(b"".join(map(response.events, chunks)) + response.end())[-1]
        assert last["type"] == f"response.{status}"
        assert last["response"]["status"] == status
        assert (last["response"]["incomplete_details"] or {}).get("reason") == reason
        message = MessagesAnswer(request_id="r")
        *_, delta, _ = parsed(b"".join(map(message.events, chunks)) + message.end())
        assert delta["delta"]["stop_reason"] == stop_reason


def test_a_refusal_is_told_as_one_where_there_is_a_word_for_it() -> None:
    response = ResponsesAnswer({}, request_id="r", created_s=1)
    events = parsed(response.events(chunk({"refusal": "No."}, "stop")) + response.end())
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert [event["type"] for event in events if "refusal" in event["type"]] == [
        "response.refusal.delta",
        "response.refusal.done",
    ]
    message = json.loads(MessagesAnswer(request_id="r").body(chunk({"refusal": "No."}, "stop")))
    assert message["content"] == [{"type": "text", "text": "No."}]


def test_an_empty_answer_has_what_each_api_has_of_one() -> None:
    empty = chunk({"role": "assistant", "content": ""}, "stop")
    assert json.loads(ResponsesAnswer({}, request_id="r", created_s=1).body(empty))["output"] == []
    assert json.loads(MessagesAnswer(request_id="r").body(empty))["content"] == [{"type": "text", "text": ""}]


def test_a_call_that_a_limit_cuts_is_no_call_that_could_be_made() -> None:
    cut = [chunk(call(0, id="c", name="look_up", arguments='{"a":')), chunk({}, "length")]
    message = MessagesAnswer(request_id="r")
    *_, delta, _ = parsed(b"".join(map(message.events, cut)) + message.end())
    assert delta["delta"]["stop_reason"] == "max_tokens"
    response = ResponsesAnswer({}, request_id="r", created_s=1)
    assert parsed(b"".join(map(response.events, cut)) + response.end())[-1]["response"]["status"] == "incomplete"


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"choices":[{"delta":{"content":[1]}}]}', chunk(call(0, arguments="{"))]
)
def test_what_cannot_be_handed_on_is_an_error_of_the_providers(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ResponsesAnswer({}, request_id="r", created_s=1).events(data)
    with pytest.raises(ProtocolError):
        MessagesAnswer(request_id="r").events(data)
