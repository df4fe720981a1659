"""A request that was understood, whatever its dialect, and the parts that OpenAI's dialects share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec


class StreamOptions(msgspec.Struct):
    """``stream_options``."""

    include_usage: bool | None = None


class Function(msgspec.Struct):
    """A function's name, where a tool or a tool choice names one."""

    name: str


class Tool(msgspec.Struct):
    """An entry of ``tools``."""

    function: Function
    type: Literal["function"] = "function"


class NamedTool(msgspec.Struct):
    """A ``tool_choice`` that names the tool."""

    function: Function


@dataclass(slots=True)
class Ask:
    """A request that was understood."""

    model: str | None
    streamed: bool
    include_usage: bool
    n: int
    limit: int | None
    prompts: int
    prompt_tokens: int
    request_id: str | None
    tool: str | None = None
    """The function to call, where the answer is a tool call."""
    tool_named: bool = False
    """The caller chose that function by name."""
    tool_required: bool = False
    """The caller wants some function to be called."""
    json: bool = False
    """The text is to be JSON."""
    temperature: float | None = None
    top_p: float | None = None
    limited_by: str = "max_tokens"
    """The field that ``limit`` is from."""
    behind: str = ""
    """What is there of the answer already, and is to be gone on with."""
    echoed: str = ""
    """What of the conversation is said once more before the answer."""
    objection: str | None = None
    """What is wrong with it, to be said once the model and the limit are found to be right."""


def wants_json(response_format: Any) -> bool:
    """Whether a ``response_format`` makes the answer's text JSON."""
    return isinstance(response_format, dict) and response_format.get("type") in ("json_schema", "json_object")


def answers_tool(messages: Sequence[Any], choice: Any) -> bool:
    """Whether a tool was called and has answered, and the model is now free to say something."""
    return choice in (None, "auto") and bool(messages) and _role(messages[-1]) == "tool"


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else message.role


def count_tokens(content: Any) -> int:
    """About as many tokens as words, each with the space before it; token ids count as what they are."""
    if isinstance(content, str):
        return content.count(" ") + (not content.startswith(" "))
    if isinstance(content, int):
        return 1
    if isinstance(content, dict):
        return count_tokens(content.get("text"))
    return sum(map(count_tokens, content)) if isinstance(content, list) else 0
