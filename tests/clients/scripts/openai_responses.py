"""openai-python's Responses API, 1.x to 3.x."""

from __future__ import annotations

from typing import Any

from answers import note_event, note_response
from openai import AsyncOpenAI
from pydantic import BaseModel
from report import LOOK_UP_OF_RESPONSES, QUESTION, Told, main

TOOL: Any = LOOK_UP_OF_RESPONSES


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


async def plain(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        raw = await client.responses.with_raw_response.create(model=told.model, input=QUESTION)
        note_response(told, raw.parse())
        told.seen["headers"] = dict(raw.headers)


async def stream(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        events = await client.responses.create(model=told.model, input=QUESTION, stream=True)
        async for event in events:
            note_event(told, event)


async def tools(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        note_response(told, await client.responses.create(model=told.model, input=QUESTION, tools=[TOOL]))


async def stream_tools(told: Told) -> None:
    async with (
        AsyncOpenAI(**told.access()) as client,
        client.responses.stream(model=told.model, input=QUESTION, tools=[TOOL]) as events,
    ):
        note_response(told, await events.get_final_response())


async def structured(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        answer = await client.responses.parse(model=told.model, input=QUESTION, text_format=Answer)
        note_response(told, answer)
        told.seen["parsed"] = answer.output_parsed.model_dump() if answer.output_parsed else None


async def stream_structured(told: Told) -> None:
    async with (
        AsyncOpenAI(**told.access()) as client,
        client.responses.stream(model=told.model, input=QUESTION, text_format=Answer) as events,
    ):
        answer = await events.get_final_response()
        note_response(told, answer)
        told.seen["parsed"] = answer.output_parsed.model_dump() if answer.output_parsed else None


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured, stream_structured)
