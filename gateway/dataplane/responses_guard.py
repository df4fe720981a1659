"""What counts as an answer of `/v1/responses`, streamed or plain."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.named_events import NamedEventGuard
from gateway.dataplane.stream_guard import decoded, error_frame
from gateway.errors import Aborted, ErrorFrame, ProtocolError

_LAST = frozenset({"response.completed", "response.incomplete"})
_ENDED = frozenset({"completed", "incomplete"})
_MADE_OF_DELTAS = frozenset({"message", "reasoning"})
"""Items that say nothing by being begun; a call already has its name then."""


class _Item(msgspec.Struct):
    type: str | None = None


class _Response(msgspec.Struct):
    status: str | None = None
    model: str | None = None
    usage: Any = None
    output: list[_Item] | None = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    item: _Item | None = None
    delta: Any = None
    error: Any = None


class _Answer(_Response):
    object: str | None = None


_event = msgspec.json.Decoder(_Event).decode
_answer = msgspec.json.Decoder(_Answer).decode


class ResponsesGuard(NamedEventGuard):
    """The checks of a stream of `/v1/responses`. Its last event has the whole answer."""

    def _check(self, payload: bytes) -> bool:
        event = decoded(_event, payload, "an event that is none")
        if event.error is not None or event.type == "error":
            raise error_frame(payload)
        if not event.type.startswith("response."):
            raise ProtocolError("an event without a type of its own")
        if event.response is not None:
            self.model = self.model or event.response.model
        if event.type in _LAST:
            if event.response is None:
                raise ProtocolError("a last event without the answer")
            _ended(event.response)
            self.usage = event.response.usage
            self.complete = True
            return True
        if event.type == "response.failed":
            raise ErrorFrame(_words(event.response))
        if event.type == "response.output_item.added":
            return event.item is not None and event.item.type not in _MADE_OF_DELTAS
        return event.type.endswith(".delta") and bool(event.delta)


def check_response(body: bytes) -> tuple[str | None, Any]:
    """The model that a plain answer names, and its usage. Raises what a body that is no whole answer stands for."""
    answer = decoded(_answer, body, "a 200 whose body is no response")
    if answer.object != "response":
        if answer.error is not None:
            raise error_frame(body)
        raise ProtocolError("a 200 whose body is no response")
    _ended(answer)
    return answer.model, answer.usage


def _ended(response: _Response) -> None:
    if response.status == "cancelled":
        raise Aborted("the engine aborted the request")
    if response.status == "failed":
        raise ErrorFrame(_words(response))
    if response.status not in _ENDED or response.output is None:
        raise ProtocolError("a response that has not ended")


def _words(response: _Response | None) -> str:
    error = None if response is None else response.error
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or "the response failed")[:500]
