"""Answers that the gateway writes itself: errors, and the fixed text of a `static` step.

Errors have OpenAI's envelope; :func:`enveloped` puts those of `/v1/messages` into Anthropic's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.request import Request
from gateway.dataplane.stream_guard import DONE, error_of
from gateway.dataplane.translated_stream import Wording
from gateway.dataplane.verdict import public_text
from gateway.errors import Reason, RequestError, UpstreamError
from gateway.upstream.provider_request import Endpoint

STATIC_MODEL = "static"

_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""What Anthropic calls an error of a status; of a 503 as it says of its 529. Others below 500 are the client's."""


def error_body(message: str, *, type: str, param: str | None = None, code: str | int | None = None) -> bytes:
    """OpenAI's error envelope."""
    return msgspec.json.encode({"error": {"message": message, "type": type, "param": param, "code": code}})


def request_error_body(error: RequestError) -> bytes:
    """The envelope of a client's mistake."""
    return error_body(error.message, type=error.type, param=error.param, code=error.code)


def enveloped(endpoint: Endpoint | None, status: int, body: bytes) -> bytes:
    """An error's ``body``, in OpenAI's envelope or an upstream's, as the clients of ``endpoint`` read it."""
    if endpoint != "messages":
        return body
    message, _ = error_of(body)
    usual = "invalid_request_error" if status < 500 else "api_error"
    error = {"type": _ANTHROPIC_TYPES.get(status, usual), "message": message}
    return msgspec.json.encode({"type": "error", "error": error})


def broken_stream_frames(error: UpstreamError, endpoint: Endpoint, number: int = 0) -> bytes:
    """How a stream ends that broke after content had gone out: never silently, never with an invented finish.

    ``number``: of the event, where events are numbered.
    """
    message = f"The answer broke off: {public_text(error)}. What came before this event is incomplete."
    code = Reason.STREAM_BROKEN.value
    match endpoint:
        case "responses":
            # As the SDK's type has it, and with the object by which the SDK raises it.
            said = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": number}
            inner = {"message": message, "type": "upstream_error", "param": None, "code": code}
            return b"event: error\ndata: " + msgspec.json.encode(said | {"error": inner}) + b"\n\n"
        case "messages":
            # The status has gone out as 200, and no type of Anthropic's says this: so there is a code beside it.
            inner = {"type": "api_error", "message": message, "code": code}
            return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": inner}) + b"\n\n"
        case _:
            return b"data: " + error_body(message, type="upstream_error", code=code) + b"\n\n" + DONE


def unavailable_body(tried: list[str]) -> bytes:
    """The body of the one 503: everything in the plan failed."""
    what = "; ".join(tried) if tried else "nothing in this customer's policy could be asked"
    return error_body(
        f"No target that the policy allows could answer. Tried: {what}.", type="service_unavailable", code="unavailable"
    )


def defect_body() -> bytes:
    """The body of a 500: what went wrong is in the log, and nobody else's business."""
    return error_body("An internal error; the gateway's log says more.", type="server_error", code="internal_error")


def static_body(request: Request, text: str, *, created: int, wording: Wording | None = None) -> bytes:
    """A `static` answer, streamed or plain as it was asked for; ``wording``: in another API's words than chat's."""
    answer = _static_stream if request.stream else _static_plain
    return answer(request, text, created=created, wording=wording)


def _static_plain(request: Request, text: str, *, created: int, wording: Wording | None = None) -> bytes:
    """The body of a plain `static` answer; ``wording``: in another API's words than chat's."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if request.endpoint != "completions":
        choice["message"] = {"role": "assistant", "content": text}
    else:
        choice["text"] = text
    kind = "text_completion" if request.endpoint == "completions" else "chat.completion"
    body = msgspec.json.encode(_head(request, kind, created) | {"choices": [choice], "usage": _no_usage()})
    return body if wording is None else wording.body(body)


def _static_stream(request: Request, text: str, *, created: int, wording: Wording | None = None) -> bytes:
    """All events of a streamed `static` answer: one with role and text, one finish, usage if asked for, `[DONE]`.

    ``wording``: in another API's words than chat's.
    """
    chat = request.endpoint != "completions"
    head = _head(request, "chat.completion.chunk" if chat else "text_completion", created)
    content = {"delta": {"role": "assistant", "content": text}} if chat else {"text": text}
    finish: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    events = [
        head | {"choices": [{"index": 0, **content, "logprobs": None, "finish_reason": None}]},
        head | {"choices": [{"index": 0, **finish, "logprobs": None, "finish_reason": "stop"}]},
    ]
    if request.include_usage:
        events.append(head | {"choices": [], "usage": _no_usage()})
    encoded = list(map(msgspec.json.encode, events))
    if wording is not None:
        return b"".join(map(wording.events, encoded)) + wording.end()
    return b"".join(b"data: " + event + b"\n\n" for event in encoded) + DONE


def _head(request: Request, kind: str, created: int) -> dict[str, Any]:
    prefix = "cmpl" if request.endpoint == "completions" else "chatcmpl"
    return {"id": f"{prefix}-{request.id}", "object": kind, "created": created, "model": STATIC_MODEL}


def _no_usage() -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
