"""What an agent with the OpenAI SDK gets from its own adapter, and what the box gets of its request."""

from __future__ import annotations

import json
from asyncio import Event
from typing import Any

import pytest

from backend.simulator.numbering import numbered_text
from tests.dataplane.conftest import TOKENS, ServePlane, StartScripted
from tests.dataplane.plane import ADAPTER, KEY
from tests.dataplane.scripted_box import END, NUMBERED, STREAM_HEAD, chunked, whole
from tests.support.checker import check_plain, check_stream
from tests.support.eventually import eventually
from tests.support.processes import Simulator

MESSAGES: list[Any] = [{"role": "user", "content": "hello"}]
SCHEMA: Any = {"type": "object", "properties": {}, "additionalProperties": False, "required": []}
WEATHER: list[Any] = [{"type": "function", "function": {"name": "weather", "strict": True, "parameters": SCHEMA}}]
ANSWER = numbered_text(ADAPTER, TOKENS, None).text


async def test_a_plain_chat_is_answered_by_the_own_adapter(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    answer = await plane.sdk().chat.completions.create(model=ADAPTER, messages=MESSAGES)
    assert answer.choices[0].message.content == ANSWER
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", ADAPTER)
    assert "degraded" not in (answer.model_extra or {})


async def test_a_streamed_chat_is_answered_by_the_own_adapter(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    said, finish, models = "", None, set()
    async for chunk in await plane.sdk().chat.completions.create(model=ADAPTER, messages=MESSAGES, stream=True):
        models.add(chunk.model)
        said += chunk.choices[0].delta.content or ""
        finish = chunk.choices[0].finish_reason or finish
    assert (said, finish, models) == (ANSWER, "stop", {ADAPTER})


async def test_usage_comes_at_the_end_of_a_stream_that_asked_for_it(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    stream = await plane.sdk().chat.completions.create(
        model=ADAPTER, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    usage = [chunk.usage for chunk in [chunk async for chunk in stream] if chunk.usage is not None]
    assert [one.completion_tokens for one in usage] == [TOKENS]


async def test_a_streamed_tool_call_comes_through_whole(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    stream = plane.sdk().chat.completions.stream(model=ADAPTER, messages=MESSAGES, tools=WEATHER)
    async with stream as events:
        async for _ in events:
            pass
        completion = await events.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments)["answered_by"] == ADAPTER
    assert completion.choices[0].finish_reason == "tool_calls"


async def test_two_choices_are_two_whole_answers(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    plain = await plane.raw().chat(ADAPTER, stream=False, n=2)
    streamed = await plane.raw().chat(ADAPTER, n=2)
    assert check_plain(plain, choices=2).violations == []
    assert check_stream(streamed, choices=2).violations == []


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_is_answered_as_a_completion(
    serve: ServePlane, boxes: list[Simulator], stream: bool
) -> None:
    plane = await serve(boxes)
    body = {"model": ADAPTER, "prompt": ["one", "two"], "stream": stream}
    answer = await plane.raw().ask("/v1/completions", body)
    check = check_stream if stream else check_plain
    seen = check(answer, choices=2)
    assert (seen.violations, seen.text, seen.events[0]["object"]) == ([], ANSWER, "text_completion")


async def test_an_own_answer_carries_the_four_headers_and_no_mark(serve: ServePlane, boxes: list[Simulator]) -> None:
    plane = await serve(boxes)
    for stream in (False, True):
        answer = await plane.raw().chat(ADAPTER, stream=stream)
        ours = {name: value for name, value in answer.headers.items() if name.startswith("x-")}
        assert ours.pop("x-request-id")
        assert ours.pop("x-accel-buffering", None) == ("no" if stream else None)
        assert ours.pop("x-failsoft-served-by") in ("box:a", "box:b")
        assert ours == {"x-failsoft-attempts": "1", "x-failsoft-policy": "7"}
        assert b"degraded" not in answer.body


async def test_a_request_reaches_the_box_byte_for_byte(serve: ServePlane, scripted: StartScripted) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED), END)
    plane = await serve([box])
    body = b'{ "model" :"acme_v3","stream":true,\r\n "messages":[], "top_k":5, "vllm_xargs":{"a":[1e0, "\\u00fc"]} }'
    answer = await plane.raw().ask("/v1/chat/completions", body, headers={"x-request-id": "mine", "cookie": "secret"})
    assert answer.body == b"".join(NUMBERED)
    (head, received) = box.requests[0]
    # Only that the box is to say what a stream took is put in front.
    assert received == b'{"stream_options":{"include_usage":true},' + body[1:]
    lines = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:] if line)
    assert lines.keys() == {b"host", b"content-type", b"accept-encoding", b"x-request-id", b"content-length"}
    assert lines[b"x-request-id"] != b"mine"
    assert KEY.encode() not in head


async def test_every_request_has_a_name_of_its_own_and_keeps_the_clients(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    plane = await serve(boxes)
    client = plane.raw()
    first, second = [await client.chat(ADAPTER, stream=False) for _ in range(2)]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    named = await client.chat(ADAPTER, stream=False, headers={"x-request-id": "order-66"})
    assert named.headers["x-request-id"] == "order-66"
    for unfit in ("two words", "x" * 129, "ümlaut"):
        answer = await client.chat(ADAPTER, stream=False, headers={"x-request-id": unfit})
        assert answer.headers["x-request-id"] not in ("", unfit)
    upstream = [r["headers"]["x-request-id"] for box in boxes for r in box.admin.requests(model=ADAPTER)]
    assert len(set(upstream)) == len(upstream) == 6


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_box_that_refuses_the_request_is_passed_on_unchanged(
    serve: ServePlane, scripted: StartScripted, status: int, stream: bool
) -> None:
    said = b'{"error":{"message":"n must be at least 1","type":"BadRequestError","param":"n","code":%d}}' % status
    box = await scripted(whole(said, status=status, content_type=b"application/json; charset=utf-8"))
    plane = await serve([box, box])
    answer = await plane.raw().chat(ADAPTER, stream=stream)
    assert (answer.status, answer.body) == (status, said)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert (answer.headers["x-failsoft-served-by"], answer.headers["x-failsoft-attempts"]) == ("none", "1")
    assert len(box.requests) == 1
    assert all(one.breaker.closed for one in plane.fleets.all())


async def test_a_refusal_in_the_first_event_of_a_stream_gets_its_own_status(
    serve: ServePlane, boxes: list[Simulator]
) -> None:
    for box in boxes:
        box.admin.fault("error_frame_first", status=400, message="the prompt is too long")
    plane = await serve(boxes)
    answer = await plane.raw().chat(ADAPTER)
    assert answer.status == 400
    assert answer.json()["error"]["message"] == "the prompt is too long"


async def test_streams_use_a_connection_again_even_if_their_end_comes_in_a_packet_of_its_own(
    serve: ServePlane, scripted: StartScripted
) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED), 0.02, END)
    plane = await serve([box])
    for _ in range(3):
        assert check_stream(await plane.raw().chat(ADAPTER)).whole
        await eventually(lambda: plane.idle)
    assert box.connections == 1


