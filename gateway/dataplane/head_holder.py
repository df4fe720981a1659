"""Sends the head of an answer together with the first piece of its body.

uvicorn writes them one after the other, and each write is a system call: on a relay that costs some 150 µs a request
one of them is a tenth. ASGI even asks for this (HTTP spec, "Response Start"): a server must not send the head before
the first body event.
"""

from __future__ import annotations

import asyncio


class HeadHolder:
    """Stands before the transport of one request's answer; what uvicorn's cycle calls of a transport, and no more."""

    __slots__ = ("_head", "_started", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._started = False

    def write(self, data: bytes) -> None:
        """Hold the first write, the head; send it with the next. An interim `100 Continue` goes out at once."""
        if self._started:
            self._transport.write(data)
        elif self._head is not None:
            self._started = True
            head, self._head = self._head, None
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 100 "):
            self._transport.write(data)
        else:
            self._head = data

    def is_closing(self) -> bool:
        """As the transport's own."""
        return self._transport.is_closing()

    def close(self) -> None:
        """As the transport's own; a head that is still held belongs to an answer that never came."""
        self._transport.close()
