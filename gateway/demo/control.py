"""How ``failsoft demo kill box-a`` reaches the demo that runs: one JSON line each way over a Unix socket.

The socket lies in a folder of mode 0700, so whoever can connect may already signal the processes themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.tasks import TaskSet

LONGEST_LINE = 4096
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a command, in a sentence."""

    done: bool
    message: str


Handler = Callable[[str, str], Awaitable[Reply]]


class ControlServer:
    """Hands each command (its verb and its box) to ``handle``, and the reply back."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._tasks = TaskSet()
        self._closing = False

    async def start(self) -> None:
        """Listen. Raises OSError where the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path, limit=LONGEST_LINE)

    async def close(self) -> None:
        """Stop listening, hang up on who still talks, and remove the socket."""
        self._closing = True
        if self._server is not None:
            # A connection accepted in this very turn is set up in the next; a server closed in between would lose its
            # socket (asyncio's `Server._attach` refuses it, and nobody closes it).
            await asyncio.sleep(0)
            self._server.close()
            writers = list(self._conversations)
            await self._tasks.close()
            for writer in writers:
                # A conversation that was cancelled before its first step had no chance to do this itself.
                await _hang_up(writer)
            await self._server.wait_closed()
            self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:
            # Accepted just before the server was closed.
            writer.transport.abort()
            return
        self._conversations[writer] = self._tasks.spawn(self._serve(reader, writer), name="a command for the demo")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):  # who hangs up wants no reply
                await self._converse(reader, writer)
        finally:
            await _hang_up(writer)
            self._conversations.pop(writer, None)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            command = json.loads(await reader.readline())
            reply = await self._handle(str(command["verb"]), str(command["box"]))
        except (ValueError, KeyError, TypeError) as error:
            reply = Reply(False, f"not a command: {error!r}")
        writer.write(json.dumps(asdict(reply)).encode() + b"\n")
        await writer.drain()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def in_use(path: Path) -> bool:
    """Whether a running demo listens there, as opposed to a socket that a killed one left."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def send(path: Path, verb: str, box: str) -> Reply:
    """Give a running demo a command and wait for what it says. Raises OSError when there is none, or it is stuck."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(path))
        connection.sendall(json.dumps({"verb": verb, "box": box}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = lines.readline(LONGEST_LINE)
    if not answer:
        raise ConnectionError("the demo hung up")
    return Reply(**json.loads(answer))
