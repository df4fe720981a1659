"""Answers that the gateway writes itself: errors in OpenAI's envelope, and the fixed text of a `static` step."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.request import Request
from gateway.dataplane.stream_guard import DONE
from gateway.dataplane.verdict import public_text
from gateway.errors import Reason, RequestError, UpstreamError

STATIC_MODEL = "static"


def error_body(message: str, *, type: str, param: str | None = None, code: str | int | None = None) -> bytes:
    """OpenAI's error envelope."""
    return msgspec.json.encode({"error": {"message": message, "type": type, "param": param, "code": code}})


def request_error_body(error: RequestError) -> bytes:
    """The envelope of a client's mistake."""
    return error_body(error.message, type=error.type, param=error.param, code=error.code)


def broken_stream_frames(error: UpstreamError) -> bytes:
    """How a stream ends that broke after content had gone out: never silently, never with an invented finish."""
    body = error_body(
        f"The answer broke off: {public_text(error)}. What came before this event is incomplete.",
        type="upstream_error",
        code=Reason.STREAM_BROKEN.value,
    )
    return b"data: " + body + b"\n\n" + DONE


def unavailable_body(tried: list[str]) -> bytes:
    """The body of the one 503: everything in the plan failed."""
    what = "; ".join(tried) if tried else "nothing in this customer's policy could be asked"
    return error_body(
        f"No target that the policy allows could answer. Tried: {what}.", type="service_unavailable", code="unavailable"
    )


def defect_body() -> bytes:
    """The body of a 500: what went wrong is in the log, and nobody else's business."""
    return error_body("An internal error; the gateway's log says more.", type="server_error", code="internal_error")


def static_plain(request: Request, text: str, *, created: int) -> bytes:
    """The body of a plain `static` answer."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if request.endpoint == "chat":
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "chat.completion" if request.endpoint == "chat" else "text_completion"
    return msgspec.json.encode(_head(request, kind, created) | {"choices": [choice], "usage": _no_usage()})


def static_stream(request: Request, text: str, *, created: int) -> bytes:
    """All events of a streamed `static` answer: one with role and text, one finish, usage if asked for, `[DONE]`."""
    chat = request.endpoint == "chat"
    head = _head(request, "chat.completion.chunk" if chat else "text_completion", created)
    content = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
    finish: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    events = [
        head | {"choices": [{"index": 0, **content, "logprobs": None, "finish_reason": None}]},
        head | {"choices": [{"index": 0, **finish, "logprobs": None, "finish_reason": "stop"}]},
    ]
    if request.include_usage:
        events.append(head | {"choices": [], "usage": _no_usage()})
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events) + DONE


def _head(request: Request, kind: str, created: int) -> dict[str, Any]:
    prefix = "chatcmpl" if request.endpoint == "chat" else "cmpl"
    return {"id": f"{prefix}-{request.id}", "object": kind, "created": created, "model": STATIC_MODEL}


def _no_usage() -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
