"""Whether what was said is what was expected: by the tool's name, by its arguments, by both."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.evalgate.case import Case
from backend.evalgate.normal_form import normal_form, parse
from backend.evalgate.said import Said


class Outcome(StrEnum):
    """What an answer comes to."""

    RIGHT = "right"
    WRONG_NAME = "wrong name"
    WRONG_ARGUMENTS = "wrong arguments"
    INVALID_JSON = "invalid JSON"
    SEVERAL_CALLS = "several calls"
    NO_CALL = "no call"
    REFUSED = "refused"
    UNWANTED_CALL = "unwanted call"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``name`` and ``arguments``: whether that part is right; None where no call is expected."""

    outcome: Outcome
    name: bool | None = None
    arguments: bool | None = None

    @property
    def right(self) -> bool:
        """All as expected: both parts of a call, or no call."""
        return self.outcome is Outcome.RIGHT


def judge(case: Case, said: Said, *, enum_case: bool = True) -> Verdict:
    """``enum_case`` False: see :func:`~backend.evalgate.normal_form.normal_form`."""
    if case.expected is None:
        return Verdict(_of_none(said))
    if said.error:
        return Verdict(Outcome.ERROR, False, False)
    if not said.calls:
        return Verdict(_instead(said), False, False)
    first = said.calls[0]
    name = first.name == case.expected.name
    found = arguments(first.arguments)
    if found is None:
        return Verdict(Outcome.INVALID_JSON, name, False)
    schema = case.schema(case.expected.name)
    same = normal_form(found, schema, enum_case=enum_case) == normal_form(
        case.expected.arguments, schema, enum_case=enum_case
    )
    if len(said.calls) > 1:
        outcome = Outcome.SEVERAL_CALLS
    elif not name:
        outcome = Outcome.WRONG_NAME
    else:
        outcome = Outcome.RIGHT if same else Outcome.WRONG_ARGUMENTS
    return Verdict(outcome, name, same)


def arguments(text: str) -> dict[str, Any] | None:
    """A call's arguments; None where they are not a JSON object. `""` is none: a client's own parser raises on it."""
    try:
        found = parse(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _of_none(said: Said) -> Outcome:
    if said.error:
        return Outcome.ERROR
    return Outcome.UNWANTED_CALL if said.calls else Outcome.RIGHT


def _instead(said: Said) -> Outcome:
    """A call was expected and none came."""
    if said.refusal or said.finish == "content_filter":
        return Outcome.REFUSED
    # A call that the engine's parser could not read is left in the text, as it stands.
    text = said.content.lstrip()
    return Outcome.INVALID_JSON if text.startswith(("{", "[{", "<tool_call>", "<|python_tag|>")) else Outcome.NO_CALL
