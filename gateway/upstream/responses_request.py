"""A request of the Responses API as a chat request, for providers: few hosts beside OpenAI serve more than chat.

What is carried, mapped or left out is as in :mod:`gateway.upstream.provider_request`, which gets the result. The shapes
are those of the OpenAI SDK's ``ResponseCreateParams``; vLLM 0.32 turns them into a chat's in its
``openai/responses/utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.upstream.chat_wire import NoTwin, each, kind_of, picked

_CARRIED = {
    name: name
    for name in (
        "frequency_penalty", "metadata", "model", "parallel_tool_calls", "presence_penalty", "prompt_cache_key",
        "safety_identifier", "seed", "service_tier", "stop", "stream", "structured_outputs", "temperature", "top_p",
        "user",
    )
} | {"max_output_tokens": "max_tokens"}  # fmt: skip

_STATE = ("background", "conversation", "previous_input_messages", "previous_response_id", "prompt")
"""What refers to something that another server keeps."""


def responses_as_chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request that asks for the same. Raises :class:`NoTwin` where chat has no word for a part of it."""
    for name in _STATE:
        if fields.get(name):
            raise NoTwin(f"{name} has no twin in chat")
    chat = picked(fields, _CARRIED)
    messages: list[dict[str, Any]] = []
    if fields.get("instructions"):
        messages.append({"role": "system", "content": fields["instructions"]})
    given = fields.get("input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    else:
        items = each(given, dict, "input")
        if items and items[-1].get("status") in ("in_progress", "incomplete"):
            raise NoTwin("a prefix cannot be continued at a hosted API")
        for item in items:
            _add(messages, item)
    chat["messages"] = messages
    if isinstance(reasoning := fields.get("reasoning"), dict) and reasoning.get("effort"):
        chat["reasoning_effort"] = reasoning["effort"]
    _tools(chat, fields)
    _text(chat, fields.get("text"))
    return chat


def _add(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    match item.get("type", "message"):
        case "message":
            messages.append({"role": item.get("role"), "content": _content(item.get("content"), item.get("role"))})
        case "function_call":
            call = {"name": item.get("name"), "arguments": item.get("arguments") or ""}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            # One turn of the model is several items here: what it says, and each of its calls.
            messages[-1].setdefault("tool_calls", []).append(
                {"id": item.get("call_id"), "type": "function", "function": call}
            )
        case "function_call_output":
            output = item.get("output")
            text = output if isinstance(output, str) else _text_of(output)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
        case "reasoning":
            pass  # Another model's, and in chat nobody's.
        case _:
            raise NoTwin(f"an input item of type {kind_of(item)} has no twin in chat")


def _content(content: Any, role: Any) -> Any:
    if isinstance(content, str):
        return content
    if role == "assistant":
        return _text_of(content)
    return [_part(part) for part in each(content, dict, "a message's content")]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text") or ""}
        case "input_image" if isinstance(part.get("image_url"), str):
            return {"type": "image_url", "image_url": picked(part, {"image_url": "url", "detail": "detail"})}
        case "input_file" if isinstance(part.get("file_data"), str):
            return {"type": "file", "file": picked(part, {"file_data": "file_data", "filename": "filename"})}
        case _:
            raise NoTwin(f"a content part of type {kind_of(part)} has no twin in chat")


def _text_of(parts: Any) -> str:
    texts = []
    for part in each(parts, dict, "content"):
        text = part.get("refusal") if part.get("type") == "refusal" else part.get("text")
        if not isinstance(text, str):
            raise NoTwin(f"a content part of type {kind_of(part)} is no text")
        texts.append(text)
    return "".join(texts)


def _tools(chat: dict[str, Any], fields: Mapping[str, Any]) -> None:
    if not fields.get("tools"):
        return
    tools = []
    for tool in each(fields["tools"], dict, "tools"):
        if tool.get("type") != "function":
            raise NoTwin(f"a tool of type {kind_of(tool)} has no twin in chat")
        tools.append({"type": "function", "function": picked(tool, _FUNCTION)})
    chat["tools"] = tools
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") != "function":
            raise NoTwin(f"a tool_choice of type {kind_of(choice)} has no twin in chat")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if choice is not None:
        chat["tool_choice"] = choice


_FUNCTION = {"name": "name", "description": "description", "parameters": "parameters", "strict": "strict"}
_SCHEMA = {"name": "name", "description": "description", "schema": "schema", "strict": "strict"}


def _text(chat: dict[str, Any], text: Any) -> None:
    if not isinstance(text, dict):
        return
    if text.get("verbosity") is not None:
        chat["verbosity"] = text["verbosity"]
    wanted = text.get("format")
    if isinstance(wanted, dict):
        chat["response_format"] = (
            {"type": "json_schema", "json_schema": picked(wanted, _SCHEMA)}
            if wanted.get("type") == "json_schema"
            else {"type": wanted.get("type")}
        )
