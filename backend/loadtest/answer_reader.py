"""Reads one answer: bytes and the time they came in, times and counts out. No socket, no clock.

Each event is parsed, with a struct that names only what matters (about a microsecond): an error object, a degraded
mark or the usage may be in any of them.
"""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"[DONE]"


class _Said(msgspec.Struct):
    """A delta or a message: whatever counts as content."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None

    @property
    def empty(self) -> bool:
        return not (self.content or self.tool_calls or self.reasoning_content or self.reasoning or self.refusal)


class _Choice(msgspec.Struct):
    delta: _Said | None = None
    message: _Said | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Degraded(msgspec.Struct):
    reason: str = "unknown"
    served_by: str = "unknown"


class _Piece(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None
    degraded: _Degraded | None = None


_decode = msgspec.json.Decoder(_Piece).decode


class AnswerReader:
    """One answer as it comes in. Times are whatever the caller's clock says, in seconds.

    ``error`` is None for a whole answer. ``degraded``: the mark in the body, or else in the headers.
    """

    __slots__ = (
        "_buffer", "_done", "_finished", "_pieces", "degraded", "ended", "error", "first_s", "last_s",
        "longest_gap_s", "prompt_tokens", "served_by", "status", "streamed", "tokens",
    )  # fmt: skip

    def __init__(self, *, streamed: bool) -> None:
        self.streamed = streamed
        self.status = 0
        self.served_by = "none"
        self.degraded: str | None = None
        self.error: str | None = None
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.longest_gap_s = 0.0
        self.prompt_tokens = 0
        self.tokens = 0
        self.ended = False
        self._buffer = b""
        self._pieces = 0
        self._finished = False
        self._done = False

    @property
    def begun(self) -> bool:
        """Whether anything of an answer came."""
        return self.status != 0

    def header(self, name: bytes, value: bytes) -> None:
        """One header; ``name`` in any case."""
        match name.lower():
            case b"x-failsoft-served-by":
                self.served_by = value.decode("latin-1")
            case b"x-failsoft-degraded":
                self.degraded = value.decode("latin-1")
            case b"content-type" if self.status == 200 and self.streamed and b"text/event-stream" not in value:
                self.error = "not a stream"

    def body(self, data: bytes, now_s: float) -> None:
        """More of the body, which came in at ``now_s``."""
        self._buffer = self._buffer + data if self._buffer else data
        if b"\r" in self._buffer:  # of CR LF, which may have come in two pieces
            self._buffer = self._buffer.replace(b"\r\n", b"\n")
        if self.status != 200 or not self.streamed or self.error is not None:
            return
        *blocks, self._buffer = self._buffer.split(b"\n\n")
        for block in blocks:
            self._event(block, now_s)

    def end(self) -> None:
        """The answer is whole, as far as HTTP goes."""
        self.ended = True
        if self.status != 200:
            self.error = f"status {self.status}{_code(self._buffer)}"
        elif self.error is None and self.streamed:
            if not (self._done and self._finished):
                self.error = "stream without an end"
            elif self.tokens == 0:
                self.tokens = self._pieces
        elif self.error is None:
            self._plain()

    def cut(self, why: str) -> None:
        """It ends here, unfinished."""
        if not self.ended:
            self.ended = True
            self.error = self.error or why

    def _event(self, block: bytes, now_s: float) -> None:
        data = b"".join(line[5:].lstrip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if not data:
            return
        if data == DONE:
            self._done = True
            return
        piece = self._piece(data)
        if piece is None:
            return
        for choice in piece.choices:
            if choice.text or (choice.delta is not None and not choice.delta.empty):
                self._content(now_s)
            if choice.finish_reason is not None:
                self._finished = True

    def _content(self, now_s: float) -> None:
        self._pieces += 1
        if self.first_s is None:
            self.first_s = now_s
        elif self.last_s is not None and now_s - self.last_s > self.longest_gap_s:
            self.longest_gap_s = now_s - self.last_s
        self.last_s = now_s

    def _plain(self) -> None:
        piece = self._piece(self._buffer)
        if piece is not None and not any(choice.finish_reason for choice in piece.choices):
            self.error = "answer without an end"

    def _piece(self, data: bytes) -> _Piece | None:
        try:
            piece = _decode(data)
        except msgspec.DecodeError:
            self.error = "not JSON of an answer"
            return None
        if piece.error is not None:
            self.error = f"error in the answer{_code(data)}"
            return None
        if piece.degraded is not None:
            self.degraded = piece.degraded.reason
            if self.served_by == "none":
                self.served_by = piece.degraded.served_by
        if piece.usage is not None:
            self.prompt_tokens, self.tokens = piece.usage.prompt_tokens, piece.usage.completion_tokens
        return piece


def _code(body: bytes) -> str:
    """The code, else the type, of OpenAI's error envelope; its message may quote a prompt, and counts badly."""
    try:
        error = msgspec.json.decode(body)["error"]
        code = error.get("code") or error.get("type")
    except (msgspec.DecodeError, TypeError, KeyError, AttributeError):
        return ""
    return f" {code}" if isinstance(code, str) else ""
