"""The judge: what a client was sent, held against the invariants I2 and I3, without any socket or clock.

I2: a stream with status 200 ends with exactly one finish a choice and ``[DONE]``, or with one error event and then the
end; never a bare end of file, never an invented finish. I3: one id, one created, one model, one role a choice, at most
one usage; the numbered text has no gap and no repeat.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.raw_client import Recording

FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
NUMBERED = re.compile(r"(?P<name>[^:\s]{1,128}):(?P<numbers>(?: \d+)*)(?: end/(?P<count>\d+))?", re.ASCII)
DONE = "[DONE]"


@dataclass(slots=True)
class Choice:
    """One choice of an answer, put together."""

    text: str = ""
    roles: int = 0
    finishes: list[str] = field(default_factory=list)
    calls: dict[int, str] = field(default_factory=lambda: defaultdict(str))
    names: dict[int, str] = field(default_factory=dict)
    """Of the tools that are called."""


@dataclass(slots=True)
class Seen:
    """What an answer said, and everything that is wrong with it, each as ``code: detail``."""

    violations: list[str] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    choices: dict[int, Choice] = field(default_factory=lambda: defaultdict(Choice))
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    degraded: dict[str, Any] | None = None
    model: str | None = None
    done: bool = False

    @property
    def text(self) -> str:
        """Of the first choice."""
        return self.choices[0].text if 0 in self.choices else ""

    @property
    def answered_by(self) -> str | None:
        """The name that the first choice's numbered answer, text or tool call, carries."""
        if 0 not in self.choices:
            return None
        for arguments in self.choices[0].calls.values():
            named = re.match(r'\{"answered_by": "([^"]*)"', arguments)
            return named[1] if named else None
        name, colon, _ = self.text.partition(":")
        return name if colon else None

    @property
    def whole(self) -> bool:
        """A complete answer, with nothing wrong."""
        return not self.violations and self.error is None

    @property
    def codes(self) -> list[str]:
        """The violations without their details."""
        return [violation.partition(":")[0] for violation in self.violations]

    @property
    def has_said_something(self) -> bool:
        """Whether anything but blanks has come."""
        return any(choice.text.strip() or choice.calls for choice in self.choices.values())

    def wrong(self, code: str, detail: object = "") -> None:
        """Note a violation."""
        self.violations.append(f"{code}: {detail}")


def check_stream(recording: Recording, *, text: str | None = None, choices: int = 1) -> Seen:
    """Judge a stream. ``text``: what it has to say instead of a numbered answer (a static one)."""
    seen = Seen()
    if recording.status != 200:
        seen.wrong("status", recording.status)
        return seen
    if not recording.headers.get("content-type", "").startswith("text/event-stream"):
        seen.wrong("content_type", recording.headers.get("content-type"))
    if recording.end != "complete":
        seen.wrong("cut", f"the connection's end: {recording.end}")
    for name, data in _frames(recording.body, seen):
        _frame(seen, name, data)
    _ending(seen, choices)
    _sameness(seen)
    for index, choice in seen.choices.items():
        _numbers(seen, index, choice, text)
    return seen


def check_plain(recording: Recording, *, text: str | None = None, choices: int = 1) -> Seen:
    """Judge a plain answer with status 200."""
    seen = Seen()
    if recording.status != 200:
        seen.wrong("status", recording.status)
        return seen
    if recording.end != "complete":
        seen.wrong("cut", f"the connection's end: {recording.end}")
    try:
        answer = recording.json()
    except ValueError as error:
        seen.wrong("frame", error)
        return seen
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        seen.wrong("frame", "not an answer")
        return seen
    seen.events.append(answer)
    seen.model, seen.degraded, seen.usage = answer.get("model"), answer.get("degraded"), answer.get("usage")
    for given in answer["choices"]:
        choice = seen.choices[given["index"]]
        message = given.get("message") or {"content": given.get("text")}
        choice.text = message.get("content") or ""
        for index, call in enumerate(message.get("tool_calls") or ()):
            choice.calls[index] = call["function"]["arguments"]
            choice.names[index] = call["function"]["name"]
        choice.finishes.append(given.get("finish_reason"))
    seen.done = True
    _ending(seen, choices)
    for index, choice in seen.choices.items():
        _numbers(seen, index, choice, text)
    return seen


