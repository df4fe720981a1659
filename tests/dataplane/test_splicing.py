"""Where one answer breaks off and another goes on: whatever the seam, the two read as one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.resumption import Refused, Resumption, limited, resumption, way_on
from gateway.dataplane.said import TEXTS, Said, Spoken, ToolCall
from gateway.dataplane.splice import Splice, begun_anew
from gateway.errors import OtherAnswer

CHAT: dict[str, Any] = {"model": "acme_v3", "messages": [{"role": "user", "content": "hello"}], "stream": True}
PROMPT: dict[str, Any] = {"model": "acme_v3", "prompt": "once", "stream": True}

texts = st.lists(st.text(alphabet="ab \n\tü{", min_size=1, max_size=4), min_size=1, max_size=8)


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "second", "created": 2, "model": "m", "choices": [choice], **more}).encode()


def usage_event(**usage: int) -> bytes:
    return json.dumps({"id": "second", "created": 2, "model": "m", "choices": [], "usage": usage}).encode()


def told(pieces: list[str]) -> Said:
    said = Said()
    said.head = json.dumps({"id": "first", "created": 1, "model": "acme_v3", "object": "o", "choices": []}).encode()
    said.pieces = list(pieces)
    return said


def told_events(*events: bytes) -> Said:
    said = told([])
    said.events = list(events)
    return said


def text_of(frames: list[bytes | None], field: str = "content") -> str:
    seen = [json.loads(frame) for frame in frames if frame is not None]
    assert all((one["id"], one["created"]) == ("first", 1) for one in seen)
    assert not any("role" in choice["delta"] for one in seen for choice in one["choices"])
    return "".join(choice["delta"].get(field) or "" for one in seen for choice in one["choices"])


def found(said: Said, fields: dict[str, Any] = CHAT, endpoint: Any = "chat") -> Resumption:
    got = resumption(endpoint, fields, 1, said.spoken())
    assert isinstance(got, Resumption)
    return got


@given(texts, st.data())
def test_prose_cut_anywhere_is_whole_again_though_templates_trim_what_they_are_given(
    pieces: list[str], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(pieces)))
    said = told(pieces[:cut])
    got = found(said)
    whole = "".join(pieces)
    before = "".join(pieces[:cut])
    # What a box goes on with: behind what the template has left of the text.
    behind = got.fields["messages"][-1]["content"].strip() if got.way == "continued" else ""
    rest = whole[whole.index(behind) + len(behind) :] if behind else whole
    splice = Splice(got, said, said.spoken(), said_tokens=cut, spent=False)
    frames = [splice.frame(chunk({"role": "assistant", "content": ""}))]
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        frames.append(splice.frame(chunk({"content": rest[:size]})))
        rest = rest[size:]
    frames.append(splice.frame(chunk({}, "stop")))
    assert before + text_of(frames) == whole
    assert said.text == whole, "so that it may break again"


arguments = st.recursive(st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=6)


def pieces_of(text: str, data: st.DataObject) -> list[str]:
    pieces = []
    while text:
        size = data.draw(st.integers(1, len(text)))
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def call(pieces: list[str], id: str, name: str = "lookup") -> list[bytes]:
    def delta(part: dict[str, Any]) -> bytes:
        return chunk({"tool_calls": [{"index": 0, **part}]})

    return [
        delta({"id": id, "type": "function", "function": {"name": name, "arguments": ""}}),
        *(delta({"function": {"arguments": piece}}) for piece in pieces),
    ]


@given(arguments, st.data())
def test_a_tool_call_cut_anywhere_is_whole_again(value: object, data: st.DataObject) -> None:
    whole = json.dumps({"value": value})
    events = call(pieces_of(whole, data), "first-call")
    said = told_events(*events[: data.draw(st.integers(1, len(events)))])
    before = said.spoken().calls[0].arguments
    splice = Splice(found(said, {**CHAT, "tools": [{}]}), said, said.spoken(), said_tokens=0, spent=False)
    frames = [splice.frame(event) for event in call(pieces_of(whole, data), "second-call")]
    frames.append(splice.frame(chunk({}, "tool_calls")))
    told_now = [json.loads(frame) for frame in frames if frame is not None]
    parts = [part for one in told_now for choice in one["choices"] for part in choice["delta"].get("tool_calls", ())]
    assert before + "".join(part["function"].get("arguments", "") for part in parts) == whole
    assert not any("id" in part or "name" in part["function"] for part in parts)
    assert said.spoken().calls[0].arguments == whole


@given(st.text(min_size=1, max_size=8), st.text(max_size=8), st.data())
def test_what_differs_from_what_was_said_is_never_told(before: str, other: str, data: st.DataObject) -> None:
    said = told_events(*call(pieces_of(before, data), "first-call"))
    splice = Splice(found(said, {**CHAT, "tools": [{}]}), said, said.spoken(), said_tokens=0, spent=False)
    try:
        for event in call(pieces_of(other, data), "second-call"):
            splice.frame(event)
        splice.frame(chunk({}, "tool_calls"))
    except OtherAnswer:
        assert not other.startswith(before)
    else:
        assert other.startswith(before)
    assert said.spoken().calls[0].arguments == (other if other.startswith(before) else before)


def test_another_tool_is_not_taken_for_the_one_that_was_begun() -> None:
    said = told_events(*call(["{"], "first-call"))
    splice = Splice(found(said, {**CHAT, "tools": [{}]}), said, said.spoken(), said_tokens=0, spent=False)
    with pytest.raises(OtherAnswer, match="another tool"):
        splice.frame(call(["{"], "second-call", name="delete")[0])


def test_prose_in_the_place_of_a_tool_call_is_never_told() -> None:
    said = told_events(*call(['{"a"'], "first-call"))
    splice = Splice(found(said, {**CHAT, "tools": [{}]}), said, said.spoken(), said_tokens=0, spent=False)
    with pytest.raises(OtherAnswer):
        splice.frame(chunk({"content": "I cannot"}))


def test_reasoning_is_said_again_and_only_what_is_new_is_told() -> None:
    said = told_events(chunk({"reasoning": "let me"}), chunk({"reasoning": " see"}))
    got = found(said)
    assert got.way == "repeated"
    splice = Splice(got, said, said.spoken(), said_tokens=0, spent=False)
    frames = [splice.frame(chunk({"reasoning": "let me see: a"})), splice.frame(chunk({"content": "A"}, "stop"))]
    assert (text_of(frames, "reasoning"), text_of(frames)) == (": a", "A")


@pytest.mark.parametrize(
    ("fields", "endpoint", "spoken", "way"),
    [
        (CHAT, "chat", {"content": "text"}, "continued"),
        (CHAT, "chat", {"content": " \n"}, "anew"),
        ({**CHAT, "tools": [{}]}, "chat", {"content": "text"}, "repeated"),
        ({**CHAT, "tools": [{}], "tool_choice": "none"}, "chat", {"content": "text"}, "continued"),
        ({**CHAT, "response_format": {"type": "json_object"}}, "chat", {"content": "{"}, "repeated"),
        ({**CHAT, "response_format": {"type": "text"}}, "chat", {"content": "a"}, "continued"),
        ({**CHAT, "structured_outputs": {"regex": "a+"}}, "chat", {"content": "a"}, "repeated"),
        ({**CHAT, "logprobs": True}, "chat", {"content": "a"}, "repeated"),
        ({**CHAT, "logprobs": False}, "chat", {"content": "a"}, "continued"),
        ({**CHAT, "return_token_ids": True}, "chat", {"content": "a"}, "repeated"),
        ({**CHAT, "include_reasoning": False}, "chat", {"content": "a"}, "repeated"),
        ({**CHAT, "include_reasoning": True}, "chat", {"content": "a"}, "continued"),
        ({**CHAT, "add_generation_prompt": False}, "chat", {"content": "a"}, "repeated"),
        ({**CHAT, "truncate_prompt_tokens": 100}, "chat", {"content": "a"}, "repeated"),
        ({**CHAT, "stop": ["END"], "include_stop_str_in_output": True}, "chat", {"content": "a EN"}, "repeated"),
        ({**CHAT, "stop": "END", "include_stop_str_in_output": True}, "chat", {"content": "a E"}, "repeated"),
        ({**CHAT, "stop": ["END"], "include_stop_str_in_output": True}, "chat", {"content": "a EN "}, "continued"),
        ({**CHAT, "stop": ["END"]}, "chat", {"content": "a EN"}, "continued"),
        (CHAT, "chat", {"content": "a", "reasoning": "b"}, "repeated"),
        (PROMPT, "completions", {"content": "text"}, "continued"),
        ({**PROMPT, "prompt": ["once"]}, "completions", {"content": "text"}, "continued"),
        ({**PROMPT, "prompt": [1, 2, 3]}, "completions", {"content": "text"}, "repeated"),
        ({**PROMPT, "logprobs": 2}, "completions", {"content": "text"}, "repeated"),
        ({**PROMPT, "logprobs": 0}, "completions", {"content": "text"}, "repeated"),
    ],
)
def test_how_it_is_asked_for_again(fields: dict[str, Any], endpoint: Any, spoken: dict[str, str], way: str) -> None:
    got = resumption(endpoint, fields, 1, Spoken(spoken))
    assert isinstance(got, Resumption)
    assert got.way == way
    assert (
        fields in (CHAT, PROMPT)
        or got.fields.items() >= {k: v for k, v in fields.items() if k not in {"messages", "prompt"}}.items()
    )


@pytest.mark.parametrize(
    ("fields", "endpoint", "choices", "spoken"),
    [
        (CHAT, "chat", 2, Spoken({"content": "a"})),
        (CHAT, "chat", 1, Spoken({"content": "a"}, odd=True)),
        ({**PROMPT, "echo": True}, "completions", 1, Spoken({"content": "a"})),
        ({**PROMPT, "suffix": "end"}, "completions", 1, Spoken({"content": "a"})),
    ],
)
def test_what_is_refused(fields: dict[str, Any], endpoint: Any, choices: int, spoken: Spoken) -> None:
    assert isinstance(resumption(endpoint, fields, choices, spoken), Refused)


def test_a_message_that_the_client_had_begun_is_gone_on_with() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "so"}]
    fields = {**CHAT, "messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    got = found(told([" far"]), fields)
    assert got.fields["messages"] == [messages[0], {"role": "assistant", "content": "so far"}]
    assert messages[1]["content"] == "so", "the client's own request is as it was"


ENDS_SO = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "so"}]


@pytest.mark.parametrize("seam", [{"continue_final_message": True, "add_generation_prompt": False}, {}])
def test_what_a_box_echoes_is_asked_for_once(seam: dict[str, Any]) -> None:
    fields = {**CHAT, "messages": ENDS_SO, "echo": True, **seam}
    got = found(told(["so", " far", " so"]), fields)
    assert (got.way, got.echoed, got.fields["echo"]) == ("continued", "so", False)
    behind = [ENDS_SO[0], {"role": "assistant", "content": "so far so"}] if seam else [*ENDS_SO, None]
    if not seam:
        behind[-1] = {"role": "assistant", "content": " far so"}
    assert got.fields["messages"] == behind
    # While nothing but the echo has come, all is said once more.
    assert found(told(["so"]), fields).way == "repeated"
    assert found(told(["so", " "]), fields).way == "repeated"
    assert found(told(["s"]), fields).way == "repeated"


@pytest.mark.parametrize("content", [[{"type": "text", "text": "so"}], None])
def test_an_echo_of_parts_is_said_again(content: Any) -> None:
    fields = {**CHAT, "messages": [ENDS_SO[0], {"role": "assistant", "content": content}], "echo": True}
    assert found(told(["so"]), fields).way == ("repeated" if content else "continued")


def test_where_nothing_is_echoed_an_answer_goes_on_as_ever() -> None:
    got = found(told(["so"]), {**CHAT, "echo": True})
    assert (got.way, got.echoed) == ("continued", "")


@pytest.mark.parametrize(
    ("endpoint", "fields", "left"),
    [
        ("completions", {}, 10),
        ("completions", {"max_tokens": None}, 10),
        ("completions", {"max_tokens": 40}, 34),
        ("completions", {"max_tokens": "40"}, 34),
        ("chat", {}, None),
        ("chat", {"max_tokens": 40.0}, 34),
    ],
)
def test_what_is_left_of_the_limit_that_the_engine_takes_for_given(
    endpoint: Any, fields: dict[str, Any], left: int | None
) -> None:
    whole = {**(CHAT if endpoint == "chat" else PROMPT), **fields}
    asked, spent = limited(found(told(["a"]), whole, endpoint), 6)
    assert (asked.get("max_tokens"), spent) == (left, False)


@given(st.integers(1, 50), st.integers(0, 60))
def test_a_limit_keeps_what_is_left_and_one_token_to_hear_how_the_answer_ends(limit: int, said_tokens: int) -> None:
    got = resumption("chat", {**CHAT, "max_tokens": limit, "min_tokens": 5}, 1, Spoken({"content": "a"}))
    assert isinstance(got, Resumption)
    fields, spent = limited(got, said_tokens)
    assert fields["max_tokens"] == max(1, limit - said_tokens)
    assert fields["min_tokens"] == max(0, 5 - said_tokens)
    assert spent == (said_tokens >= limit)


def test_with_no_token_left_only_the_end_is_told() -> None:
    said = told(["a", "b"])
    splice = Splice(found(said), said, said.spoken(), said_tokens=2, spent=True)
    assert splice.frame(chunk({"content": "c"})) is None
    last = splice.frame(chunk({"content": "d"}, "length"))
    assert last is not None
    assert json.loads(last)["choices"][0] == {"index": 0, "delta": {"content": ""}, "finish_reason": "length"}
    usage = splice.frame(usage_event(prompt_tokens=12, completion_tokens=1, total_tokens=13))
    assert usage is not None
    assert json.loads(usage)["usage"] == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


blanks = st.text(alphabet=" \n\t\u3000", max_size=4)


@given(
    st.dictionaries(st.sampled_from(TEXTS), blanks | st.text(max_size=4)).map(lambda found: {"content": "", **found}),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
def test_an_answer_is_begun_anew_only_while_nobody_could_miss_what_was_told(
    texts: dict[str, str], calls: bool, odd: bool, choices: int
) -> None:
    spoken = Spoken(texts, {0: ToolCall()} if calls else {}, odd)
    got = way_on("restart", "chat", CHAT, choices, spoken)
    blank = not ("".join(texts.values()).strip() or calls or odd)
    assert isinstance(got, Resumption) == (blank and choices == 1)
    if isinstance(got, Resumption):
        assert (got.way, got.fields) == ("anew", CHAT)
        # Which is how the same box's adapter is asked elsewhere where streams are to be resumed, too.
        assert way_on("resume", "chat", CHAT, choices, spoken) == got
    assert isinstance(way_on("error", "chat", CHAT, choices, spoken), Refused)


@given(st.lists(blanks.filter(bool), min_size=1, max_size=3), blanks, st.text(alphabet="ab \n", max_size=6), st.data())
def test_of_an_answer_begun_anew_no_blank_is_told_twice(
    pieces: list[str], blank: str, words: str, data: st.DataObject
) -> None:
    second = f"{blank}A{words}"
    first = told(pieces)
    said, splice = begun_anew(first)
    frames = [splice.frame(chunk({"role": "assistant", "content": ""}))]
    frames += [splice.frame(chunk({"content": piece})) for piece in pieces_of(second, data)]
    frames.append(splice.frame(chunk({}, "stop")))
    before = "".join(pieces)
    whole = second if blank.startswith(before) else before + second.lstrip()
    assert before + text_of(frames) == said.text == whole
    assert first.text == before, "another one may be asked meanwhile"


def test_an_answer_begun_anew_that_says_nothing_ends_all_the_same() -> None:
    _, splice = begun_anew(told([" "]))
    assert splice.frame(chunk({"content": " "})) is None
    assert text_of([splice.frame(chunk({}, "stop"))]) == ""


def test_a_usage_that_comes_with_what_is_left_out_is_left_out() -> None:
    said = told(["a"])
    splice = Splice(found(said), said, said.spoken(), said_tokens=1, spent=False)
    so_far = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    assert splice.frame(chunk({"role": "assistant", "content": ""}, usage=so_far)) is None
    kept = splice.frame(chunk({"content": "b"}, usage=so_far))
    assert kept is not None
    assert json.loads(kept)["usage"] == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def test_of_an_event_that_is_objected_to_nothing_was_said() -> None:
    said = told_events(*call(["{"], "first-call"))
    splice = Splice(found(said, {**CHAT, "tools": [{}]}), said, said.spoken(), said_tokens=0, spent=False)
    with pytest.raises(OtherAnswer):
        splice.frame(chunk({"content": "so", "tool_calls": [{"index": 0, "function": {"name": "delete"}}]}))
    assert said.text == ""


@pytest.mark.parametrize("second", ["stop", "length"])
def test_with_no_token_left_an_answer_ends_by_its_limit(second: str) -> None:
    said = told(["a", "b"])
    splice = Splice(found(said), said, said.spoken(), said_tokens=2, spent=True)
    last = splice.frame(chunk({"content": ""}, second))
    assert last is not None
    assert json.loads(last)["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("first", "second", "completion"), [("stop", "stop", 3), ("stop", "length", 2), ("length", "stop", 2)]
)
def test_an_answer_that_had_ended_ends_as_it_had_and_has_its_usage(first: str, second: str, completion: int) -> None:
    said = told(["a", "b"])
    got = found(said, {**CHAT, "max_completion_tokens": 40, "min_tokens": 3})
    fields, spent = limited(got, 2, ended=True)
    assert spent
    assert (fields["max_tokens"], "max_completion_tokens" in fields, "min_tokens" in fields) == (1, False, False)
    splice = Splice(got, said, said.spoken(), said_tokens=2, spent=True, ended=first)
    last = splice.frame(chunk({"content": "c"}, second))
    assert last is not None
    assert json.loads(last)["choices"] == [{"index": 0, "delta": {"content": ""}, "finish_reason": first}]
    usage = splice.frame(usage_event(prompt_tokens=12, completion_tokens=1, total_tokens=13))
    assert usage is not None
    # Where both ended by themselves, the token that ended it counts, as it does with the engine.
    took = {"prompt_tokens": 10, "completion_tokens": completion, "total_tokens": 10 + completion}
    assert json.loads(usage)["usage"] == took


def test_a_call_that_had_ended_has_its_usage_only_of_the_same_call() -> None:
    events = call(["{}"], "first-call")
    for other, same in ((["{}"], True), (["{}", " "], False)):
        said = told_events(*events)
        got = found(said, {**CHAT, "tools": [{}]})
        splice = Splice(got, said, said.spoken(), said_tokens=0, spent=False, ended="tool_calls")
        frames = [splice.frame(event) for event in call(other[:1], "second-call")]
        assert frames == [None, None]
        if same:
            last = splice.frame(chunk({}, "stop"))
            assert last is not None
            assert json.loads(last)["choices"][0]["finish_reason"] == "tool_calls"
        else:
            with pytest.raises(OtherAnswer, match="had ended"):
                splice.frame(chunk({"tool_calls": [{"index": 0, "function": {"arguments": other[1]}}]}))
