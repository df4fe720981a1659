"""The checker passes what is whole, and fails whatever is done to it: it is what all chaos tests rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.checker import check_error, check_plain, check_stream
from tests.support.raw_client import Recording
from tests.support.streams import DONE, chat_events, choice, event, recorded

lengths = st.integers(0, 12)
finishes = st.sampled_from(["stop", "length"])
ERROR = b'data: {"error": {"message": "broken", "type": "server_error", "param": null, "code": null}}\n\n'


@given(lengths, finishes, st.booleans())
def test_a_whole_stream_passes(numbers: int, finish: str, usage: bool) -> None:
    seen = check_stream(recorded(b"".join(chat_events(numbers, finish=finish, usage=usage))))
    assert seen.whole, seen.violations
    assert seen.answered_by == "acme"


@given(lengths, st.data())
def test_a_stream_that_ends_anywhere_with_an_error_and_then_the_end_passes(numbers: int, data: st.DataObject) -> None:
    events = chat_events(numbers)
    cut = data.draw(st.integers(0, len(events) - 2))
    terminator = data.draw(st.sampled_from([b"", DONE]))
    seen = check_stream(recorded(b"".join(events[:cut]) + ERROR + terminator))
    assert not seen.violations
    assert seen.error is not None
    assert not seen.whole


@given(lengths, finishes, st.data())
def test_no_event_but_the_usage_can_be_lost_unseen(numbers: int, finish: str, data: st.DataObject) -> None:
    events = chat_events(numbers, finish=finish)
    lost = data.draw(st.integers(0, len(events) - 1))
    last_of_a_cut_answer = finish == "length" and lost == len(events) - 3
    if last_of_a_cut_answer:
        # Nobody can know how long an answer with the finish "length" was to be.
        return
    assert check_stream(recorded(b"".join(events[:lost] + events[lost + 1 :]))).violations


@given(lengths, finishes, st.booleans(), st.data())
def test_no_event_can_come_twice_unseen(numbers: int, finish: str, usage: bool, data: st.DataObject) -> None:
    events = chat_events(numbers, finish=finish, usage=usage)
    twice = data.draw(st.integers(0, len(events) - 1))
    assert check_stream(recorded(b"".join([*events[: twice + 1], *events[twice:]]))).violations


@given(st.integers(2, 12), st.data())
def test_no_two_tokens_can_change_places_unseen(numbers: int, data: st.DataObject) -> None:
    events = chat_events(numbers)
    first = data.draw(st.integers(1, numbers))
    events[first], events[first + 1] = events[first + 1], events[first]
    assert check_stream(recorded(b"".join(events))).violations


@given(lengths, st.booleans(), st.data())
def test_a_stream_cannot_be_cut_at_any_byte_unseen(numbers: int, usage: bool, data: st.DataObject) -> None:
    body = b"".join(chat_events(numbers, usage=usage))
    cut = data.draw(st.integers(0, len(body) - 1))
    assert check_stream(recorded(body[:cut])).violations


@given(lengths, st.sampled_from(["id", "created", "model", "object"]), st.data())
def test_no_event_can_be_of_another_answer_unseen(numbers: int, key: str, data: st.DataObject) -> None:
    events = chat_events(numbers)
    other = data.draw(st.integers(0, len(events) - 2))
    changed = json.loads(events[other].removeprefix(b"data: "))
    changed[key] = data.draw(st.sampled_from([None, "other"]))
    events[other] = b"data: " + json.dumps(changed).encode() + b"\n\n"
    assert key in check_stream(recorded(b"".join(events))).codes


@given(st.integers(0, 12), st.integers(0, 12))
def test_a_splice_is_seen_unless_it_is_perfect(cut: int, resumed_at: int) -> None:
    whole = chat_events(12)
    cut, resumed_at = cut + 2, resumed_at + 2
    seen = check_stream(recorded(b"".join(whole[:cut] + whole[resumed_at:])))
    assert seen.whole == (cut == resumed_at)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"".join([*chat_events(3), b": bye\n\n", event(choice(content="x"))]), "after_done"),
        (b"".join([*chat_events(3)[:-1], ERROR]), "error_after_finish"),
        (ERROR + event(choice(content="x")), "after_error"),
        (ERROR + ERROR, "after_error"),
        (b'event: error\ndata: {"message": "overloaded"}\n\n', "envelope"),
        (b'data: {"error": "broken"}\n\n', "envelope"),
        (b"".join([*chat_events(3)[:4], event(choice(finish="stop")), DONE]), "short"),
        (b"".join([*chat_events(3)[:4], event(choice(finish="abort")), DONE]), "finish"),
        (b"".join([*chat_events(3)[:4], event(choice(role="assistant")), *chat_events(3)[4:]]), "role_twice"),
        (b"".join([event(choice(content="acme:")), *chat_events(3)]), "role_late"),
        (b"".join([*chat_events(3)[:4], event(choice(), degraded={}), *chat_events(3)[4:]]), "degraded_late"),
        (b"".join([*chat_events(3)[:4], b"data: []\n\n", *chat_events(3)[4:]]), "frame"),
        (b"".join([*chat_events(3)[:4], b"data: {}\n\n", *chat_events(3)[4:]]), "frame"),
        (b"".join([*chat_events(3)[:4], b"retry: 5\n\n", *chat_events(3)[4:]]), "frame"),
        (
            b"".join([event(choice(1, role="assistant"), choice(1, "stop", content="a: end/0")), *chat_events(3)]),
            "choices",
        ),
        (b"<html></html>", "frame"),
    ],
)
def test_each_of_these_is_wrong_in_its_own_way(body: bytes, code: str) -> None:
    assert code in check_stream(recorded(body)).codes


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": 503}, "status"),
        ({"end": "reset"}, "cut"),
        ({"end": "truncated"}, "cut"),
        ({"headers": {"content-type": "text/html"}}, "content_type"),
    ],
)
def test_what_is_round_the_body_counts_too(fields: dict[str, Any], code: str) -> None:
    assert code in check_stream(recorded(b"".join(chat_events(3)), **fields)).codes


def test_comments_are_nothing() -> None:
    assert check_stream(recorded(b": keep-alive\n\n".join(chat_events(3)))).whole


def test_a_static_answer_is_held_against_its_text() -> None:
    body = b"".join([event(choice(role="assistant", content="Busy.")), event(choice(finish="stop")), DONE])
    assert check_stream(recorded(body), text="Busy.").whole
    assert check_stream(recorded(body), text="Busy!").codes == ["text"]


def tool_call(arguments: list[str], finish: str, *names: str) -> bytes:
    told = [{"name": name} for name in names or ("lookup",)] + [{"arguments": piece} for piece in arguments]
    pieces = [event(choice(tool_calls=[{"index": 0, "function": function}])) for function in told]
    return b"".join([event(choice(role="assistant", content="")), *pieces, event(choice(finish=finish)), DONE])


def test_arguments_are_held_to_the_same() -> None:
    pieces = ['{"answered_by": "acme", "numbers": [', "0, ", "1, ", "2]}"]
    whole = check_stream(recorded(tool_call(pieces, "tool_calls")))
    assert whole.whole, whole.violations
    assert whole.answered_by == "acme"
    assert check_stream(recorded(tool_call(pieces[:-1], "length"))).whole
    assert check_stream(recorded(tool_call(pieces[:-1], "tool_calls"))).codes == ["short"]
    assert check_stream(recorded(tool_call([pieces[0], *pieces[2:]], "tool_calls"))).codes == ["gap"]
    assert check_stream(recorded(tool_call([*pieces[:2], *pieces[1:]], "tool_calls"))).codes == ["repeat"]
    assert check_stream(recorded(tool_call([pieces[0], pieces[2]], "length"))).codes == ["gap"]
    assert check_stream(recorded(tool_call(pieces, "tool_calls", "lookup", "_2"))).codes == ["named_twice"]
    assert check_stream(recorded(tool_call(pieces, "tool_calls", ""))).codes == ["nameless"]
    prose = tool_call(pieces, "tool_calls").replace(b'"content": ""', b'"content": "Sorry"')
    assert check_stream(recorded(prose)).codes == ["prose_and_call"]


def plain(text: str, finish: str | None = "stop", **fields: Any) -> Recording:
    answer = {"model": "acme", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": finish}]}
    body = json.dumps({**answer, **fields}).encode()
    return recorded(body, headers={"content-type": "application/json"})


def test_plain_answers_are_held_to_the_same() -> None:
    assert check_plain(plain("acme: 0 1 end/2")).whole
    assert check_plain(plain("acme: 0 1", "length")).whole
    assert check_plain(plain("acme: 0 1")).codes == ["short"]
    assert check_plain(plain("acme: 0 2 end/2")).codes == ["gap"]
    assert check_plain(plain("acme: 0 1 end/2", None)).violations
    assert check_plain(plain("acme: 0 1", "abort")).codes == ["finish"]
    assert check_plain(plain("x", choices=[])).codes == ["no_finish"]
    assert check_plain(recorded(b"{}")).codes == ["frame"]


def test_errors_are_held_to_the_envelope() -> None:
    body = ERROR.removeprefix(b"data: ")
    assert not check_error(recorded(body, status=503)).violations
    assert check_error(recorded(body, status=200)).codes == ["status"]
    for wrong in (b"", b"[]", b'{"error": "x"}', b'{"error": {"message": "x"}}', b'{"detail": "x"}'):
        assert check_error(recorded(wrong, status=503)).codes == ["envelope"]
