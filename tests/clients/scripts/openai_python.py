"""openai-python, 1.x to 3.x."""

from __future__ import annotations

from typing import Any

from answers import note_chat, note_chunk
from openai import AsyncOpenAI
from pydantic import BaseModel
from report import LOOK_UP, QUESTION, TEXTS, Told, main

MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
TOOL: Any = LOOK_UP


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


async def plain(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        raw = await client.chat.completions.with_raw_response.create(model=told.model, messages=MESSAGES)
        note_chat(told, raw.parse())
        told.seen["headers"] = dict(raw.headers)


async def stream(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        chunks = await client.chat.completions.create(
            model=told.model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in chunks:
            note_chunk(told, chunk)


async def tools(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        note_chat(told, await client.chat.completions.create(model=told.model, messages=MESSAGES, tools=[TOOL]))


async def stream_tools(told: Told) -> None:
    async with (
        AsyncOpenAI(**told.access()) as client,
        client.chat.completions.stream(model=told.model, messages=MESSAGES, tools=[TOOL]) as events,
    ):
        note_chat(told, await events.get_final_completion())


async def structured(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        answer = await client.chat.completions.parse(model=told.model, messages=MESSAGES, response_format=Answer)
        note_chat(told, answer)
        parsed = answer.choices[0].message.parsed
        told.seen["parsed"] = parsed.model_dump() if parsed else None


async def stream_structured(told: Told) -> None:
    async with (
        AsyncOpenAI(**told.access()) as client,
        client.chat.completions.stream(model=told.model, messages=MESSAGES, response_format=Answer) as events,
    ):
        answer = await events.get_final_completion()
        note_chat(told, answer)
        parsed = answer.choices[0].message.parsed
        told.seen["parsed"] = parsed.model_dump() if parsed else None


async def completions(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        answer = await client.completions.create(model=told.model, prompt=QUESTION, max_tokens=64)
        told.seen |= {"text": answer.choices[0].text, "finish": answer.choices[0].finish_reason, "model": answer.model}


async def models(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        told.seen["models"] = [model.id async for model in client.models.list()]
        told.seen["model"] = (await client.models.retrieve(told.model)).id


async def embeddings(told: Told) -> None:
    async with AsyncOpenAI(**told.access()) as client:
        answer = await client.embeddings.create(model=told.model, input=TEXTS)
        told.seen |= {"vectors": [one.embedding for one in answer.data], "model": answer.model}


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured, stream_structured, completions, models, embeddings)
