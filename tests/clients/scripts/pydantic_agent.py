"""pydantic-ai, over chat completions."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from report import QUESTION, Told, main


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def agent_of(told: Told, **more: Any) -> Agent[Any, Any]:
    client = AsyncOpenAI(base_url=told.base_url, api_key=told.key, max_retries=told.retries)
    return Agent(OpenAIChatModel(told.model, provider=OpenAIProvider(openai_client=client)), **more)


def note(told: Told, result: Any) -> None:
    last = result.all_messages()[-1]
    told.seen |= {"model": last.model_name, "finish": last.finish_reason, "tokens": last.usage.output_tokens}


def with_tool(told: Told) -> Agent[Any, Any]:
    agent = agent_of(told)
    calls = told.seen.setdefault("calls", [])

    @agent.tool_plain
    def look_up(answered_by: str, numbers: list[int]) -> str:
        """Look something up."""
        calls.append({"name": "look_up", "arguments": {"answered_by": answered_by, "numbers": numbers}, "id": "-"})
        return "found"

    return agent


async def plain(told: Told) -> None:
    result = await agent_of(told).run(QUESTION)
    told.seen["text"] = result.output
    note(told, result)


async def stream(told: Told) -> None:
    async with agent_of(told).run_stream(QUESTION) as result:
        async for piece in result.stream_text(delta=True, debounce_by=None):
            told.say(piece)
        note(told, result)


async def tools(told: Told) -> None:
    result = await with_tool(told).run(QUESTION)
    told.seen["text"] = result.output
    note(told, result)


async def stream_tools(told: Told) -> None:
    async with with_tool(told).run_stream(QUESTION) as result:
        told.seen["text"] = await result.get_output()
        note(told, result)


async def structured(told: Told) -> None:
    result = await agent_of(told, output_type=NativeOutput(Answer)).run(QUESTION)
    told.seen["parsed"] = result.output.model_dump()
    note(told, result)


if __name__ == "__main__":
    main({"plain": plain, "stream": stream, "tools": tools, "stream-tools": stream_tools, "structured": structured})
