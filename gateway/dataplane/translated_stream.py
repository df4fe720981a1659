"""A provider's chat stream, checked as one, on its way to a client that speaks another API. A pure machine."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.dataplane.stream_guard import StreamGuard
from gateway.errors import ProtocolError, UpstreamError

_DATA = b"data: "


class Wording(Protocol):
    """Words one chat answer as another API has it. Each raises :class:`ProtocolError` for what it has no words for."""

    def body(self, data: bytes) -> bytes:
        """A plain answer."""

    def events(self, data: bytes) -> bytes:
        """The events that one chunk stands for."""

    def end(self) -> bytes:
        """The events behind the last chunk."""


class TranslatedGuard:
    """``guard``'s checks, and what it lets through in the words of ``wording``. See :class:`.guard.Guard`."""

    def __init__(self, guard: StreamGuard, wording: Wording) -> None:
        self._guard = guard
        self._wording = wording
        self._failed: UpstreamError | None = None
        self.sent = 0

    @property
    def committed(self) -> bool:
        """As of the chat."""
        return self._guard.committed

    @property
    def complete(self) -> bool:
        """As of the chat."""
        return self._guard.complete and self._failed is None

    @property
    def error(self) -> UpstreamError | None:
        """Of the chat, or of its translation."""
        return self._failed or self._guard.error

    @property
    def events(self) -> int:
        """Those of the chat."""
        return self._guard.events

    @property
    def model(self) -> str | None:
        """As of the chat."""
        return self._guard.model

    @property
    def usage(self) -> Any:
        """In chat's words."""
        return self._guard.usage

    def feed(self, data: bytes) -> bytes:
        """The bytes that may leave now that ``data`` has come."""
        return self._worded(self._guard.feed(data))

    def eof(self) -> bytes:
        """The provider's body has ended."""
        return self._worded(self._guard.eof())

    def lost(self, error: UpstreamError) -> bytes:
        """Reading failed with ``error``."""
        return self._worded(self._guard.lost(error))

    def _worded(self, frames: bytes) -> bytes:
        out: list[bytes] = []
        if self._failed is not None:
            return b""
        try:
            for frame in frames.split(b"\n\n"):
                if frame == b"data: [DONE]":
                    out.append(self._wording.end())
                elif frame.startswith(_DATA):
                    out.append(self._wording.events(frame[len(_DATA) :]))
                elif frame:
                    out.append(frame + b"\n\n")
        except ProtocolError as error:
            self._failed = error
        worded = b"".join(out)
        self.sent += worded.count(b"\nevent: ") + worded.startswith(b"event: ")
        return worded
