"""LiteLLM as a client: `litellm.acompletion` with the gateway as `api_base`."""

from __future__ import annotations

from typing import Any

import litellm
from pydantic import BaseModel
from report import LOOK_UP, QUESTION, TEXTS, Told, main

MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
litellm.suppress_debug_info = True


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


async def complete(told: Told, **more: Any) -> Any:
    return await litellm.acompletion(
        model=f"openai/{told.model}",
        api_base=told.base_url,
        api_key=told.key,
        max_retries=told.retries,
        messages=MESSAGES,
        **more,
    )


def note(told: Told, answer: Any) -> None:
    choice = answer.choices[0]
    told.seen |= {
        "text": choice.message.content or "",
        "finish": choice.finish_reason,
        "model": answer.model,
        "tokens": answer.usage.completion_tokens,
        "degraded": getattr(answer, "degraded", None),
        "headers": answer._hidden_params.get("additional_headers"),
        "calls": [
            {"name": call.function.name, "arguments": call.function.arguments, "id": call.id}
            for call in choice.message.tool_calls or ()
        ],
    }


async def plain(told: Told) -> None:
    note(told, await complete(told))


async def stream(told: Told) -> None:
    async for chunk in await complete(told, stream=True, stream_options={"include_usage": True}):
        told.seen["model"] = chunk.model
        if degraded := getattr(chunk, "degraded", None):
            told.seen["degraded"] = degraded
        for choice in chunk.choices:
            told.say(choice.delta.content)
            told.seen["finish"] = choice.finish_reason or told.seen.get("finish")
        if usage := getattr(chunk, "usage", None):
            told.seen["tokens"] = usage.completion_tokens


async def tools(told: Told) -> None:
    note(told, await complete(told, tools=[LOOK_UP]))


async def stream_tools(told: Told) -> None:
    chunks = [chunk async for chunk in await complete(told, tools=[LOOK_UP], stream=True)]
    note(told, litellm.stream_chunk_builder(chunks, messages=MESSAGES))


async def structured(told: Told) -> None:
    answer = await complete(told, response_format=Answer)
    note(told, answer)
    told.seen["parsed"] = Answer.model_validate_json(answer.choices[0].message.content).model_dump()


async def embeddings(told: Told) -> None:
    answer = await litellm.aembedding(
        model=f"openai/{told.model}",
        api_base=told.base_url,
        api_key=told.key,
        max_retries=told.retries,
        input=TEXTS,
    )
    told.seen |= {"vectors": [one["embedding"] for one in answer.data], "model": answer.model}


if __name__ == "__main__":
    main(
        {
            "plain": plain,
            "stream": stream,
            "tools": tools,
            "stream-tools": stream_tools,
            "structured": structured,
            "embeddings": embeddings,
        }
    )
