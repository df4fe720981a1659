"""`/v1/messages` as vLLM 0.32 serves it (``vllm/entrypoints/anthropic``): what it takes, and its answers.

They are a chat's in other words, made of the same engine; an abort ends without a ``stop_reason``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from backend.simulator.answer import Generated
from backend.simulator.ask import Ask, count_tokens
from backend.simulator.engine import Flight
from backend.simulator.numbering import Numbered
from backend.simulator.vllm_answers import TYPES, Vllm
from backend.simulator.vllm_refusals import EMPTY, invalid, undecodable

_STOPS = {"length": "max_tokens", "stop": "end_turn"}


class VllmAnthropic(Vllm):
    """vLLM's own words for an error in Anthropic's envelope."""

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
        said = msgspec.json.decode(super().error_body(status, message))["error"]["message"]
        error = {"type": type or TYPES.get(status, "Error"), "message": said}
        return msgspec.json.encode({"type": "error", "error": error})

    def error_event(self, status: int, message: str | None) -> bytes:
        """What the converter of a chat's events makes of one that it does not know."""
        return b"event: error\ndata: %b\n\n" % self.error_body(status, message, type="internal_error")


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class _Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any]


class _ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class _OutputFormat(msgspec.Struct):
    type: Literal["json_schema"] = "json_schema"
    schema: dict[str, Any] | None = None


class _OutputConfig(msgspec.Struct):
    format: _OutputFormat | None = None


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int
    stream: bool | None = None
    system: Any = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    output_config: _OutputConfig | None = None


_decoder = msgspec.json.Decoder(_Request, strict=False)


def read_message_request(body: bytes) -> Ask:
    """Understand a request. Raises RequestError with status 400."""
    try:
        request = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise undecodable(body, error, message_kind=None) from None
    if request.max_tokens <= 0:
        raise invalid("Value error, max_tokens must be positive", param="body.max_tokens")
    tokens = sum(count_tokens(message.content) + 4 for message in request.messages) + count_tokens(request.system)
    ask = Ask(
        request.model,
        bool(request.stream),
        True,
        1,
        request.max_tokens,
        1,
        tokens,
        None,
        temperature=request.temperature,
        top_p=request.top_p,
        limited_by="max_completion_tokens",
    )
    if not request.messages:
        ask.objection = EMPTY
    wanted = None if request.output_config is None else request.output_config.format
    ask.json = wanted is not None and bool(wanted.schema)
    choice = request.tool_choice
    if (choice is None or choice.type == "auto") and _answers_tool(request.messages):
        return ask
    if request.tools and (choice is None or choice.type != "none"):
        ask.tool = (choice.name if choice is not None else None) or request.tools[0].name
    return ask


def _answers_tool(messages: list[_Message]) -> bool:
    """Whether a tool was called and has answered, and the model is now free to say something."""
    content = messages[-1].content if messages else ""
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


class VllmMessage(Generated):
    """A ``message`` and its events."""

    def __init__(
        self, dialect: VllmAnthropic, flight: Flight, ask: Ask, said: Numbered, *, name: str, request_id: str
    ) -> None:
        super().__init__(dialect, flight, streamed=ask.streamed)
        self.ask = ask
        self.said = said
        self.model = name
        self.id = f"chatcmpl-{request_id}"

    def opening(self) -> list[bytes]:
        """The message begins."""
        start = self._head() | {"stop_reason": None, "stop_sequence": None, "usage": self._usage(0)}
        return [_event("message_start", message=start)]

    def content(self, text: bytes) -> bytes:
        """A piece of text."""
        return _event("content_block_delta", delta={"type": "text_delta", "text": "\0"}, index=0).replace(
            b"\\u0000", text
        )

    def done(self) -> bytes:
        """``message_stop``."""
        return _event("message_stop")

    def closing(self, finish: str) -> list[bytes]:
        """The block ends, the reason and the usage, the message ends."""
        delta = {"stop_reason": self._reason(finish), "stop_sequence": None}
        return [
            _event("content_block_stop", index=0),
            _event("message_delta", delta=delta, usage=self._usage(len(self.said.tokens))),
            self.done(),
        ]

    def bursts(self) -> Iterator[list[bytes]]:
        """One token at each step; a last token at the limit comes with the end."""
        block: dict[str, Any] = {"type": "text", "text": ""}
        if self.ask.tool is not None:
            block = {"type": "tool_use", "id": self._call_id, "name": self.ask.tool, "input": {}}
        burst = [*self.opening(), _event("content_block_start", content_block=block, index=0)]
        for number, token in enumerate(self.said.tokens):
            if number:
                yield burst
                burst = []
            delta = {"type": "text_delta", "text": token}
            if self.ask.tool is not None:
                delta = {"type": "input_json_delta", "partial_json": token}
            burst.append(_event("content_block_delta", delta=delta, index=0))
        if self.said.finish == "stop":
            yield burst
            burst = []
        yield [*burst, *self.closing(self.said.finish)]

    def body(self, *, finish: str | None = None) -> bytes:
        """A ``message``; what it has not got is left out."""
        tokens = self.said.tokens if finish is None else self.said.tokens[: len(self.said.tokens) // 2]
        block: dict[str, Any] = {"type": "text", "text": "".join(tokens)}
        if self.ask.tool is not None:
            whole = finish is None and self.said.finish == "stop"
            arguments = msgspec.json.decode("".join(tokens)) if whole else {}
            block = {"type": "tool_use", "id": self._call_id, "name": self.ask.tool, "input": arguments}
        message = self._head() | {"content": [block]}
        reason = self._reason(finish or self.said.finish)
        if reason is not None:
            message["stop_reason"] = reason
        return msgspec.json.encode(message | {"usage": self._usage(len(tokens))})

    @property
    def _call_id(self) -> str:
        return f"chatcmpl-tool-{self.id.removeprefix('chatcmpl-')}"

    def _reason(self, finish: str) -> str | None:
        return "tool_use" if self.ask.tool is not None and finish == "stop" else _STOPS.get(finish)

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "content": [], "model": self.model}

    def _usage(self, tokens: int) -> dict[str, int]:
        return {"input_tokens": self.ask.prompt_tokens, "output_tokens": tokens}


def _event(type: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type.encode(), msgspec.json.encode({"type": type, **fields}))
