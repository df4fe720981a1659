"""The Anthropic SDK."""

from __future__ import annotations

from typing import Any

from answers import note_degraded
from anthropic import AsyncAnthropic
from pydantic import BaseModel
from report import LOOK_UP_OF_MESSAGES, QUESTION, Told, main

MOST = 1000
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
TOOL: Any = LOOK_UP_OF_MESSAGES


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def client_of(told: Told) -> AsyncAnthropic:
    return AsyncAnthropic(**told.access())


def note(told: Told, message: Any) -> None:
    """Of a whole answer."""
    note_degraded(told, message)
    told.seen |= {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "finish": message.stop_reason,
        "model": message.model,
        "tokens": message.usage.output_tokens,
        "calls": [
            {"name": block.name, "arguments": block.input, "id": block.id}
            for block in message.content
            if block.type == "tool_use"
        ],
    }


async def plain(told: Told) -> None:
    async with client_of(told) as client:
        raw = await client.messages.with_raw_response.create(model=told.model, max_tokens=MOST, messages=MESSAGES)
        note(told, await raw.parse())
        told.seen["headers"] = dict(raw.headers)


async def stream(told: Told) -> None:
    async with client_of(told) as client:
        events = await client.messages.create(model=told.model, max_tokens=MOST, messages=MESSAGES, stream=True)
        async for event in events:
            note_degraded(told, event)
            if event.type == "message_start":
                told.seen["model"] = event.message.model
            elif event.type == "content_block_delta" and event.delta.type == "text_delta":
                told.say(event.delta.text)
            elif event.type == "message_delta":
                told.seen |= {"finish": event.delta.stop_reason, "tokens": event.usage.output_tokens}


async def tools(told: Told) -> None:
    async with client_of(told) as client:
        note(
            told,
            await client.messages.create(model=told.model, max_tokens=MOST, messages=MESSAGES, tools=[TOOL]),
        )


async def stream_tools(told: Told) -> None:
    async with (
        client_of(told) as client,
        client.messages.stream(model=told.model, max_tokens=MOST, messages=MESSAGES, tools=[TOOL]) as events,
    ):
        note(told, await events.get_final_message())


async def structured(told: Told) -> None:
    async with client_of(told) as client:
        message = await client.messages.parse(
            model=told.model, max_tokens=MOST, messages=MESSAGES, output_format=Answer
        )
        note(told, message)
        told.seen["parsed"] = message.parsed_output.model_dump() if message.parsed_output else None


async def stream_structured(told: Told) -> None:
    async with (
        client_of(told) as client,
        client.messages.stream(model=told.model, max_tokens=MOST, messages=MESSAGES, output_format=Answer) as events,
    ):
        message = await events.get_final_message()
        note(told, message)
        told.seen["parsed"] = message.parsed_output.model_dump() if message.parsed_output else None


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured, stream_structured)
