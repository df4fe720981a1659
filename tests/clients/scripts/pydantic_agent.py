"""pydantic-ai, over either of OpenAI's APIs or Anthropic's."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models import Model
from report import QUESTION, Told, main


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def model_of(told: Told) -> Model[Any]:
    # Each is in an environment that has not got the other.
    if told.api == "messages":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        of_anthropic = AsyncAnthropic(**told.access())
        return AnthropicModel(told.model, provider=AnthropicProvider(anthropic_client=of_anthropic))
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(**told.access())
    kind = OpenAIResponsesModel if told.api == "responses" else OpenAIChatModel
    return kind(told.model, provider=OpenAIProvider(openai_client=client))


def agent_of(told: Told, **more: Any) -> Agent[Any, Any]:
    # Of Anthropic's API it asks for 16,384 tokens unless it is told otherwise: more than some boxes have room for.
    return Agent(model_of(told), model_settings={"max_tokens": 1000}, **more)


def note(told: Told, result: Any) -> None:
    last = next(message for message in reversed(result.all_messages()) if message.kind == "response")
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
    # Of Anthropic's models it knows by name which take a schema, and calls a tool of its own at all others.
    wanted: Any = Answer if told.api == "messages" else NativeOutput(Answer)
    result = await agent_of(told, output_type=wanted).run(QUESTION)
    told.seen["parsed"] = result.output.model_dump()
    note(told, result)
    if wanted is Answer:
        del told.seen["finish"]  # That of a tool's call.


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured)
