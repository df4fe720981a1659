"""Of a stream only whole, checked events leave, and only a whole stream counts as an answer."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.said import Said
from gateway.dataplane.stream_guard import DONE, StreamGuard
from gateway.errors import Aborted, ConnectionLost, ErrorFrame, ProtocolError, TooLarge


def event(**choice: object) -> bytes:
    body = {"id": "chatcmpl-1", "model": "acme", "choices": [{"index": 0, "finish_reason": None, **choice}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


ROLE = event(delta={"role": "assistant", "content": ""})
HELLO = event(delta={"content": "hello"})
FINISH = event(delta={}, finish_reason="stop")
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
WHOLE = ROLE + HELLO + FINISH + USAGE + DONE


def fed(*pieces: bytes, **options: int) -> tuple[StreamGuard, bytes]:
    guard = StreamGuard(**options)  # type: ignore[arg-type]
    return guard, b"".join(guard.feed(piece) for piece in pieces)


def test_a_healthy_stream_leaves_unchanged_and_is_complete() -> None:
    guard, out = fed(WHOLE)
    assert (out, guard.complete, guard.error, guard.model) == (WHOLE, True, None, "acme")


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_however_the_bytes_are_cut_the_same_leaves(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    guard, out = fed(*[WHOLE[a:b] for a, b in pairwise(edges)])
    assert out == WHOLE
    assert guard.complete


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6), st.sampled_from([b"\r\n", b"\r"]))
def test_other_ends_of_line_are_the_same_stream(cuts: list[int], newline: bytes) -> None:
    raw = WHOLE.replace(b"\n", newline)
    edges = [0, *sorted(c for c in cuts if c < len(raw)), len(raw)]
    guard, out = fed(*[raw[a:b] for a, b in pairwise(edges)], b"\n")
    assert out == WHOLE
    assert guard.complete


@given(st.binary(max_size=200), st.integers(0, 200))
def test_garbage_never_leaves_and_never_raises(garbage: bytes, cut: int) -> None:
    guard, out = fed(garbage[:cut], garbage[cut:])
    guard.eof()
    assert out == b""
    assert not guard.complete


@pytest.mark.parametrize(
    "junk",
    [b"502 Bad Gateway nginx\n\n", b'dat: {"choices":[]}\n\n', b"<html>\n\n", b": fine\n<html>\n\n", HELLO[3:]],
)
def test_a_line_that_belongs_to_no_event_breaks_the_stream(junk: bytes) -> None:
    guard, out = fed(ROLE + HELLO, junk, HELLO + FINISH + DONE)
    assert isinstance(guard.error, ProtocolError)
    assert out == ROLE + HELLO
    guard, out = fed(junk, WHOLE)
    assert isinstance(guard.error, ProtocolError)
    assert out == b""


@given(st.lists(st.integers(0, len(WHOLE) + 3), max_size=4))
def test_a_byte_order_mark_hides_nothing(cuts: list[int]) -> None:
    raw = b"\xef\xbb\xbf" + WHOLE
    edges = [0, *sorted(cuts), len(raw)]
    guard, out = fed(*[raw[a:b] for a, b in pairwise(edges)])
    assert out == WHOLE
    assert guard.complete


def test_fields_of_an_event_that_matter_to_a_browser_only_are_no_harm() -> None:
    guard, out = fed(b"retry: 3\n\n", b"id: 7\n" + HELLO, b": still here\n\n", FINISH + DONE)
    assert out == HELLO + b": still here\n\n" + FINISH + DONE
    assert guard.complete


def test_content_behind_the_finish_of_its_choice_breaks_the_stream() -> None:
    guard, out = fed(HELLO + FINISH, HELLO + DONE)
    assert isinstance(guard.error, ProtocolError)
    assert out == HELLO + FINISH


def test_nothing_leaves_before_the_first_content() -> None:
    guard, out = fed(b": keep-alive\n\n", ROLE, b": keep-alive\n\n")
    assert out == b""
    assert not guard.committed
    assert guard.feed(HELLO) == ROLE + HELLO
    assert guard.committed


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"reasoning": "hm"}},
        {"delta": {"reasoning_content": "hm"}},
        {"delta": {"refusal": "no"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"text": "hello"},
        {"delta": {}, "finish_reason": "stop"},
    ],
)
def test_what_bears_content_commits(choice: dict[str, object]) -> None:
    guard, _ = fed(event(**choice))
    assert guard.committed


@pytest.mark.parametrize("choice", [{"delta": {"role": "assistant"}}, {"delta": {"content": None}}, {"text": ""}])
def test_what_bears_none_does_not(choice: dict[str, object]) -> None:
    guard, _ = fed(event(**choice))
    assert not guard.committed


def test_an_end_without_a_finish_is_a_broken_stream() -> None:
    guard, _ = fed(ROLE, HELLO)
    assert guard.eof() == b""
    assert isinstance(guard.error, ConnectionLost)


def test_done_without_a_finish_is_a_broken_stream_and_does_not_leave() -> None:
    guard, out = fed(HELLO, DONE)
    assert out == HELLO
    assert isinstance(guard.error, ProtocolError)


def test_abort_is_no_finish_and_does_not_leave() -> None:
    guard, out = fed(HELLO, event(delta={}, finish_reason="abort"), DONE)
    assert out == HELLO
    assert isinstance(guard.error, Aborted)


def test_an_error_frame_never_leaves_as_it_is() -> None:
    frame = b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n'
    guard, out = fed(HELLO, frame + DONE)
    assert out == HELLO
    assert isinstance(guard.error, ErrorFrame)
    assert (guard.error.status, str(guard.error)) == (500, "EngineCore died")


def test_a_flat_error_under_an_event_name_is_an_error_too() -> None:
    guard, _ = fed(b'event: error\ndata: {"message":"overloaded"}\n\n')
    assert isinstance(guard.error, ErrorFrame)


@pytest.mark.parametrize("bad", [b"data: {oops\n\n", b"data: []\n\n", b'data: {"x":1}\n\n', b'data: {"choices":1}\n\n'])
def test_what_is_no_chunk_ends_the_stream_before_it_leaves(bad: bytes) -> None:
    guard, out = fed(HELLO + bad + HELLO)
    assert out == HELLO
    assert isinstance(guard.error, ProtocolError)


def test_invalid_utf8_ends_the_stream() -> None:
    guard, _ = fed(b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n')
    assert isinstance(guard.error, ProtocolError)


def test_every_choice_needs_its_own_finish() -> None:
    one = event(delta={}, finish_reason="stop")
    two = event(index=1, delta={}, finish_reason="stop")
    guard, _ = fed(one, DONE, choices=2)
    assert guard.error is not None
    guard, _ = fed(one, two, DONE, choices=2)
    assert guard.complete


def test_a_second_finish_of_one_choice_does_not_leave() -> None:
    guard, out = fed(HELLO, FINISH, FINISH)
    assert out == HELLO + FINISH
    assert isinstance(guard.error, ProtocolError)


def test_a_finished_stream_that_lost_only_its_terminator_is_whole() -> None:
    guard, _ = fed(HELLO, FINISH)
    assert guard.lost(ConnectionLost("reset")) == DONE
    assert guard.complete
    assert guard.error is None


def test_an_event_without_end_is_cut_off_before_it_has_filled_the_memory() -> None:
    guard = StreamGuard(frame_limit=1000)
    guard.feed(b"data: ")
    for _ in range(12):
        guard.feed(b"x" * 100)
    assert isinstance(guard.error, TooLarge)


def test_comments_after_the_commit_pass_and_are_no_progress() -> None:
    guard, _ = fed(HELLO)
    before = guard.events
    assert guard.feed(b": keep-alive\n\n") == b": keep-alive\n\n"
    assert guard.events == before


def test_a_reshaped_stream_may_drop_and_change_events() -> None:
    guard = StreamGuard(reshape=lambda data: None if b"usage" in data else data.replace(b"hello", b"HELLO"))
    out = guard.feed(WHOLE)
    assert out == (ROLE + HELLO.replace(b"hello", b"HELLO") + FINISH + DONE)


LAST = event(delta={"content": "!"}, finish_reason="length")


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_stream_that_owes_its_usage_leaves_unchanged(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    guard, out = fed(*[WHOLE[a:b] for a, b in pairwise(edges)], owes_usage=True)
    assert (out, guard.complete, guard.finished) == (WHOLE, True, True)


@pytest.mark.parametrize(("finish", "ended", "text"), [(FINISH, "stop", "hello"), (LAST, None, "hello")])
def test_a_finish_waits_for_the_usage_that_is_owed(finish: bytes, ended: str | None, text: str) -> None:
    said = Said()
    guard, out = fed(ROLE + HELLO + finish, owes_usage=True, said=said)  # type: ignore[arg-type]
    assert (out, guard.finished, guard.ended) == (ROLE + HELLO, False, ended)
    # What leaves with the finish was not said: who goes on says it.
    assert said.text == text
    assert guard.lost(ConnectionLost("gone")) == b""
    assert isinstance(guard.error, ConnectionLost)
    # And where nobody does, it is there.
    assert guard.without_usage() == finish + DONE
    assert guard.complete
    assert guard.error is None


def test_a_stream_that_owes_its_usage_may_end_without_one() -> None:
    guard, out = fed(ROLE + HELLO + FINISH + DONE, owes_usage=True)
    assert (out, guard.complete) == (ROLE + HELLO + FINISH + DONE, True)


def test_a_stream_that_broke_before_its_finish_stays_broken() -> None:
    guard, _ = fed(ROLE + HELLO, owes_usage=True)
    guard.eof()
    assert guard.without_usage() == b""
    assert guard.error is not None


def test_content_behind_a_finish_that_is_held_back_is_an_error_all_the_same() -> None:
    guard, out = fed(ROLE + HELLO + FINISH + HELLO, owes_usage=True)
    assert (out, guard.without_usage(), guard.finished) == (ROLE + HELLO, b"", True)
    assert isinstance(guard.error, ProtocolError)
