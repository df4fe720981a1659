"""A box that plays the same bytes for every request, with pauses that a test ends; it keeps what it was asked."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from tests.support.streams import chat_events
from tests.transport.raw_server import RawServer, read_request

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
ScriptStep = bytes | float | asyncio.Event
"""Bytes to send, seconds to pause, an event to wait for."""

END = b"0\r\n\r\n"
NUMBERED = chat_events(8)
"""A whole stream, event by event: the role, nine tokens, ``end``, the finish, ``[DONE]``."""


def chunked(*events: bytes) -> bytes:
    """``events`` as one chunk of HTTP/1.1's chunked coding."""
    data = b"".join(events)
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, *, status: int = 200, content_type: bytes = b"application/json") -> bytes:
    """A plain answer."""
    head = b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (status, content_type, len(body))
    return head + body


class ScriptedBox:
    """``script``: see ``ScriptStep``. What is not sent yet when the client leaves never is."""

    def __init__(self, *script: ScriptStep) -> None:
        self.script = script
        self.requests: list[tuple[bytes, bytes]] = []
        self.left = 0
        self.sent_bytes = 0
        self._server = RawServer(self._play)

    @property
    def url(self) -> str:
        """Without /v1."""
        return self._server.url

    @property
    def connections(self) -> int:
        """How many were ever opened."""
        return self._server.connections

    async def _play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            self.requests.append(await read_request(reader))
            for step in self.script:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                    self.sent_bytes += len(step)
                elif isinstance(step, float):
                    await asyncio.sleep(step)
                elif not await self._wait(step, reader):
                    self.left += 1
                    return

    async def _wait(self, event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
        """Whether the event came before the other side's end."""
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(event.wait()), loop.create_task(reader.read(1))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return event.is_set()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop()
