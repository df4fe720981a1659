"""What an answer comes to: by the tool's name, by its arguments, by both; refusals and broken JSON apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.evalgate.case import BadSet, Case, SetFile, digest, in_turns, read_sets
from backend.evalgate.difference import differences
from backend.evalgate.said import NoAnswer, Said, SaidCall, read_plain, read_stream
from backend.evalgate.verdict import Outcome, judge
from tests.evalgate.sets import Line, case


def read(*lines: Line, customer: str = "acme") -> list[Case]:
    return read_sets([SetFile(f"{customer}.jsonl", customer, "\n".join(map(json.dumps, lines)))])


CALL = read(case(3))[0]
NONE = read(case(4, none=True))[0]
GOOD = '{"unit": "Celsius", "days": 3.0, "city": "City 3"}'


def called(*calls: tuple[str, str]) -> Said:
    return Said(tuple(SaidCall(*one) for one in calls), finish="tool_calls")


@pytest.mark.parametrize(
    ("said", "outcome", "name", "arguments"),
    [
        (called(("get_weather", GOOD)), Outcome.RIGHT, True, True),
        (called(("get_weather", GOOD.replace("3.0", "4"))), Outcome.WRONG_ARGUMENTS, True, False),
        (called(("get_weather", GOOD.replace("C", "c"))), Outcome.WRONG_ARGUMENTS, True, False),
        (called(("get_stock", GOOD)), Outcome.WRONG_NAME, False, True),
        (called(("get_stock", "{}")), Outcome.WRONG_NAME, False, False),
        (called(("get_weather", GOOD[:-1])), Outcome.INVALID_JSON, True, False),
        (called(("get_weather", "[1]")), Outcome.INVALID_JSON, True, False),
        (called(("get_weather", "")), Outcome.INVALID_JSON, True, False),
        (called(("get_weather", GOOD.replace("{", '{"days": 4, '))), Outcome.INVALID_JSON, True, False),
        (called(("get_weather", GOOD.replace("3.0", "3.0000000000000001"))), Outcome.RIGHT, True, True),
        (called(("get_weather", GOOD), ("get_stock", "{}")), Outcome.SEVERAL_CALLS, True, True),
        (Said(content="It is warm."), Outcome.NO_CALL, False, False),
        (Said(content='{"name": "get_weather", "parameters": {"city": '), Outcome.INVALID_JSON, False, False),
        (Said(refusal="I cannot."), Outcome.REFUSED, False, False),
        (Said(finish="content_filter"), Outcome.REFUSED, False, False),
        (Said(error="400: too long"), Outcome.ERROR, False, False),
    ],
)
def test_a_call_that_is_due_is_judged_by_name_and_arguments(
    said: Said, outcome: Outcome, name: bool, arguments: bool
) -> None:
    verdict = judge(CALL, said)
    assert (verdict.outcome, verdict.name, verdict.arguments) == (outcome, name, arguments)
    assert verdict.right == (outcome is Outcome.RIGHT)
    assert bool(differences(CALL, said)) != verdict.right or outcome is Outcome.SEVERAL_CALLS


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (Said(content="No."), Outcome.RIGHT),
        (Said(refusal="No."), Outcome.RIGHT),
        (called(("get_weather", GOOD)), Outcome.UNWANTED_CALL),
        (Said(error="400"), Outcome.ERROR),
    ],
)
def test_where_no_call_is_due_only_a_call_is_wrong(said: Said, outcome: Outcome) -> None:
    verdict = judge(NONE, said)
    assert (verdict.outcome, verdict.name, verdict.arguments) == (outcome, None, None)


def test_no_arguments_are_right_for_none_only_as_an_empty_object() -> None:
    call = read({**case(3), "expected": {"name": "get_stock", "arguments": {}}})[0]
    assert judge(call, called(("get_stock", "{}"))).right
    assert judge(call, called(("get_stock", ""))).outcome is Outcome.INVALID_JSON, "json.loads raises on it"
    assert differences(call, called(("get_stock", ""))) == ["arguments are no JSON object: (empty)"]


def test_arguments_that_no_parser_gets_through_are_told_of_like_others() -> None:
    (line,) = differences(CALL, called(("get_weather", "[" * 100_000)))
    assert line.startswith("arguments are no JSON object: [[[")


def test_a_key_that_stands_twice_is_named() -> None:
    assert differences(CALL, called(("get_weather", '{"days": 2, "days": 3}'))) == [
        'arguments are no JSON object (the key "days" stands twice in one object): {"days": 2, "days": 3}'
    ]


def test_enums_in_any_case_are_right_where_that_is_wished() -> None:
    said = called(("get_weather", GOOD.replace("Celsius", "CELSIUS")))
    assert judge(CALL, said).outcome is Outcome.WRONG_ARGUMENTS
    assert judge(CALL, said, enum_case=False).right


def test_a_difference_is_told_by_its_place() -> None:
    said = called(("get_weather", '{"city": "City 3", "days": 4, "when": [1]}'))
    assert differences(CALL, said) == [
        "days: 3 expected, 4 came",
        'unit: "Celsius" is missing',
        "when: [1] was not expected",
    ]


def body(**message: Any) -> Any:
    return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}


def test_answers_are_read_plain_and_streamed_alike() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "get_weather", "arguments": GOOD}}
    plain = read_plain(body(content=None, tool_calls=[call]))
    pieces: list[Any] = [{"choices": [{"delta": {"role": "assistant", "content": ""}}], "model": "m"}]
    function = {"index": 0, "function": {"name": "get_weather", "arguments": ""}}
    pieces.append({"choices": [{"delta": {"tool_calls": [function]}}]})
    pieces += [
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": letter}}]}}]} for letter in GOOD
    ]
    pieces += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": {}}]
    assert read_stream(pieces) == plain
    assert judge(CALL, plain).right


@pytest.mark.parametrize(
    "events", [[], [{"error": {"message": "x"}}], [{"choices": [{"delta": {"content": "a"}}]}], [{}]]
)
def test_a_stream_without_its_end_is_no_answer(events: list[Any]) -> None:
    with pytest.raises(NoAnswer):
        read_stream(events)


@pytest.mark.parametrize("document", [None, [], {}, {"choices": []}, {"choices": [{"message": None}]}])
def test_what_is_no_completion_is_no_answer(document: Any) -> None:
    with pytest.raises(NoAnswer):
        read_plain(document)


def test_a_said_answer_survives_the_folder() -> None:
    said = Said((SaidCall("a", "{"),), content="\ud800", degraded="forced", seconds=0.5)
    assert Said.from_json(json.loads(json.dumps(said.as_json()))) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "not JSON"),
        ("[]", "a case is a JSON object"),
        ('{"messages": [{"role": "user"}]}', "`expected` is missing"),
        (json.dumps({**case(1), "expcted": None}), "unknown key `expcted`; `expected`?"),
        (json.dumps({**case(1), "tools": []}), "its tools are: none"),
        (json.dumps({**case(1), "messages": []}), "`messages`"),
        (json.dumps({**case(1), "tools": [{}]}), "`tools`"),
        (json.dumps({**case(1), "customer": "a\nb"}), "`customer`"),
        (json.dumps({**case(1), "expected": {"name": "get_weather"}}), "`expected` is"),
        (json.dumps({**case(1), "expected": {"name": "get_weather", "arguments": []}}), "is an object"),
        (json.dumps({**case(1), "expected": {"name": "get_weather", "arguments": "{"}}), "is not JSON"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str, said: str) -> None:
    with pytest.raises(BadSet) as raised:
        read_sets([SetFile("acme.jsonl", "acme", f"\n{json.dumps(case(0))}\n{line}\n")])
    (problem,) = raised.value.problems
    assert problem.startswith("acme.jsonl:3: ")
    assert said in problem


def test_all_that_is_wrong_with_a_set_is_told_at_once() -> None:
    with pytest.raises(BadSet) as raised:
        read_sets(
            [
                SetFile("a", "a", "x\ny"),
                SetFile("b", "b", "\n"),
                SetFile("c", "c", json.dumps(case(1)) + "\n" + json.dumps(case(1))),
            ]
        )
    assert len(raised.value.problems) == 4


def test_cases_without_ids_are_named_by_content_and_twins_told_apart() -> None:
    bare = {key: value for key, value in case(1).items() if key != "id"}
    one, other, twin = read(bare, {**bare, "messages": [{"role": "user", "content": "else"}]}, bare)
    assert one.id != other.id
    assert twin.id == f"{one.id}-2"
    assert read({**bare, "customer": "globex"})[0].customer == "globex"


def test_arguments_may_be_written_as_the_api_has_them_and_a_refusal_in_words() -> None:
    expected = {"name": "get_weather", "arguments": json.dumps(case(3)["expected"]["arguments"])}
    assert read({**case(3), "expected": expected})[0].expected == CALL.expected
    assert read({**case(3), "expected": {"refusal": True}})[0].expected is None


def test_customers_take_turns() -> None:
    files = [
        SetFile(name, name, "\n".join(json.dumps(case(n)) for n in range(count)))
        for name, count in (("b", 3), ("a", 1))
    ]
    assert [one.key for one in in_turns(read_sets(files))] == [("a", "p0"), ("b", "p0"), ("b", "p1"), ("b", "p2")]
    assert digest(files) == digest(reversed(files))
    assert digest(files) != digest(files[:1])
