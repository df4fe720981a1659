"""An answer's times, tokens and marks are read off the bytes and when they came."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.loadtest.answer_reader import AnswerReader


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(content: str | None = None, finish: str | None = None, **more: object) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}], **more)


ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3})
DONE = b"data: [DONE]\n\n"
STREAM = [(0.1, ROLE), (0.5, delta("a")), (0.6, delta("b")), (0.9, delta("c")), (0.95, delta(None, "stop")),
          (0.96, USAGE), (0.97, DONE)]  # fmt: skip


def stream(*events: tuple[float, bytes], status: int = 200) -> AnswerReader:
    reader = AnswerReader(streamed=True)
    reader.status = status
    reader.header(b"Content-Type", b"text/event-stream")
    for at_s, data in events:
        reader.body(data, at_s)
    reader.end()
    return reader


def test_the_first_token_is_the_first_content_and_not_the_role() -> None:
    reader = stream(*STREAM)
    assert (reader.error, reader.first_s, reader.last_s) == (None, 0.5, 0.9)
    assert reader.longest_gap_s == pytest.approx(0.3)
    assert (reader.prompt_tokens, reader.tokens) == (7, 3)


@given(st.sets(st.integers(1, sum(len(data) for _, data in STREAM) - 1)), st.booleans())
def test_where_the_network_cuts_the_bytes_changes_nothing_that_is_counted(cuts: set[int], crlf: bool) -> None:
    whole = b"".join(data for _, data in STREAM)
    if crlf:
        whole = whole.replace(b"\n", b"\r\n")
    places = [0, *sorted(cuts), len(whole)]
    reader = stream(*((float(n), whole[a:b]) for n, (a, b) in enumerate(pairwise(places))))
    assert (reader.error, reader.tokens, reader.prompt_tokens) == (None, 3, 7)
    assert reader.first_s is not None


def test_without_usage_pieces_of_content_are_counted() -> None:
    assert stream(*STREAM[:-2], STREAM[-1]).tokens == 3


def test_a_tool_call_is_content() -> None:
    call = event(choices=[{"index": 0, "delta": {"tool_calls": [{"index": 0}]}, "finish_reason": None}])
    assert stream((0.4, call), (0.5, delta(None, "tool_calls")), (0.5, DONE)).first_s == 0.4


def test_a_degraded_answer_is_known_by_its_first_event_as_by_its_headers() -> None:
    mark = {"reason": "backend_down", "served_by": "provider:hosted"}
    reader = stream((0.1, delta("a", degraded=mark)), (0.2, delta(None, "stop")), (0.2, DONE))
    assert (reader.degraded, reader.served_by) == ("backend_down", "provider:hosted")
    by_header = AnswerReader(streamed=False)
    by_header.header(b"X-Failsoft-Degraded", b"drill")
    by_header.header(b"x-failsoft-served-by", b"base:a")
    assert (by_header.degraded, by_header.served_by) == ("drill", "base:a")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (STREAM[:3], "stream without an end"),
        ([STREAM[1], (0.6, DONE)], "stream without an end"),
        ([STREAM[1], (0.6, event(error={"type": "t", "code": "stream_broken"}))], "error in the answer stream_broken"),
        ([(0.1, b"data: {nonsense\n\n")], "not JSON of an answer"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_stream_is_said_so_that_it_can_be_counted(
    events: list[tuple[float, bytes]], said: str
) -> None:
    assert stream(*events).error == said


def test_an_error_status_is_told_with_its_code() -> None:
    reader = AnswerReader(streamed=True)
    reader.status = 503
    reader.header(b"content-type", b"application/json")
    reader.body(b'{"error": {"message": "prompt text", "type": "x", "code": "all_failed"}}', 0.1)
    reader.end()
    assert reader.error == "status 503 all_failed"
    assert reader.first_s is None


def test_a_plain_answer_has_usage_and_needs_an_end() -> None:
    def plain(finish: str | None) -> AnswerReader:
        reader = AnswerReader(streamed=False)
        reader.status = 200
        choice = {"message": {"content": "yes"}, "finish_reason": finish}
        reader.body(
            json.dumps({"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 9}}).encode(), 1
        )
        reader.end()
        return reader

    assert (plain("stop").error, plain("stop").tokens, plain("stop").first_s) == (None, 9, None)
    assert plain(None).error == "answer without an end"


def test_an_answer_that_is_cut_is_an_error_once() -> None:
    reader = AnswerReader(streamed=True)
    reader.cut("connection lost")
    reader.cut("no end in time")
    assert reader.error == "connection lost"
    whole = stream(*STREAM)
    whole.cut("connection lost")
    assert whole.error is None
