"""Answers of the data plane that are none: the client's mistake, and that nothing could answer."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.answers import enveloped, request_error_body, unavailable_body
from gateway.dataplane.body import discard_rest
from gateway.dataplane.call import Call
from gateway.dataplane.limits import Limited
from gateway.dataplane.marks import Headers, header_safe
from gateway.dataplane.relay import Send, send_whole
from gateway.errors import ErrorFrame, RequestError, UpstreamError, UpstreamStatus

RETRY_AFTER_S = 5
"""What a client is told to wait when nothing could answer: a breaker tries again within 8 s, on average in half."""

JSON = b"application/json"


NOT_SERVED = "The boxes of this model do not serve this endpoint."


class MethodNotAllowed(RequestError):
    """A path that is served was asked in another way."""

    def __init__(self, path: str, method: str, allowed: str) -> None:
        super().__init__(405, f"{path} takes {allowed.partition(',')[0]}, not {method}.", code="method_not_allowed")
        self.allowed = allowed


async def pass_on(call: Call, error: UpstreamError, send: Send) -> None:
    """A box's verdict on the request itself goes back as it is."""
    headers = call.headers("none")
    if isinstance(error, UpstreamStatus) and error.status == 404 and not is_envelope(error.body):
        # In FastAPI's words, which no client of OpenAI's reads.
        body = request_error_body(RequestError(404, NOT_SERVED, code="not_served"))
        await send_whole(send, error.status, headers, JSON, enveloped(call.endpoint, error.status, body))
    elif isinstance(error, UpstreamStatus) and call.endpoint == "messages":
        # Of its own checks vLLM tells in OpenAI's envelope here as well.
        await send_whole(send, error.status, headers, JSON, enveloped(call.endpoint, error.status, error.body))
    elif isinstance(error, UpstreamStatus):
        content_type = header_safe(error.content_type.decode("latin-1")) or JSON
        await send_whole(send, error.status, headers, content_type, error.body)
    elif isinstance(error, ErrorFrame) and error.status is not None:
        # It came as the first event of a 200, before anything was committed: it still gets its own status.
        body = error.body or request_error_body(RequestError(error.status, str(error)))
        await send_whole(send, error.status, headers, JSON, enveloped(call.endpoint, error.status, body))


def is_envelope(body: bytes) -> bool:
    """Whether an error's body is in OpenAI's shape."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(said, dict) and isinstance(said.get("error"), dict)


async def send_options(call: Call, send: Send, methods: str, leave: Headers | None) -> None:
    """Which methods a path takes. ``leave``: and what a page of another origin may do."""
    headers = [*call.headers("none"), (b"allow", methods.encode()), *(leave or ())]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def give_up(
    call: Call, send: Send, tried: list[str], *, again: bool = False, retry_after_s: int = RETRY_AFTER_S
) -> None:
    """The 503. ``again``: whether to ask again; after a whole plan the SDKs would do so twice, and at once."""
    headers = call.headers("none")
    headers.append((b"retry-after", b"%d" % retry_after_s))
    headers.append((b"x-should-retry", b"true" if again else b"false"))
    await send_whole(send, 503, headers, JSON, enveloped(call.endpoint, 503, unavailable_body(tried)))


async def refuse(call: Call, error: RequestError, receive: Any, send: Send) -> None:
    """The client's mistake. What it still sends is read where it would not read the answer otherwise."""
    call.answered = True
    headers = call.headers("none")
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, Limited):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    body = enveloped(call.endpoint, error.status, request_error_body(error))
    if error.status != 408 and not call.owes_body:
        await send_whole(send, error.status, headers, JSON, body)
        return
    headers += [(b"content-type", JSON), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await discard_rest(receive)
    await send({"type": "http.response.body", "body": b""})
