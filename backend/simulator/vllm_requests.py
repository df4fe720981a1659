"""What vLLM 0.32 accepts as a request, and how it says no.

Only what the answer depends on is checked; every other field, known or unknown, passes, as with vLLM itself.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from backend.simulator.ask import Ask, NamedTool, StreamOptions, Tool, count_tokens
from gateway.errors import RequestError

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."
"""``QueueOverflowError`` in ``vllm/exceptions.py``."""


class Common(msgspec.Struct):
    """The fields of both endpoints that matter here."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    request_id: str | None = None


class ChatRequest(Common, kw_only=True):
    """``POST /v1/chat/completions``."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class CompletionRequest(Common, kw_only=True):
    """``POST /v1/completions``."""

    prompt: str | list[str | int | list[int]] | None = None
    prompt_embeds: Any = None


_chat = msgspec.json.Decoder(ChatRequest)
_completion = msgspec.json.Decoder(CompletionRequest)


def read_chat(body: bytes) -> Ask:
    """Understand a chat request. Raises RequestError with status 400."""
    request = _decode(_chat, body)
    for index, message in enumerate(request.messages):
        if not isinstance(message.get("role"), str):
            raise invalid("Field required", param=f"body.messages.{index}.role")
    if request.continue_final_message and request.add_generation_prompt:
        message = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
        raise RequestError(400, message, type="BadRequestError")
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    tokens = sum(count_tokens(message.get("content")) + 4 for message in request.messages)
    ask = _ask(request, limit, prompts=1, prompt_tokens=tokens)
    choice = request.tool_choice if request.tool_choice is not None else "auto"
    if isinstance(choice, NamedTool):
        if not any(tool.function.name == choice.function.name for tool in request.tools or ()):
            raise invalid(f"The tool specified in `tool_choice` does not match any of the specified `tools`: {choice}")
        ask.tool, ask.tool_named = choice.function.name, True
    elif request.tools and choice != "none":
        ask.tool = request.tools[0].function.name
    elif choice == "required":
        raise invalid("When using `tool_choice`, `tools` must be set.", param="tools")
    return ask


def read_completion(body: bytes) -> Ask:
    """Understand a completion request. Raises RequestError with status 400."""
    request = _decode(_completion, body)
    if request.prompt is None and request.prompt_embeds is None:
        raise invalid("Either prompt or prompt_embeds must be provided and non-empty.", param="prompt")
    prompt = request.prompt
    many = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    limit = request.max_tokens if request.max_tokens is not None else 16
    prompts = len(prompt) if many and isinstance(prompt, list) else 1
    return _ask(request, limit, prompts=prompts, prompt_tokens=count_tokens(prompt))


def check_length(ask: Ask, max_model_len: int) -> None:
    """Raises RequestError when the prompt does not fit the context."""
    if ask.prompt_tokens > max_model_len:
        raise RequestError(
            400,
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains "
            f"{ask.prompt_tokens} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            type="BadRequestError",
            param="input_tokens",
        )


def unknown_model(model: str, base: str) -> RequestError:
    """Nobody of that name here."""
    return RequestError(
        404,
        f"The model `{model}` does not exist. Valid aliases: {base}.",
        type="NotFoundError",
        param="model",
    )


def invalid(message: str, *, param: str | None = None, kind: str = "value_error") -> RequestError:
    """One finding of FastAPI's validation, as vLLM's handler words it."""
    location = f", 'loc': '{param}'" if param else ""
    return RequestError(
        400,
        f"1 validation error:\n  {{'type': '{kind}'{location}, 'msg': {message!r}}}",
        type="Bad Request",
        param=param,
    )


def _ask(request: Common, limit: int | None, *, prompts: int, prompt_tokens: int) -> Ask:
    n = request.n if request.n is not None else 1
    if n < 1:
        raise RequestError(400, f"n must be at least 1, got {n}.", type="BadRequestError", param="n")
    if limit is not None and limit < 1:
        message = f"max_tokens must be at least 1, got {limit}."
        raise RequestError(400, message, type="BadRequestError", param="max_tokens")
    streamed = bool(request.stream)
    if request.stream_options is not None and not streamed:
        raise invalid("Stream options can only be defined when `stream=True`.", param="stream_options")
    usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    return Ask(request.model, streamed, usage, n, limit, prompts, prompt_tokens, request.request_id)


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        raise invalid(message, param="body" + path.rstrip("`")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"JSON decode error: {error}", param="body", kind="json_invalid") from None
