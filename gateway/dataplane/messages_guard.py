"""What counts as an answer of `/v1/messages`, streamed or plain."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.named_events import NamedEventGuard
from gateway.dataplane.stream_guard import decoded, error_frame
from gateway.errors import Aborted, ProtocolError


class _Block(msgspec.Struct):
    type: str | None = None


class _Delta(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Any = None
    error: Any = None


class _Answer(msgspec.Struct):
    type: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: Any = None
    error: Any = None


_event = msgspec.json.Decoder(_Event).decode
_answer = msgspec.json.Decoder(_Answer).decode


class MessagesGuard(NamedEventGuard):
    """The checks of a stream of `/v1/messages`."""

    _stopped = False

    def _check(self, payload: bytes) -> bool | None:
        event = decoded(_event, payload, "an event that is none")
        if event.error is not None or event.type == "error":
            raise error_frame(payload)
        match event.type:
            case "ping":
                return None
            case "message_start":
                self.model = None if event.message is None else event.message.model
                return False
            case "message_stop":
                if not self._stopped:
                    raise ProtocolError("message_stop without a stop_reason")
                self.complete = True
                return True
            case "message_delta":
                if event.delta is None or event.delta.stop_reason is None:
                    # So vLLM 0.32 words an abort: it has no other word for it here.
                    raise Aborted("the engine ended the message without a stop_reason")
                self._stopped = True
                self.usage = event.usage
                return True
            case "content_block_start":
                content = event.content_block is not None and event.content_block.type not in ("text", "thinking")
            case "content_block_delta":
                delta = event.delta
                content = delta is not None and bool(delta.text or delta.thinking or delta.partial_json)
            case "content_block_stop":
                content = False
            case _:
                raise ProtocolError("an event that is none of a message")
        if content and self._stopped:
            raise ProtocolError("content behind the stop_reason")
        return content


def check_message(body: bytes) -> tuple[str | None, Any]:
    """The model that a plain answer names, and its usage. Raises what a body that is no whole answer stands for."""
    answer = decoded(_answer, body, "a 200 whose body is no message")
    if answer.error is not None:
        raise error_frame(body)
    if answer.type != "message" or answer.content is None:
        raise ProtocolError("a 200 whose body is no message")
    if answer.stop_reason is None:
        raise Aborted("the engine ended the message without a stop_reason")
    return answer.model, answer.usage
