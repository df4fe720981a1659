"""LiteLLM as a client of the Messages API: `litellm.anthropic.messages.acreate` with the gateway as `api_base`."""

from __future__ import annotations

import json
from typing import Any

import litellm
from report import LOOK_UP_OF_MESSAGES, QUESTION, SCHEMA, Told, main

litellm.suppress_debug_info = True


async def create(told: Told, **more: Any) -> Any:
    return await litellm.anthropic.messages.acreate(
        model=f"anthropic/{told.model}",
        **told.access("api_base"),
        max_tokens=1000,
        messages=[{"role": "user", "content": QUESTION}],
        **more,
    )


def note(told: Told, message: Any) -> None:
    told.seen |= {
        "text": "".join(block["text"] for block in message["content"] if block["type"] == "text"),
        "finish": message["stop_reason"],
        "model": message["model"],
        "tokens": message["usage"]["output_tokens"],
        "calls": [
            {"name": block["name"], "arguments": block["input"], "id": block["id"]}
            for block in message["content"]
            if block["type"] == "tool_use"
        ],
    }
    if degraded := message.get("degraded"):
        told.seen["degraded"] = degraded


async def plain(told: Told) -> None:
    note(told, await create(told))


async def tools(told: Told) -> None:
    note(told, await create(told, tools=[LOOK_UP_OF_MESSAGES]))


async def structured(told: Told) -> None:
    note(told, await create(told, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}))
    told.seen["parsed"] = json.loads(told.seen["text"])


if __name__ == "__main__":
    main(plain, tools, structured)
