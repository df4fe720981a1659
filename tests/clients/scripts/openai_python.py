"""openai-python, 1.x to 3.x."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from report import LOOK_UP, QUESTION, TEXTS, Told, main

MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
TOOL: Any = LOOK_UP


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def client_of(told: Told) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=told.base_url, api_key=told.key, max_retries=told.retries)


def note(told: Told, answer: Any) -> None:
    """Of a whole answer."""
    choice = answer.choices[0]
    told.seen |= {
        "text": choice.message.content or "",
        "finish": choice.finish_reason,
        "model": answer.model,
        "tokens": answer.usage.completion_tokens if answer.usage else None,
        "degraded": (answer.model_extra or {}).get("degraded"),
        "calls": [
            {"name": call.function.name, "arguments": call.function.arguments, "id": call.id}
            for call in choice.message.tool_calls or ()
        ],
    }


async def plain(told: Told) -> None:
    async with client_of(told) as client:
        raw = await client.chat.completions.with_raw_response.create(model=told.model, messages=MESSAGES)
        note(told, raw.parse())
        told.seen["headers"] = dict(raw.headers)


async def stream(told: Told) -> None:
    async with client_of(told) as client:
        chunks = await client.chat.completions.create(
            model=told.model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in chunks:
            told.seen["model"] = chunk.model
            if degraded := (chunk.model_extra or {}).get("degraded"):
                told.seen["degraded"] = degraded
            for choice in chunk.choices:
                told.say(choice.delta.content)
                told.seen["finish"] = choice.finish_reason or told.seen.get("finish")
            if chunk.usage:
                told.seen["tokens"] = chunk.usage.completion_tokens


async def tools(told: Told) -> None:
    async with client_of(told) as client:
        note(told, await client.chat.completions.create(model=told.model, messages=MESSAGES, tools=[TOOL]))


async def stream_tools(told: Told) -> None:
    async with (
        client_of(told) as client,
        client.chat.completions.stream(model=told.model, messages=MESSAGES, tools=[TOOL]) as events,
    ):
        note(told, await events.get_final_completion())


async def structured(told: Told) -> None:
    async with client_of(told) as client:
        answer = await client.chat.completions.parse(model=told.model, messages=MESSAGES, response_format=Answer)
        note(told, answer)
        parsed = answer.choices[0].message.parsed
        told.seen["parsed"] = parsed.model_dump() if parsed else None


async def stream_structured(told: Told) -> None:
    async with (
        client_of(told) as client,
        client.chat.completions.stream(model=told.model, messages=MESSAGES, response_format=Answer) as events,
    ):
        answer = await events.get_final_completion()
        note(told, answer)
        parsed = answer.choices[0].message.parsed
        told.seen["parsed"] = parsed.model_dump() if parsed else None


async def completions(told: Told) -> None:
    async with client_of(told) as client:
        answer = await client.completions.create(model=told.model, prompt=QUESTION, max_tokens=64)
        told.seen |= {"text": answer.choices[0].text, "finish": answer.choices[0].finish_reason, "model": answer.model}


async def models(told: Told) -> None:
    async with client_of(told) as client:
        told.seen["models"] = [model.id async for model in client.models.list()]
        told.seen["model"] = (await client.models.retrieve(told.model)).id


async def embeddings(told: Told) -> None:
    async with client_of(told) as client:
        answer = await client.embeddings.create(model=told.model, input=TEXTS)
        told.seen |= {"vectors": [one.embedding for one in answer.data], "model": answer.model}


if __name__ == "__main__":
    main(
        {
            "plain": plain,
            "stream": stream,
            "tools": tools,
            "stream-tools": stream_tools,
            "structured": structured,
            "stream-structured": stream_structured,
            "completions": completions,
            "models": models,
            "embeddings": embeddings,
        }
    )
