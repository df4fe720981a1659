"""LiteLLM as a client of the Responses API: `litellm.aresponses` with the gateway as `api_base`."""

from __future__ import annotations

from typing import Any

import litellm
from answers import note_event, note_response
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
        **told.access("api_base"),
        input=QUESTION,
        **more,
    )


async def plain(told: Told) -> None:
    note_response(told, await respond(told))


async def stream(told: Told) -> None:
    async for event in await respond(told, stream=True):
        note_event(told, event)


async def tools(told: Told) -> None:
    note_response(told, await respond(told, tools=[LOOK_UP_OF_RESPONSES]))


async def stream_tools(told: Told) -> None:
    async for event in await respond(told, stream=True, tools=[LOOK_UP_OF_RESPONSES]):
        note_event(told, event)


async def structured(told: Told) -> None:
    note_response(told, await respond(told, text_format=Answer))
    told.seen["parsed"] = Answer.model_validate_json(told.seen["text"]).model_dump()


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured)
