"""openai-agents, over its own choice, the Responses API, or chat: an agent that calls a tool and answers with what it
found."""

from __future__ import annotations

from typing import Any

from agents import Agent, ModelSettings, OpenAIProvider, RunConfig, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel
from report import QUESTION, Told, main

set_tracing_disabled(True)


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


def agent_of(told: Told, **more: Any) -> Agent[Any]:
    return Agent(name="agent", model=told.model, model_settings=ModelSettings(include_usage=True), **more)


def config_of(told: Told) -> RunConfig:
    client = AsyncOpenAI(**told.access())
    chosen = {"use_responses": False} if told.api == "chat" else {}
    return RunConfig(model_provider=OpenAIProvider(openai_client=client, **chosen))


async def ran(told: Told, agent: Agent[Any]) -> Any:
    return await Runner.run(agent, QUESTION, run_config=config_of(told))


def tool_of(told: Told) -> Any:
    calls = told.seen.setdefault("calls", [])

    @function_tool
    def look_up(answered_by: str, numbers: list[int]) -> str:
        """Look something up."""
        calls.append({"name": "look_up", "arguments": {"answered_by": answered_by, "numbers": numbers}, "id": "-"})
        return "found"

    return look_up


def note(told: Told, result: Any) -> None:
    told.seen["text"] = str(result.final_output)
    told.seen["tokens"] = result.context_wrapper.usage.output_tokens


async def plain(told: Told) -> None:
    note(told, await ran(told, agent_of(told)))


async def streamed(told: Told, agent: Agent[Any]) -> Any:
    result = Runner.run_streamed(agent, QUESTION, run_config=config_of(told))
    async for event in result.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            told.say(event.data.delta)
    return result


async def stream(told: Told) -> None:
    note(told, await streamed(told, agent_of(told)))


async def tools(told: Told) -> None:
    note(told, await ran(told, agent_of(told, tools=[tool_of(told)])))


async def stream_tools(told: Told) -> None:
    note(told, await streamed(told, agent_of(told, tools=[tool_of(told)])))


async def structured(told: Told) -> None:
    result = await ran(told, agent_of(told, output_type=Answer))
    told.seen["parsed"] = result.final_output.model_dump()


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured)
