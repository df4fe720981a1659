"""What OpenAI's APIs answer, as more than one library gives it: objects with the APIs' own fields. They are taken as
arguments; of its own this needs only the standard library."""

from __future__ import annotations

from typing import Any

from report import Told


def note_degraded(told: Told, answer: Any) -> None:
    """Of an answer or a part of its stream: the mark, if it has one."""
    if degraded := getattr(answer, "degraded", None):
        told.seen["degraded"] = degraded


def note_chat(told: Told, answer: Any) -> None:
    """A whole chat completion."""
    note_degraded(told, answer)
    choice = answer.choices[0]
    told.seen |= {
        "text": choice.message.content or "",
        "finish": choice.finish_reason,
        "model": answer.model,
        "tokens": answer.usage.completion_tokens if answer.usage else None,
        "calls": [
            {"name": call.function.name, "arguments": call.function.arguments, "id": call.id}
            for call in choice.message.tool_calls or ()
        ],
    }


def note_chunk(told: Told, chunk: Any) -> None:
    """A chunk of a chat completion's stream."""
    note_degraded(told, chunk)
    told.seen["model"] = chunk.model
    for choice in chunk.choices:
        told.say(choice.delta.content)
        told.seen["finish"] = choice.finish_reason or told.seen.get("finish")
    if usage := getattr(chunk, "usage", None):
        told.seen["tokens"] = usage.completion_tokens


def note_response(told: Told, answer: Any) -> None:
    """A whole response."""
    note_degraded(told, answer)
    told.seen |= {
        "text": answer.output_text,
        "finish": answer.status,
        "model": answer.model,
        "tokens": answer.usage.output_tokens if answer.usage else None,
        "calls": [
            {"name": item.name, "arguments": item.arguments, "id": item.call_id}
            for item in answer.output
            if item.type == "function_call"
        ],
    }


def note_event(told: Told, event: Any) -> None:
    """An event of a response's stream."""
    note_degraded(told, event)
    if event.type == "response.output_text.delta":
        told.say(event.delta)
    elif event.type == "response.completed":
        said = told.seen["text"]
        note_response(told, event.response)
        assert told.seen["text"] == said, "the last event says something else than those before it"
