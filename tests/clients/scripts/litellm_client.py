"""LiteLLM as a client: `litellm.acompletion` with the gateway as `api_base`."""

from __future__ import annotations

from typing import Any

import litellm
from answers import note_chat, note_chunk
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
        **told.access("api_base"),
        messages=MESSAGES,
        **more,
    )


def note(told: Told, answer: Any) -> None:
    note_chat(told, answer)
    told.seen["headers"] = answer._hidden_params.get("additional_headers")


async def plain(told: Told) -> None:
    note(told, await complete(told))


async def stream(told: Told) -> None:
    async for chunk in await complete(told, stream=True, stream_options={"include_usage": True}):
        note_chunk(told, chunk)


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
        **told.access("api_base"),
        input=TEXTS,
    )
    told.seen |= {"vectors": [one["embedding"] for one in answer.data], "model": answer.model}


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured, embeddings)