async def test_a_stream_whose_last_bytes_never_come_is_whole_and_holds_nothing(
    serve: ServePlane, scripted: StartScripted
) -> None:
    box = await scripted(STREAM_HEAD, chunked(*NUMBERED), Event())
    plane = await serve([box])
    assert check_stream(await plane.raw().chat(ADAPTER)).whole
    await eventually(lambda: plane.idle)


@pytest.mark.parametrize("retry_share", [1.0, 0.0])
@pytest.mark.parametrize("stream", [True, False])
async def test_nobody_gets_an_error_while_one_box_of_five_is_well_and_there_is_no_fallback(
    serve: ServePlane, boxes: list[Simulator], retry_share: float, stream: bool
) -> None:
    gone, beyond = "http://127.0.0.1:9", 0.0
    # In each place, as which boxes are asked first is not ours to say here.
    for place in range(5):
        urls = [gone] * 5
        urls[place] = boxes[0].url
        plane = await serve(urls, options={"retry_share": retry_share})
        answer = await plane.raw().chat(ADAPTER, stream=stream)
        assert (answer.status, answer.headers["x-failsoft-served-by"]) == (200, f"box:{'abcde'[place]}")
        assert "x-failsoft-degraded" not in answer.headers
        beyond += plane.metrics.attempts_beyond_limits.value()
    # In the places from the second, or from the fourth on, boxes are asked in spite of the limits.
    assert beyond == (2 + 1 if retry_share else 4 + 3 + 2 + 1)
