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
        self._conversations: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError where the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LONGEST_LINE)

    async def close(self) -> None:
        """Stop listening, hang up on who still talks, and remove the socket."""
        if self._server is not None:
            self._server.close()
            for conversation in self._conversations:
                conversation.cancel()
            await asyncio.gather(*self._conversations, return_exceptions=True)
            await self._server.wait_closed()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None  # noqa: S101 - a coroutine runs in a task
        self._conversations.add(conversation)
        try:
            with contextlib.suppress(ConnectionError):  # who hangs up wants no reply
                await self._converse(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._conversations.discard(conversation)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            command = json.loads(await reader.readline())
            reply = await self._handle(str(command["verb"]), str(command["box"]))
        except (ValueError, KeyError, TypeError) as error:
            reply = Reply(False, f"not a command: {error!r}")
        writer.write(json.dumps(asdict(reply)).encode() + b"\n")
        await writer.drain()


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
