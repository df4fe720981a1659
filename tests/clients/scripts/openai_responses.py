"""openai-python's Responses API, 1.x to 3.x."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from report import LOOK_UP_OF_RESPONSES, QUESTION, Told, main

TOOL: Any = LOOK_UP_OF_RESPONSES


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def client_of(told: Told) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=told.base_url, api_key=told.key, max_retries=told.retries)


def note(told: Told, answer: Any) -> None:
    """Of a whole answer."""
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
    if degraded := (answer.model_extra or {}).get("degraded"):
        told.seen["degraded"] = degraded


async def plain(told: Told) -> None:
    async with client_of(told) as client:
        raw = await client.responses.with_raw_response.create(model=told.model, input=QUESTION)
        note(told, raw.parse())
        told.seen["headers"] = dict(raw.headers)


async def stream(told: Told) -> None:
    async with client_of(told) as client:
        events = await client.responses.create(model=told.model, input=QUESTION, stream=True)
        async for event in events:
            if degraded := (event.model_extra or {}).get("degraded"):
                told.seen["degraded"] = degraded
            if event.type == "response.output_text.delta":
                told.say(event.delta)
            elif event.type == "response.completed":
                said = told.seen["text"]
                note(told, event.response)
                assert told.seen["text"] == said, "the last event says something else than those before it"


async def tools(told: Told) -> None:
    async with client_of(told) as client:
        note(told, await client.responses.create(model=told.model, input=QUESTION, tools=[TOOL]))


async def stream_tools(told: Told) -> None:
    async with (
        client_of(told) as client,
        client.responses.stream(model=told.model, input=QUESTION, tools=[TOOL]) as events,
    ):
        note(told, await events.get_final_response())


async def structured(told: Told) -> None:
    async with client_of(told) as client:
        answer = await client.responses.parse(model=told.model, input=QUESTION, text_format=Answer)
        note(told, answer)
        told.seen["parsed"] = answer.output_parsed.model_dump() if answer.output_parsed else None


async def stream_structured(told: Told) -> None:
    async with (
        client_of(told) as client,
        client.responses.stream(model=told.model, input=QUESTION, text_format=Answer) as events,
    ):
        answer = await events.get_final_response()
        note(told, answer)
        told.seen["parsed"] = answer.output_parsed.model_dump() if answer.output_parsed else None


if __name__ == "__main__":
    main(
        {
            "plain": plain,
            "stream": stream,
            "tools": tools,
            "stream-tools": stream_tools,
            "structured": structured,
            "stream-structured": stream_structured,
        }
    )
