"""What vLLM 0.32 accepts as a request, and in which order it looks at what.

Only what the answer depends on is checked; every other field, known or unknown, passes, as with vLLM itself. The order
is that in which the real one was seen to find fault: the fields, the model, the length that is asked for, the
conversation, the prompt's length, the sampling.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from backend.simulator.ask import Ask, StreamOptions, Tool, answers_tool, count_tokens, wants_json
from backend.simulator.vllm_refusals import EMPTY, refused, undecodable

USAGE = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: Any = None


class Common(msgspec.Struct):
    """The fields of both endpoints that matter here."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    request_id: str | None = None


class ChatRequest(Common, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None
    response_format: Any = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    echo: bool = False


class CompletionRequest(Common, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]] | None = None
    prompt_embeds: Any = None


# Not strict: pydantic takes a number or a boolean from a string.
_chat = msgspec.json.Decoder(ChatRequest, strict=False)
_completion = msgspec.json.Decoder(CompletionRequest, strict=False)


def read_chat(body: bytes, *, may_be_empty: bool = False) -> Ask:
    """Understand a chat request. Raises RequestError with status 400.

    ``may_be_empty``: an empty conversation passes, to which vLLM objects.
    """
    request = _decode(_chat, body)
    tool, choice = _tool(request)
    completion = request.max_completion_tokens
    limit = completion if completion is not None else request.max_tokens
    tokens = sum(count_tokens(message.content) + 4 for message in request.messages)
    if request.continue_final_message:
        tokens -= 4  # its head stands where otherwise that of the answer does, which is not counted
    ask = _ask(request, limit, prompts=1, prompt_tokens=tokens)
    ask.limited_by = "max_tokens" if completion is None else "max_completion_tokens"
    ask.tool, ask.tool_named, ask.tool_required = tool, choice == "named", choice == "required"
    ask.json = wants_json(request.response_format)
    if request.continue_final_message and request.messages and isinstance(request.messages[-1].content, str):
        ask.behind = request.messages[-1].content
    if request.echo and request.messages:
        last = request.messages[-1]
        role = "assistant" if request.add_generation_prompt else last.role
        ask.echoed = last.content if last.role == role and isinstance(last.content, str) else ""
    if not request.messages and not may_be_empty:
        ask.objection = EMPTY
    elif request.continue_final_message and request.add_generation_prompt:
        ask.objection = (
            "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you "
            "want the model to continue the final message, and add_generation_prompt when you want to add a header "
            "that will prompt it to start a new assistant message instead."
        )
    return ask


def read_completion(body: bytes) -> Ask:
    """Understand a completion request. Raises RequestError with status 400."""
    request = _decode(_completion, body)
    prompt = request.prompt
    if (prompt is None or prompt == "") and request.prompt_embeds is None:
        raise refused("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    many = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    limit = request.max_tokens if request.max_tokens is not None else 16
    prompts = len(prompt) if many and isinstance(prompt, list) else 1
    ask = _ask(request, limit, prompts=prompts, prompt_tokens=count_tokens(prompt))
    if isinstance(prompt, str):
        ask.behind = prompt
    if prompt == []:
        ask.objection = "You must pass at least one prompt"
    return ask


def check(ask: Ask, max_model_len: int) -> None:
    """What is looked at once the model is known; cuts the limit to the room in the context. Raises RequestError."""
    limit = ask.limit
    if limit is not None and limit > max_model_len:
        message = (
            f"{ask.limited_by}={limit} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens."
        )
        raise refused(message, param=ask.limited_by, value=limit)
    if ask.objection is not None:
        raise refused(ask.objection)
    room = max_model_len - ask.prompt_tokens // max(ask.prompts, 1)
    if room < 0:
        # Nobody counts on: the tokenizer stops one token beyond the limit.
        message = (
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at least "
            f"{max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt."
        )
        raise refused(message, param="input_tokens", value=max_model_len + 1)
    if ask.n < 1:
        raise refused(f"n must be at least 1, got {ask.n}.")
    if ask.temperature is not None and ask.temperature < 0:
        message = f"temperature must be non-negative, got {ask.temperature}."
        raise refused(message, param="temperature", value=ask.temperature)
    if ask.top_p is not None and not 0 < ask.top_p <= 1:
        raise refused(f"top_p must be in (0, 1], got {ask.top_p}.", param="top_p", value=ask.top_p)
    allowed = room if limit is None else min(limit, room)
    if allowed < 1:
        raise refused(f"max_tokens must be at least 1, got {allowed}.", param="max_tokens", value=allowed)
    if ask.n > 1 and ask.temperature == 0:
        raise refused(f"n must be 1 when using greedy sampling, got {ask.n}.")
    ask.limit = allowed


def _tool(request: ChatRequest) -> tuple[str | None, Literal["auto", "named", "required"]]:
    """The function that will be called, and what made it so. Raises RequestError."""
    tools, choice = request.tools, request.tool_choice
    if tools is not None and not tools:
        message = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise refused(message, param="tools")
    if choice == "none" or (choice is None and tools is None):
        return None, "auto"
    if answers_tool(request.messages, choice):
        return None, "auto"
    if tools is None:
        raise refused("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    if choice is None or choice == "auto":
        return tools[0].function.name, "auto"
    if choice == "required":
        return tools[0].function.name, "required"
    if not isinstance(choice, dict):
        message = (
            f'Invalid value for `tool_choice`: {choice}! Only named tools, "none", "auto" or "required" are supported.'
        )
        raise refused(message, param="tool_choice")
    function = choice.get("function")
    if not isinstance(function, dict):
        message = f"Invalid value for `function`: `{function}` in `tool_choice`! {USAGE}"
        raise refused(message, param="tool_choice.function")
    name = function.get("name")
    if name is None:
        message = f"Expected field `name` in `function` in `tool_choice`! {USAGE}"
        raise refused(message, param="tool_choice.function.name")
    if not any(tool.function.name == name for tool in tools):
        message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        raise refused(message, param="tool_choice")
    return name, "named"


def _ask(request: Common, limit: int | None, *, prompts: int, prompt_tokens: int) -> Ask:
    streamed = bool(request.stream)
    return Ask(
        request.model,
        streamed,
        request.stream_options is not None and bool(request.stream_options.include_usage),
        request.n if request.n is not None else 1,
        limit,
        prompts,
        prompt_tokens,
        request.request_id,
        temperature=request.temperature,
        top_p=request.top_p,
    )


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        request = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise undecodable(body, error) from None
    # An empty object passes, as it is false in Python.
    options = request.stream_options
    if options is not None and options != StreamOptions() and not request.stream:
        raise refused("Stream options can only be defined when `stream=True`.", param="stream_options")
    return request
