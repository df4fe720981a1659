"""An event loop whose time passes only when nothing is left to do at one moment, and whose connections are memory.

So the gateway and the simulated boxes run as they are, coroutine by coroutine, and a minute of their lives takes as
long as their work does: what is measured is what they decide, on a clock that no busy machine disturbs. The network
takes no time and loses nothing.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable
from typing import Any

Factory = Callable[[], asyncio.BaseProtocol]
BEGIN_S = 1000.0
TURN_S = 1e-9
"""What one turn of the loop takes. With nothing, whoever rounds a time and looks again at once would look for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Raises RuntimeError where everybody waits and nothing would ever happen again.

    A server has a socket, for its port; nothing is ever sent over it. Good for days: in months, floats would no longer
    tell the nanosecond apart with which asyncio compares times.
    """

    def __init__(self) -> None:
        self._now = BEGIN_S
        self._servers: dict[int, Listening] = {}
        super().__init__(_Leap(self._pass))

    def time(self) -> float:
        """Seconds."""
        return self._now

    def _pass(self, seconds: float) -> None:
        self._now += seconds

    async def create_server(  # type: ignore[override]  # as much of it as is used
        self, factory: Factory, *args: Any, sock: Any = None, ssl: Any = None, **_: Any
    ) -> Any:
        """Only on a socket that listens, and without TLS."""
        if any(args) or sock is None or ssl is not None:
            raise ValueError("a server in memory takes a socket, and no TLS")
        port = sock.getsockname()[1]
        self._servers[port] = server = Listening(factory, sock, lambda: self._servers.pop(port, None))
        return server

    async def create_connection(  # type: ignore[override]  # as much of it as is used
        self, factory: Factory, host: Any = None, port: Any = None, *, ssl: Any = None, **_: Any
    ) -> Any:
        """To a server of this loop. Raises ConnectionRefusedError."""
        server = self._servers.get(port)
        if ssl is not None or server is None:
            raise ConnectionRefusedError(f"nobody listens on port {port}")
        ours, theirs = _End(self, factory()), _End(self, server.factory())
        ours.peer, theirs.peer = theirs, ours
        theirs.protocol.connection_made(theirs)
        ours.protocol.connection_made(ours)
        return ours, ours.protocol


class Listening:
    """As much of ``asyncio.Server`` as is used."""

    def __init__(self, factory: Factory, sock: socket.socket, closed: Callable[[], object]) -> None:
        self.factory = factory
        self.sockets = [sock]
        self._closed = closed

    def close(self) -> None:
        """Connections that are open stay."""
        self._closed()
        for sock in self.sockets:
            sock.close()


class _Leap(selectors.DefaultSelector):
    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing is left that could happen")
        self._leap(max(timeout or 0.0, TURN_S))
        return ready


class _End(asyncio.Transport):
    """One end of a connection in memory."""

    peer: _End

    def __init__(self, loop: VirtualLoop, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self._loop = loop
        self._closing = self._lost = self._paused = False
        self._held: list[bytes | None] = []

    def write(self, data: Any) -> None:
        if not self._closing:
            self._loop.call_soon(self.peer._arrive, bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.peer._arrive, None)
            self._loop.call_soon(self._lose)

    def abort(self) -> None:
        """As a reset: the other side loses its connection at once, and what was sent and has not arrived."""
        if not self._lost:
            self._closing = True
            self._loop.call_soon(self._lose)
            self._loop.call_soon(self.peer._reset)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        held, self._held = self._held, []
        for data in held:
            self._loop.call_soon(self._arrive, data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever left to be sent."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def _arrive(self, data: bytes | None) -> None:
        """``data``, or (None) the end of all that the other side sends."""
        if self._lost or self._closing:
            return
        if self._paused:
            self._held.append(data)
        elif data is not None:
            self.protocol.data_received(data)
        else:
            self.protocol.eof_received()
            self.close()

    def _reset(self) -> None:
        if not self._closing:
            self._closing = True
            self._lose(ConnectionResetError("the other side is gone"))

    def _lose(self, why: Exception | None = None) -> None:
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(why)
