"""Whether the body of a plain 200 is an answer: read whole and checked before it is committed."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.stream_guard import decoded, error_of
from gateway.errors import Aborted, ErrorFrame, ProtocolError


class _Choice(msgspec.Struct):
    finish_reason: str | None = None
    message: dict[str, Any] | None = None
    text: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None
    model: str | None = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def check_plain(body: bytes) -> tuple[str | None, Any]:
    """The model that the answer names, and what it says that it took, as it says it.

    Raises what a body that is no whole answer stands for.
    """
    answer = decoded(_decode, body, "a 200 whose body is no answer")
    if answer.error is not None:
        message, status = error_of(body)
        raise ErrorFrame(message, status=status)
    if not answer.choices:
        raise ProtocolError("a 200 without choices")
    for choice in answer.choices:
        if choice.finish_reason == "abort":
            raise Aborted("the engine aborted the request")
        if choice.finish_reason == "error":
            raise ErrorFrame("the engine ended the answer with an error")
        if not choice.finish_reason:
            raise ProtocolError("a choice without finish_reason")
        if choice.message is None and choice.text is None:
            raise ProtocolError("a choice with neither message nor text")
    return answer.model, answer.usage
