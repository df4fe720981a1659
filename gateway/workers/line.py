"""A line between two processes of ours: whole messages over one end of a socket pair."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, cast

import msgspec

from gateway.workers.messages import Message

log = logging.getLogger(__name__)

HANG_UP_S = 2.0

_LENGTH_BYTES = 4
_encoder = msgspec.msgpack.Encoder()


def framed(message: Message) -> bytes:
    """The message as it goes over a line."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class Line(asyncio.Protocol):
    """One end. ``on_message`` gets each message that comes, ``on_end`` hears once that the other end is gone.

    ``kinds``: the union of the messages that may come.
    """

    def __init__(
        self, kinds: Any, *, on_message: Callable[[Any], None], on_end: Callable[[], None] = lambda: None
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(kinds)
        self._on_message = on_message
        self._on_end = on_end
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._gone: asyncio.Future[None] | None = None

    async def open(self, end: socket.socket) -> None:
        """Use ``end``, which belongs to the line from then on."""
        end.setblocking(False)
        self._gone = asyncio.get_running_loop().create_future()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, message: Message) -> None:
        """Say something; nobody hears it where the other end is gone."""
        self.send_framed(framed(message))

    def send_framed(self, frame: bytes) -> None:
        """The same for one that was made for several lines."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def close(self) -> None:
        """Send what was said, and hang up."""
        if self._transport is not None:
            self._transport.close()

    async def hang_up(self) -> None:
        """The same, and wait until it was sent, if not for long: the other end may hang."""
        self.close()
        await self.ended()

    async def ended(self) -> None:
        """Wait until the other end is gone and all that it said was heard, if not for long."""
        if self._gone is not None:
            await asyncio.wait([self._gone], timeout=HANG_UP_S)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The line is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        buffer = self._buffer
        buffer += data
        at = 0
        while len(buffer) - at >= _LENGTH_BYTES:
            begin = at + _LENGTH_BYTES
            end = begin + int.from_bytes(buffer[at:begin], "big")
            if len(buffer) < end:
                break
            body = bytes(buffer[begin:end])
            at = end
            try:
                self._on_message(self._decoder.decode(body))
            except Exception:
                # One message that cannot be used must not cost the line, and with it a worker.
                log.exception("a message between our processes failed")
        del buffer[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """The other end is gone, or we have hung up."""
        self._transport = None
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self._on_end()
