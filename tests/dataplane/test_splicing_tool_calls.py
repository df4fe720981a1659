"""A stream that broke and is said once more: its client has that second answer, or an error; never some of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.resumption import Resumption, resumption
from gateway.dataplane.said import Said
from gateway.dataplane.splice import Splice
from gateway.errors import OtherAnswer

CHAT: dict[str, Any] = {"model": "acme_v3", "messages": [{"role": "user", "content": "hello"}], "stream": True}
TOOLS: dict[str, Any] = {**CHAT, "tools": [{"type": "function", "function": {"name": "get_weather"}}]}

Call = tuple[str, str]


@dataclass
class Has:
    """What a client has put together."""

    content: str = ""
    calls: list[Call] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    finishes: list[str] = field(default_factory=list)

    def hear(self, payload: bytes) -> None:
        for choice in json.loads(payload)["choices"]:
            delta = choice["delta"]
            self.content += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                while len(self.calls) <= part["index"]:
                    self.calls.append(("", ""))
                name, arguments = self.calls[part["index"]]
                function = part.get("function") or {}
                self.calls[part["index"]] = (
                    name + (function.get("name") or ""),
                    arguments + (function.get("arguments") or ""),
                )
                self.ids += [part["id"]] if "id" in part else []
            self.finishes += [choice["finish_reason"]] if choice["finish_reason"] else []


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "x", "created": 2, "model": "m", "object": "o", "choices": [choice]}).encode()


def events(prose: str, calls: list[Call], *, by: str, size: int = 3, behind: bool = False) -> Iterator[bytes]:
    """An answer as vLLM streams it; ``behind``: the prose comes after the calls."""
    said = [chunk({"content": prose[at : at + size]}) for at in range(0, len(prose), size)]
    if not behind:
        yield from said
    for index, (name, arguments) in enumerate(calls):
        head = {"index": index, "id": f"{by}-{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        for at in range(0, len(arguments), size):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + size]}}]})
    if behind:
        yield from said
    yield chunk({}, "tool_calls" if calls else "stop")


def go_on(told: list[bytes], second: list[bytes], fields: dict[str, Any] = TOOLS) -> tuple[Has, Said, bool]:
    """What the client has, what is kept as said, and whether it ends with an error."""
    said, has = Said(), Has()
    said.head = told[0]
    for event in told:
        has.hear(event)
        for choice in json.loads(event)["choices"]:
            said.pieces += [choice["delta"]["content"]] if choice["delta"].get("content") else []
            said.events += [event] if choice["delta"].get("tool_calls") else []
    found = resumption("chat", fields, 1, said.spoken())
    assert isinstance(found, Resumption)
    assert found.way == "repeated"
    splice = Splice(found, said, said.spoken(), said_tokens=0, spent=False)
    try:
        for event in second:
            if (frame := splice.frame(event)) is not None:
                has.hear(frame)
    except OtherAnswer:
        return has, said, True
    return has, said, False


def one_or_the_other(first: list[bytes], second: list[bytes], cut: int) -> bool:
    """Break ``first`` behind ``cut`` events, and say ``second``. Whether that ended with an error."""
    before, whole = Has(), Has()
    for event in first[:cut]:
        before.hear(event)
    for event in second:
        whole.hear(event)
    has, said, failed = go_on(first[:cut], second)
    if not failed:
        assert (has.content, has.calls, has.finishes) == (whole.content, whole.calls, whole.finishes)
        assert len(has.ids) == len(whole.calls), "one id a call"
    else:
        assert has.finishes == []
        # All of it is what the first one had said, or else the second one with all that the first had said.
        extended = has.content.startswith(before.content) and len(has.calls) >= len(before.calls)
        assert extended
        assert whole.content.startswith(has.content) or has.content == before.content
        for index, (name, arguments) in enumerate(has.calls):
            assert (name, arguments) in before.calls[index : index + 1] or (
                whole.calls[index][0] == name and whole.calls[index][1].startswith(arguments)
            )
    # What is kept, should it break again, is what the client has.
    kept = said.spoken()
    assert kept.texts["content"] == has.content
    assert [(call.name, call.arguments) for _, call in sorted(kept.calls.items())] == has.calls
    return failed


CALLS = [
    [],
    [("get_weather", '{"city": "Paris"}')],
    [("get_weather", '{"city": "Pau"}')],
    [("get_weather", "")],
    [("get", '{"city": "Paris"}')],
    [("pay", '{"city": "Paris"}')],
    [("get_weather", '{"city": "Paris"}'), ("pay", '{"usd": 1}')],
    [("get_weather", '{"city": "Paris"}'), ("pay", '{"usd": 12}')],
    [("get_weather", '{"city": "Paris"}'), ("get_weather", "{}")],
    [("pay", '{"usd": 1}'), ("get_weather", '{"city": "Paris"}')],
]
PROSE = ["", "Let me look.", "Sorry, I cannot do that."]
ANSWERS = [
    list(events(prose, calls, by="x", behind=behind))
    for prose, calls, behind in product(PROSE, CALLS, (False, True))
    if (prose or calls) and not (behind and not (prose and calls))
]


def test_whatever_is_said_the_second_time_after_whichever_event_is_told_whole_or_not_at_all() -> None:
    for first, second in product(ANSWERS, ANSWERS):
        for cut in range(1, len(first)):
            one_or_the_other(first, second, cut)


def test_the_same_answer_goes_on_after_every_event() -> None:
    for answer in ANSWERS:
        assert not any(one_or_the_other(answer, answer, cut) for cut in range(1, len(answer)))


names = st.sampled_from(["get", "get_weather", "get_weather_2", "pay"])
calls = st.lists(st.tuples(names, st.text(alphabet='{"a1', max_size=6)), max_size=3)
answers = st.builds(
    lambda prose, calls, size, behind: list(events(prose, calls, by="x", size=size, behind=behind)),
    st.text(alphabet="ab", max_size=4),
    calls,
    st.integers(1, 4),
    st.booleans(),
).filter(lambda answer: len(answer) > 1)


@given(answers, answers, st.data())
def test_no_two_answers_are_ever_put_together(first: list[bytes], second: list[bytes], data: st.DataObject) -> None:
    one_or_the_other(first, second, data.draw(st.integers(1, len(first) - 1)))


def told(*calls: Call, arguments_of_last: bool = False) -> list[bytes]:
    """Up to and with the name of the last call."""
    answer = list(events("", list(calls), by="first", size=50))[:-1]
    return answer if arguments_of_last or not calls[-1][1] else answer[:-1]


@pytest.mark.parametrize(
    ("before", "second"),
    [
        pytest.param(told(("get_weather", "{}")), events("Sorry.", [], by="s"), id="prose for a name"),
        pytest.param(told(("get_weather", "{}")), [chunk({}, "stop")], id="nothing for a name"),
        pytest.param(
            told(("get_weather", "{}"), ("pay", "{}")),
            events("", [("get_weather", "{}")], by="s"),
            id="fewer calls than there were names",
        ),
        pytest.param(
            told(("get_weather", "{}")), events("", [("get", '{"x": 1}')], by="s"), id="the beginning of the name"
        ),
        pytest.param(told(("get", "{}")), events("", [("get_weather", "{}")], by="s"), id="a longer name"),
        pytest.param(
            told(("get", "{}"), ("pay", "{}")),
            events("", [("get", "{}}"), ("pay", "{}")], by="s"),
            id="more of a call that had ended",
        ),
    ],
)
def test_a_name_is_a_call(before: list[bytes], second: Iterator[bytes]) -> None:
    has, _, failed = go_on(before, list(second))
    assert failed
    alone = Has()
    for event in before:
        alone.hear(event)
    assert has == alone


def test_a_name_that_comes_in_two_parts_the_second_time_is_the_same_name() -> None:
    def part(**function: str) -> bytes:
        return chunk({"tool_calls": [{"index": 0, "function": function}]})

    second = [part(name="get_"), part(name="weather"), part(arguments="{}"), chunk({}, "tool_calls")]
    has, _, failed = go_on(told(("get_weather", "{}")), second)
    assert (has.calls, failed) == ([("get_weather", "{}")], False)
    assert go_on(told(("get_weather", "{}")), [second[0], second[2]])[2], "it is not all of it"