def check_error(recording: Recording) -> Seen:
    """Judge an error answer: whole, and in OpenAI's envelope."""
    seen = Seen()
    if recording.status is None or recording.status < 400:
        seen.wrong("status", recording.status)
    if recording.end != "complete":
        seen.wrong("cut", f"the connection's end: {recording.end}")
    try:
        error = recording.json()["error"]
    except (ValueError, TypeError, KeyError) as problem:
        seen.wrong("envelope", repr(problem))
        return seen
    if not isinstance(error, dict) or not {"message", "type", "param", "code"} <= error.keys():
        seen.wrong("envelope", error)
        return seen
    seen.error = error
    if not isinstance(error["message"], str) or not error["message"]:
        seen.wrong("envelope", "no message")
    return seen


def _frames(body: bytes, seen: Seen) -> Iterator[tuple[str | None, str]]:
    """Server-sent events with data: the event's name, if it has one, and the data."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        seen.wrong("frame", error)
        return
    *blocks, rest = re.split(r"\r\n\r\n|\n\n", text)
    if rest:
        seen.wrong("frame", f"not ended: {rest[:80]!r}")
    for block in blocks:
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        data = [line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data:")]
        names = [line.removeprefix("event:").strip() for line in lines if line.startswith("event:")]
        if data:
            yield (names[-1] if names else None), "\n".join(data)
        elif lines:
            seen.wrong("frame", f"no data: {block[:80]!r}")


def _frame(seen: Seen, name: str | None, data: str) -> None:
    if seen.done:
        seen.wrong("after_done", data[:80])
        return
    if data == DONE:
        seen.done = True
        return
    if seen.error is not None:
        seen.wrong("after_error", data[:80])
        return
    try:
        event = json.loads(data)
    except ValueError as error:
        seen.wrong("frame", f"{error}: {data[:80]!r}")
        return
    if not isinstance(event, dict):
        seen.wrong("frame", f"not an object: {data[:80]!r}")
        return
    if "error" in event or name == "error":
        nested = event.get("error")
        seen.error = nested if isinstance(nested, dict) else event
        if not isinstance(nested, dict) or not {"message", "type"} <= nested.keys():
            seen.wrong("envelope", data[:80])
        return
    if not isinstance(event.get("choices"), list):
        seen.wrong("frame", f"not a chunk: {data[:80]!r}")
        return
    if "degraded" in event:
        # Late only where nothing but blanks was told of an answer that broke, in whose place another one then came.
        begun_anew = event["degraded"].get("reason") == "stream_broken" and not seen.has_said_something
        if seen.events and not begun_anew:
            seen.wrong("degraded_late", f"event {len(seen.events)}")
        seen.degraded = event["degraded"]
    seen.events.append(event)
    if event.get("usage") is not None:
        if seen.usage is not None:
            seen.wrong("usage_twice", event["usage"])
        seen.usage = event["usage"]
    for given in event["choices"]:
        _delta(seen, given)


def _delta(seen: Seen, given: dict[str, Any]) -> None:
    choice = seen.choices[given["index"]]
    delta = given.get("delta") or {}
    said = (given["text"] if "text" in given else delta.get("content")) or ""
    calls = delta.get("tool_calls") or []
    if choice.finishes and (said or calls or given.get("finish_reason")):
        seen.wrong("after_finish", str(given)[:80])
    if delta.get("role"):
        choice.roles += 1
        if choice.roles > 1:
            seen.wrong("role_twice", given["index"])
        elif choice.text or choice.calls:
            seen.wrong("role_late", given["index"])
    choice.text += said
    for call in calls:
        index, function = call.get("index", 0), call.get("function") or {}
        choice.calls[index] += function.get("arguments") or ""
        if name := function.get("name"):
            if index in choice.names:
                seen.wrong("named_twice", f"{choice.names[index]!r}, {name!r}")
            choice.names[index] = name
    if given.get("finish_reason") is not None:
        choice.finishes.append(given["finish_reason"])


def _ending(seen: Seen, choices: int) -> None:
    finishes = [finish for choice in seen.choices.values() for finish in choice.finishes]
    for finish in finishes:
        if finish not in FINISHES:
            seen.wrong("finish", finish)
    if seen.error is not None:
        if len(finishes) >= choices:
            seen.wrong("error_after_finish", seen.error)
        return
    if not seen.done:
        seen.wrong("bare_end", "no [DONE] and no error")
    for index in range(choices):
        count = len(seen.choices[index].finishes) if index in seen.choices else 0
        if count != 1:
            seen.wrong("no_finish" if count == 0 else "finish_twice", f"choice {index}")
    if len(seen.choices) > choices:
        seen.wrong("choices", sorted(seen.choices))


def _sameness(seen: Seen) -> None:
    for key in ("id", "created", "model", "object"):
        values = {event.get(key) for event in seen.events}
        if len(values) > 1 or None in values:
            seen.wrong(key, sorted(map(str, values)))
    if seen.events:
        seen.model = seen.events[0].get("model")
    chat = any(event.get("object") == "chat.completion.chunk" for event in seen.events)
    for index, choice in seen.choices.items():
        if chat and choice.roles == 0:
            seen.wrong("no_role", f"choice {index}")


def _numbers(seen: Seen, index: int, choice: Choice, text: str | None) -> None:
    finish = choice.finishes[0] if choice.finishes else None
    for arguments in choice.calls.values():
        _arguments(seen, index, arguments, finish)
    if choice.calls:
        if choice.text.strip():
            seen.wrong("prose_and_call", f"choice {index}: {choice.text!r}")
        if choice.calls.keys() != choice.names.keys():
            seen.wrong("nameless", f"choice {index}: {choice.names}")
        return
    if text is not None:
        if choice.text != text if finish else not text.startswith(choice.text):
            seen.wrong("text", f"choice {index}: {choice.text!r}")
        return
    if not choice.text and finish is None:
        return
    match = NUMBERED.fullmatch(choice.text)
    if match is None:
        seen.wrong("text", f"choice {index}: {choice.text!r}")
        return
    numbers = match["numbers"].split()
    _sequence(seen, index, [int(number) for number in numbers])
    if match["count"] is not None and int(match["count"]) != len(numbers):
        seen.wrong("gap", f"choice {index}: {choice.text!r}")
    if finish == "stop" and match["count"] is None:
        seen.wrong("short", f"choice {index}: {choice.text!r}")
    if finish == "length" and match["count"] is not None:
        seen.wrong("text", f"choice {index}, {finish}: {choice.text!r}")


def _arguments(seen: Seen, index: int, arguments: str, finish: str | None) -> None:
    said = arguments
    if finish not in ("stop", "tool_calls"):
        # Cut off by a limit or an error: what is there still has to be in sequence.
        said = re.sub(r"(?:, \d*|,|\d+)$", "", arguments)
        numbers = re.findall(r"\d+", said.partition('"numbers": [')[2])
        _sequence(seen, index, [int(number) for number in numbers])
        return
    try:
        numbers = json.loads(said)["numbers"]
    except (ValueError, TypeError, KeyError) as error:
        seen.wrong("short", f"choice {index}, arguments {arguments!r}: {error!r}")
        return
    _sequence(seen, index, numbers)


def _sequence(seen: Seen, index: int, numbers: list[int]) -> None:
    for place, number in enumerate(numbers):
        if number != place:
            code = "repeat" if number < place else "gap"
            seen.wrong(code, f"choice {index}: {number} at place {place}")
            return
