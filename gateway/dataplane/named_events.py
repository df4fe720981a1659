"""What may leave of a stream of named events, as the Responses and the Messages API have them.

As :mod:`gateway.dataplane.stream_guard` for chat: whole events only, nothing before the first content, and a stream is
complete only when its own last event has come. A pure machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from gateway.dataplane.sse import EventSplitter, parse_event
from gateway.dataplane.stream_guard import HOLD_LIMIT, error_frame
from gateway.errors import ConnectionLost, TooLarge, UpstreamError


class NamedEventGuard(ABC):
    """One stream's checks, as a :class:`gateway.dataplane.guard.Guard`. What an event means is the subclasses'."""

    def __init__(self) -> None:
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self.committed = False
        self.complete = False
        self.error: UpstreamError | None = None
        self.events = 0
        self.model: str | None = None
        self.usage: Any = None

    @property
    def sent(self) -> int:
        """Each event leaves as it came, in its turn."""
        return self.events

    def feed(self, data: bytes) -> bytes:
        """The bytes that may leave now that ``data`` has come: whole events, ``b""`` while nothing may."""
        out: list[bytes] = []
        if self.complete or self.error is not None:
            return b""
        try:
            for event in self._splitter.feed(data):
                self._event(event, out)
        except UpstreamError as error:
            self.error = error
        return b"".join(out)

    def eof(self) -> bytes:
        """The upstream's body has ended. Nothing is owed: without its last event the stream is not whole."""
        if not self.complete and self.error is None:
            self.error = ConnectionLost("the stream ended without its last event")
        return b""

    def lost(self, error: UpstreamError) -> bytes:
        """Reading failed with ``error``."""
        if not self.complete and self.error is None:
            self.error = error
        return b""

    def _event(self, event: bytes, out: list[bytes]) -> None:
        if self.complete:
            return  # What comes after the last one is nobody's, such as OpenAI's `[DONE]`.
        parsed = parse_event(event)
        content: bool | None = None
        if parsed.data is not None:
            if parsed.name == "error":
                raise error_frame(parsed.data)
            content = self._check(parsed.data)
        if content is None:
            # A sign of life. Before the commit it is dropped: it would commit us to nothing.
            if self.committed and event:
                out.append(event + b"\n\n")
            return
        self.events += 1
        if content and not self.committed:
            self.committed = True
            out.extend(self._held)
            self._held.clear()
        if self.committed:
            out.append(event + b"\n\n")
            return
        self._held.append(event + b"\n\n")
        self._held_bytes += len(event)
        if self._held_bytes > HOLD_LIMIT:
            raise TooLarge(f"more than {HOLD_LIMIT} bytes of events without content")

    @abstractmethod
    def _check(self, payload: bytes) -> bool | None:
        """Whether an event's JSON bears content; None where it is but a sign of life. Sets ``complete`` with the last.

        Raises what an event that must not leave stands for.
        """
