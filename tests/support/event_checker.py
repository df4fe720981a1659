"""The judge of `/v1/responses` and `/v1/messages`: what a client was sent, held against each API's own rules.

As :mod:`tests.support.checker` for chat: a stream with status 200 ends with its API's last event or with one error
event, and then ends; it has one id and one model; its events are in order, and what they say piece by piece is what
they say as a whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.raw_client import Recording

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"


@dataclass(slots=True)
class Heard:
    """What an answer said, and everything that is wrong with it."""

    violations: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """Names with their arguments."""
    error: dict[str, Any] | None = None
    degraded: dict[str, Any] | None = None
    model: str | None = None
    reason: str | None = None
    """Why it ended, in the API's words."""
    usage: tuple[int, int] | None = None

    @property
    def whole(self) -> bool:
        """A complete answer, with nothing wrong."""
        return not self.violations and self.error is None

    @property
    def types(self) -> list[str]:
        """Of all events."""
        return [event["type"] for event in self.events]


def check(path: str, recording: Recording) -> Heard:
    """Judge an answer with status 200, streamed or plain."""
    heard = Heard()
    if recording.status != 200 or recording.end != "complete":
        heard.violations.append(f"status {recording.status}, end {recording.end}: {recording.body[:500]!r}")
        return heard
    streamed = recording.headers["content-type"].startswith("text/event-stream")
    if not streamed:
        answer = recording.json()
        heard.degraded = answer.get("degraded")
        (_response if path == RESPONSES else _message)(heard, answer)
        return heard
    *frames, rest = recording.body.decode().split("\n\n")
    if rest:
        heard.violations.append(f"bytes behind the last event: {rest!r}")
    for frame in frames:
        if frame.startswith(":"):
            continue
        name, _, data = frame.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        heard.events.append(event)
        if name != f"event: {event['type']}":
            heard.violations.append(f"{name!r} over {event['type']}")
    for number, event in enumerate(heard.events):
        if "degraded" in event:
            heard.degraded = event["degraded"]
            if number:
                heard.violations.append(f"the mark is in event {number}")
    if heard.types.count("error") > 1 or ("error" in heard.types and heard.types[-1] != "error"):
        heard.violations.append(f"error is not the end: {heard.types}")
    if heard.types[-1:] == ["error"]:
        heard.error = heard.events[-1]["error"]
    (_response_events if path == RESPONSES else _message_events)(heard)
    return heard


def _response_events(heard: Heard) -> None:
    if heard.types[:2] != ["response.created", "response.in_progress"]:
        heard.violations.append(f"it begins with {heard.types[:2]}")
    numbers = [event["sequence_number"] for event in heard.events]
    if numbers != sorted(set(numbers)):
        heard.violations.append(f"numbers out of order: {numbers}")
    said: dict[int, str] = {}
    for event in heard.events:
        if event["type"].endswith(".delta"):
            said[event["output_index"]] = said.get(event["output_index"], "") + event["delta"]
        elif event["type"] in ("response.output_text.done", "response.function_call_arguments.done"):
            done = event.get("text", event.get("arguments"))
            if done != said.get(event["output_index"], ""):
                heard.violations.append(f"{done!r} was said as {said}")
    ends = [event for event in heard.events if event["type"] in ("response.completed", "response.incomplete")]
    ids = {event["response"]["id"] for event in heard.events if "response" in event}
    models = {event["response"]["model"] for event in heard.events if "response" in event}
    if len(ids) != 1 or len(models) != 1:
        heard.violations.append(f"{ids} {models}")
    if heard.error is not None:
        heard.text = "".join(said.values())
        heard.model = models.pop()
        if ends:
            heard.violations.append("an error behind the end")
        return
    if len(ends) != 1 or heard.events[-1] is not ends[0]:
        heard.violations.append(f"it ends with {heard.types[-1]}")
        return
    _response(heard, ends[0]["response"])
    for index, item in enumerate(heard.events[-1]["response"]["output"]):
        whole = item.get("arguments", "".join(p.get("text", p.get("refusal", "")) for p in item.get("content") or ()))
        if said.get(index, "") != whole:
            heard.violations.append(f"output {index} is {whole!r} and was said as {said.get(index)!r}")


def _response(heard: Heard, response: dict[str, Any]) -> None:
    if response["object"] != "response" or not response["id"].startswith("resp_"):
        heard.violations.append(f"no response: {response}")
    heard.model = response["model"]
    heard.reason = (response["incomplete_details"] or {"reason": response["status"]})["reason"]
    if (heard.reason == "completed") != (response["status"] == "completed"):
        heard.violations.append(f"status {response['status']}")
    heard.usage = (response["usage"]["input_tokens"], response["usage"]["output_tokens"])
    for item in response["output"]:
        if item["type"] == "function_call":
            assert item["call_id"]
            heard.calls.append((item["name"], json.loads(item["arguments"])))
        elif item["type"] == "message":
            heard.text += "".join(part["text"] for part in item["content"])


def _message_events(heard: Heard) -> None:
    if heard.types[:1] != ["message_start"] or heard.types.count("message_start") != 1:
        heard.violations.append(f"it begins with {heard.types[:1]}")
        return
    message = dict(heard.events[0]["message"])
    blocks: list[dict[str, Any]] = []
    opened = False
    for event in heard.events[1:]:
        match event["type"]:
            case "content_block_start":
                if opened or event["index"] != len(blocks):
                    heard.violations.append(f"block {event['index']} behind {len(blocks)}")
                opened = True
                blocks.append(event["content_block"] | {"partial": ""})
            case "content_block_delta":
                delta = event["delta"]
                if not opened or event["index"] != len(blocks) - 1:
                    heard.violations.append(f"a delta of block {event['index']}")
                blocks[-1]["partial"] += delta.get("text") or delta.get("partial_json") or ""
            case "content_block_stop":
                opened = False
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    for block in blocks:
        partial = block.pop("partial")
        if block["type"] == "text":
            block["text"] = partial
        elif heard.error is None:
            block["input"] = json.loads(partial or "{}")
    if heard.error is None and (heard.types[-1] != "message_stop" or heard.types.count("message_stop") != 1 or opened):
        heard.violations.append(f"it ends with {heard.types[-1]}")
    if heard.error is None:
        _message(heard, message | {"content": blocks})
    else:
        heard.text = "".join(block.get("text", "") for block in blocks)
        heard.model = message["model"]
        if "message_stop" in heard.types:
            heard.violations.append("an error beside message_stop")


def _message(heard: Heard, message: dict[str, Any]) -> None:
    if (message["type"], message["role"]) != ("message", "assistant") or not message["id"]:
        heard.violations.append(f"no message: {message}")
    heard.model = message["model"]
    heard.reason = message.get("stop_reason")
    if heard.reason is None:
        heard.violations.append("no stop_reason")
    heard.usage = (message["usage"]["input_tokens"], message["usage"]["output_tokens"])
    for block in message["content"]:
        if block["type"] == "tool_use":
            assert block["id"]
            heard.calls.append((block["name"], block["input"]))
        elif block["type"] == "text":
            heard.text += block["text"]
