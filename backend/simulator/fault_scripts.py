"""Every fault that an answer can suffer, as a script made from the healthy one.

Each function's name is the fault's name in a rule, its keyword arguments are the rule's parameters. ``after_chunks``
is the number of server-sent events that still leave in good order (the role-only one of a chat included); a stream
with fewer loses its end. Of a plain answer, half the body takes the place of those events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from backend.simulator.answer import Answer, Fixed, Otherwise
from backend.simulator.steps import Body, Do, Event, Head, Raw, Script, Step, Wait

AFTER: Final = 4
"""The role and three tokens of a chat."""
HTML: Final = b"<!doctype html><html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n"
PIECE: Final = 65536


def reset_before_headers(answer: Answer) -> Script:
    """RST before a byte of the answer."""
    yield Do.RESET


def close_before_headers(answer: Answer) -> Script:
    """FIN before a byte of the answer, as when an idle connection times out under a request."""
    yield Do.CLOSE


def hang_before_headers(answer: Answer, *, seconds: float | None = None) -> Script:
    """Silence for ``seconds`` (null: for ever), then the answer."""
    yield Wait(seconds)
    yield from answer.script()


def slow_headers(answer: Answer, *, every_s: float = 0.2) -> Script:
    """The header block one byte at a time, one each ``every_s``."""
    for step in answer.script():
        if isinstance(step, Head):
            step.every_s = every_s
        yield step


def huge_headers(answer: Answer, *, bytes: int = 1_000_000) -> Script:
    """A header block of ``bytes``."""
    for step in answer.script():
        if isinstance(step, Head):
            step.extra += b"x-padding: %b\r\n" % (b"x" * bytes)
        yield step


def reset_after_headers(answer: Answer) -> Script:
    """RST after the headers, before any of the body."""
    yield _head(answer)
    yield Do.RESET


def reset_mid_stream(answer: Answer, *, after_chunks: int = AFTER) -> Script:
    """RST in the middle."""
    yield from _Split(answer, after_chunks).first()
    yield Do.RESET


def truncate(answer: Answer, *, after_chunks: int = AFTER, close: bool = False) -> Script:
    """A body that ends cleanly, but too early; with ``close``, the connection ends (FIN) and the body does not."""
    split = _Split(answer, after_chunks)
    if close or answer.streamed:
        yield from split.first()
        yield Do.CLOSE if close else Do.END
    else:
        body = answer.body()
        yield from answer.plain(body[: len(body) // 2])


def malformed_frame(answer: Answer, *, after_chunks: int = AFTER) -> Script:
    """An event whose JSON stops half-way, then the rest of the stream; a plain body with half its JSON."""
    if answer.streamed:
        return _with(answer, after_chunks, b'data: {"id":"chatcmpl-0","choices":[{"index":0,"del\n\n')
    return truncate(answer)


def invalid_utf8(answer: Answer, *, after_chunks: int = AFTER) -> Script:
    """Bytes that are not UTF-8 within the text."""
    if answer.streamed:
        return _with(answer, after_chunks, answer.content(b"\xff\xfe"))
    body = answer.body()
    return answer.plain(body[: len(body) // 2] + b"\xff\xfe" + body[len(body) // 2 :])


def error_frame_first(answer: Answer, *, status: int = 500, message: str | None = None) -> Script:
    """Status 200, then an error where the first event (or the body) was due."""
    return error_frame_mid(answer, after_chunks=0, status=status, message=message)


def error_frame_mid(
    answer: Answer, *, after_chunks: int = AFTER, status: int = 500, message: str | None = None
) -> Script:
    """An error event in mid-stream, then the terminator, as from a dying engine; a plain 200 whose body is an error."""
    if not answer.streamed:
        yield from answer.plain(answer.dialect.error_body(status, message))
        return
    yield from _Split(answer, after_chunks).first()
    yield Event(answer.dialect.error_event(status, message))
    if done := answer.done():
        yield Event(done)
    yield Do.END


def role_only_then_silence(answer: Answer) -> Script:
    """Headers, the events before any content, and nothing more; a plain answer's headers only."""
    yield _head(answer)
    for event in answer.opening():
        yield Event(event)
    yield Wait(None)


def keepalive_comments_then_silence(answer: Answer, *, comments: int | None = None, every_s: float = 0.05) -> Script:
    """Comments that say only that the connection lives: as many as ``comments`` (null: without end), then nothing."""
    yield _head(answer)
    sent = 0
    while answer.streamed and (comments is None or sent < comments):
        yield Body(b": keep-alive\n\n")
        yield Wait(every_s)
        sent += 1
    yield Wait(None)


def stall(answer: Answer, *, after_chunks: int = AFTER, seconds: float | None = 20.0) -> Script:
    """Silence for ``seconds`` (null: for ever) in mid-answer, then the rest."""
    split = _Split(answer, after_chunks)
    yield from split.first()
    yield Wait(seconds)
    yield from split.rest()


def drip(answer: Answer, *, after_chunks: int = 1, every_s: float = 5.0) -> Script:
    """From there on one byte of the body each ``every_s``."""
    split = _Split(answer, after_chunks)
    yield from split.first()
    for step in split.rest():
        if isinstance(step, Event | Body):
            for byte in step.data:
                yield Body(byte.to_bytes(1, "big"))
                yield Wait(every_s)
        elif not isinstance(step, Wait):
            yield step


