"""LangChain: ChatOpenAI over either of OpenAI's APIs, ChatAnthropic, OpenAIEmbeddings."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.tools import tool
from pydantic import BaseModel
from report import QUESTION, TEXTS, Told, main


class Answer(BaseModel):
    answered_by: str
    numbers: list[int]


@tool
def look_up(answered_by: str, numbers: list[int]) -> str:
    """Look something up."""
    return f"{answered_by} {numbers}"


def chat_of(told: Told) -> BaseChatModel:
    # Each is in an environment that has not got the other.
    if told.api == "messages":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(model=told.model, max_tokens=1000, **told.access())
    from langchain_openai import ChatOpenAI

    of_responses = told.api == "responses"
    return ChatOpenAI(model=told.model, stream_usage=True, use_responses_api=of_responses, **told.access())


def note(told: Told, message: AIMessage) -> None:
    usage, about = message.usage_metadata, message.response_metadata
    told.seen |= {
        "text": message.text,
        "finish": about.get("finish_reason") or about.get("status") or about.get("stop_reason"),
        "model": about.get("model_name"),
        "tokens": usage["output_tokens"] if usage else None,
        "calls": [{"name": call["name"], "arguments": call["args"], "id": call["id"]} for call in message.tool_calls],
    }


async def plain(told: Told) -> None:
    note(told, await chat_of(told).ainvoke(QUESTION))


async def stream(told: Told) -> None:
    whole: AIMessageChunk | None = None
    async for chunk in chat_of(told).astream(QUESTION):
        told.say(chunk.text)
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


async def embeddings(told: Told) -> None:
    from langchain_openai import OpenAIEmbeddings

    # Else it counts the tokens of OpenAI's models, for which it fetches their vocabulary.
    client = OpenAIEmbeddings(model=told.model, check_embedding_ctx_length=False, **told.access())
    told.seen["vectors"] = await client.aembed_documents(TEXTS)


if __name__ == "__main__":
    main(plain, stream, tools, stream_tools, structured, embeddings)
