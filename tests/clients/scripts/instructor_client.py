"""instructor over openai-python: a pydantic model for an answer, by a tool call or by a JSON schema."""

from __future__ import annotations

from typing import Any

import instructor
from answers import note_chat, note_degraded
from openai import AsyncOpenAI
from pydantic import BaseModel
from report import QUESTION, Told, main

MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def client_of(told: Told, mode: instructor.Mode = instructor.Mode.TOOLS) -> Any:
    return instructor.from_openai(AsyncOpenAI(**told.access()), mode=mode)


async def asked(told: Told, mode: instructor.Mode) -> None:
    client = client_of(told, mode)
    answer, raw = await client.chat.completions.create_with_completion(
        model=told.model, messages=MESSAGES, response_model=Answer
    )
    note_degraded(told, raw)
    told.seen |= {"parsed": answer.model_dump(), "model": raw.model}


async def plain(told: Told) -> None:
    answer = await client_of(told).chat.completions.create(model=told.model, messages=MESSAGES, response_model=None)
    note_chat(told, answer)


async def stream(told: Told) -> None:
    """Its own stream gives models that fill up; a piece is one more of them."""
    parts = client_of(told).chat.completions.create_partial(model=told.model, messages=MESSAGES, response_model=Answer)
    async for part in parts:
        told.seen["parsed"] = part.model_dump()
        if part.numbers:
            told.say(f"{len(part.numbers)} ")


async def tools(told: Told) -> None:
    await asked(told, instructor.Mode.TOOLS)


async def structured(told: Told) -> None:
    await asked(told, instructor.Mode.JSON_SCHEMA)


if __name__ == "__main__":
    main(plain, stream, tools, structured)
