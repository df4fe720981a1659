"""What a script is made of: the things that can be done with a connection, one after another.

A script is an iterator of steps, read lazily: the next step is asked for when the one before it is done. So a script
may look at the state of its engine at the time when it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias


@dataclass(slots=True)
class Head:
    """The status line and the headers.

    ``length``: the content length; None says that the body follows in chunks of HTTP/1.1's chunked coding.
    """

    status: int
    content_type: bytes
    """Empty for none."""
    length: int | None = None
    extra: bytes = b""
    """More header lines, each with its line end."""
    every_s: float = 0.0
    """If not zero, the header block leaves one byte at a time, one each so many seconds."""


@dataclass(slots=True)
class Event:
    """A piece of the body that is one whole server-sent event."""

    data: bytes


@dataclass(slots=True)
class Body:
    """A piece of the body that is not a whole event."""

    data: bytes


@dataclass(slots=True)
class Raw:
    """Bytes for the socket as they are, past all framing."""

    data: bytes


@dataclass(slots=True)
class Wait:
    """Do nothing for ``seconds``; None is for ever: until the other side leaves."""

    seconds: float | None


class Signal:
    """A count that grows, and one script that may wait for it."""

    __slots__ = ("_woken", "count")

    def __init__(self) -> None:
        self.count = 0
        self._woken: Callable[[], None] | None = None

    def reach(self, count: int) -> None:
        """The count is ``count`` from here on; whoever waited is told to look again."""
        self.count = count
        woken, self._woken = self._woken, None
        if woken is not None:
            woken()

    def when_it_grows(self, woken: Callable[[], None]) -> None:
        """Call ``woken`` once, when the count has grown."""
        self._woken = woken


@dataclass(slots=True)
class Until:
    """Do nothing until ``signal`` has come to ``count``."""

    signal: Signal
    count: int


class Do(Enum):
    """Steps without anything to say."""

    END = auto()
    """The body ends as its framing has it; the connection may serve another request."""
    CLOSE = auto()
    """Close the connection in good order (FIN), without ending the body."""
    RESET = auto()
    """Close the connection with a reset (RST), once what was written has left."""
    DIE = auto()
    """Kill the whole process, as the kernel does it (SIGKILL)."""


Step: TypeAlias = Head | Event | Body | Raw | Wait | Until | Do
Script: TypeAlias = Iterator[Step]

REASONS = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Payload Too Large",
    415: b"Unsupported Media Type",
    422: b"Unprocessable Entity",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
"""Reason phrases; a status without one is sent without."""


def head_bytes(head: Head, server: bytes) -> bytes:
    """The header block as it goes over the wire; ``server`` names the software."""
    framing = b"transfer-encoding: chunked" if head.length is None else b"content-length: %d" % head.length
    return b"HTTP/1.1 %d %b\r\nserver: %b\r\n%b%b%b\r\n\r\n" % (
        head.status,
        REASONS.get(head.status, b""),
        server,
        b"content-type: %b\r\n" % head.content_type if head.content_type else b"",
        head.extra,
        framing,
    )


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def dripped(data: bytes, every_s: float) -> Script:
    """``data`` byte by byte, one each ``every_s``."""
    for byte in data:
        yield Raw(byte.to_bytes(1, "big"))
        yield Wait(every_s)
