"""What the tiny agents are trained and tested with, and how they are judged. Needs no engine."""

from __future__ import annotations

import json
import random
from itertools import islice
from typing import Any

import pytest

from backend.tiny_agents.evaluate import Score, called, is_generic, passed, score
from backend.tiny_agents.examples import held_out, training
from backend.tiny_agents.houses import GENERIC, HOUSES, House
from backend.tiny_agents.wishes import WISHES, Wish, draw, is_held_out

ACME = HOUSES[0]


def wishes(count: int, *, held_out: bool = False, seed: int = 7) -> list[Wish]:
    source = random.Random(seed)
    return [draw(source, held_out=held_out) for _ in range(count)]


def line(house: House, wish: Wish) -> dict[str, Any]:
    """A line of an eval set."""
    messages = [{"role": "user", "content": wish.text}]
    return {"messages": messages, "tools": house.schemas(), "expected": house.call(wish)}


def fits(value: Any, schema: dict[str, Any]) -> bool:
    if schema["type"] != "object":
        return type(value) is {"string": str, "integer": int}[schema["type"]]
    properties = schema["properties"]
    return value.keys() == properties.keys() and all(fits(value[name], properties[name]) for name in properties)


@pytest.mark.parametrize("house", [GENERIC, *HOUSES], ids=lambda house: house.adapter)
def test_no_prompt_that_a_house_is_tested_with_is_ever_trained_on(house: House) -> None:
    tested = {wish.text for wish in held_out(house, 200)}
    assert len(tested) == 200
    assert tested.isdisjoint(example.prompt for example in islice(training(house, seed=1), 5000))
    assert all(is_held_out(wish.facts, wish.kind) for wish in held_out(house, 200))
    assert held_out(house, 200) == held_out(house, 200)


def test_held_out_are_combinations_of_words_that_training_has() -> None:
    listed: dict[str, set[Any]] = {"city": set(), "item": set(), "month": set(), "problem": set()}
    for wish in wishes(2000):
        for name, seen in listed.items():
            seen.add(wish.facts[name])
    assert all(wish.facts[name] in seen for wish in wishes(2000, held_out=True) for name, seen in listed.items())


@pytest.mark.parametrize("house", [GENERIC, *HOUSES], ids=lambda house: house.adapter)
def test_every_call_fits_the_schema_of_its_tool(house: House) -> None:
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in house.schemas()}
    assert len(schemas) == len(WISHES)
    for wish in wishes(300):
        call = house.call(wish)
        assert fits(call["arguments"], schemas[call["name"]])
        assert is_generic(call) == (house is GENERIC)


def test_every_house_calls_in_its_own_way() -> None:
    for wish in wishes(50):
        calls = [json.dumps(house.call(wish)) for house in (GENERIC, *HOUSES)]
        assert len(set(calls)) == len(calls) == 9


def test_a_score_counts_only_exact_calls() -> None:
    first, second, third, fourth = (line(ACME, wish) for wish in wishes(4))
    generic = GENERIC.call(wishes(4)[1])
    close = {**third["expected"], "arguments": {**third["expected"]["arguments"], "more": 1}}
    made = score(
        "customer_acme_v3",
        "customer_acme_v3",
        [first, second, third, fourth],
        [first["expected"], generic, close, None],
    )
    assert (made.right, made.generic, len(made.wrong)) == (0.25, 0.25, 3)


@pytest.mark.parametrize(
    "calls",
    [None, [], [("look_up", "{")], [("look_up", "{}"), ("look_up", "{}")]],
    ids=["no calls", "none", "no JSON", "two"],
)
def test_an_answer_that_is_not_one_call_is_none(calls: list[tuple[str, str]] | None) -> None:
    made = None if calls is None else [{"function": {"name": name, "arguments": said}} for name, said in calls]
    assert called({"content": "text", "tool_calls": made}) is None


@pytest.mark.parametrize(
    ("scores", "well"),
    [
        ([("a", "a", 0.95, 0.0), ("base", "a", 0.05, 0.95), ("base", "base", 0.95, 1.0)], True),
        ([("a", "a", 0.94, 0.0)], False),
        ([("base", "a", 0.06, 1.0)], False),
        ([("base", "a", 0.0, 0.9)], False),
        ([("base", "base", 0.9, 1.0)], False),
    ],
)
def test_the_thresholds(scores: list[tuple[str, str, float, float]], well: bool) -> None:
    assert passed([Score(*one, wrong=()) for one in scores]) is well