def huge_frame(answer: Answer, *, after_chunks: int = 1, bytes: int = 50_000_000) -> Script:
    """One event with ``bytes`` of text, in pieces, then the rest; a plain body after so many blanks."""
    if not answer.streamed:
        body = answer.body()
        yield Head(200, answer.content_type, bytes + len(body))
        yield from _filled(b" ", bytes)
        yield Body(body)
        yield Do.END
        return
    split = _Split(answer, after_chunks)
    yield from split.first()
    front, _, back = answer.content(b"@").partition(b"@")
    yield Body(front)
    yield from _filled(b"x", bytes)
    yield Event(back)
    yield from split.rest()


def html_200(answer: Answer) -> Script:
    """A proxy's error page under status 200."""
    return Fixed(answer.dialect, HTML, content_type=b"text/html").script()


def empty_200(answer: Answer) -> Script:
    """Status 200 and no body at all."""
    return Fixed(answer.dialect, b"", content_type=answer.content_type).script()


def garbage(answer: Answer, *, bytes: int = 256) -> Script:
    """Bytes that are not HTTP, then FIN."""
    yield Raw((b"\x00\x16\x03\x01\xff\x80SSH-2.0-\n" * (bytes // 16 + 1))[:bytes])
    yield Do.CLOSE


def status(
    answer: Answer,
    *,
    status: int = 500,
    message: str | None = None,
    type: str | None = None,
    param: str | None = None,
    code: str | None = None,
    retry_after_s: float | None = None,
) -> Script:
    """An error status with the body that this server would give it."""
    body = answer.dialect.error_body(status, message, type=type, param=param, code=code)
    extra = b"" if retry_after_s is None else b"retry-after: %g\r\n" % retry_after_s
    return Fixed(answer.dialect, body, status=status, extra=extra).script()


def adapter_missing(answer: Answer) -> Script:
    """The 404 of a box that lost this adapter."""
    message = f"The model `{answer.model}` does not exist. Valid aliases: base."
    return status(answer, status=404, message=message, type="NotFoundError", param="model")


def abort(answer: Answer, *, after_chunks: int = AFTER) -> Script:
    """Status 200, part of the text, ``finish_reason: "abort"``: a shutdown without a drain."""
    if not answer.streamed:
        yield from answer.plain(answer.body(finish="abort"))
        return
    yield from _Split(answer, after_chunks).first()
    for event in answer.closing("abort"):
        yield Event(event)
    yield Do.END


def done_without_finish(answer: Answer, *, after_chunks: int = AFTER) -> Script:
    """The terminator without any finish reason; a plain body with half its JSON."""
    if not answer.streamed:
        yield from truncate(answer)
        return
    yield from _Split(answer, after_chunks).first()
    if done := answer.done():
        yield Event(done)
    yield Do.END


def wrong_content_length(answer: Answer, *, by: int = 10) -> Script:
    """A content length that is off by so many bytes; too long a one ends with FIN.

    A stream's length is not known when it begins: it is far too long, or with a negative ``by`` ten bytes.
    """
    for step in answer.script():
        if isinstance(step, Head):
            length = step.length if step.length is not None else (10**9 if by > 0 else 10 - by)
            step.length = max(length + by, 0)
        yield Do.CLOSE if step is Do.END and by > 0 else step


def die(answer: Answer, *, after_chunks: int = 0) -> Script:
    """The request that kills the process (SIGKILL), before its headers or after so many events."""
    if after_chunks:
        yield from _Split(answer, after_chunks).first()
    yield Do.DIE


def other_words(answer: Answer, *, how: Otherwise = "shorter") -> Script:
    """A healthy answer, but another one, as sampling may give it."""
    answer.say_otherwise(how)
    yield from answer.script()


ANSWER_FAULTS: Final[dict[str, Callable[..., Script]]] = {
    function.__name__: function
    for function in (
        reset_before_headers,
        close_before_headers,
        hang_before_headers,
        slow_headers,
        huge_headers,
        reset_after_headers,
        reset_mid_stream,
        truncate,
        malformed_frame,
        invalid_utf8,
        error_frame_first,
        error_frame_mid,
        role_only_then_silence,
        keepalive_comments_then_silence,
        stall,
        drip,
        huge_frame,
        html_200,
        empty_200,
        garbage,
        status,
        adapter_missing,
        abort,
        done_without_finish,
        wrong_content_length,
        die,
        other_words,
    )
}


class _Split:
    """A healthy script in two parts."""

    def __init__(self, answer: Answer, after_chunks: int) -> None:
        self._script = answer.script()
        self._after = after_chunks
        self._held: Step = Do.END

    def first(self) -> Iterator[Step]:
        """Up to the break."""
        events = 0
        for step in self._script:
            if isinstance(step, Event):
                if events >= self._after:
                    self._held = step
                    return
                events += 1
            elif isinstance(step, Body):
                half = len(step.data) // 2
                yield Body(step.data[:half])
                self._held = Body(step.data[half:])
                return
            elif step is Do.END:
                return
            yield step

    def rest(self) -> Iterator[Step]:
        """What is left; only after all of ``first``."""
        yield self._held
        yield from self._script


def _with(answer: Answer, after_chunks: int, event: bytes) -> Script:
    split = _Split(answer, after_chunks)
    yield from split.first()
    yield Event(event)
    yield from split.rest()


def _head(answer: Answer) -> Head:
    length = None if answer.streamed else len(answer.body())
    return Head(answer.status, answer.content_type, length, answer.extra)


def _filled(byte: bytes, size: int) -> Iterator[Step]:
    piece = byte * PIECE
    for _ in range(size // PIECE):
        yield Body(piece)
    yield Body(byte * (size % PIECE))
