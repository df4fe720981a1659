"""Eval cases: a prompt with its tools, and the call that is expected, or that none is. Sets of them are JSON lines."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backend.evalgate.normal_form import parse

KEYS: Final = ("id", "customer", "model", "messages", "tools", "tool_choice", "expected", "metadata")
_NO_CALL: Final = ({"refusal": True}, None)


class BadSet(ValueError):
    """A set that cannot be used: ``problems`` are lines, each with its file and line number."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call. ``arguments`` are as :func:`~backend.evalgate.normal_form.parse` gives them."""

    name: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Case:
    """``expected`` None: no tool is to be called. ``model``: what to ask for, where the endpoint names none."""

    id: str
    customer: str
    model: str | None
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    tool_choice: Any
    expected: Call | None

    @property
    def key(self) -> tuple[str, str]:
        """Names it within a run."""
        return self.customer, self.id

    def schema(self, name: str) -> Any:
        """The ``parameters`` of the tool ``name``; None where there is no such tool, or it declares none."""
        for tool in self.tools or ():
            if tool["function"]["name"] == name:
                return tool["function"].get("parameters")
        return None


@dataclass(frozen=True, slots=True)
class SetFile:
    """A file's text. ``customer``: whose cases they are where a line does not say."""

    name: str
    customer: str
    text: str


def read_sets(files: Iterable[SetFile]) -> list[Case]:
    """All cases, in their order. Raises BadSet with everything that is wrong."""
    cases: list[Case] = []
    problems: list[str] = []
    places: dict[tuple[str, str], str] = {}
    unnamed = Counter[tuple[str, str]]()
    for file in files:
        found = 0
        for number, line in enumerate(file.text.split("\n"), 1):
            if not line.strip():
                continue
            found += 1
            place = f"{file.name}:{number}"
            try:
                case = _case(line, file.customer, unnamed)
            except ValueError as error:
                problems.append(f"{place}: {error}")
                continue
            if (first := places.setdefault(case.key, place)) != place:
                problems.append(f"{place}: {case.customer} has a case with the id `{case.id}` already, at {first}")
            cases.append(case)
        if not found:
            problems.append(f"{file.name}: holds no cases")
    if problems:
        raise BadSet(problems)
    return cases


def digest(files: Iterable[SetFile]) -> str:
    """Names the content of all files, for what is kept of a run. The files' names do not matter."""
    whole = hashlib.sha256()
    for text in sorted(f"{file.customer}\0{file.text}" for file in files):
        whole.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return whole.hexdigest()


def _case(line: str, customer: str, unnamed: Counter[tuple[str, str]]) -> Case:
    try:
        given = json.loads(line)
        exact = parse(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError("a case is a JSON object")
    for key in given.keys() - set(KEYS):
        near = difflib.get_close_matches(key, KEYS, 1)
        raise ValueError(f"unknown key `{key}`" + (f"; `{near[0]}`?" if near else f"; there are: {', '.join(KEYS)}"))
    if "expected" not in given:
        raise ValueError("`expected` is missing: a call, or null where none is to be made")
    named = _text(given, "customer") or customer
    tools = _tools(given.get("tools"))
    expected = _expected(given["expected"], exact["expected"])
    if expected is not None and expected.name not in (names := [tool["function"]["name"] for tool in tools or ()]):
        raise ValueError(f"expects a call of `{expected.name}`, but its tools are: {', '.join(names) or 'none'}")
    id_ = _text(given, "id")
    if id_ is None:
        content = json.dumps([given.get("messages"), tools, given["expected"]])
        id_ = hashlib.sha256(content.encode()).hexdigest()[:12]
        unnamed[named, id_] += 1
        if (count := unnamed[named, id_]) > 1:
            id_ = f"{id_}-{count}"
    return Case(
        id_, named, _text(given, "model"), _messages(given.get("messages")), tools, given.get("tool_choice"), expected
    )


def _text(given: Mapping[str, Any], key: str) -> str | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and key == "id":
        return str(value)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(f"`{key}` is a printable text")
    return value


def _messages(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise ValueError("`messages` is a list with at least one message")
    if not all(isinstance(one, dict) and isinstance(one.get("role"), str) for one in value):
        raise ValueError("`messages`: each is an object with a `role`")
    return value


def _tools(value: Any) -> list[dict[str, Any]] | None:
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise ValueError("`tools` is a list")
    for tool in value:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError('`tools`: each is {"type": "function", "function": {"name": …, "parameters": …}}')
    return value


def _expected(given: Any, exact: Any) -> Call | None:
    if given in _NO_CALL:
        return None
    if not isinstance(given, dict) or given.keys() != {"name", "arguments"} or not isinstance(given["name"], str):
        raise ValueError('`expected` is {"name": …, "arguments": {…}}, {"refusal": true} or null')
    arguments = exact["arguments"]
    if isinstance(arguments, str):  # as the API has it
        try:
            arguments = parse(arguments)
        except ValueError as error:
            raise ValueError(f"`expected.arguments` is not JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError("`expected.arguments` is an object")
    return Call(given["name"], arguments)


def by_customer(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """The cases of each customer, by name."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.customer, []).append(case)
    return dict(sorted(found.items()))


def in_turns(cases: Iterable[Case]) -> Iterator[Case]:
    """One case of each customer after the other, so that different adapters are asked for at once, as in service."""
    queues = [list(reversed(of_one)) for of_one in by_customer(cases).values()]
    while queues:
        for queue in queues:
            yield queue.pop()
        queues = [queue for queue in queues if queue]
