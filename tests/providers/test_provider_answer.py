"""A provider's answer in the shape that the client asked for: one id, one role, one finish, whatever came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProtocolError
from gateway.upstream.provider_answer import AnswerShape

HEAD: dict[str, Any] = {"id": "c-1", "object": "chat.completion.chunk", "created": 5, "model": "gpt"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **head: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return json.dumps(HEAD | {"choices": [choice]} | head).encode()


def usage_frame(**head: Any) -> bytes:
    return json.dumps(HEAD | {"choices": [], "usage": USAGE} | head).encode()


def shaped(shape: AnswerShape, *frames: bytes) -> list[dict[str, Any]]:
    return [json.loads(out) for frame in frames if (out := shape.frame(frame)) is not None]


def chat(*, include_usage: bool = False) -> AnswerShape:
    return AnswerShape("chat", include_usage=include_usage)


def test_frames_that_are_openais_go_through_untouched() -> None:
    shape = chat(include_usage=True)
    frames = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hi"}),
        chunk(finish="stop"),
        usage_frame(),
    ]
    for frame in frames:
        assert shape.frame(frame) is frame
    assert shape.model == "gpt"


def test_one_id_one_time_and_one_model_are_kept_throughout() -> None:
    out = shaped(
        chat(),
        chunk({"role": "assistant"}),
        chunk({"content": "a"}, id="c-2", created=6, model="other"),
        chunk({"content": "b"}, id=None, created=None, model=None),
        chunk(finish="stop", object="chat.completion"),
    )
    assert {(frame["id"], frame["created"], frame["model"], frame["object"]) for frame in out} == {
        ("c-1", 5, "gpt", "chat.completion.chunk")
    }


@pytest.mark.parametrize("left_out", ["index", "finish_reason", "delta"])
def test_what_a_provider_leaves_out_of_a_later_choice_is_filled_in(left_out: str) -> None:
    choice = {"index": 0, "delta": {"content": "b"}, "finish_reason": None}
    del choice[left_out]
    if left_out == "delta":
        choice["finish_reason"] = "stop"
    later = json.dumps(HEAD | {"choices": [choice]}).encode()
    out = shaped(chat(), chunk({"role": "assistant", "content": "a"}), later)
    assert out[1]["choices"] == [{"index": 0, "delta": {}, "finish_reason": None} | choice]


def test_the_role_is_said_once() -> None:
    out = shaped(
        chat(),
        chunk({"role": "assistant", "content": "a"}),
        chunk({"role": "assistant", "content": "b"}),
        chunk({"role": "assistant"}),
        chunk({"role": "assistant"}, "stop"),
    )
    assert [frame["choices"][0]["delta"] for frame in out] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]


def test_a_role_that_was_left_out_is_said() -> None:
    (frame,) = shaped(chat(), chunk({"content": "a"}))
    assert frame["choices"][0]["delta"] == {"role": "assistant", "content": "a"}


def test_a_repeated_finish_is_taken_out() -> None:
    out = shaped(chat(), chunk({"content": "a"}, "length"), chunk(finish="stop"), chunk({"content": ""}, "stop"))
    assert [frame["choices"][0]["finish_reason"] for frame in out] == ["length"]


def test_content_after_the_finish_is_an_error() -> None:
    shape = chat()
    shape.frame(chunk({"content": "a"}, "stop"))
    with pytest.raises(ProtocolError):
        shape.frame(chunk({"content": "b"}))


def test_usage_comes_once_and_only_if_asked_for() -> None:
    frames = [chunk({"content": "a"}, usage=USAGE), chunk(finish="stop"), usage_frame(), usage_frame()]
    assert [frame.get("usage") for frame in shaped(chat(include_usage=True), *frames)] == [None, None, USAGE]
    assert [frame.get("usage") for frame in shaped(chat(), *frames)] == [None, None]


def test_usage_on_the_last_chunk_stays_there() -> None:
    frames = [chunk({"content": "a"}), chunk(finish="stop", usage=USAGE), usage_frame()]
    assert [frame.get("usage") for frame in shaped(chat(include_usage=True), *frames)] == [None, USAGE]


def test_a_frame_about_the_prompt_only_does_not_name_the_stream() -> None:
    azures_first = chunk(id="", created=0, model="", choices=[], prompt_filter_results=[{"prompt_index": 0}])
    out = shaped(chat(), azures_first, chunk({"role": "assistant"}))
    assert [(frame["id"], frame["model"]) for frame in out] == [("c-1", "gpt")]


def test_what_the_provider_leaves_out_of_its_head_is_filled_in() -> None:
    shape = AnswerShape("chat", include_usage=False, request_id="r1", created_s=9, asked_model="asked")
    (frame,) = shaped(shape, json.dumps({"choices": [{"delta": {"content": "a"}}]}).encode())
    assert (frame["id"], frame["created"], frame["model"], shape.model) == ("chatcmpl-r1", 9, "asked", "asked")
    assert frame["choices"][0]["index"] == 0


def test_each_choice_has_its_own_role_and_finish() -> None:
    both = {"choices": [{"index": n, "delta": {"content": str(n)}, "finish_reason": None} for n in (0, 1)]}
    out = shaped(
        chat(include_usage=True),
        json.dumps(HEAD | both).encode(),
        chunk(finish="stop", usage=USAGE),
        chunk({"role": "assistant", "content": "x"}, index=1),
        chunk(finish="length", index=1),
        usage_frame(),
    )
    assert [choice["delta"].get("role") for choice in out[0]["choices"]] == ["assistant", "assistant"]
    assert out[2]["choices"][0]["delta"] == {"content": "x"}
    assert [frame.get("usage") for frame in out] == [None, None, None, None, USAGE]


@pytest.mark.parametrize(
    ("said", "meant"), [("end_turn", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"), ("", None)]
)
def test_a_finish_in_other_words_is_openais(said: str, meant: str | None) -> None:
    (frame,) = shaped(chat(), chunk({"role": "assistant", "content": "a"}, said))
    assert frame["choices"][0]["finish_reason"] == meant


def test_a_chat_stream_becomes_a_completion_stream() -> None:
    shape = AnswerShape("completions", include_usage=True)
    out = shaped(
        shape,
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": " a"}),
        chunk({"content": " time"}, "tool_calls"),
        usage_frame(),
    )
    head = {"id": "c-1", "object": "text_completion", "created": 5, "model": "gpt"}
    choice = {"index": 0, "logprobs": None}
    assert out == [
        head | {"choices": [choice | {"text": " a", "finish_reason": None}]},
        head | {"choices": [choice | {"text": " time", "finish_reason": "stop"}]},
        head | {"choices": [], "usage": USAGE},
    ]


def answer(message: dict[str, Any], finish: str = "stop", **head: Any) -> bytes:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps(HEAD | {"object": "chat.completion", "choices": [choice], "usage": USAGE} | head).encode()


def test_a_plain_answer_that_is_openais_goes_through_untouched() -> None:
    body = answer({"role": "assistant", "content": "Hi"})
    shape = chat()
    assert shape.body(body) is body
    assert shape.model == "gpt"


def test_a_plain_answer_in_a_dialect_is_made_openais() -> None:
    body = json.loads(chat().body(answer({"content": "Hi"}, "end_turn", object="x")))
    assert body["object"] == "chat.completion"
    assert body["choices"] == [{"index": 0, "message": {"content": "Hi", "role": "assistant"}, "finish_reason": "stop"}]
    assert body["usage"] == USAGE


def test_a_plain_chat_answer_becomes_a_completion() -> None:
    shape = AnswerShape("completions", include_usage=False)
    body = json.loads(shape.body(answer({"role": "assistant", "content": " a time"}, "length")))
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": " a time", "logprobs": None, "finish_reason": "length"}]
    assert body["usage"] == USAGE


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b"{}", b'{"choices": 1}', b'{"choices": [1]}', b'{"choices": [], "id": 1}', b"\xff"]
)
def test_what_is_no_answer_is_a_protocol_error(data: bytes) -> None:
    for shape in (chat(), AnswerShape("completions", include_usage=True)):
        with pytest.raises(ProtocolError):
            shape.frame(data)
        with pytest.raises(ProtocolError):
            shape.body(data)


def test_a_choice_without_a_message_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        chat().body(b'{"choices": [{"index": 0, "finish_reason": "stop"}]}')


deltas = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(["assistant", None]), "content": st.sampled_from(["", "a", "b", None])}
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2),
        "delta": st.none() | deltas,
        "finish_reason": st.sampled_from([None, None, None, "", "stop", "length"]),
    },
)
chunks = st.fixed_dictionaries(
    {"choices": st.lists(choices, max_size=3)},
    optional={
        "id": st.sampled_from([None, "", "x", "y"]),
        "created": st.sampled_from([None, 0, 1, 2.5]),
        "model": st.sampled_from([None, "", "m", "n"]),
        "object": st.sampled_from([None, "chat.completion.chunk"]),
        "usage": st.sampled_from([None, USAGE]),
    },
)


def said(choice: dict[str, Any]) -> str:
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""


@given(st.lists(chunks, max_size=12), st.booleans(), st.sampled_from(["chat", "completions"]))
def test_whatever_is_repeated_the_client_sees_one_of_each(
    frames: list[dict[str, Any]], include_usage: bool, endpoint: Any
) -> None:
    shape = AnswerShape(endpoint, include_usage=include_usage)
    out: list[dict[str, Any]] = []
    taken: dict[int, str] = {}
    finished: set[int] = set()
    for frame in frames:
        late = any(said(c) and c.get("index", 0) in before for c, before in _with_finished(frame, finished))
        try:
            payload = shape.frame(json.dumps(frame).encode())
        except ProtocolError:
            assert late
            break
        assert not late
        for choice in frame["choices"]:
            index = choice.get("index", 0)
            taken[index] = taken.get(index, "") + said(choice)
        if payload is not None:
            out.append(json.loads(payload))
    assert len({(frame["id"], frame["created"], frame["model"], frame["object"]) for frame in out}) <= 1
    assert len([frame for frame in out if frame.get("usage")]) <= include_usage
    given_out: dict[int, str] = {}
    for index in range(3):
        parts = [choice for frame in out for choice in frame["choices"] if choice["index"] == index]
        assert len([part for part in parts if part["finish_reason"]]) <= 1
        roles = [part["delta"]["role"] for part in parts if (part.get("delta") or {}).get("role")]
        assert roles == ([] if endpoint == "completions" or not parts else ["assistant"])
        given_out[index] = "".join(map(said, parts))
    assert {index: text for index, text in taken.items() if text} == {
        index: text for index, text in given_out.items() if text
    }


def _with_finished(frame: dict[str, Any], finished: set[int]) -> list[tuple[dict[str, Any], set[int]]]:
    """Each choice with the choices that had finished before it; ``finished`` grows."""
    pairs = []
    for choice in frame["choices"]:
        pairs.append((choice, set(finished)))
        if choice.get("finish_reason"):
            finished.add(choice.get("index", 0))
    return pairs
