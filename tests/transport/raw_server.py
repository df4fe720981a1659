"""A server of raw bytes: tests say byte by byte what it answers, and see what reached it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.eventually import AMPLE_S, eventually

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HEAD = b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\n"


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Header block and body of one request. :raises asyncio.IncompleteReadError: the client is gone."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head, await reader.readexactly(length)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a RST instead of a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def answering(*answers: bytes) -> Handler:
    """Answers the requests of one connection with ``answers``, one each (the last one over and over)."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in [*answers[:-1], *[answers[-1]] * 1000]:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

    return handle


def answering_and_closing(answer: bytes) -> Handler:
    """Answers one request and ends the connection in order."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    return handle


class RawServer:
    """Runs one handler a connection, on TCP or on a Unix socket. ``connections`` counts those accepted so far."""

    def __init__(self, handler: Handler, *, uds: Path | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.uds = uds
        self.tls = tls
        self.port = 0
        self.connections = 0
        self.open = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        if self.uds is not None:
            return f"unix:{self.uds}"
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        if self.uds is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(self.uds))
        else:
            self._server = await asyncio.start_server(self._serve, host, port, ssl=self.tls)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self.handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    def stop_listening(self) -> None:
        """Whoever connects from now on is refused."""
        self._server.close()

    async def stop(self) -> None:
        self.stop_listening()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def until_true(condition: Callable[[], bool], within_s: float = AMPLE_S) -> None:
    """Wait for ``condition``; fail if it does not come about."""
    await eventually(condition, within_s=within_s, every_s=0.005)
