"""A hosted provider that speaks OpenAI's chat API: strict about what it is asked, and its own shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from backend.simulator.answer import Dialect, Generated
from backend.simulator.ask import Ask, NamedTool, StreamOptions, Tool, answers_tool, count_tokens, wants_json
from backend.simulator.engine import Flight
from backend.simulator.numbering import Numbered
from gateway.errors import RequestError

FINGERPRINT = "fp_simulated"
DONE = b"data: [DONE]\n\n"
TYPES = {401: "invalid_request_error", 403: "invalid_request_error", 429: "requests"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
MESSAGES = {
    401: "Incorrect API key provided.",
    429: "Rate limit reached for requests. Please try again in 1s.",
    500: "The server had an error while processing your request. Sorry about that!",
    503: "The engine is currently overloaded, please try again later.",
}

KNOWN_FIELDS: Final = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
        "max_tokens", "messages", "metadata", "modalities", "model", "moderation", "n", "parallel_tool_calls",
        "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
        "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
        "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
        "web_search_options",
    }
)  # fmt: skip
"""The fields of ``CompletionCreateParams`` in the OpenAI SDK; any other is refused."""
ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class OpenAI(Dialect):
    """OpenAI's envelope."""

    server = b"cloudflare"

    def error_body(
        self,
        status: int,
        message: str | None = None,
        *,
        type: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> bytes:
        """The type and code are OpenAI's own words for the status."""
        default = "server_error" if status >= 500 else "invalid_request_error"
        return msgspec.json.encode(
            {
                "error": {
                    "message": message if message is not None else MESSAGES.get(status, "Simulated error."),
                    "type": type or TYPES.get(status, default),
                    "param": param,
                    "code": code or CODES.get(status),
                }
            }
        )

    def error_event(self, status: int, message: str | None) -> bytes:
        """The envelope as an event."""
        return b"data: %b\n\n" % self.error_body(status, message)


class _Request(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: dict[str, Any] | None = None


def read_openai_chat(body: bytes) -> Ask:
    """Understand a chat request as OpenAI does. Raises RequestError with status 400."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "We could not parse the JSON body of your request."
        raise RequestError(400, message) from None
    if not isinstance(fields, dict):
        raise RequestError(400, "We could not parse the JSON body of your request: an object is expected.")
    for name in fields.keys() - KNOWN_FIELDS:
        raise RequestError(400, f"Unrecognized request argument supplied: {name}")
    try:
        request = msgspec.convert(fields, _Request)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or None
        raise RequestError(400, f"Invalid value: {message}", param=param, code="invalid_type") from None
    for index, entry in enumerate(request.messages):
        if entry.get("role") not in ROLES:
            message = f"Invalid value: {entry.get('role')!r}. Supported values are: {', '.join(sorted(ROLES))}."
            raise RequestError(400, message, param=f"messages[{index}].role", code="invalid_value")
    if request.stream_options is not None and not request.stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise RequestError(400, message, param="stream_options")
    usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    tokens = sum(count_tokens(message.get("content")) + 4 for message in request.messages)
    ask = Ask(request.model, bool(request.stream), usage, request.n or 1, limit, 1, tokens, None)
    if isinstance(request.tool_choice, NamedTool):
        ask.tool, ask.tool_named = request.tool_choice.function.name, True
    elif request.tools and request.tool_choice != "none" and not answers_tool(request.messages, request.tool_choice):
        ask.tool = request.tools[0].function.name
    ask.json = wants_json(request.response_format)
    return ask


class OpenAIChat(Generated):
    """``chat.completion`` and its chunks as OpenAI gives them."""

    def __init__(self, dialect: OpenAI, flight: Flight, ask: Ask, said: Numbered, *, id: str, created: int) -> None:
        super().__init__(dialect, flight, streamed=ask.streamed)
        self.ask = ask
        self.said = said
        self.model = ask.model or ""
        self.id = f"chatcmpl-{id}"
        self.created = created
        self.extra = b"x-request-id: req_%b\r\nopenai-processing-ms: 1\r\n" % id.encode()

    def opening(self) -> list[bytes]:
        """The role of each choice, and the name of a tool that is called."""
        delta: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
        if self.ask.tool is not None:
            function = {"name": self.ask.tool, "arguments": ""}
            call = {"index": 0, "id": self._call_id, "type": "function", "function": function}
            delta = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
        return [self._chunk(index, delta) for index in range(self.ask.n)]

    def content(self, text: bytes) -> bytes:
        """A content delta of the first choice."""
        return self._chunk(0, {"content": "\0"}).replace(b"\\u0000", text)

    def done(self) -> bytes:
        """The terminator."""
        return DONE

    def closing(self, finish: str) -> list[bytes]:
        """A finish for each choice, the usage if asked for, the terminator."""
        ends = [self._chunk(index, {}, self._reason(finish)) for index in range(self.ask.n)]
        if self.ask.include_usage:
            ends.append(self._event([], self._usage(len(self.said.tokens))))
        return [*ends, DONE]

    def bursts(self) -> Iterator[list[bytes]]:
        """One token of every choice at each step."""
        opening = self.opening()
        for token in self.said.tokens:
            called = {"tool_calls": [{"index": 0, "function": {"arguments": token}}]}
            delta: dict[str, Any] = {"content": token} if self.ask.tool is None else called
            yield [*opening, *(self._chunk(index, delta) for index in range(self.ask.n))]
            opening = []
        yield self.closing(self.said.finish)

    def body(self, *, finish: str | None = None) -> bytes:
        """A ``chat.completion``."""
        tokens = self.said.tokens if finish is None else self.said.tokens[: len(self.said.tokens) // 2]
        message: dict[str, Any] = {"role": "assistant", "content": "".join(tokens), "refusal": None, "annotations": []}
        if self.ask.tool is not None:
            function = {"name": self.ask.tool, "arguments": "".join(tokens)}
            message |= {
                "content": None,
                "tool_calls": [{"id": self._call_id, "type": "function", "function": function}],
            }
        reason = self._reason(finish or self.said.finish)
        return msgspec.json.encode(
            {
                "id": self.id,
                "object": "chat.completion",
                "created": self.created,
                "model": self.model,
                "choices": [
                    {"index": index, "message": message, "logprobs": None, "finish_reason": reason}
                    for index in range(self.ask.n)
                ],
                "usage": self._usage(len(tokens)),
                "service_tier": "default",
                "system_fingerprint": FINGERPRINT,
            }
        )

    @property
    def _call_id(self) -> str:
        return f"call_{self.id.removeprefix('chatcmpl-')}"

    def _reason(self, finish: str) -> str:
        called = self.ask.tool is not None and not self.ask.tool_named
        return "tool_calls" if called and finish == "stop" else finish

    def _usage(self, tokens: int) -> dict[str, Any]:
        prompt, completion = self.ask.prompt_tokens, tokens * self.ask.n
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        return self._event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}], None)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        event: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        }
        if self.ask.include_usage:
            event["usage"] = usage
        return b"data: %b\n\n" % msgspec.json.encode(event)
