"""Server-sent events: bytes in, whole events out.

Written here because it is the hot path: one event of a healthy vLLM stream costs a ``find`` and a slice. Lines end
as the WHATWG's rules allow (LF, CRLF or CR); JSON never holds a bare CR, so that ends of lines can be made uniform
before anything is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import ProtocolError, TooLarge

FRAME_LIMIT = 1 << 20
"""Bytes of one event. A token with its log probabilities takes some hundred; the largest honest one seen is the first
chunk of a request with `return_token_ids`, some 7 bytes a prompt token."""


_BOM = b"\xef\xbb\xbf"
_OTHER_FIELDS = frozenset({b"id", b"retry"})


@dataclass(frozen=True, slots=True)
class Event:
    """One event that had more to it than a single ``data:`` line."""

    name: str
    data: bytes | None


class EventSplitter:
    """Cuts a byte stream into events, without their closing blank line. What is incomplete is kept, up to ``limit``."""

    __slots__ = ("_cr", "_limit", "_scanned", "_started", "_tail")

    def __init__(self, limit: int = FRAME_LIMIT) -> None:
        self._limit = limit
        self._tail = bytearray()
        self._scanned = 0
        self._cr = False
        self._started = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes, in order.

        Raises :class:`TooLarge` as soon as one event has outgrown the limit, before it has come to its end.
        """
        if self._cr or b"\r" in data:
            data = self._uniform(data)
        tail = self._tail
        if tail:
            tail += data
            end = tail.find(b"\n\n", self._scanned)
            if end < 0:
                self._scanned = len(tail) - 1
                if len(tail) > self._limit:
                    raise TooLarge(f"an event of more than {self._limit} bytes")
                return []
            data = bytes(tail)
            self._tail = bytearray()
            self._scanned = 0
        events = data.split(b"\n\n")
        rest = events.pop()
        if rest:
            self._tail = bytearray(rest)
            self._scanned = len(rest) - 1
        if len(data) > self._limit and max(map(len, (*events, rest))) > self._limit:
            raise TooLarge(f"an event of more than {self._limit} bytes")
        if not self._started and events:
            # One byte order mark may stand in front of a stream; left there it would hide the first line's name.
            self._started = True
            events[0] = events[0].removeprefix(_BOM)
        return events

    def _uniform(self, data: bytes) -> bytes:
        # A CR at the very end may be half of a CRLF: its meaning is known with the next byte only.
        if self._cr:
            data = b"\r" + data
        self._cr = data.endswith(b"\r")
        if self._cr:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def parse_event(event: bytes) -> Event:
    """The name and data of an event by the general rules: several data lines, comments, an optional leading blank.

    Raises :class:`ProtocolError` for a line that is no field's: a browser would skip it, but what stands there may be
    half of a token or a proxy's error page.
    """
    name = ""
    data: list[bytes] = []
    for line in event.split(b"\n"):
        key, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if key == b"data":
            data.append(value)
        elif key == b"event":
            name = value.decode("utf-8", "replace")
        elif key and key not in _OTHER_FIELDS:
            raise ProtocolError("a line that belongs to no event")
    return Event(name, b"\n".join(data) if data else None)
