"""Asks a gateway, a request at a time on as many connections as are needed at once; opens none twice without need."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from backend.loadtest.answer_reader import AnswerReader
from backend.loadtest.connection import LOST, Connection

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway, or anything that speaks OpenAI's protocol, answers."""

    host: str
    port: int
    tls: bool
    base_path: str
    name: str
    """What the ``host`` header says."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Of a base URL, with or without ``/v1``. Raises ValueError with a sentence about what is wrong."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL: write http://host:port or https://host")
        tls = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls, path, parts.netloc.rpartition("@")[2])

    @property
    def path(self) -> str:
        """The request target of chat completions."""
        return self.base_path + PATH


class Client:
    """The connections to one address."""

    def __init__(self, address: Address, *, patience_s: float) -> None:
        self._address = address
        self._patience_s = patience_s
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._tls = ssl.create_default_context() if address.tls else None
        self.opened = 0
        """Connections made so far."""

    async def ask(self, request: bytes, *, streamed: bool) -> AnswerReader:
        """Send ``request``; what came of it, with the error in it if there was one."""
        reader = AnswerReader(streamed=streamed)
        try:
            async with asyncio.timeout(self._patience_s):
                # A server may close an idle connection at the very moment at which it is asked again: that is no fault
                # of its, and every client asks anew.
                while (connection := self._reusable()) is not None:
                    await self._ask(connection, request, reader)
                    if reader.begun or reader.error != LOST:
                        return reader
                    reader = AnswerReader(streamed=streamed)
                await self._ask(await self._connect(), request, reader)
        except TimeoutError:
            reader.cut("no end in time")
        except OSError as error:
            reader.cut(f"cannot connect: {error.strerror or type(error).__name__}")
        return reader

    async def close(self) -> None:
        """Hang up on all connections."""
        for connection in list(self._all):
            connection.close()
        self._all.clear()
        await asyncio.sleep(0)

    async def _ask(self, connection: Connection, request: bytes, reader: AnswerReader) -> None:
        try:
            await connection.ask(request, reader)
        finally:
            if reader.ended and connection.usable:
                self._idle.append(connection)
            else:
                self._all.discard(connection)
                connection.close()

    def _reusable(self) -> Connection | None:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
            self._all.discard(connection)
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        address = self._address
        _, connection = await loop.create_connection(
            lambda: Connection(loop), address.host, address.port, ssl=self._tls
        )
        self.opened += 1
        self._all.add(connection)
        return connection
