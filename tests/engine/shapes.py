"""What of an answer has to be the same whoever gives it: not its words, but its status, keys, types and their order."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.raw_client import Recording

VERBATIM = frozenset(
    {
        "object", "role", "finish_reason", "type", "param", "code", "parent", "max_model_len", "owned_by", "status",
        "stop_reason",
    }
)  # fmt: skip
"""Keys whose values count, not only their types."""
WORDED = frozenset({"BadRequestError", "InvalidUserInput", "NotFoundError"})
"""Kinds of error whose message vLLM words itself; the others quote pydantic at length."""
DONE = b"data: [DONE]"


def shape(recording: Recording) -> dict[str, Any]:
    """Of one answer."""
    kind = recording.headers.get("content-type")
    common = {"status": recording.status, "end": recording.end, "content-type": kind}
    if kind is not None and kind.startswith("text/event-stream"):
        named = recording.body.startswith(b"event: ")
        return {**common, **(named_stream_shape if named else stream_shape)(recording.body)}
    if kind == "application/json":
        return {**common, "body": value_shape(recording.json())}
    return {**common, "text": recording.body}


def stream_shape(body: bytes) -> dict[str, Any]:
    """Of a stream: the events of each choice, those alike that follow each other as one, and how it ends.

    A busy server may put two tokens into one event, and the choices of one step come in any order.
    """
    *events, last, rest = body.split(b"\n\n")
    assert rest == b"", "the stream's last event has no end"
    assert all(event.startswith(b"data: ") for event in events)
    shapes = [value_shape(json.loads(event.removeprefix(b"data: "))) for event in events]
    choices = sorted({choice["index"] for event in events for choice in _choices(event)})
    return {
        "choices": {
            index: [alike for alike, _ in groupby(s for s, e in zip(shapes, events, strict=True) if _is_of(e, index))]
            for index in choices
        },
        "after the choices": [s for s, e in zip(shapes, events, strict=True) if not _choices(e)],
        "closing event": shapes[-1],
        "done": last == DONE,
    }


def named_stream_shape(body: bytes) -> dict[str, Any]:
    """Of a stream of named events: the events, those alike that follow each other as one."""
    *events, rest = body.split(b"\n\n")
    assert rest == b"", "the stream's last event has no end"
    pairs = [event.split(b"\ndata: ") for event in events]
    return {
        "events": [alike for alike, _ in groupby((name, value_shape(json.loads(data))) for name, data in pairs)],
    }


def value_shape(value: Any, key: str = "") -> Any:
    """Of a piece of JSON: the same, with types in place of values, and lists of like things cut to one of them."""
    if key in VERBATIM:
        return value
    if isinstance(value, dict):
        return {
            name: inner if name == "message" and value.get("type") in WORDED else value_shape(inner, name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [alike for alike, _ in groupby(value_shape(inner) for inner in value)]
    return type(value).__name__


def metrics_shape(text: bytes) -> dict[str, Any]:
    """Of every vLLM metric: its type, the names of its labels, the bounds of its buckets."""
    return {
        family.name: {
            "type": family.type,
            "labels": {tuple(sorted(sample.labels)) for sample in family.samples},
            "bounds": sorted({float(s.labels["le"]) for s in family.samples if "le" in s.labels}),
        }
        for family in text_string_to_metric_families(text.decode())
        if family.name.startswith("vllm:")
    }


def _choices(event: bytes) -> list[dict[str, Any]]:
    choices: list[dict[str, Any]] = json.loads(event.removeprefix(b"data: ")).get("choices", [])
    return choices


def _is_of(event: bytes, index: int) -> bool:
    return any(choice["index"] == index for choice in _choices(event))
