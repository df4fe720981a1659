"""Hands a committed answer to the client, and tells how it ended."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.clock import Clock
from gateway.dataplane.answers import broken_stream_frames
from gateway.dataplane.attempt import Answer
from gateway.dataplane.cycle import push_of
from gateway.dataplane.marks import Headers
from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import InternalFault, ShuttingDown, UpstreamError
from gateway.upstream.exchange import Exchange
from gateway.upstream.provider_request import Endpoint

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]

GoOn = Callable[[Answer, UpstreamError], Awaitable[Answer | None]]
"""The rest of an answer that broke with an error, or None."""

GOES_ON = b": the upstream was lost\n\n"

END_WAIT_S = 0.25
"""Seconds. Behind `[DONE]` nothing is left for a server to do."""


async def send_whole(send: Send, status: int, headers: Headers, content_type: bytes, body: bytes) -> None:
    """An answer whose body is all there."""
    headers.append((b"content-type", content_type))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def start_of_stream(headers: Headers) -> dict[str, Any]:
    """The head of a streamed answer, which no proxy in between should buffer or keep."""
    headers.append((b"content-type", b"text/event-stream; charset=utf-8"))
    headers.append((b"cache-control", b"no-cache"))
    headers.append((b"x-accel-buffering", b"no"))
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def relay_stream(
    send: Send,
    headers: Headers,
    answer: Answer,
    clock: Clock,
    *,
    endpoint: Endpoint,
    stall_timeout_s: float,
    go_on: GoOn,
) -> UpstreamError | None:
    """Relay to the end. Returns what broke the stream, after its client was told by an error frame; None if whole.

    ``go_on`` is asked for the rest of a stream that breaks, which then follows as if it had always been there.
    """
    await send(start_of_stream(headers))
    while True:
        error, out = await _relay(send, answer, clock, stall_timeout_s)
        if error is None:
            break
        rest = None
        if answer.said is not None and not isinstance(error, ShuttingDown):
            # What is there is not to wait for the rest. The comment has whoever times the bytes know that it comes.
            await send({"type": "http.response.body", "body": out + GOES_ON, "more_body": True})
            out = b""
            rest = await go_on(answer, error)
        if rest is None:
            guard = answer.guard
            if isinstance(guard, StreamGuard) and (end := guard.without_usage()):
                out += end
                error = None
            else:
                out += broken_stream_frames(error, endpoint, 0 if guard is None else guard.sent)
            break
        answer = rest
    await send({"type": "http.response.body", "body": out})
    return error


async def _relay(
    send: Send, answer: Answer, clock: Clock, stall_timeout_s: float
) -> tuple[UpstreamError | None, bytes]:
    """Relay one answer. What broke it, and what of it is still to be sent.

    The stall time-out runs only while the upstream is waited for, not while the client is slow to read, and only data
    events move it on: keep-alive comments are no sign that the engine still works.
    """
    exchange, guard, permit, push = answer.exchange, answer.guard, answer.permit, push_of(send)
    out = answer.body
    if exchange is None:
        return None, out  # fixed text, all of it
    if guard is None:
        raise TypeError("not a streamed answer")
    events = 0

    def note_events() -> None:
        nonlocal events
        events = guard.events
        now = clock()
        exchange.until = now + stall_timeout_s
        if permit is not None:
            permit.progressed(now)

    def relay_at_once(data: bytes) -> bool:
        """Whether that went well, and all of it; else ``out`` is what of it may leave."""
        nonlocal out
        out = guard.feed(data)
        if guard.complete or guard.error is not None:
            return False
        if out:
            if push is None or not push(out):
                return False
            out = b""
        if guard.events != events:
            note_events()
        return True

    while guard.error is None and not guard.complete:
        if out:
            await send({"type": "http.response.body", "body": out, "more_body": True})
            out = b""
        if guard.events != events:
            note_events()
        try:
            if not await exchange.hand_over(relay_at_once):
                out = guard.eof()
        except UpstreamError as error:
            out = guard.lost(error)
            break
        except Exception as defect:
            log.exception("a defect in a stream from %s", answer.attempt.served_by)
            out = guard.lost(InternalFault(f"internal error ({type(defect).__name__})"))
            break
    return guard.error, out


async def read_end(exchange: Exchange, now: float) -> None:
    """Wait a moment for the end of a body of which all that matters was read.

    It often comes in a packet of its own, and without it the connection could not be used again.
    """
    exchange.until = now + END_WAIT_S
    with contextlib.suppress(UpstreamError):
        await exchange.read()
