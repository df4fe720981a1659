"""What differs between an expected call and one that was made, place by place, for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from backend.evalgate.case import Case
from backend.evalgate.normal_form import KeyGivenTwice, Number, parse
from backend.evalgate.said import Said
from backend.evalgate.verdict import arguments

_LONGEST = 400


def differences(case: Case, said: Said) -> list[str]:
    """In lines; none where all is as expected."""
    if said.error:
        return [f"the endpoint refused: {_cut(said.error)}"]
    if case.expected is None:
        return [f"no call was expected, `{call.name}` was called with {_cut(call.arguments)}" for call in said.calls]
    if not said.calls:
        text = said.refusal or said.content
        return [f"no call, but {'a refusal' if said.refusal else 'text'}: {_cut(text)}" if text else "no call, no text"]
    lines = []
    if len(said.calls) > 1:
        lines.append(f"{len(said.calls)} calls: {', '.join(call.name for call in said.calls)}")
    call = said.calls[0]
    if call.name != case.expected.name:
        lines.append(f"tool: {case.expected.name} expected, {call.name} called")
    found = arguments(call.arguments)
    if found is None:
        return [*lines, f"arguments are no JSON object{_why(call.arguments)}: {_cut(call.arguments) or '(empty)'}"]
    return [*lines, *_between("", case.expected.arguments, found)]


def shown(value: Any) -> str:
    """JSON, as it is compared."""
    return _cut(_json(value))


def call_shown(name: str, value: Any) -> str:
    """A call on one line."""
    return f"{name}({shown(value)})"


def _between(place: str, expected: Any, found: Any) -> Iterator[str]:
    if expected == found:
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            at = f"{place}.{key}" if place else key
            if key not in found:
                yield f"{at}: {shown(expected[key])} is missing"
            elif key not in expected:
                yield f"{at}: {shown(found[key])} was not expected"
            else:
                yield from _between(at, expected[key], found[key])
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for index, pair in enumerate(zip(expected, found, strict=True)):
            yield from _between(f"{place}[{index}]", *pair)
    else:
        yield f"{place or 'arguments'}: {shown(expected)} expected, {shown(found)} came"


def _why(text: str) -> str:
    """Where it is not to be seen at a glance."""
    try:
        parse(text)
    except KeyGivenTwice as error:
        return f" ({error})"
    except ValueError:
        return ""
    return ""


def _json(value: Any) -> str:
    """Numbers as they are, whatever a float would make of them."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_json(key)}: {_json(item)}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
