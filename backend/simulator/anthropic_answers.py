"""A hosted provider that speaks Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from backend.simulator.answer import Dialect, Generated
from backend.simulator.ask import Ask, count_tokens
from backend.simulator.engine import Flight
from backend.simulator.numbering import Numbered
from gateway.errors import RequestError

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
MESSAGES = {401: "invalid x-api-key", 429: "This request would exceed your rate limit.", 529: "Overloaded"}
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens"}
KNOWN_FIELDS: Final = frozenset(
    {
        "container", "context_management", "inference_geo", "max_tokens", "mcp_servers", "messages", "metadata",
        "model", "output_config", "service_tier", "stop_sequences", "stream", "system", "temperature", "thinking",
        "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip


class Anthropic(Dialect):
    """Anthropic's envelope; its ``type`` stands for OpenAI's type and code."""

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
        """``param`` and ``code`` are not used."""
        error = {
            "type": type if type in TYPES.values() else TYPES.get(status, "api_error"),
            "message": message if message is not None else MESSAGES.get(status, "Internal server error"),
        }
        return msgspec.json.encode({"type": "error", "error": error, "request_id": "req_simulated"})

    def error_event(self, status: int, message: str | None) -> bytes:
        """The envelope under the name ``error``."""
        return b"event: error\ndata: %b\n\n" % self.error_body(status, message)


class _Tool(msgspec.Struct):
    name: str


class _ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    max_tokens: int
    stream: bool = False
    system: Any = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None


def read_messages(body: bytes) -> Ask:
    """Understand a Messages request. Raises RequestError with status 400."""
    try:
        fields = msgspec.json.decode(body)
        for name in (fields.keys() if isinstance(fields, dict) else set()) - KNOWN_FIELDS:
            raise RequestError(400, f"{name}: Extra inputs are not permitted")
        request = msgspec.convert(fields, _Request)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(400, str(error)) from None
    for index, message in enumerate(request.messages):
        if message.get("role") not in ("user", "assistant"):
            raise RequestError(400, f"messages.{index}.role: Input should be 'user' or 'assistant'")
    if request.max_tokens < 1:
        raise RequestError(400, "max_tokens: Input should be greater than or equal to 1")
    tokens = sum(count_tokens(message.get("content")) + 4 for message in request.messages)
    tokens += count_tokens(request.system)
    ask = Ask(request.model, request.stream, True, 1, request.max_tokens, 1, tokens, None)
    choice = request.tool_choice
    if request.tools and (choice is None or choice.type != "none"):
        ask.tool = (choice.name if choice is not None else None) or request.tools[0].name
    return ask


class AnthropicMessage(Generated):
    """A ``message`` and its events."""

    def __init__(self, dialect: Anthropic, flight: Flight, ask: Ask, said: Numbered, *, id: str) -> None:
        super().__init__(dialect, flight, streamed=ask.streamed)
        self.ask = ask
        self.said = said
        self.model = ask.model or ""
        self.id = f"msg_{id}"
        self.extra = b"request-id: req_%b\r\n" % id.encode()

    def opening(self) -> list[bytes]:
        """The message and its only block begin."""
        block: dict[str, Any] = {"type": "text", "text": ""}
        if self.ask.tool is not None:
            block = {"type": "tool_use", "id": self._call_id, "name": self.ask.tool, "input": {}}
        return [
            _event({"type": "message_start", "message": self._message([], None, 1)}),
            _event({"type": "content_block_start", "index": 0, "content_block": block}),
            _event({"type": "ping"}),
        ]

    def content(self, text: bytes) -> bytes:
        """A text delta."""
        delta = {"type": "text_delta", "text": "\0"}
        return _event({"type": "content_block_delta", "index": 0, "delta": delta}).replace(b"\\u0000", text)

    def done(self) -> bytes:
        """``message_stop``."""
        return _event({"type": "message_stop"})

    def closing(self, finish: str) -> list[bytes]:
        """The block ends, the reason and the usage, the message ends."""
        delta = {"stop_reason": self._reason(finish), "stop_sequence": None}
        usage = {"output_tokens": len(self.said.tokens)}
        return [
            _event({"type": "content_block_stop", "index": 0}),
            _event({"type": "message_delta", "delta": delta, "usage": usage}),
            self.done(),
        ]

    def bursts(self) -> Iterator[list[bytes]]:
        """One token at each step."""
        opening = self.opening()
        for token in self.said.tokens:
            delta = {"type": "text_delta", "text": token}
            if self.ask.tool is not None:
                delta = {"type": "input_json_delta", "partial_json": token}
            yield [*opening, _event({"type": "content_block_delta", "index": 0, "delta": delta})]
            opening = []
        yield self.closing(self.said.finish)

    def body(self, *, finish: str | None = None) -> bytes:
        """A ``message``."""
        tokens = self.said.tokens if finish is None else self.said.tokens[: len(self.said.tokens) // 2]
        block: dict[str, Any] = {"type": "text", "text": "".join(tokens)}
        if self.ask.tool is not None:
            whole = finish is None and self.said.finish == "stop"
            arguments = msgspec.json.decode("".join(tokens)) if whole else {}
            block = {"type": "tool_use", "id": self._call_id, "name": self.ask.tool, "input": arguments}
        return msgspec.json.encode(self._message([block], self._reason(finish or self.said.finish), len(tokens)))

    @property
    def _call_id(self) -> str:
        return f"toolu_{self.id.removeprefix('msg_')}"

    def _reason(self, finish: str) -> str:
        return "tool_use" if self.ask.tool is not None and finish == "stop" else STOP_REASONS.get(finish, finish)

    def _message(self, content: list[dict[str, Any]], reason: str | None, tokens: int) -> dict[str, Any]:
        return {
            "model": self.model,
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self.ask.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": tokens,
                "service_tier": "standard",
            },
        }


def _event(data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), msgspec.json.encode(data))
