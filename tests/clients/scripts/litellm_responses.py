"""LiteLLM as a client of the Responses API: `litellm.aresponses` with the gateway as `api_base`."""

from __future__ import annotations

from typing import Any

import litellm
from pydantic import BaseModel
from report import LOOK_UP_OF_RESPONSES, QUESTION, Told, main

litellm.suppress_debug_info = True


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


async def respond(told: Told, **more: Any) -> Any:
    # Of models that it does not know it asks for whole answers, and plays a stream.
    known = {"litellm_provider": "openai", "mode": "responses", "supports_native_streaming": True}
    litellm.register_model({told.model: known, f"openai/{told.model}": known})
    return await litellm.aresponses(
        model=f"openai/{told.model}",
        api_base=told.base_url,
        api_key=told.key,
        max_retries=told.retries,
        input=QUESTION,
        **more,
    )


def note(told: Told, answer: Any) -> None:
    told.seen |= {
        "text": "".join(part.text for item in answer.output if item.type == "message" for part in item.content),
        "finish": answer.status,
        "model": answer.model,
        "tokens": answer.usage.output_tokens,
        "calls": [
            {"name": item.name, "arguments": item.arguments, "id": item.call_id}
            for item in answer.output
            if item.type == "function_call"
        ],
    }
    if degraded := getattr(answer, "degraded", None):
        told.seen["degraded"] = degraded


async def streamed(told: Told, **more: Any) -> Any:
    """The response that the last event has."""
    whole = None
    async for event in await respond(told, stream=True, **more):
        if degraded := getattr(event, "degraded", None):
            told.seen["degraded"] = degraded
        if event.type == "response.output_text.delta":
            told.say(event.delta)
        elif event.type == "response.completed":
            whole = event.response
    return whole


async def plain(told: Told) -> None:
    note(told, await respond(told))


async def stream(told: Told) -> None:
    note(told, await streamed(told))


async def tools(told: Told) -> None:
    note(told, await respond(told, tools=[LOOK_UP_OF_RESPONSES]))


async def stream_tools(told: Told) -> None:
    note(told, await streamed(told, tools=[LOOK_UP_OF_RESPONSES]))


async def structured(told: Told) -> None:
    note(told, await respond(told, text_format=Answer))
    told.seen["parsed"] = Answer.model_validate_json(told.seen["text"]).model_dump()


if __name__ == "__main__":
    main({"plain": plain, "stream": stream, "tools": tools, "stream-tools": stream_tools, "structured": structured})
