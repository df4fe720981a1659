"""What may leave of a stream of `/v1/responses` and `/v1/messages`: the pure machines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.messages_guard import MessagesGuard, check_message
from gateway.dataplane.named_events import NamedEventGuard
from gateway.dataplane.responses_guard import ResponsesGuard, check_response
from gateway.dataplane.stream_guard import HOLD_LIMIT, StreamGuard
from gateway.dataplane.translated_stream import TranslatedGuard
from gateway.errors import Aborted, ConnectionLost, ErrorFrame, ProtocolError, TooLarge, UpstreamError, UpstreamTimeout
from gateway.upstream.messages_answer import MessagesAnswer
from gateway.upstream.responses_answer import ResponsesAnswer


def event(type: str, **fields: Any) -> bytes:
    return f"event: {type}\ndata: {json.dumps({'type': type, **fields})}\n\n".encode()


def response(status: str, **fields: Any) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "model": "acme_v3", "status": status, "output": [], **fields}


ENDED = response("completed", usage={"input_tokens": 5, "output_tokens": 2})
RESPONSE = [
    event("response.created", response=response("in_progress")),
    event("response.in_progress", response=response("in_progress")),
    event("response.output_item.added", item={"type": "message", "content": []}),
    event("response.content_part.added", part={"type": "output_text", "text": ""}),
    event("response.output_text.delta", delta="Grüße"),
    event("response.output_text.delta", delta=" you"),
    event("response.output_text.done", text="Grüße you"),
    event("response.completed", response=ENDED),
]
MESSAGE = [
    event("message_start", message={"id": "m", "model": "acme_v3", "usage": {"input_tokens": 5, "output_tokens": 0}}),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("ping"),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Grüße"}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": " you"}),
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 5, "output_tokens": 2}),
    event("message_stop"),
]
STREAMS: dict[type[NamedEventGuard], tuple[list[bytes], int]] = {
    ResponsesGuard: (RESPONSE, 4),
    MessagesGuard: (MESSAGE, 3),
}
"""Each with the place of its first content."""
KINDS = pytest.mark.parametrize("kind", STREAMS)


@KINDS
@given(data=st.data())
def test_whatever_the_pieces_the_same_leaves_and_is_whole(kind: type[NamedEventGuard], data: st.DataObject) -> None:
    stream = b"".join(STREAMS[kind][0])
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    guard = kind()
    out = b"".join(guard.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
    assert guard.complete
    assert guard.error is None
    # A sign of life before the commit is dropped.
    assert out == stream.replace(event("ping"), b"")
    assert guard.model == "acme_v3"
    assert guard.usage == {"input_tokens": 5, "output_tokens": 2}
    assert guard.eof() == b""


@KINDS
def test_nothing_leaves_before_the_first_content(kind: type[NamedEventGuard]) -> None:
    stream, first = STREAMS[kind]
    guard = kind()
    for frame in stream[:first]:
        assert guard.feed(frame) == b""
        assert not guard.committed
    assert guard.feed(stream[first]) == b"".join(stream[: first + 1]).replace(event("ping"), b"")
    assert guard.committed


@KINDS
@given(data=st.data())
def test_a_stream_that_ends_anywhere_before_its_last_event_is_broken(
    kind: type[NamedEventGuard], data: st.DataObject
) -> None:
    stream = b"".join(STREAMS[kind][0])
    guard = kind()
    out = guard.feed(stream[: data.draw(st.integers(0, len(stream) - 2))])
    assert guard.error is None
    assert guard.eof() == b""
    assert not guard.complete
    assert isinstance(guard.error, ConnectionLost)
    assert out == b"" or out.endswith(b"\n\n")


@KINDS
def test_what_reading_failed_with_is_what_it_ends_with(kind: type[NamedEventGuard]) -> None:
    guard = kind()
    error = UpstreamTimeout("silent")
    assert guard.lost(error) == b""
    assert guard.error is error
    whole = kind()
    whole.feed(b"".join(STREAMS[kind][0]))
    assert whole.lost(error) == b""
    assert whole.error is None


@KINDS
def test_signs_of_life_go_on_behind_the_commit_and_are_no_events(kind: type[NamedEventGuard]) -> None:
    stream, first = STREAMS[kind]
    guard = kind()
    guard.feed(b"".join(stream[: first + 1]))
    events = guard.events
    assert guard.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert guard.events == events


@KINDS
def test_what_is_held_back_is_bounded(kind: type[NamedEventGuard]) -> None:
    guard = kind()
    start = STREAMS[kind][0][0]
    padded = start.replace(b'"acme_v3"', b'"' + b"x" * 500_000 + b'"')
    for _ in range(HOLD_LIMIT // len(padded) + 2):
        guard.feed(padded)
    assert isinstance(guard.error, TooLarge)


@pytest.mark.parametrize(
    ("kind", "bad", "error"),
    [
        (ResponsesGuard, b'data: {"error":{"message":"dead","code":500}}\n\n', ErrorFrame),
        (ResponsesGuard, event("error", message="dead", code="server_error"), ErrorFrame),
        (ResponsesGuard, event("response.failed", response=response("failed", error={"message": "dead"})), ErrorFrame),
        (ResponsesGuard, event("response.completed", response=response("cancelled")), Aborted),
        (ResponsesGuard, event("response.completed", response=response("failed")), ErrorFrame),
        (ResponsesGuard, event("response.completed", response=response("in_progress")), ProtocolError),
        (ResponsesGuard, event("response.completed"), ProtocolError),
        (ResponsesGuard, b"data: [DONE]\n\n", ProtocolError),
        (ResponsesGuard, b'data: {"type":"response.out\n\n', ProtocolError),
        (ResponsesGuard, b'data: {"type":"response.x","y":"\xff"}\n\n', ProtocolError),
        (ResponsesGuard, b"<html>\n\n", ProtocolError),
        (MessagesGuard, event("error", error={"type": "internal_error", "message": "dead"}), ErrorFrame),
        (MessagesGuard, event("message_delta", delta={"stop_reason": None}), Aborted),
        (MessagesGuard, event("message_delta"), Aborted),
        (MessagesGuard, event("message_stop"), ProtocolError),
        (MessagesGuard, event("chunk"), ProtocolError),
        (MessagesGuard, b"data: [DONE]\n\n", ProtocolError),
    ],
)
def test_what_is_no_good_ends_the_stream_and_does_not_leave(
    kind: type[NamedEventGuard], bad: bytes, error: type[UpstreamError]
) -> None:
    stream, first = STREAMS[kind]
    guard = kind()
    guard.feed(b"".join(stream[: first + 1]))
    assert guard.feed(bad) == b""
    assert isinstance(guard.error, error)
    assert guard.feed(stream[-1]) == b""
    assert not guard.complete


def test_nothing_may_be_said_behind_a_messages_stop_reason() -> None:
    guard = MessagesGuard()
    guard.feed(b"".join(MESSAGE[:7]))
    assert guard.feed(MESSAGE[3]) == b""
    assert isinstance(guard.error, ProtocolError)


@pytest.mark.parametrize(
    ("kind", "begin", "commits"),
    [
        (ResponsesGuard, event("response.output_item.added", item={"type": "function_call", "name": "f"}), True),
        (ResponsesGuard, event("response.output_item.added", item={"type": "reasoning"}), False),
        (ResponsesGuard, event("response.reasoning_text.delta", delta="hm"), True),
        (ResponsesGuard, event("response.function_call_arguments.delta", delta=""), False),
        (ResponsesGuard, event("response.completed", response=ENDED), True),
        (MessagesGuard, event("content_block_start", content_block={"type": "tool_use", "name": "f"}), True),
        (MessagesGuard, event("content_block_start", content_block={"type": "thinking"}), False),
        (MessagesGuard, event("content_block_delta", delta={"thinking": "hm"}), True),
        (MessagesGuard, event("content_block_delta", delta={"signature": "x"}), False),
        (MessagesGuard, event("message_delta", delta={"stop_reason": "end_turn"}), True),
    ],
)
def test_what_counts_as_content(kind: type[NamedEventGuard], begin: bytes, commits: bool) -> None:
    guard = kind()
    guard.feed(begin)
    assert guard.error is None
    assert guard.committed == commits


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", ProtocolError),
        (b"[]", ProtocolError),
        (b"{}", ProtocolError),
        (b'{"error":{"message":"dead","code":500}}', ErrorFrame),
        (b'{"object":"chat.completion","choices":[]}', ProtocolError),
    ],
)
def test_a_plain_body_that_is_none(body: bytes, error: type[UpstreamError]) -> None:
    for check in (check_response, check_message):
        with pytest.raises(error):
            check(body)


@pytest.mark.parametrize(
    ("status", "error"), [("cancelled", Aborted), ("failed", ErrorFrame), ("queued", ProtocolError)]
)
def test_a_plain_response_that_did_not_end_well(status: str, error: type[UpstreamError]) -> None:
    with pytest.raises(error):
        check_response(json.dumps(response(status)).encode())
    assert check_response(json.dumps(ENDED).encode()) == ("acme_v3", ENDED["usage"])


def test_a_plain_message_without_a_stop_reason_was_aborted() -> None:
    message = {"type": "message", "model": "acme_v3", "content": []}
    with pytest.raises(Aborted):
        check_message(json.dumps(message).encode())
    assert check_message(json.dumps(message | {"stop_reason": "end_turn"}).encode()) == ("acme_v3", None)


# A provider's chat on its way to another API.

CHAT = [
    b'data: {"model":"generic","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"model":"generic","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n',
    b'data: {"model":"generic","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"model":"generic","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n',
    b"data: [DONE]\n\n",
]


def translated(kind: type[NamedEventGuard]) -> TranslatedGuard:
    wording = (
        ResponsesAnswer({}, request_id="r", created_s=1) if kind is ResponsesGuard else MessagesAnswer(request_id="r")
    )
    return TranslatedGuard(StreamGuard(1, reshape=lambda payload: payload), wording)


@KINDS
@given(data=st.data())
def test_what_is_translated_would_pass_as_a_boxs(kind: type[NamedEventGuard], data: st.DataObject) -> None:
    stream = b"".join(CHAT)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=8)))
    guard = translated(kind)
    out = b"".join(guard.feed(stream[a:b]) for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
    assert guard.complete
    assert guard.sent == out.count(b"event: ")
    assert guard.usage == {"prompt_tokens": 3, "completion_tokens": 1}
    judge = kind()
    assert judge.feed(out) == out
    assert judge.complete


@KINDS
def test_a_chat_that_breaks_is_not_ended_in_the_other_words(kind: type[NamedEventGuard]) -> None:
    guard = translated(kind)
    out = guard.feed(b"".join(CHAT[:2])) + guard.eof()
    assert isinstance(guard.error, ConnectionLost)
    judge = kind()
    judge.feed(out)
    assert not judge.complete


@KINDS
def test_a_chat_that_cannot_be_worded_breaks(kind: type[NamedEventGuard]) -> None:
    guard = translated(kind)
    guard.feed(b"".join(CHAT[:2]))
    nameless = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}\n\n'
    assert guard.feed(nameless) == b""
    assert isinstance(guard.error, ProtocolError)
    assert guard.feed(b"".join(CHAT[2:])) == b""
    assert not guard.complete
