"""LangChain's ChatOpenAI."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from report import QUESTION, Told, main


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


@tool
def look_up(answered_by: str, numbers: list[int]) -> str:
    """Look something up."""
    return f"{answered_by} {numbers}"


def chat_of(told: Told) -> ChatOpenAI:
    return ChatOpenAI(
        model=told.model, base_url=told.base_url, api_key=told.key, max_retries=told.retries, stream_usage=True
    )


def note(told: Told, message: AIMessage) -> None:
    usage = message.usage_metadata
    told.seen |= {
        "text": str(message.content),
        "finish": message.response_metadata.get("finish_reason"),
        "model": message.response_metadata.get("model_name"),
        "tokens": usage["output_tokens"] if usage else None,
        "calls": [{"name": call["name"], "arguments": call["args"], "id": call["id"]} for call in message.tool_calls],
    }


async def plain(told: Told) -> None:
    note(told, await chat_of(told).ainvoke(QUESTION))


async def stream(told: Told) -> None:
    whole: AIMessageChunk | None = None
    async for chunk in chat_of(told).astream(QUESTION):
        told.say(str(chunk.content))
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    note(told, whole)


async def tools(told: Told) -> None:
    note(told, await chat_of(told).bind_tools([look_up]).ainvoke(QUESTION))


async def stream_tools(told: Told) -> None:
    whole: Any = None
    async for chunk in chat_of(told).bind_tools([look_up]).astream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    note(told, whole)


async def structured(told: Told) -> None:
    model = chat_of(told).with_structured_output(Answer, method="json_schema", include_raw=True)
    answer: Any = await model.ainvoke(QUESTION)
    note(told, answer["raw"])
    told.seen["parsed"] = answer["parsed"].model_dump()


if __name__ == "__main__":
    main({"plain": plain, "stream": stream, "tools": tools, "stream-tools": stream_tools, "structured": structured})
