"""Two spellings of the same JSON are equal, and nothing else is."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evalgate.difference import shown
from backend.evalgate.normal_form import normal_form, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def spelled(value: Any, draw: st.DrawFn) -> str:
    """``value`` in some other spelling."""
    if isinstance(value, dict):
        items = draw(st.permutations(list(value.items())))
        return "{ " + ",".join(f"{json.dumps(key)} : {spelled(item, draw)}" for key, item in items) + "}"
    if isinstance(value, list):
        return "[" + " , ".join(spelled(item, draw) for item in value) + "]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value, ensure_ascii=draw(st.booleans()))
    exact = Decimal(repr(value))
    shift = draw(st.integers(-3, 3))
    return f"{exact.scaleb(-shift):f}e{shift}" if -30 < exact.adjusted() < 20 else repr(value)


@given(st.data(), VALUES)
def test_spellings_of_one_value_are_equal(data: st.DataObject, value: Any) -> None:
    assert parse(data.draw(st.composite(lambda draw: spelled(value, draw))())) == parse(json.dumps(value))


@given(VALUES, VALUES)
def test_different_values_are_not_equal(one: Any, other: Any) -> None:
    same = json.dumps(_typed(one), sort_keys=True) == json.dumps(_typed(other), sort_keys=True)
    assert (parse(json.dumps(one)) == parse(json.dumps(other))) == same


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    exact = Decimal(repr(value))
    digits = list(exact.as_tuple().digits)
    exponent = int(exact.as_tuple().exponent)
    while digits and digits[-1] == 0:
        digits.pop()
        exponent += 1
    while digits and digits[0] == 0:
        digits.pop(0)
    return {"n": [exact.is_signed() and bool(digits), digits, exponent if digits else 0]}


@given(VALUES)
def test_what_is_shown_of_a_value_is_the_value(value: Any) -> None:
    text = shown(parse(json.dumps(value)))
    if not text.endswith("…"):
        assert parse(text) == parse(json.dumps(value))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True),
        ("1", "1e0", True),
        ("100", "1E+2", True),
        ("0", "-0.0", True),
        ("1", "true", False),
        ("0", "false", False),
        ("1", '"1"', False),
        ("0.1", "0.1000000000000000055", True),
        ("0.1", "0.10000000000000002", False),
        ("-1.5e-400", "0", True),
        ("9007199254740993", "9007199254740992", False),
        ("9007199254740993", "9007199254740993.0", True),
        ("9007199254740992", "9007199254740992.0", True),
        ("1e400", "2e400", False),
        (f"1{'0' * 400}.5", "1e400", False),
        ("123456789012345678901", "123456789012345678902", False),
        ('{"a": null}', "{}", False),
        ("[1, 2]", "[2, 1]", False),
    ],
)
def test_numbers_are_compared_as_numbers_and_as_nothing_else(one: str, other: str, same: bool) -> None:
    assert (parse(one) == parse(other)) == same


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "1e999999999999999999999", "{'a': 1}", "[" * 100_000, '[{"a": 1, "a": 1}]']
)
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["Celsius", "Fahrenheit"]},
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"$ref": "#/$defs/day"}},
        "either": {"anyOf": [{"type": "null"}, {"enum": ["On"]}]},
        "twins": {"enum": ["a", "A"]},
        "loop": {"$ref": "#/properties/loop"},
    },
    "additionalProperties": {"const": "Free"},
    "$defs": {"day": {"enum": ["Mon", "Tue"]}},
}


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ({"unit": "celsius"}, {"unit": "Celsius"}, True),
        ({"unit": "kelvin"}, {"unit": "Kelvin"}, False),
        ({"city": "paris"}, {"city": "Paris"}, False),
        ({"days": ["MON", "tue"]}, {"days": ["Mon", "Tue"]}, True),
        ({"either": "ON"}, {"either": "On"}, True),
        ({"twins": "A"}, {"twins": "a"}, False),
        ({"loop": "x"}, {"loop": "X"}, False),
        ({"other": "free"}, {"other": "Free"}, True),
    ],
)
def test_enums_in_any_case_are_folded_where_the_schema_declares_them(found: Any, expected: Any, same: bool) -> None:
    folded = [normal_form(value, SCHEMA, enum_case=False) for value in (found, expected)]
    assert (folded[0] == folded[1]) == same
    assert normal_form(found, SCHEMA) != normal_form(expected, SCHEMA)


def test_a_schema_that_branches_into_itself_comes_to_an_end() -> None:
    branches = [{"$ref": "#"}, {"$ref": "#"}]
    assert normal_form("x", {"anyOf": branches, "allOf": branches}, enum_case=False) == "x"
