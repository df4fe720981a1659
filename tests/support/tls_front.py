"""TLS in front of a server that speaks none itself, as stunnel is."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Self

from gateway.tasks import TaskSet


class TLSFront:
    """Listens with ``context`` and passes the plain text on to ``port`` on this machine."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._upstream = port
        self._tasks = TaskSet()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        await self._tasks.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._tasks.spawn(self._pump(reader, far_writer), name="to the server")
        self._tasks.spawn(self._pump(far_reader, writer), name="to the client")

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            writer.transport.abort()
        finally:
            writer.close()
