"""A request of Anthropic's Messages API as a chat request, for providers.

As vLLM 0.32 turns it into a chat's in its ``anthropic/serving.py``, so that a degraded answer is one to the same
question. A provider that speaks this API itself is reached through LiteLLM, which turns it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.upstream.chat_wire import NoTwin, each, kind_of, picked

_CARRIED = {name: name for name in ("max_tokens", "model", "stream", "temperature", "top_p")} | {
    "stop_sequences": "stop"
}
_EFFORTS = frozenset({"low", "medium", "high"})
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_UNKNOWN_TO_CHAT = ("container", "mcp_servers")

_BILLING = "x-anthropic-billing-header"
"""How a block begins that Claude Code sends to its own accounting; vLLM leaves it out as well."""


def messages_as_chat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The chat request that asks for the same. Raises :class:`NoTwin` where chat has no word for a part of it."""
    for name in _UNKNOWN_TO_CHAT:
        if fields.get(name):
            raise NoTwin(f"{name} has no twin in chat")
    chat = picked(fields, _CARRIED)
    messages: list[dict[str, Any]] = []
    if fields.get("system"):
        messages.append({"role": "system", "content": _text_of(fields["system"])})
    for message in each(fields.get("messages"), dict, "messages"):
        _add(messages, message)
    chat["messages"] = messages
    if isinstance(metadata := fields.get("metadata"), dict) and metadata.get("user_id"):
        chat["user"] = metadata["user_id"]
    _output(chat, fields.get("output_config"))
    _tools(chat, fields)
    return chat


def _add(messages: list[dict[str, Any]], message: dict[str, Any]) -> None:
    role, content = message.get("role"), message.get("content")
    if role == "system":
        messages.append({"role": "system", "content": _text_of(content)})
        return
    if isinstance(content, str):
        messages.append({"role": role, "content": content})
        return
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in each(content, dict, "a message's content"):
        match block.get("type"):
            case "text":
                parts.append({"type": "text", "text": block.get("text") or ""})
            case "image":
                parts.append(_image(block))
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                function = {"name": block.get("name"), "arguments": arguments}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            case "tool_result":
                # Before what the user says beside it: chat wants a call's result right behind the call.
                messages.append(_result(block))
            case "thinking" | "redacted_thinking":
                pass  # Another model's, and in chat nobody's.
            case _:
                raise NoTwin(f"a content block of type {kind_of(block)} has no twin in chat")
    said: dict[str, Any] = {"role": role}
    if role == "assistant":
        said["content"] = "".join(part.get("text", "") for part in parts) or None
        if calls:
            said["tool_calls"] = calls
    else:
        said["content"] = parts
    if said["content"] or calls:
        messages.append(said)


def _image(block: dict[str, Any]) -> dict[str, Any]:
    given = block.get("source")
    source: dict[str, Any] = given if isinstance(given, dict) else {}
    match source.get("type"):
        case "url":
            url = source["url"] if isinstance(source.get("url"), str) else ""
        case "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        case _:
            raise NoTwin(f"an image of type {kind_of(source)} has no twin in chat")
    return {"type": "image_url", "image_url": {"url": url}}


def _result(block: dict[str, Any]) -> dict[str, Any]:
    content = block.get("content")
    text = "" if content is None else _text_of(content)
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text}


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for block in each(content, dict, "content"):
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise NoTwin(f"a block of type {kind_of(block)} is no text")
        if not block["text"].startswith(_BILLING):
            texts.append(block["text"])
    return "\n".join(texts)


def _output(chat: dict[str, Any], wanted: Any) -> None:
    if not isinstance(wanted, dict):
        return
    if wanted.get("effort") in _EFFORTS:
        chat["reasoning_effort"] = wanted["effort"]
    format_ = wanted.get("format")
    if isinstance(format_, dict):
        if format_.get("type") != "json_schema" or not isinstance(format_.get("schema"), dict):
            raise NoTwin(f"an output format of type {kind_of(format_)} has no twin in chat")
        chat["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": format_["schema"]},
        }


def _tools(chat: dict[str, Any], fields: Mapping[str, Any]) -> None:
    if not fields.get("tools"):
        return
    tools = []
    for tool in each(fields["tools"], dict, "tools"):
        if tool.get("type") not in (None, "custom"):
            raise NoTwin(f"a tool of type {kind_of(tool)} has no twin in chat")
        tools.append({"type": "function", "function": picked(tool, _FUNCTION)})
    chat["tools"] = tools
    choice = fields.get("tool_choice")
    if not isinstance(choice, dict):
        return
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False
    if choice.get("type") == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif (meant := _CHOICES.get(str(choice.get("type")))) is not None:
        chat["tool_choice"] = meant


_FUNCTION = {"name": "name", "description": "description", "input_schema": "parameters"}
