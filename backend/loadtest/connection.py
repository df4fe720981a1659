"""One HTTP/1.1 connection of the load test's: writes a request, hands what comes to its reader."""

from __future__ import annotations

import asyncio
from typing import cast

from httptools import HttpParserError, HttpResponseParser

from backend.loadtest.answer_reader import AnswerReader

LOST = "connection lost"


class Connection(asyncio.Protocol):
    """Takes one request after the other. ``usable``: whether it may be asked again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._reader: AnswerReader | None = None
        self._over: asyncio.Future[None] | None = None
        self.usable = True

    async def ask(self, request: bytes, reader: AnswerReader) -> None:
        """Send, and return once ``reader`` has ended, whole or cut."""
        if self._transport is None or not self.usable:
            reader.cut(LOST)
            return
        self._reader, self._over = reader, self._loop.create_future()
        self._transport.write(request)
        try:
            await self._over
        finally:
            self._reader = self._over = None

    def close(self) -> None:
        """Hang up."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not instances of it

    def data_received(self, data: bytes) -> None:
        """Bytes."""
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._cut("not HTTP")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self.usable = False
        self._cut(LOST)

    # httptools

    def on_headers_complete(self) -> None:
        """Its name is httptools's."""
        if not self._parser.should_keep_alive():
            self.usable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Its name is httptools's."""
        if self._reader is not None:
            self._reader.status = self._parser.get_status_code()
            self._reader.header(name, value)

    def on_body(self, body: bytes) -> None:
        """Its name is httptools's."""
        if self._reader is not None:
            self._reader.body(body, self._loop.time())

    def on_message_complete(self) -> None:
        """Its name is httptools's."""
        if self._parser.get_status_code() < 200 or self._reader is None:
            return
        self._reader.status = self._parser.get_status_code()
        self._reader.end()
        self._settle()

    def _cut(self, why: str) -> None:
        if self._reader is not None:
            self._reader.cut(why)
            self._settle()

    def _settle(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
