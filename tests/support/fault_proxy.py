"""A TCP proxy that breaks what passes through it, in toxiproxy's vocabulary, and an address that nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from gateway.tasks import TaskSet

Direction = Literal["upstream", "downstream"]
"""``upstream``: what the client sends; ``downstream``: what the server answers."""
PIECE = 65536
RST = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Latency:
    """Everything arrives late by ``seconds``, more or less by ``jitter_s``."""

    seconds: float
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """No more than so many bytes a second."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class SlowClose:
    """The end of the connection arrives late by ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Timeout:
    """A black hole: nothing passes, and the connection closes after ``seconds`` (None: never)."""

    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ResetPeer:
    """Both sides get a reset ``seconds`` after the connection, or after this was put in force."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Slicer:
    """Data arrives in slices of about ``size`` bytes, ``pause_s`` apart."""

    size: int = 1
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LimitData:
    """After so many bytes the connection closes in good order."""

    bytes: int


Toxic = Latency | Bandwidth | SlowClose | Timeout | ResetPeer | Slicer | LimitData


class FaultProxy:
    """Listens on a free port and passes everything to ``upstream`` (a URL or ``host:port``), poisoned.

    Toxics take effect on connections that are open, too, with the next data that passes.
    """

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        parts = urlsplit(upstream if "//" in upstream else f"//{upstream}")
        self._scheme = parts.scheme or "http"
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._random = random.Random(seed)
        self._toxics: dict[Direction, tuple[Toxic, ...]] = {"upstream": (), "downstream": ()}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks = TaskSet()
        self.port = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        """Where clients go instead."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Clients connected now."""
        return len(self._links)

    async def up(self) -> None:
        """Listen (again), always on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Stop listening and reset all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in tuple(self._links):
            link.reset()

    def poison(self, *toxics: Toxic, direction: Direction = "downstream") -> None:
        """From now on these toxics in that direction, and no others."""
        self._toxics[direction] = toxics
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for toxic in toxics:
            if isinstance(toxic, ResetPeer):
                for link in tuple(self._links):
                    link.reset_after(toxic.seconds)

    def heal(self) -> None:
        """No toxics from now on."""
        self.poison(direction="upstream")
        self.poison(direction="downstream")

    async def close(self) -> None:
        """End it all."""
        await self.down()
        await self._tasks.close()

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, far_writer, self._links.discard)
        self._links.add(link)
        for toxic in (*self._toxics["upstream"], *self._toxics["downstream"]):
            if isinstance(toxic, ResetPeer):
                link.reset_after(toxic.seconds)
        self._tasks.spawn(self._pump(link, reader, far_writer, "upstream"), name="upstream")
        self._tasks.spawn(self._pump(link, far_reader, writer, "downstream"), name="downstream")

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        passed = 0
        try:
            while data := await reader.read(PIECE):
                passed += len(data)
                if not await self._pass(data, passed, writer, direction):
                    break
            for toxic in self._toxics[direction]:
                if isinstance(toxic, SlowClose):
                    await asyncio.sleep(toxic.seconds)
            await self._black_hole(direction)
            if writer.can_write_eof():
                writer.write_eof()
            if direction == "downstream":
                link.close()
        except OSError:
            link.reset()
        except asyncio.CancelledError:
            link.reset()
            raise

    async def _pass(self, data: bytes, passed: int, writer: asyncio.StreamWriter, direction: Direction) -> bool:
        """Whether the connection goes on."""
        if not await self._black_hole(direction):
            return False
        slices, goes_on = [data], True
        for toxic in self._toxics[direction]:
            match toxic:
                case Latency():
                    await asyncio.sleep(max(0.0, toxic.seconds + self._random.uniform(-1, 1) * toxic.jitter_s))
                case LimitData():
                    left = max(0, len(data) - max(0, passed - toxic.bytes))
                    slices, goes_on = [data[:left]], passed < toxic.bytes
                case Slicer():
                    whole = b"".join(slices)
                    slices = [whole[at : at + toxic.size] for at in range(0, len(whole), toxic.size)]
                case _:
                    pass
        for part in slices:
            for toxic in self._toxics[direction]:
                if isinstance(toxic, Bandwidth):
                    await asyncio.sleep(len(part) / toxic.bytes_per_s)
                elif isinstance(toxic, Slicer):
                    await asyncio.sleep(toxic.pause_s)
            writer.write(part)
            await writer.drain()
        return goes_on

    async def _black_hole(self, direction: Direction) -> bool:
        """Wait out a black hole; whether the connection goes on."""
        while hole := next((t for t in self._toxics[direction] if isinstance(t, Timeout)), None):
            changed = self._changed
            try:
                async with asyncio.timeout(hole.seconds):
                    await changed.wait()
            except TimeoutError:
                return False
        return True


class _Link:
    """A client's connection and ours to the upstream, which end together."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter, over: Callable[[_Link], None]) -> None:
        self._writers = (near, far)
        self._over = over
        self._timers: list[asyncio.TimerHandle] = []

    def close(self) -> None:
        """FIN to both."""
        for writer in self._writers:
            writer.close()
        self._end()

    def reset(self) -> None:
        """RST to both."""
        for writer in self._writers:
            _reset(writer)
        self._end()

    def reset_after(self, seconds: float) -> None:
        """RST to both, later."""
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self.reset))

    def _end(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._over(self)


class SynBlackHole:
    """An address where connecting hangs: the listener's queue is full, so the kernel drops every SYN."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._fillers: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        # A backlog of zero still takes one or two; more attempts than that stay unanswered.
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._fillers.append(filler)
        return self

    def __exit__(
        self, type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for sock in (*self._fillers, self._listener):
            sock.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    writer.transport.abort()
