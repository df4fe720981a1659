"""A provider's chat answer in the shape of Anthropic's Messages API, plain or as its events.

The events and their order are those of vLLM 0.32 (``anthropic/serving.py``), which are Anthropic's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import ProtocolError
from gateway.upstream.chat_wire import Call, Turn, Usage, read_said, reasoning_of, turn_of

_STOPS = {"content_filter": "refusal", "length": "max_tokens", "stop": "end_turn"}


class MessagesAnswer:
    """Words one answer: a whole chat completion through :meth:`body`; or a stream's chunks, in order, through
    :meth:`events`, and its end through :meth:`end`.
    """

    def __init__(self, *, request_id: str) -> None:
        self._id = request_id
        self._model = ""
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._content: list[dict[str, Any]] = []
        self._open: str | None = None
        self._call_index = 0
        self._arguments = ""
        self._called = False
        self._begun = False

    def body(self, data: bytes) -> bytes:
        """A plain answer. Raises :class:`ProtocolError`: ``data`` is no chat completion."""
        self.events(data)
        self._close([])
        # As Anthropic has it: who reads only the first block finds one.
        content = self._content or [{"type": "text", "text": ""}]
        return msgspec.json.encode(self._message(content, self._stop_reason))

    def events(self, data: bytes) -> bytes:
        """The events that one chunk stands for. Raises :class:`ProtocolError`: it is none, or out of order."""
        said = read_said(data)
        self._model = self._model or said.model
        self._usage = said.usage or self._usage
        out: list[bytes] = []
        if not self._begun:
            self._begun = True
            out.append(_event("message_start", message=self._message([], None)))
        for choice in said.choices[:1]:
            self._turn(turn_of(choice), out)
            self._finish = choice.finish_reason or self._finish
        return b"".join(out)

    def end(self) -> bytes:
        """The events behind the last chunk."""
        out: list[bytes] = []
        self._close(out)
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        out.append(_event("message_delta", delta=delta, usage=self._used))
        out.append(_event("message_stop"))
        return b"".join(out)

    def _turn(self, turn: Turn, out: list[bytes]) -> None:
        if thought := reasoning_of(turn):
            if self._open != "thinking":
                self._begin({"type": "thinking", "thinking": "", "signature": ""}, out)
            self._content[-1]["thinking"] += thought
            self._delta(out, type="thinking_delta", thinking=thought)
        if text := (turn.content or turn.refusal):
            if self._open != "text":
                self._begin({"type": "text", "text": ""}, out)
            self._content[-1]["text"] += text
            self._delta(out, type="text_delta", text=text)
        for place, call in enumerate(turn.tool_calls or ()):
            self._call(call, call.at(place), out)

    def _call(self, call: Call, index: int, out: list[bytes]) -> None:
        function = call.function
        if self._open != "tool_use" or self._call_index != index:
            if function is None or not function.name:
                raise ProtocolError("a tool call without a name")
            id = call.id or f"toolu_{self._id}{len(self._content)}"
            self._begin({"type": "tool_use", "id": id, "name": function.name, "input": {}}, out)
            self._call_index = index
            self._called = True
        if function is not None and function.arguments:
            self._arguments += function.arguments
            self._delta(out, type="input_json_delta", partial_json=function.arguments)

    def _begin(self, block: dict[str, Any], out: list[bytes]) -> None:
        self._close(out)
        self._open = block["type"]
        self._arguments = ""
        self._content.append(dict(block))
        out.append(_event("content_block_start", index=len(self._content) - 1, content_block=block))

    def _delta(self, out: list[bytes], **delta: Any) -> None:
        out.append(_event("content_block_delta", index=len(self._content) - 1, delta=delta))

    def _close(self, out: list[bytes]) -> None:
        if self._open is None:
            return
        if self._open == "tool_use":
            self._content[-1]["input"] = _input(self._arguments)
        self._open = None
        out.append(_event("content_block_stop", index=len(self._content) - 1))

    @property
    def _stop_reason(self) -> str:
        if self._finish in ("length", "content_filter"):
            return _STOPS[self._finish]
        # Of a call that was named in the request, chat says `stop`.
        if self._called or self._finish in ("tool_calls", "function_call"):
            return "tool_use"
        return "end_turn"

    @property
    def _used(self) -> dict[str, int]:
        usage = self._usage
        if usage is None:
            return {"input_tokens": 0, "output_tokens": 0}
        # Here the cached ones are not among those of the input.
        used = {"input_tokens": usage.prompt - usage.cached, "output_tokens": usage.completion}
        return used | {"cache_read_input_tokens": usage.cached} if usage.cached else used

    def _message(self, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        return {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": self._used,
        }


def _input(arguments: str) -> Any:
    """A call's arguments as this API has them. One that a limit cut short has none that could be told."""
    try:
        found = msgspec.json.decode(arguments) if arguments else {}
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _event(type: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type.encode(), msgspec.json.encode({"type": type, **fields}))
