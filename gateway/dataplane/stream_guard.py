"""What may leave of a stream: a pure machine that takes the upstream's bytes and gives the client's.

Only whole, checked events leave. Nothing leaves before the first content-bearing one (the commit), so that every
failure before it can be made good elsewhere; and a stream is complete only when every choice has a finish of its own
and `[DONE]` has come. Each event is parsed in full: with msgspec and a struct that names only what matters this takes
about 1 µs, less than a scan of the bytes in Python that could be trusted on keys inside of strings
(`python -m bench.stream_guard`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from gateway.dataplane.chunk import Choice, Chunk, decode, keep, only_text
from gateway.dataplane.said import Said
from gateway.dataplane.sse import FRAME_LIMIT, EventSplitter, parse_event
from gateway.errors import Aborted, ConnectionLost, ErrorFrame, ProtocolError, TooLarge, UpstreamError

HOLD_LIMIT = 4 * FRAME_LIMIT
"""Bytes of events held back before the commit."""

DONE = b"data: [DONE]\n\n"

Decoded = TypeVar("Decoded")

Reshape = Callable[[bytes], bytes | None]
"""Makes one event's JSON what the client should see; None where nothing of it is left."""


class _Contradiction(ProtocolError):
    """More is said of a choice that had come to its end."""


class StreamGuard:
    """One stream's checks. ``choices``: how many finishes make it whole. ``strip_usage``: an event that tells only
    what the answer took was asked for by us and not by the client; it does not leave. ``strict``: what comes behind a
    finish is garbage; by default where nothing is reshaped, as that takes care of it. ``said`` takes what is told.
    ``owes_usage``: of one choice; its finish is held back until its usage has come, so that a stream which breaks
    between them can go on elsewhere, and have both.

    After each :meth:`feed` look at ``committed``, ``complete`` and ``error``; with ``error`` set, or ``complete``, the
    stream is over and what was returned is the last that may leave. ``events`` counts the data events seen, so that a
    stall can be told from keep-alive comments. ``usage``: what the stream says that it took, as it says it.
    """

    __slots__ = ("_choices", "_finished", "_held", "_held_bytes", "_owes_usage", "_reshape", "_splitter", "_strict",
                 "_strip_usage", "_withheld", "committed", "complete", "ended", "error", "events", "model", "said",
                 "usage")  # fmt: skip

    def __init__(
        self,
        choices: int = 1,
        *,
        reshape: Reshape | None = None,
        strip_usage: bool = False,
        strict: bool | None = None,
        said: Said | None = None,
        owes_usage: bool = False,
        frame_limit: int = FRAME_LIMIT,
    ) -> None:
        self._choices = choices
        self._finished: set[int] = set()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._reshape = reshape
        self._strip_usage = strip_usage
        self._strict = reshape is None if strict is None else strict
        self.said = said
        self._owes_usage = owes_usage
        self._withheld: bytes | None = None
        self.ended: str | None = None
        """The finish that is held back, if nothing else is with it."""
        self._splitter = EventSplitter(frame_limit)
        self.committed = False
        self.complete = False
        self.error: UpstreamError | None = None
        self.events = 0
        self.model: str | None = None
        self.usage: Any = None

    def feed(self, data: bytes) -> bytes:
        """The bytes that may leave now that ``data`` has come: whole events, ``b""`` while nothing may."""
        out: list[bytes] = []
        if self.complete or self.error is not None:
            return b""
        try:
            for event in self._splitter.feed(data):
                self._event(event, out)
        except UpstreamError as error:
            if isinstance(error, _Contradiction):
                self._withheld = None
                self.error = error
            elif self._withheld is not None or not self._whole():
                self.error = error
            else:
                # All that was to be said has been said: what broke behind it is nobody's.
                self._end(out)
        return b"".join(out)

    def eof(self) -> bytes:
        """The upstream's body has ended. What is still owed to the client, if the stream was whole."""
        if self.complete or self.error is not None:
            return b""
        if self._withheld is not None or not self._whole():
            what = "a finish_reason" if self._withheld is None else "its usage"
            self.error = ConnectionLost(f"the stream ended without {what}")
            return b""
        # Every choice has its finish: the answer is whole, only the terminator got lost.
        out: list[bytes] = []
        self._end(out)
        return b"".join(out)

    def lost(self, error: UpstreamError) -> bytes:
        """Reading failed with ``error``: as :meth:`eof`, but that error is what a broken stream ends with."""
        out = self.eof()
        if not self.complete:
            self.error = error
        return out

    @property
    def sent(self) -> int:
        """About as many as came; nobody numbers them."""
        return self.events

    def without_usage(self) -> bytes:
        """The end of a stream that broke before its usage and cannot have it elsewhere, but has all else. ``b""`` of
        any other: that stays broken."""
        if self._withheld is None:
            return b""
        out: list[bytes] = []
        self.error = None
        self._end(out)
        return b"".join(out)

    @property
    def finished(self) -> bool:
        """Whether a choice has come to its end, and its client was told."""
        return bool(self._finished) and self._withheld is None

    def _whole(self) -> bool:
        return len(self._finished) >= self._choices

    def _event(self, event: bytes, out: list[bytes]) -> None:
        if self.complete:
            return  # What comes after [DONE] is nobody's.
        payload: bytes | None
        plain = event.startswith(b"data: ") and b"\n" not in event
        if plain:
            payload = event[6:]
        else:
            parsed = parse_event(event)
            if parsed.data is None:
                # Comments and the like. Before the commit they are dropped: they would commit us to nothing.
                if self.committed and event:
                    out.append(event + b"\n\n")
                return
            payload = parsed.data
            if parsed.name == "error":
                raise error_frame(payload)
        self.events += 1
        if payload == b"[DONE]":
            if not self._whole():
                raise ProtocolError("[DONE] without a finish_reason")
            self._end(out)
            return
        try:
            # What the struct skips over is not looked at as text, and a client that reads it as such would fail.
            if not payload.isascii():
                payload.decode()
            chunk = decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"an event that is no chunk: {error}") from error
        # Nearly all events bring more text and nothing else, which takes none of what follows.
        if plain and self.committed and not self._finished and self._reshape is None and self.model is not None:
            text = only_text(chunk)
            if text is not None:
                if (said := self.said) is not None:
                    said.pieces.append(text)
                    if said.payloads is not None:
                        said.payloads.append(payload)
                out.append(event + b"\n\n")
                return
        content = self._check(payload, chunk)
        if content is None:
            return
        if self._reshape is not None:
            payload = self._reshape(payload)
            if payload is None:
                return
            plain = False
        if self.said is not None and self.said.head is None:
            self.said.head = payload
        frame = event + b"\n\n" if plain else b"data: " + payload.replace(b"\n", b" ") + b"\n\n"
        if content and not self.committed:
            self.committed = True
            out.extend(self._held)
            self._held.clear()
        if self._owes_usage:
            self._release(out)
            if content and self._finished:
                self._withheld = frame
                return
        if self.said is not None and self.said.payloads is not None:
            self.said.payloads.append(payload)
        self._emit(frame, out)

    def _release(self, out: list[bytes]) -> None:
        if self._withheld is not None:
            self._emit(self._withheld, out)
            self._withheld = None

    def _end(self, out: list[bytes]) -> None:
        self.complete = True
        self._release(out)
        self._emit(DONE, out)

    def _emit(self, frame: bytes, out: list[bytes]) -> None:
        if self.committed:
            out.append(frame)
            return
        self._held.append(frame)
        self._held_bytes += len(frame)
        if self._held_bytes > HOLD_LIMIT:
            raise TooLarge(f"more than {HOLD_LIMIT} bytes of events without content")

    def _check(self, payload: bytes, chunk: Chunk) -> bool | None:
        """Whether the event bears content; None where it is not for the client. Raises what an event that must not
        leave stands for."""
        if chunk.error is not None:
            raise error_frame(payload)
        if chunk.choices is None:
            raise ProtocolError("an event without choices")
        if self.model is None and chunk.model:
            self.model = chunk.model
        if chunk.usage is not None:
            self.usage = chunk.usage
            if self._strip_usage and not chunk.choices:
                return None
        content = False
        for choice in chunk.choices:
            over = choice.index in self._finished
            if choice.finish_reason:
                self._finish(choice)
                content = True
                self.ended = choice.finish_reason
            delta = choice.delta
            if choice.text or (
                delta is not None
                and (
                    delta.content
                    or delta.tool_calls
                    or delta.reasoning
                    or delta.reasoning_content
                    or delta.refusal
                    or delta.function_call
                    or delta.audio
                )
            ):
                content = True
                if self._owes_usage and choice.finish_reason:
                    self.ended = None  # it is said again with the finish, or not at all
                elif self.said is not None:
                    keep(self.said, payload, choice.text if delta is None else delta.content, delta)
                # When a provider's answer is reshaped this is taken care of; from a box it is garbage.
                if over and self._strict:
                    raise _Contradiction(f"content for choice {choice.index} behind its finish_reason")
        return content

    def _finish(self, choice: Choice) -> None:
        if choice.finish_reason == "abort":
            raise Aborted("the engine aborted the request")
        if choice.finish_reason == "error":
            raise ErrorFrame("the engine ended the answer with an error")
        # A provider's repeated finish is taken out when its answer is reshaped; from a box it is garbage.
        if choice.index in self._finished and self._strict:
            raise _Contradiction(f"choice {choice.index} finished twice")
        self._finished.add(choice.index)


def error_frame(payload: bytes) -> ErrorFrame:
    """The failure that an error object in a stream, or as the body of a 200, stands for."""
    message, status = error_of(payload)
    return ErrorFrame(message, status=status, body=payload)


def decoded(decode: Callable[[bytes], Decoded], payload: bytes, what: str) -> Decoded:
    """``payload`` by a decoder whose struct names only what matters. ``what`` it is otherwise: a ProtocolError's words.

    A stream's own checks have the same written out, as they run for every event of a chat.
    """
    try:
        # What the struct skips over is not looked at as text, and a client that reads it as such would fail.
        if not payload.isascii():
            payload.decode()
        return decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{what}: {error}") from error


def error_of(payload: bytes) -> tuple[str, int | None]:
    """Message and HTTP-like code of an error object in any of the shapes that engines and providers send."""
    try:
        body = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return payload[:200].decode("utf-8", "replace"), None
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:500], None
    code = error.get("code")
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    return str(error.get("message") or error)[:500], code if isinstance(code, int) else None
